import { assert, assertEquals } from "@std/assert";
import { hostSpaceOf } from "./host_space.ts";

Deno.test("the host tells how much room a file's file system has, and nothing where there is no file", () => {
  const path = Deno.makeTempFileSync();
  const space = hostSpaceOf(path);
  const { freeBytes = 0, totalBytes = 0 } = space() ?? {};
  assert(freeBytes > 0 && totalBytes >= freeBytes);
  Deno.removeSync(path);
  assertEquals(space(), undefined);
});
