/** The style of the whole repository, as tests: each failure names file and line and what to write instead. */
import { assertEquals } from "@std/assert";
import { ruleDependencies, ruleImportCycles, ruleImportDirection } from "./tidy/imports.ts";
import { fileRules } from "./tidy/rules.ts";
import { rulePaths } from "./tidy/paths.ts";
import { readSources, type Source } from "./tidy/source.ts";
import { ruleSkips } from "./tidy/skips.ts";
import { ruleStepsAreTaken } from "./tidy/steps.ts";

const root = new URL("../", import.meta.url);
const sources = readSources(root);

function holds(name: string, find: (sources: readonly Source[]) => string[]): void {
  Deno.test(name, () => assertEquals(find(sources).join("\n"), ""));
}

Deno.test("the rules look at the whole repository", () => {
  const expected = ["README.md", "actors/remap.ts", "cli.ts", "deno.json", "storage/format/btree_node.ts"];
  assertEquals(sources.filter((each) => expected.includes(each.path)).map((each) => each.path), expected);
});

for (const [name, rule] of fileRules) holds(name, (all) => all.flatMap(rule));
holds("a test with an outside program says when it is skipped", (all) => all.flatMap(ruleSkips));
holds("imports go one way, and nothing imports tests", ruleImportDirection);
holds("no modules need each other's values", ruleImportCycles);
holds("there are three dependencies, and the core uses none", ruleDependencies);
holds("every step of a task is taken or handed on", ruleStepsAreTaken);
holds(
  "no file names a path of the machine it was written on",
  (all) => rulePaths(all, root, Deno.env.get("HOME")),
);
