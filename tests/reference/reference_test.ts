import { assertEquals } from "@std/assert";
import { referenceText, referenceUrl } from "./reference.ts";

/** The words of a page without its line breaks and the padding of its tables, which are the formatter's. */
function wordsOf(page: string): string {
  return page.replace(/-{3,}/g, "---").replace(/\s+/g, " ").trim();
}

Deno.test("docs/reference.md is what the tables of verbs and options say", async () => {
  const page = await Deno.readTextFile(referenceUrl);
  assertEquals(wordsOf(page), wordsOf(referenceText()), "it is stale: run `deno task reference`");
});
