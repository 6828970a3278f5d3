import { assertEquals } from "@std/assert";
import { documentUrl, withDiagrams } from "./diagrams.ts";

Deno.test("the diagrams of ARCHITECTURE.md are what the bios do", async () => {
  const document = await Deno.readTextFile(documentUrl);
  assertEquals(withDiagrams(document), document, "run `deno task diagrams`");
});
