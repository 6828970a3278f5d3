import { assert } from "@std/assert";
import { documentUrl, withDiagrams } from "./diagrams.ts";

Deno.test("the diagrams of ARCHITECTURE.md are what the bios do", async () => {
  const document = await Deno.readTextFile(documentUrl);
  assert(withDiagrams(document) === document, "the diagrams are stale: run `deno task diagrams`");
});
