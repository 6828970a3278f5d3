import { relative, resolve } from "node:path";
import { assertEquals } from "@std/assert";
import { absolutePath, relativePath } from "./absolute_path.ts";

Deno.test("paths are those of node:path", () => {
  const here = Deno.cwd();
  const paths = [
    ".",
    "..",
    "/",
    "a",
    "./a/../b",
    "a//b/",
    "../../..",
    "../x",
    "/a/./b/../../..",
    here,
    `${here}/a`,
    `${here}x`,
  ];
  for (const path of paths) {
    assertEquals(absolutePath(path), resolve(path), path);
    assertEquals(relativePath(path), relative(here, resolve(path)), path);
  }
});
