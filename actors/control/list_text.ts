/** What `list` prints: its columns, their order, and how old the figures are. */
import { UsageError } from "../../storage/base/errors.ts";
import { naturalKey } from "../../storage/base/natural_order.ts";
import { formatSize } from "../../storage/base/sizes.ts";
import type { VolumeListing } from "./admin_command.ts";
import { type ListColumn, listColumnOf, listColumns, plainColumns } from "./list_columns.ts";
import { columns, withoutFraction } from "./table_text.ts";

/** How the lines of `list` are printed. */
export interface ListForm {
  /** In the order of the line. */
  readonly columns: readonly ListColumn[];
  /** The lines are in the ascending order of this column; undefined: of their names. */
  readonly sort: ListColumn | undefined;
  /** A heading, and columns of one width. Otherwise a tab between two columns. */
  readonly hasHeader: boolean;
  /** Sizes are bytes, times exact. */
  readonly isParsable: boolean;
}

/** What `list` prints without options. */
export const plainForm: ListForm = {
  columns: plainColumns,
  sort: undefined,
  hasHeader: true,
  isParsable: false,
};

/** The form that options ask for. Throws {@linkcode UsageError}. */
export function listFormOf(options: Readonly<Record<string, unknown>>): ListForm {
  const { columns, sort, json } = options;
  const form = {
    columns: typeof columns === "string" ? columns.split(",").map(columnOf) : plainColumns,
    sort: typeof sort === "string" ? columnOf(sort) : undefined,
    hasHeader: options["no-header"] !== true,
    isParsable: options.parsable === true,
  };
  if (json === true && (columns !== undefined || !form.hasHeader || form.isParsable)) {
    throw new UsageError("--json has every column, exact and without a heading. Leave out -H, -p and -o.");
  }
  return form;
}

function columnOf(text: string): ListColumn {
  const column = listColumnOf(text.trim().toLowerCase());
  if (column !== undefined) return column;
  throw new UsageError(
    `${JSON.stringify(text.slice(0, 100))} is no column. There are ${listColumns.join(", ")}.`,
  );
}

/** How a column is read off a volume. */
interface ColumnSpec {
  /** What the lines are sorted by. Null, where it is not known, comes first. */
  readonly key: (volume: VolumeListing) => string | number | null;
  /** What is printed of a key that is not null. */
  readonly text?: (key: string | number) => string;
}

const bytes = (key: string | number) => formatSize(Number(key));

const specs: Readonly<Record<ListColumn, ColumnSpec>> = {
  name: { key: ({ name }) => name },
  size: { key: ({ size_bytes }) => size_bytes, text: bytes },
  mapped: { key: ({ mapped_bytes }) => mapped_bytes, text: bytes },
  exclusive: { key: ({ exclusive_bytes }) => exclusive_bytes, text: bytes },
  shared: { key: ({ shared_bytes }) => shared_bytes, text: bytes },
  attached: { key: ({ attached }) => attached },
  origin: { key: ({ origin }) => origin },
  created: { key: ({ created }) => created, text: (time) => withoutFraction(String(time)) },
  id: { key: ({ thin_id }) => thin_id },
  quota: { key: ({ quota_bytes }) => quota_bytes, text: bytes },
  reserve: { key: ({ reserve_bytes }) => reserve_bytes, text: bytes },
  age: { key: ({ figures_age_ms }) => figures_age_ms, text: (ageMs) => ageText(Number(ageMs)) },
};

/** An age in whole units: `0 s`, `12 s`, `3 min`, `5 h`. */
function ageText(ageMs: number): string {
  const seconds = Math.ceil(ageMs / 1000);
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

/** The volumes in the order of a column. Equal ones stay as they are: in the order of their names. */
export function sorted(
  volumes: readonly VolumeListing[],
  column: ListColumn | undefined,
): readonly VolumeListing[] {
  if (column === undefined || column === "name") return volumes;
  const { key } = specs[column];
  const keyOf = (volume: VolumeListing) => {
    const value = key(volume) ?? (isNumber(column) ? -1 : "");
    return typeof value === "string" ? naturalKey(value) : value;
  };
  return volumes.map((volume) => ({ volume, key: keyOf(volume) }))
    .sort((a, b) => a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
    .map(({ volume }) => volume);
}

/** The text of `list`, without a newline at its end; undefined if there is no line. */
export function listText(volumes: readonly VolumeListing[], form: ListForm): string | undefined {
  const rows = sorted(volumes, form.sort).map((volume) =>
    form.columns.map((column) => cellOf(volume, column, form))
  );
  if (!form.hasHeader) return rows.length === 0 ? undefined : rows.map((row) => row.join("\t")).join("\n");
  const right = form.columns.flatMap((column, at) => isNumber(column) ? [at] : []);
  return columns([form.columns.map((column) => column.toUpperCase()), ...rows], right);
}

function cellOf(volume: VolumeListing, column: ListColumn, { isParsable }: ListForm): string {
  const { key, text } = specs[column];
  const value = key(volume);
  if (value === null) return "-";
  return isParsable || text === undefined ? String(value) : text(value);
}

function isNumber(column: ListColumn): boolean {
  return column !== "name" && column !== "origin" && column !== "created";
}

/** What is said beside figures that are not of now; undefined if they are, or are not shown. */
export function noteOnAge(
  volumes: readonly VolumeListing[],
  form: ListForm,
  verb: string,
): string | undefined {
  if (!form.columns.includes("exclusive") && !form.columns.includes("shared")) return undefined;
  const ages = volumes.map(({ figures_age_ms }) => figures_age_ms);
  const oldestMs = ages.reduce<number>((oldest, age) => Math.max(oldest, age ?? 0), 0);
  const seeExact = "`" + verb + " --exact` waits until they are.";
  if (ages.includes(null)) {
    return `note: what is exclusive and shared is not counted yet where "-" stands; ${seeExact}`;
  }
  if (oldestMs === 0) return undefined;
  return `note: what is exclusive and shared is not of now, but up to ${ageText(oldestMs)} old; ${seeExact}`;
}
