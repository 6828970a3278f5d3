import { assertEquals, assertThrows } from "@std/assert";
import { CatalogueFile } from "./catalogue_file.ts";
import { openLibc } from "./libc.ts";
import { poolPaths } from "./pool_paths.ts";

// Loaded once for as long as the process runs, so before the test and not in it.
openLibc();

Deno.test("a journal whose second file cannot be opened is closed again", () => {
  const directory = Deno.makeTempDirSync({ prefix: "gossamer-test-" });
  try {
    const paths = poolPaths(directory);
    Deno.writeTextFileSync(paths.catalogue, "{}\n");
    // A directory in place of the file.
    Deno.mkdirSync(paths.secondCatalogue);
    assertThrows(() => new CatalogueFile(paths));
    const open = [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => {
      try {
        return Deno.readLinkSync(`/proc/self/fd/${name}`);
      } catch {
        // The descriptor that the directory was read with.
        return "";
      }
    });
    assertEquals(open.filter((path) => path === paths.catalogue), []);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
