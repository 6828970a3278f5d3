/** Each tidy rule finds what it forbids, with its line, and nothing else. */
import { assertEquals } from "@std/assert";
import { ruleBounds, ruleFactsAreThere } from "./bounds.ts";
import { ruleDependencies, ruleImportCycles, ruleImportDirection } from "./imports.ts";
import { rulePaths } from "./paths.ts";
import {
  type FileRule,
  ruleAssertMessages,
  ruleBannedWords,
  ruleCatch,
  ruleDocComments,
  ruleFileLength,
  ruleFunctionLength,
  ruleInlineGenerators,
  ruleLeftovers,
  ruleThen,
} from "./rules.ts";
import { Source } from "./source.ts";
import { ruleSkips } from "./skips.ts";
import { ruleStepsAreTaken } from "./steps.ts";
import { linesOf, tree } from "./tree.ts";

function finds(rule: FileRule, path: string, text: string, lines: readonly number[]): void {
  assertEquals(linesOf(rule(new Source(path, text))), lines.map((line) => `${path}:${line}`), text);
}

Deno.test("code is told from comments, strings, templates and regular expressions", () => {
  const text = [
    'const a = "x // y"; // "z"',
    "const b = 'it\\'s' + `t ${c + `u ${d}`} v`;",
    '/* e\n f */ const g = /[/"]\\/h/.test(i) ? 1 / j : k / 2;',
  ].join("\n");
  const code = [
    'const a = "      ";       ',
    "const b = '     ' + `  ${c + `  ${d}`}  `;",
    "    \n      const g = /       /.test(i) ? 1 / j : k / 2;",
  ].join("\n");
  assertEquals(new Source("a.ts", text).code, code);
});

Deno.test("functions are found with their names, bodies and kinds", () => {
  const text = `
export function* one(a: { b: number }, c = { d: 1 }): { e: number } | undefined {
  if (a) { return; }
}
class X<T> extends Y {
  #z = new Map<string, number>();
  constructor(readonly q: { r: number }) { super(); }
  *#two<A>(x: A): Steps<void> { for (const y of z) { f(y); } }
  get three(): number { return 3; }
}
const four = (a: number): void => { g(); };
h((x) => { i(); }, "s", (y) => y);
switch (k) { case 1: { break; } }
type T = { m(): void };
`;
  const found = new Source("a.ts", text).functions.map((each) =>
    `${each.isGenerator ? "*" : ""}${each.isMethod ? "." : ""}${each.name}`
  );
  assertEquals(found, ["*one", ".constructor", "*.#two", ".three", "four", "arrow function"]);
});

Deno.test("the core may not name a clock, chance, promises or the host; edges, tests and comments may", () => {
  const bad = [
    "Date.now()",
    "performance.now()",
    "Math.random()",
    "crypto.subtle",
    "setTimeout(f)",
    "setInterval(f)",
    "queueMicrotask(f)",
    "new Promise(f)",
    "async () => 1",
    "await f()",
    "Deno.cwd()",
    "console.log(1)",
  ];
  for (const text of bad) {
    finds(ruleBannedWords, "storage/a.ts", `f();\n${text};\n`, [2]);
    finds(ruleBannedWords, "actors/a.ts", `${text};\n`, [1]);
    for (
      const path of ["actors/edge/a.ts", "actors/a_test.ts", "storage/a_testing.ts", "cli.ts", "tests/a.ts"]
    ) {
      finds(ruleBannedWords, path, `${text};\n`, []);
    }
    finds(ruleBannedWords, "storage/a.ts", `// ${text}\nf("${text}");\n`, []);
  }
  finds(ruleBannedWords, "storage/a.ts", "const isAsync = updated.DateLike + cryptography;\n", []);
});

Deno.test("a generator is declared, not written inline", () => {
  finds(
    ruleInlineGenerators,
    "actors/a.ts",
    "function* a() {}\nexport function* b() {}\nclass C { *d() {} }\n",
    [],
  );
  finds(ruleInlineGenerators, "actors/a.ts", "const a = function* () {};\nf(\n  function*() {},\n);\n", [
    1,
    3,
  ]);
});

Deno.test("functions of 70 lines and files of 400 may be, one more may not", () => {
  const lines = (count: number): string => "  f();\n".repeat(count);
  finds(ruleFunctionLength, "storage/a.ts", `\nfunction a() {\n${lines(68)}}\n`, []);
  finds(ruleFunctionLength, "storage/a.ts", `\nfunction a() {\n${lines(69)}}\n`, [2]);
  finds(ruleFunctionLength, "cli.ts", `class A {\n  b(\n    c: D,\n  ): void {\n${lines(67)}  }\n}\n`, [2]);
  finds(ruleFunctionLength, "cli.ts", `class A {\n${"  a() {}\n".repeat(100)}}\n`, []);
  finds(ruleFileLength, "actors/a.ts", lines(400), []);
  for (const path of ["actors/edge/a.ts", "storage/a_test.ts", "mod.ts", "cli.ts", "tests/a.ts"]) {
    finds(ruleFileLength, path, lines(401), [401]);
  }
});

Deno.test("work left to be done is found in every kind of file", () => {
  const words = ["TO", "FIX", "XX"].map((word, at) => word + ["DO", "ME", "X"][at]!);
  for (const word of words) finds(ruleLeftovers, "README.md", `a\nb ${word}: c\n`, [2]);
  finds(ruleLeftovers, "a.ts", "mkdtemp('gossamer-XXXXXX')\n", []);
});

Deno.test("an exported symbol without a doc comment is found", () => {
  const rule = ruleDocComments;
  finds(
    rule,
    "storage/a.ts",
    "/** A. */\nexport function b() {\n}\n\nexport class C {\n}\nexport class D {\n}\n",
    [5, 7],
  );
  finds(rule, "storage/a.ts", "import x;\n\nexport function* a(): B {}\n\nexport const c = 1;\n", [3, 5]);
  finds(rule, "storage/a.ts", "/** A. */\n\nexport interface B {}\n\n// C.\nexport type D = 1;\n", [3, 6]);
  finds(rule, "storage/a.ts", "// Kinds.\nexport const a = 1;\nexport const b = 2;\n", []);
  finds(rule, "actors/pool/lock_region.ts", "/** Head. */\nimport x;\n\nexport class LockRegion {}\n", []);
  finds(
    rule,
    "actors/a.ts",
    "/** Head. */\nimport x;\n\nexport class Only {}\n\nexport type AMessage = B | C;\n",
    [],
  );
  finds(rule, "actors/a.ts", "import x;\n\nexport class Only {}\n", [3]);
  finds(rule, "storage/a_test.ts", "export const b = 1;\n", []);
});

Deno.test("the message of an assertion is a constant string", () => {
  finds(
    ruleAssertMessages,
    "storage/a.ts",
    'assert(f(a, "b") === c[d], "e");\npresent(a.get(b), "c");\n',
    [],
  );
  finds(ruleAssertMessages, "storage/a.ts", 'assert(\n  a,\n  "b, (c",\n);\nthis.assert(x);\n', []);
  finds(ruleAssertMessages, "storage/a.ts", "assert(a, `b ${c}`);\nassert(a);\npresent<B>(a, message);\n", [
    1,
    2,
    3,
  ]);
  finds(ruleAssertMessages, "storage/a.ts", 'assert(a, "b" + c);\n', [1]);
});

Deno.test("an error that is caught is thrown on, becomes the answer, or is spoken of", () => {
  const rule = ruleCatch;
  finds(rule, "storage/a.ts", "try { a(); } catch (error) {\n  if (b) throw error;\n  c();\n}\n", []);
  finds(rule, "storage/a.ts", "try { a(); } catch (error) {\n  return failureOf(error);\n}\n", []);
  finds(rule, "storage/a.ts", "try { a(); } catch {\n  // Nobody waits for it.\n}\n", []);
  finds(rule, "storage/a.ts", "try { a(); } catch {\n  b();\n  // Nobody waits for it.\n}\n", [1]);
  finds(rule, "storage/a.ts", "\ntry { a(); } catch (error) {\n  return;\n}\n", [2]);
  finds(rule, "cli.ts", "f().catch(() => {});\n", [1]);
  finds(rule, "cli.ts", "f().catch((error) => g(error));\n\n// It may fail.\nf().catch(() => {});\n", []);
});

Deno.test("a test that calls for an outside program and is never skipped is found", () => {
  const path = "tests/a_test.ts";
  finds(ruleSkips, path, "\nDeno.test(name, async () => {\n  await runOnImage(a);\n});\n", [2]);
  finds(ruleSkips, path, "\nDeno.test(name, () => PoolOnDisk.make().requireSound());\n", [2]);
  finds(ruleSkips, path, "\nDeno.test(name, () => poolInMemory().requireSound());\n", []);
  finds(ruleSkips, path, "Deno.test({ name, ignore: !hasIt, fn: () => pool.requireSound() });\n", []);
  finds(ruleSkips, path, "Deno.test(name, () => f());\nfunction g() { return requiredProgram(a); }\n", []);
  finds(ruleSkips, "tests/support/server.ts", "Deno.test(name, () => requiredProgram(a));\n", []);
});

Deno.test("an edge says what follows when what it waits for fails", () => {
  const path = "actors/edge/a.ts";
  finds(ruleThen, path, "f().then((a) => g(a, 1));\n", [1]);
  finds(ruleThen, path, "f().then(\n  (a) => g(a, 1),\n  (error) => h(error),\n);\n", []);
  finds(ruleThen, path, "f().then(g, h);\nf().catch(h).then(g);\n", []);
  finds(ruleThen, "cli.ts", "f().then(g);\n", []);
});

Deno.test("an import against the direction is found, of a type too", () => {
  const rule = (path: string, specifier: string): string[] =>
    linesOf(ruleImportDirection(tree({ [path]: `\nimport type { A } from "${specifier}";\n` })));
  for (
    const [path, specifier] of [
      ["storage/a.ts", "../actors/b.ts"],
      ["actors/a.ts", "../mod.ts"],
      ["mod.ts", "./cli.ts"],
      ["actors/a.ts", "../tests/b.ts"],
      ["actors/a.ts", "./b_test.ts"],
      ["storage/nbd/a.ts", "./wire_testing.ts"],
      ["actors/a.ts", "./edge/b.ts"],
    ] as const
  ) assertEquals(rule(path, specifier), [`${path}:2`], specifier);
  for (
    const [path, specifier] of [
      ["cli.ts", "./mod.ts"],
      ["mod.ts", "./actors/a.ts"],
      ["actors/edge/a.ts", "../../storage/b.ts"],
      ["actors/a.ts", "./b.ts"],
      ["actors/a_test.ts", "../tests/b.ts"],
      ["tests/a.ts", "../cli.ts"],
    ] as const
  ) assertEquals(rule(path, specifier), [], specifier);
});

Deno.test("every form of import is seen, and none in a string", () => {
  const text = [
    'import "./a.ts";',
    "import {\n  type B,\n  c,\n} from '../mod.ts';",
    'export * from "../cli.ts";',
    'const d = await import("../mod.ts");',
    'import e, * as f from "../mod.ts";',
    'const g = `import "../mod.ts"`;',
  ].join("\n");
  assertEquals(
    linesOf(ruleImportDirection(tree({ "actors/x.ts": text }))).sort(),
    [2, 6, 7, 8].map((line) => `actors/x.ts:${line}`).sort(),
  );
});

Deno.test("a cycle of imports is found once and named; in tests types may go in circles", () => {
  const cycle = tree({
    "storage/a.ts": 'import { b } from "./b.ts";\n',
    "storage/b.ts": 'import { type X, c } from "./c.ts";\n',
    "storage/c.ts": 'export { a } from "./a.ts";\n',
  });
  assertEquals(ruleImportCycles(cycle).map((text) => text.split(";")[0]), [
    "storage/a.ts:1: a cycle of imports: storage/a.ts -> storage/b.ts -> storage/c.ts -> storage/a.ts",
  ]);
  const types = (room: string) =>
    tree({
      [`${room}/a.ts`]: 'import { b } from "./b.ts";\n',
      [`${room}/b.ts`]: 'import type { A } from "./a.ts";\n',
    });
  assertEquals(ruleImportCycles(types("storage")).length, 1);
  assertEquals(ruleImportCycles(types("tests")), []);
});

Deno.test("a fourth dependency is found, and whatever the core would use from outside", () => {
  const files = {
    "deno.json": '{\n  "imports": {\n    "nanoid": "npm:nanoid",\n    "lodash": "npm:lodash"\n  }\n}',
    "cli.ts":
      'import { a } from "@std/cli/parse-args";\nimport { b } from "npm:chalk";\nimport c from "@std/assert";\n',
    "storage/a.ts": 'import fs from "node:fs";\n',
    "actors/edge/a.ts": 'import fs from "node:fs";\n',
    "actors/a.ts": 'import { nanoid } from "nanoid";\n',
    "actors/a_test.ts": 'import { assert } from "@std/assert";\n',
  };
  assertEquals(linesOf(ruleDependencies(tree(files))).sort(), [
    "actors/a.ts:1",
    "cli.ts:2",
    "cli.ts:3",
    "deno.json:4",
    "storage/a.ts:1",
  ]);
});

const stub = `class Stub {
  *lookup(x: number): Steps<number> { return yield* ask(1, 2); }
  *write(x: number): Steps<void> { yield* this.lookup(1); }
  *each(): Generator<number> { yield 1; }
}
export function* helper(a: Stub): Steps<void> { yield* a.write(1); }
class Port { write(x: number): void { this.y = x; } }
`;

function stepsFound(body: string): number {
  return ruleStepsAreTaken(tree({ "actors/stub.ts": stub, "actors/a.ts": body })).length;
}

Deno.test("a forgotten yield* is found wherever the compiler lets it stand", () => {
  for (
    const statement of [
      "a.lookup(1);",
      "helper(a);",
      "this.#regions[0]!.stub(2).lookup(1);",
      "if (b) a.lookup(1);",
      "if (b) c(); else a.lookup(1);",
      "for (;;) a.lookup(1);",
      "using _lock = a.lookup(1);",
      "if (a.lookup(1)) c();",
      "while (!a.lookup(1)) c();",
      "const b = c && a.lookup(1);",
      "const b = `${a.lookup(1)}`;",
      "new Stub().lookup(1);",
      "a\n    .b?.lookup(1);",
      "a.write(1);",
    ]
  ) assertEquals(stepsFound(`function* f(a: Stub): Steps<void> {\n  ${statement}\n}\n`), 1, statement);
});

Deno.test("steps that are taken, handed on or only declared are not found", () => {
  for (
    const statement of [
      "yield* a.lookup(1);",
      "const b = yield* a.lookup(1);",
      "using _lock = yield* a.regions[0]!.lookup(1);",
      "return a.lookup(1);",
      "const task = a.lookup(1);",
      'yield* join("b", [a.lookup(1), helper(a)]);',
      'kernel.start("b", helper(a));',
      "const b = c.map((d) => a.lookup(d));",
      "const b = yield* (c ? a.lookup(1) : a.lookup(2));",
      "a.each();",
      "other.helperLookup(1);",
      "if (yield* a.lookup(1)) c();",
      "using _lock = yield* helper(\n    locks.regionsOf(1),\n  );",
    ]
  ) assertEquals(stepsFound(`function* f(a: Stub): Steps<void> {\n  ${statement}\n}\n`), 0, statement);
  // Where a plain method has the same name, only a task is held to it.
  assertEquals(stepsFound("class A {\n  receive(): void {\n    this.#port.write(1);\n  }\n}\n"), 0);
  assertEquals(stepsFound("class A {\n  receive(): void {\n    this.#stub.lookup(1);\n  }\n}\n"), 1);
});

Deno.test("a path of the machine is found, and a part of a longer one is not", () => {
  const root = new URL("file:///data/gossamer/");
  const text = [
    "cd /data/gossamer",
    "see /data/other",
    "my/data/gossamer",
    "/tmp/x",
    "/home/" + "ann/y",
    "/home/you",
  ];
  const found = rulePaths(tree({ "README.md": text.join("\n") }), root, "/root");
  assertEquals([...new Set(linesOf(found))].sort(), ["README.md:1", "README.md:2", "README.md:5"]);
});

Deno.test("a bound or a knob outside its table is found", () => {
  const text = [
    "const waitMsMax = 5;",
    "export const spareBytes = 4 * 1024;",
    "const roomMin: number = 2 ** 3;",
    "const leavesPerTurn = 2;",
    "const sizeBytes = lengthOf(text);",
    "const spareBytes = new Uint8Array(4);",
    "  const localMax = 3;",
    "const flag = 3;",
  ].join("\n");
  finds(ruleBounds, "actors/pool/a.ts", text, [1, 2, 3, 4]);
  finds(ruleBounds, "storage/a.ts", text, [1, 2, 3, 4]);
  finds(ruleBounds, "actors/limits.ts", text, []);
  finds(ruleBounds, "tests/a.ts", text, []);
  finds(ruleBounds, "actors/edge/page_cache.ts", "const pageBytes = 4096;\nconst pagesMax = 5;", [2]);
});

Deno.test("a fact that is not where the rule says is found", () => {
  assertEquals(ruleFactsAreThere([]).length > 10, true);
});
