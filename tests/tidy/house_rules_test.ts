/** Each tidy rule about the house and its pages finds what it forbids, with its line, and nothing else. */
import { assertEquals } from "@std/assert";
import { ruleFunctionNames, ruleTypeNames, ruleUsedExports } from "./exports.ts";
import { ruleModuleState } from "./module_state.ts";
import { ruleRooms, ruleTestImports, ruleTestNames } from "./rooms.ts";
import { ruleLightStart } from "./light_start.ts";
import { ruleSides } from "./sides.ts";
import { readSources, Source } from "./source.ts";
import { ruleSymbols, ruleTwoHops } from "./symbols.ts";
import { ruleTopLevel } from "./top_level.ts";
import { linesOf, tree } from "./tree.ts";
import { personsPer1000Lines, ruleCannot, ruleCitations, rulePersons } from "./words.ts";

Deno.test("a file in no room is found, and an import from a room above", () => {
  const from = (path: string, target: string) =>
    linesOf(ruleRooms(tree({ [path]: `\nimport { a } from "${target}";\n` })));
  assertEquals(from("actors/pool/a.ts", "../volume/b.ts"), ["actors/pool/a.ts:2"]);
  assertEquals(from("actors/volume/a.ts", "../pool/b.ts"), []);
  assertEquals(from("actors/kernel/a.ts", "../limits.ts"), []);
  assertEquals(from("actors/limits.ts", "./kernel/a.ts"), ["actors/limits.ts:2"]);
  assertEquals(from("storage/base/a.ts", "../format/b.ts"), ["storage/base/a.ts:2"]);
  assertEquals(from("actors/new_file.ts", "./limits.ts"), ["actors/new_file.ts:1"]);
});

Deno.test("two test files of one name are found", () => {
  const files = { "actors/pool/a_test.ts": "", "tests/e2e/a_test.ts": "", "tests/e2e/b_test.ts": "" };
  assertEquals(linesOf(ruleTestNames(tree(files))), ["tests/e2e/a_test.ts:1"]);
});

Deno.test("an import of a test file is found, from a test file too", () => {
  const text = 'import { a } from "./a_test.ts";\nimport { b } from "../support/b.ts";\n';
  const files = { "tests/e2e/b_test.ts": text, "tests/support/b.ts": "\n" + text };
  assertEquals(linesOf(ruleTestImports(tree(files))), ["tests/e2e/b_test.ts:1", "tests/support/b.ts:2"]);
});

Deno.test("a file that is cited and not there is found, in comments and pages, not in code", () => {
  const text = '/** See b.ts, pool/b.ts, gone.md. */\nconst name = "gone.ts";\n// design 12\n';
  const files = {
    "actors/pool/a.ts": text,
    "actors/pool/b.ts": "",
    "README.md": "[x](docs/no.md) and actors/pool/b.ts",
  };
  assertEquals(linesOf(ruleCitations(tree(files))).sort(), [
    "README.md:1",
    "actors/pool/a.ts:1",
    "actors/pool/a.ts:3",
  ]);
});

Deno.test("words for persons are counted in the comments of product code", () => {
  const text = '/** Whoever waits. */\nconst who = "who";\n';
  assertEquals(personsPer1000Lines(tree({ "actors/pool/a.ts": text, "tests/b.ts": "// nobody\n" })), 1000);
  assertEquals(linesOf(rulePersons(tree({ "actors/pool/a.ts": text }))).slice(1), ["actors/pool/a.ts:1"]);
});

Deno.test("cannot in two words is found", () => {
  const text = "It can " + "not be.\nIt cannot be.\n";
  assertEquals(tree({ "README.md": text }).flatMap(ruleCannot).length, 1);
});

Deno.test("what does not belong at the top level is named, and what git ignores is not", () => {
  const names = [".git", "README.md", "docs", "node_modules", "x.img", "NOTES.md", "lib"];
  const found = ruleTopLevel(names, "/pool/\nnode_modules/\n*.img\n");
  assertEquals(linesOf(found), ["NOTES.md", "lib"]);
});

Deno.test("the pages and units of docs/ are read too", async () => {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-tidy-" });
  try {
    await Deno.mkdir(`${folder}/docs/install`, { recursive: true });
    await Deno.writeTextFile(`${folder}/docs/page.md`, "a page\n");
    await Deno.writeTextFile(`${folder}/docs/install/Containerfile`, "FROM x\n");
    const paths = readSources(new URL(`file://${folder}/`)).map((source) => source.path);
    assertEquals(paths, ["docs/install/Containerfile", "docs/page.md"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a symbol that is not in its file is found in a page", () => {
  const sources = [
    new Source("actors/a.ts", "export class One {}\n// Two\n"),
    new Source("storage/b.ts", "function three() {}\n"),
    new Source("page.md", "`a.ts#One`, `storage/b.ts#three`\n`a.ts#Two`\n`c.ts#One`\n"),
  ];
  assertEquals(linesOf(ruleSymbols(sources)), ["page.md:2", "page.md:3"]);
});

Deno.test("a paragraph or a failure without a file is found", () => {
  const page = "# A\n\n## Locks\n\nSee `a.ts#b`.\n\nNothing.\n\n## When something fails\n\n" +
    "| What | Then |\n| - | - |\n| one | `a.ts` |\n| two | - |\n";
  const found = ruleTwoHops([new Source("actors/ARCHITECTURE.md", page)]);
  assertEquals(linesOf(found), ["actors/ARCHITECTURE.md:7", "actors/ARCHITECTURE.md:11"]);
});

Deno.test("an export that nothing imports is found; types of other exports, NBD numbers and limits are not", () => {
  const found = ruleUsedExports(tree({
    "storage/a.ts":
      "export function used() {}\nexport function unused() {}\nexport type T = 1;\nexport const t: T = 1;\n",
    "storage/b.ts": 'import { t, used } from "./a.ts";\n',
    "actors/limits.ts": "export const requestsMax = 1;\n",
    "actors/nbd/wire/constants.ts": "export const NBD_ENOMEM = 12;\n",
    "storage/all.ts": "export const a = 1;\n",
    "tests/c_test.ts": 'import * as all from "../storage/all.ts";\n',
  }));
  assertEquals(linesOf(found), ["storage/a.ts:2"]);
});

Deno.test("a type name that is declared in two places is found, exported or not, in product code", () => {
  const found = ruleTypeNames(tree({
    "storage/a.ts": "export interface Held {}\ntype Own = 1;\n// type Own = 2;\n",
    "storage/b.ts": "\ninterface Held {}\nexport abstract class Own {}\nfunction Held() {}\n",
    "storage/b_test.ts": "interface Held {}\n",
    "tests/c.ts": "interface Held {}\n",
  }));
  assertEquals(linesOf(found), ["storage/b.ts:2", "storage/b.ts:3"]);
});

Deno.test("a function that has the name of another file's exported function is found, in product code", () => {
  const found = ruleFunctionNames(tree({
    "storage/a.ts": "export function one() {}\nfunction own() {}\nexport const two = 1;\n",
    "storage/b.ts":
      "\nfunction* one() {}\nfunction own() {}\nexport async function two() {}\nclass A {\n  one() {}\n}\n",
    "storage/b_test.ts": "function one() {}\n",
    "tests/c.ts": "export function one() {}\n",
  }));
  assertEquals(linesOf(found), ["storage/b.ts:2", "storage/b.ts:4"]);
});

Deno.test("state of a module is found unless it is listed, and what is listed must be there", () => {
  const text = [
    "let count = 0;",
    "export const diskCalm = new DiskCalm();",
    "const polls = new WeakMap<Kernel, SocketPoll>();",
    "const names: string[] = [];",
    "const offsets = { a: 1 };",
    "class A {",
    "  static last = 0;",
    "  static readonly #first = 1;",
    "  #count = 0;",
    "}",
    "const known: ReadonlySet<number> = new Set([1]);",
    'const words = ["a"] as const;',
    "const table: Table = { a: 1 };",
    'const joined = [...words].join(", ");',
    "const encoder = new TextEncoder();",
    "function f() {\n  let here = 0;\n}",
  ].join("\n");
  const sources = tree({ "actors/edge/a.ts": text, "tests/a.ts": "let count = 0;\n" });
  const lines = linesOf(ruleModuleState(sources, {}));
  assertEquals(lines.sort(), [1, 2, 3, 4, 5, 7].map((line) => `actors/edge/a.ts:${line}`));
  const stays = { "actors/edge/a.ts#count": "", "actors/edge/a.ts#gone": "" };
  assertEquals(
    linesOf(ruleModuleState(sources, stays)).sort(),
    [
      ...[1, 2, 3, 4, 5, 7].map((line) => `actors/edge/a.ts:${line}`).slice(1),
      "actors/edge/a.ts:1",
    ].sort(),
  );
});

Deno.test("an actor that the main side imports is found, unless through the border or as a type", () => {
  const found = ruleSides(tree({
    "mod.ts":
      'import { a } from "./actors/edge/pool_link.ts";\nimport type { b } from "./actors/control/pool.ts";\n',
    "actors/edge/pool_link.ts": 'import { c } from "./direct_border.ts";\nimport { d } from "./serve.ts";\n',
    "actors/edge/direct_border.ts": 'import { e } from "./pool_service.ts";\n',
    "actors/edge/serve.ts":
      'import { f } from "../kernel/boundary.ts";\n\nimport { g } from "../nbd/listener.ts";\n',
  }));
  assertEquals(linesOf(found), ["actors/edge/serve.ts:3"]);
});

Deno.test("what the command line loads in advance is found, unless as a type or when it is needed", () => {
  const found = ruleLightStart(tree({
    "cli.ts": 'import type { a } from "./mod.ts";\nimport { b } from "./actors/edge/control.ts";\n',
    "actors/edge/control.ts":
      'import fs from "node:fs";\nimport { c } from "./pool_link.ts";\nconst d = await import("./serve.ts");\n',
  }));
  assertEquals(linesOf(found), ["actors/edge/control.ts:1", "actors/edge/control.ts:2"]);
});
