import { assertEquals } from "@std/assert";
import { FileUse } from "./file_use.ts";

Deno.test("a file is idle when also what followed from its last operation has ended", async () => {
  const use = new FileUse(() => {});
  let isIdle = false;
  use.begin();
  const idle = use.idle().then(() => isIdle = true);
  // The ring tells the actors of an end together with others, so what they ask for comes after it.
  use.end();
  use.begin();
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(isIdle, false);
  use.end();
  await idle;
});
