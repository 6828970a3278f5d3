import { assert, assertEquals } from "@std/assert";
import { modes, modeTables, modeTransitions } from "./mode_table.ts";

const page = new URL("../../docs/modes.md", import.meta.url);

/** The rows of all tables, without the spaces that align their columns. */
function rowsOf(markdown: string): string[] {
  const rows = markdown.split("\n").filter((line) => line.startsWith("|") && !/^[|\s-]+$/.test(line));
  return rows.map((line) => line.split("|").map((cell) => cell.trim()).join("|"));
}

Deno.test("docs/modes.md shows the tables of the code", () => {
  assertEquals(rowsOf(Deno.readTextFileSync(page)), rowsOf(modeTables()));
});

Deno.test("a pool's trouble ends with a restart only, and lack of space by itself", () => {
  for (const { from, to } of modeTransitions) {
    const isBetter = modes.indexOf(to) < modes.indexOf(from);
    assert(!isBetter || !["read-only", "fail"].includes(from), `${from} to ${to}`);
  }
  assertEquals(modeTransitions.filter(({ from }) => from === "fail"), []);
});
