/** The rules for queues find a collection without a bound, and a bound without an assertion. */
import { assertEquals } from "@std/assert";
import { ruleQueues, ruleSumsAreAsserted } from "./queues.ts";
import { linesOf, tree } from "./tree.ts";

Deno.test("a collection of the actors has an entry with its bound, and the bound is in the code", () => {
  const text = `class A {
  #list: Item[] = [];
  readonly #map = new Map<number, Item>();
  #set: Set<Item>;
  #functions: (() => void)[] = [];
  #objects: { readonly a: number; readonly b: number }[] = [];
  #number = 0;
  #same: readonly Item[] = [];
  #seen: ReadonlySet<Item> = new Set();
  #make: (from: Item) => Item[];
  f() {
    const local: Item[] = [];
    assert(this.#list.length < queues.items, "m");
  }
}
`;
  const files = tree({ "actors/pool/a.ts": text, "storage/a.ts": text, "actors/pool/a_test.ts": text });
  assertEquals(linesOf(ruleQueues(files, {})), [2, 3, 4, 5, 6].map((line) => `actors/pool/a.ts:${line}`));
  const bounds = {
    "pool/a.ts#list": "queues.items",
    "pool/a.ts#map": "queues.others",
    "pool/a.ts#set": "itemsMax",
    "pool/a.ts#functions": "as many as there are kinds",
    "pool/a.ts#objects": "queues.items in a.ts",
    "pool/a.ts#gone": "queues.items",
    "pool/b.ts#list": "queues.items",
  };
  assertEquals(linesOf(ruleQueues(files, bounds)), [
    "actors/pool/a.ts:3",
    "actors/pool/a.ts:4",
    "tests/tidy/queues.ts:1",
  ]);
});

Deno.test("a sum over what may wait in a queue is asserted somewhere", () => {
  const table = "export interface Queues {\n  readonly a: number;\n  readonly b: number;\n}\n";
  const files = tree({
    "actors/queues.ts": table,
    "actors/pool/a.ts": "assert(size < queues.a);",
    "actors/pool/a_test.ts": "queues.b",
  });
  assertEquals(ruleSumsAreAsserted(files), ["actors/queues.ts:1: no code asserts b"]);
});
