/** The results of commands as they are printed: as text, or as JSON. */
import { unreachable } from "../../storage/base/assert.ts";
import { formatExactSize, formatSize } from "../../storage/base/sizes.ts";
import type {
  AdminResult,
  CheckedPool,
  ClientListing,
  Command,
  PoolSizes,
  PoolStatus,
  VolumeListing,
} from "./admin_command.ts";
import { type ListForm, listText, noteOnAge, plainForm, sorted } from "./list_text.ts";
import { roundUpToSectors } from "./plan_checks.ts";
import { spaceText, treeText } from "./space_text.ts";
import { columns, withoutFraction } from "./table_text.ts";

/** What is printed of a result. */
export interface Report {
  /** On standard output. */
  readonly lines: readonly string[];
  /** On standard error. */
  readonly complaints: readonly string[];
  /** 1 if the command was refused or has found damage. */
  readonly exitStatus: 0 | 1;
}

/** How a result is printed. */
export interface ReportOptions {
  /** As JSON, for programs. */
  readonly json: boolean;
  /** The command that came to it; what is notable about that is said then. */
  readonly command?: Command;
  /** How `list` prints its lines. */
  readonly form?: ListForm;
}

/** What a command prints of its result. */
export function reportOf(result: AdminResult, options: ReportOptions): Report {
  switch (result.kind) {
    case "done":
      return { ...printed(), complaints: notesOn(options.command) };
    case "rolledBack":
      return printed(options.json ? jsonOf(result) : keptText(result.kept, result.exclusiveBytes));
    case "forked":
      return printed(...(options.json ? [jsonOf(result)] : result.volumes.map(({ name }) => name)));
    case "volumes":
      return listReport(result.volumes, options);
    case "tree":
      return withNote(options.json ? jsonOf(result) : treeText(result.volumes), result.volumes, options);
    case "df":
      return withNote(options.json ? jsonOf(result) : spaceText(result.space), result.space.volumes, options);
    case "status":
      return printed(options.json ? jsonOf(result) : statusText(result.status));
    case "clients":
      return printed(options.json ? jsonOf(result) : clientTable(result.clients));
    case "grown":
      return printed(options.json ? jsonOf(result) : sizesText(result.before, result.sizes));
    case "wouldFree":
      return printed(`${result.bytes} bytes (${formatSize(result.bytes)}) would be freed`);
    case "checked":
      return checkReport(result, options);
    case "refused":
      return { lines: [], complaints: [result.reason], exitStatus: 1 };
    default:
      return unreachable(result);
  }
}

/** The object that `--json` prints, and that GET answers with. */
export function documentOf(result: AdminResult): unknown {
  switch (result.kind) {
    case "rolledBack":
      return { kept: result.kept, exclusive_bytes: result.exclusiveBytes };
    case "forked":
    case "volumes":
      return { volumes: result.volumes };
    case "tree":
      return { volumes: result.volumes };
    case "df":
      return result.space;
    case "status":
      return result.status;
    case "clients":
      return { clients: result.clients };
    case "grown":
      return result.sizes;
    case "checked":
      return checkedDocument(result);
    default:
      return result;
  }
}

function checkedDocument(
  { problems, notes, waiting }: AdminResult & { readonly kind: "checked" },
): CheckedPool {
  return { sound: problems.length === 0, problems, notes, intent_journal_waiting: waiting };
}

function keptText(kept: string, bytes: number | null): string {
  const holds = bytes === null ? "" : `; it alone holds ${bytes} bytes (${formatSize(bytes)})`;
  return `what it had is kept as ${kept}${holds}`;
}

/** What was done in another way than it was asked for. */
function notesOn(command: Command | undefined): string[] {
  if (command?.verb !== "create" && command?.verb !== "resize") return [];
  const note = roundingNote(command.sizeBytes);
  return note === undefined ? [] : [note];
}

/** What is said of a volume whose size was rounded up; undefined if it was not. */
export function roundingNote(sizeBytes: number): string | undefined {
  const usedBytes = roundUpToSectors(sizeBytes);
  if (usedBytes === sizeBytes) return undefined;
  return `note: the size of ${sizeBytes} bytes was rounded up to ${usedBytes}, a multiple of 512`;
}

function jsonOf(result: AdminResult): string {
  return JSON.stringify(documentOf(result));
}

function printed(...lines: readonly string[]): Report {
  return { lines, complaints: [], exitStatus: 0 };
}

function checkReport(
  result: Extract<AdminResult, { readonly kind: "checked" }>,
  { json }: ReportOptions,
): Report {
  const { problems, notes } = result;
  const exitStatus = problems.length === 0 ? 0 : 1;
  if (json) return { lines: [jsonOf(result)], complaints: [], exitStatus };
  const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
  const last = problems.length === 0 ? "The metadata is sound." : `check found ${count}.`;
  return {
    lines: [...problems, last],
    complaints: notes.map((note) => `note: ${note}`),
    exitStatus,
  };
}

function listReport(volumes: readonly VolumeListing[], options: ReportOptions): Report {
  const { json, form = plainForm } = options;
  if (json) return printed(jsonOf({ kind: "volumes", volumes: sorted(volumes, form.sort) }));
  return withNote(listText(volumes, form), volumes, options);
}

/** A text, and on standard error how old the figures in it are, if they are not of now. JSON tells that by itself. */
function withNote(
  text: string | undefined,
  volumes: readonly VolumeListing[],
  { json, form = plainForm, command }: ReportOptions,
): Report {
  const note = json ? undefined : noteOnAge(volumes, form, command?.verb ?? "list");
  return {
    lines: text === undefined ? [] : [text],
    complaints: note === undefined ? [] : [note],
    exitStatus: 0,
  };
}

/** Clients as `clients` prints them. */
function clientTable(clients: readonly ClientListing[]): string {
  const rows = clients.map(({ id, peer, export: name, since }) => [
    String(id),
    peer,
    name ?? "-",
    withoutFraction(since),
  ]);
  return columns([["ID", "CLIENT", "EXPORT", "SINCE"], ...rows]);
}

/** Sizes as `grow` prints them: exact, so that a small growth of a large device shows. */
function sizesText(before: PoolSizes, now: PoolSizes): string {
  const written = (from: number, to: number) => `${formatExactSize(from)} -> ${formatExactSize(to)}`;
  return `data      ${written(before.data_total_bytes, now.data_total_bytes)}\n` +
    `metadata  ${written(before.metadata_total_bytes, now.metadata_total_bytes)}`;
}

/** The pool as `status` prints it. */
function statusText(status: PoolStatus): string {
  const used = (part: number, whole: number) => `${formatSize(part)} of ${formatSize(whole)} used`;
  const lines = [
    `mode         ${status.mode}`,
    `data         ${used(status.data_used_bytes, status.data_total_bytes)}, blocks of ${
      formatSize(status.block_size_bytes)
    }`,
    `metadata     ${used(status.metadata_used_bytes, status.metadata_total_bytes)}`,
    `volumes      ${status.volumes}, snapshots among them; ${status.attached} clients attached`,
    `transaction  ${status.transaction_id}`,
  ];
  if (status.removing > 0) {
    const what = status.removing === 1 ? "1 volume or snapshot" : `${status.removing} volumes and snapshots`;
    lines.push(`removing     ${what}; up to ${formatSize(status.removing_bytes)} to come back`);
  }
  if (status.parked > 0) lines.push(`waiting      ${status.parked} writes wait for space`);
  if (status.reason !== null) lines.push(`reason       ${status.reason}`);
  if (status.intent_journal_reason !== null) {
    lines.push(`journal      ${status.intent_journal}: ${status.intent_journal_reason}`);
  }
  if (status.intent_journal_waiting > 0) {
    lines.push(`journal      ${status.intent_journal_waiting} changes wait to be committed`);
  }
  return lines.join("\n");
}
