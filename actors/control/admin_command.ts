/** What an administrator can ask of a pool, and what comes back: plain data, the same offline and over the control socket. */
import type { Address } from "../kernel/address.ts";
import type { TextOutMessage } from "./text_out.ts";
import { UserError } from "../../storage/base/errors.ts";
import { SliceEnd, type Slices, wholeOf } from "../../storage/slices.ts";
import { parseName, parseSnapshotName, parseVolumeName } from "../../storage/base/names.ts";

/** A command. Names are parsed and well-formed; sizes are bytes. */
export type AdminCommand =
  | { readonly verb: "create"; readonly name: string; readonly sizeBytes: number }
  /** All of them at one point in time; each is `VOL@SNAP`. */
  | { readonly verb: "snapshot"; readonly names: readonly string[] }
  | { readonly verb: "clone"; readonly source: string; readonly name: string }
  | { readonly verb: "rollback"; readonly snapshot: string }
  | { readonly verb: "rename"; readonly from: string; readonly to: string }
  | { readonly verb: "resize"; readonly name: string; readonly sizeBytes: number }
  /** All or none of them. */
  | {
    readonly verb: "rm";
    readonly names: readonly string[];
    readonly dryRun: boolean;
    readonly force: boolean;
  }
  | { readonly verb: "list" }
  | { readonly verb: "status" }
  | { readonly verb: "check" }
  /** The text goes to `out`, piece by piece; without it there is only the result. */
  | { readonly verb: "dump"; readonly out?: Address<TextOutMessage> };

/** Whether a command changes nothing. Such a one need not wait for those that do, nor they for it. */
export function isLook(command: AdminCommand): boolean {
  switch (command.verb) {
    case "list":
    case "status":
    case "check":
    case "dump":
      return true;
    case "rm":
      return command.dryRun;
    default:
      return false;
  }
}

/** One entry of `list --json`. */
export interface VolumeListing {
  readonly name: string;
  readonly thin_id: number;
  readonly size_bytes: number;
  readonly mapped_bytes: number;
  readonly exclusive_bytes: number;
  readonly read_only: boolean;
  readonly origin: string | null;
  readonly created: string | null;
  readonly attached: number;
}

/** The object of `status --json`. `transaction_id` is 64 bits and printed as a number. */
export interface PoolStatus {
  readonly mode: string;
  readonly transaction_id: number;
  readonly block_size_bytes: number;
  readonly data_total_bytes: number;
  readonly data_used_bytes: number;
  readonly metadata_total_bytes: number;
  readonly metadata_used_bytes: number;
  readonly volumes: number;
  readonly attached: number;
  /** Why the pool writes no more, if so. */
  readonly trouble: string | null;
}

/** What an admin command has come to, by the kind of command; `refused` is a sentence for a person. */
export type AdminResult =
  | { readonly kind: "done" }
  | { readonly kind: "volumes"; readonly volumes: readonly VolumeListing[] }
  | { readonly kind: "status"; readonly status: PoolStatus }
  /** `rm -n`: what would come back. */
  | { readonly kind: "wouldFree"; readonly bytes: number }
  | { readonly kind: "checked"; readonly problems: readonly string[]; readonly notes: readonly string[] }
  /** A sentence: what was tried, why it failed, the next step. */
  | { readonly kind: "refused"; readonly reason: string };

/** Everything that can be asked. */
export const verbs: readonly AdminCommand["verb"][] = [
  "create",
  "snapshot",
  "clone",
  "rollback",
  "rename",
  "resize",
  "rm",
  "list",
  "status",
  "check",
  "dump",
];

/** A command as {@linkcode commandOfJson} takes it: the fields of the type, named as in the listings, `size_bytes` for one. */
export function jsonOfCommand(command: AdminCommand): unknown {
  switch (command.verb) {
    case "create":
    case "resize":
      return { verb: command.verb, name: command.name, size_bytes: command.sizeBytes };
    case "rm":
      return { verb: "rm", names: command.names, dry_run: command.dryRun, force: command.force };
    case "dump":
      return { verb: "dump" };
    default:
      return command;
  }
}

/** {@linkcode commandSlices} at once. */
export function commandOfJson(json: unknown): AdminCommand {
  return wholeOf(commandSlices(json, Infinity));
}

/** A command from JSON that nothing has checked, in slices of `perSlice` names. Throws {@linkcode UserError}, in the words of names.ts where it is a name. */
export function* commandSlices(json: unknown, perSlice: number): Slices<AdminCommand> {
  if (typeof json !== "object" || json === null) throw malformed("it is not an object");
  const fields = json as Readonly<Record<string, unknown>>;
  switch (fields.verb) {
    case "create":
      return {
        verb: "create",
        name: parseVolumeName(text(fields, "name")),
        sizeBytes: size(fields, "size_bytes"),
      };
    case "snapshot":
      return {
        verb: "snapshot",
        names: yield* names(fields, (name) => parseSnapshotName(name).name, perSlice),
      };
    case "clone":
      return {
        verb: "clone",
        source: parseName(text(fields, "source")).name,
        name: parseVolumeName(text(fields, "name")),
      };
    case "rollback":
      return { verb: "rollback", snapshot: parseSnapshotName(text(fields, "snapshot")).name };
    case "rename":
      return {
        verb: "rename",
        from: parseName(text(fields, "from")).name,
        to: parseName(text(fields, "to")).name,
      };
    case "resize":
      return {
        verb: "resize",
        name: parseName(text(fields, "name")).name,
        sizeBytes: size(fields, "size_bytes"),
      };
    case "rm":
      return {
        verb: "rm",
        names: yield* names(fields, (name) => parseName(name).name, perSlice),
        dryRun: flag(fields, "dry_run"),
        force: flag(fields, "force"),
      };
    case "list":
    case "status":
    case "check":
    case "dump":
      return { verb: fields.verb };
    default:
      throw malformed(`"verb" is none of ${verbs.join(", ")}`);
  }
}

function text(fields: Readonly<Record<string, unknown>>, name: string): string {
  const value = fields[name];
  if (typeof value !== "string") throw malformed(`"${name}" is not a string`);
  return value;
}

function* names(
  fields: Readonly<Record<string, unknown>>,
  parse: (text: string) => string,
  perSlice: number,
): Slices<string[]> {
  const parsed: string[] = [];
  const end = new SliceEnd(perSlice);
  for (const name of texts(fields, "names")) {
    if (end.isDue()) yield;
    parsed.push(parse(name));
  }
  return parsed;
}

function texts(fields: Readonly<Record<string, unknown>>, name: string): string[] {
  const value = fields[name];
  if (!Array.isArray(value) || value.length === 0 || value.some((item) => typeof item !== "string")) {
    throw malformed(`"${name}" is not a list of strings`);
  }
  return value;
}

function size(fields: Readonly<Record<string, unknown>>, name: string): number {
  const value = fields[name];
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value <= 0) {
    throw malformed(`"${name}" is not a positive number of bytes`);
  }
  return value;
}

/** False if absent. Anything but a boolean is refused: a `dryRun` that does not count would remove volumes. */
function flag(fields: Readonly<Record<string, unknown>>, name: string): boolean {
  const value = fields[name] ?? false;
  if (typeof value !== "boolean") throw malformed(`"${name}" is neither true nor false`);
  return value;
}

function malformed(what: string): UserError {
  return new UserError(`The request is no command: ${what}.`);
}
