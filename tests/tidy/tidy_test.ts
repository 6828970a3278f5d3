/** The style of the whole repository, as tests: each failure names file and line and what to write instead. */
import { assertEquals } from "@std/assert";
import { editedFiles, faults } from "../sim/exhaustive/faults.ts";
import { ruleBounds, ruleFactsAreThere } from "./bounds.ts";
import { ruleFunctionNames, ruleTypeNames, ruleUsedExports } from "./exports.ts";
import { ruleModuleState } from "./module_state.ts";
import { ruleDependencies, ruleImportCycles, ruleImportDirection } from "./imports.ts";
import { fileRules } from "./rules.ts";
import { rulePaths } from "./paths.ts";
import { ruleQueues, ruleSumsAreAsserted } from "./queues.ts";
import { ruleRooms, ruleTestImports, ruleTestNames } from "./rooms.ts";
import { ruleLightStart } from "./light_start.ts";
import { ruleSides } from "./sides.ts";
import { readSources, type Source } from "./source.ts";
import { ruleSkips } from "./skips.ts";
import { ruleStepsAreTaken } from "./steps.ts";
import { ruleSymbols, ruleTwoHops } from "./symbols.ts";
import { ruleTopLevel } from "./top_level.ts";
import { ruleCannot, ruleCitations, rulePersons } from "./words.ts";

const root = new URL("../../", import.meta.url);
const sources = readSources(root);

function holds(name: string, find: (sources: readonly Source[]) => string[]): void {
  Deno.test(name, () => assertEquals(find(sources).join("\n"), ""));
}

function faultsThatDoNotFit(all: readonly Source[]): string[] {
  const texts = new Map(all.map(({ path, text }) => [path, text]));
  return faults.flatMap((fault) => {
    try {
      editedFiles(fault, (file) => texts.get(file) ?? "");
      return [];
    } catch (error) {
      return [`tests/sim/exhaustive/faults.ts:1: ${(error as Error).message}`];
    }
  });
}

Deno.test("the rules look at the whole repository", () => {
  const expected = [
    "README.md",
    "actors/volume/remap.ts",
    "cli.ts",
    "deno.json",
    "storage/format/btree_node.ts",
  ];
  assertEquals(sources.filter((each) => expected.includes(each.path)).map((each) => each.path), expected);
});

for (const [name, rule] of fileRules) holds(name, (all) => all.flatMap(rule));
holds("a test with an outside program says when it is skipped", (all) => all.flatMap(ruleSkips));
holds("imports go one way, and nothing imports tests", ruleImportDirection);
holds("every product file lies in a room, and imports from its own and those below only", ruleRooms);
holds("no two test files have one name", ruleTestNames);
holds("no file imports a test file", ruleTestImports);
holds("every file that a comment or a page cites is there", ruleCitations);
holds("every symbol that a page names is in its file", ruleSymbols);
holds("each paragraph on the architecture names where it is in the code", ruleTwoHops);
holds("comments name things and not persons", rulePersons);
holds("what is exported is imported somewhere", ruleUsedExports);
holds("one name is one type", ruleTypeNames);
holds("the name of an exported function is no other function's", ruleFunctionNames);
holds("bounds and knobs stand in their tables", (all) => all.flatMap(ruleBounds));
holds("facts that are no bounds of ours are where the rule says", ruleFactsAreThere);
holds("every collection of the actors has a bound that is named", (all) => ruleQueues(all));
holds("every sum over what may wait in a queue is asserted", ruleSumsAreAsserted);
holds("every classic fault fits the code that it is put into", faultsThatDoNotFit);
holds("cannot is one word", (all) => all.flatMap(ruleCannot));
holds("no modules need each other", ruleImportCycles);
holds("no module has state, but for what is listed with a reason", ruleModuleState);
holds("the main side of the border has no actors", ruleSides);
holds("a command to a running server loads little", ruleLightStart);
holds("there are three dependencies, and the core uses none", ruleDependencies);
holds("every step of a task is taken or handed on", ruleStepsAreTaken);
holds(
  "no file names a path of the machine it was written on",
  (all) => rulePaths(all, root, Deno.env.get("HOME")),
);

Deno.test("the top level holds what it should and nothing else", () => {
  const names = [...Deno.readDirSync(root)].map((entry) => entry.name);
  assertEquals(ruleTopLevel(names, Deno.readTextFileSync(new URL(".gitignore", root))), []);
});
