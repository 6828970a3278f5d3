import { assert, assertEquals } from "@std/assert";
import { hostFreeBytesOf } from "./host_space.ts";

Deno.test("the host tells how much room a file's file system has, and nothing where there is no file", () => {
  const path = Deno.makeTempFileSync();
  const free = hostFreeBytesOf(path);
  assert((free() ?? 0) > 0);
  Deno.removeSync(path);
  assertEquals(free(), undefined);
});
