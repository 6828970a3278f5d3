/** Tables as commands print them. */

/** The width of a text table's gap. */
const gap = "  ";

/** Rows with a heading, in columns. Those in `right` end at one place, as numbers should. */
export function columns(
  rows: readonly (readonly string[])[],
  right: readonly number[] = [],
): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const padded = (cell: string, column: number) =>
    right.includes(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!);
  return rows.map((row) => row.map(padded).join(gap).trimEnd()).join("\n");
}

/** A time of RFC 3339 in whole seconds. */
export function withoutFraction(time: string): string {
  return time.replace(/\.\d+Z$/, "Z");
}
