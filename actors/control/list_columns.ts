/** The columns of `list`. */

/** Their names, in the order in which the help has them; the first six are shown where none is named. */
export const listColumns: readonly ListColumn[] = [
  "name",
  "size",
  "mapped",
  "exclusive",
  "shared",
  "attached",
  "origin",
  "created",
  "id",
  "age",
  "quota",
  "reserve",
];

/** A column of `list`. */
export type ListColumn =
  | "name"
  | "size"
  | "mapped"
  | "exclusive"
  | "shared"
  | "attached"
  | "origin"
  | "created"
  | "id"
  | "age"
  | "quota"
  | "reserve";

/** What is shown where no column is named: it fits into 80 characters. */
export const plainColumns: readonly ListColumn[] = listColumns.slice(0, 6);

/** The column of that name. */
export function listColumnOf(text: string): ListColumn | undefined {
  return listColumns.find((column) => column === text);
}
