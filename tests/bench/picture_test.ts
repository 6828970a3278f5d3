/** The picture of the benchmarks: what it says of a result, and what it refuses. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { UserError } from "../../storage/base/errors.ts";
import type { LeanOutcome } from "./lean_measure.ts";
import { emptySample } from "./lean_rows.ts";
import { type Measured, measuredOf, pictureOf } from "./picture.ts";

function outcome(server: string, isPeer: boolean, ...values: number[]): LeanOutcome {
  return { server, isPeer, samples: values.map((value) => ({ ...emptySample, value })) };
}

const measured: Measured = {
  facts: ["commit 1234567", "2 cores of A & B"],
  load: 0.3,
  effort: { rounds: 3, seconds: 1 },
  lean: [
    {
      row: "reads",
      unit: "IOPS",
      isMoreBetter: true,
      outcomes: [
        outcome("ours", false, 1, 300, 900),
        outcome("slow", true, 100),
        outcome("fast", true, 200),
        outcome("null", false, 9000),
        outcome("ours before", false, 400),
      ],
    },
    {
      row: "memory",
      unit: "MiB",
      isMoreBetter: false,
      outcomes: [outcome("ours", false, 80), outcome("slow", true, 40), outcome("fast", true, 20)],
    },
    { row: "alone", unit: "IOPS", isMoreBetter: true, outcomes: [outcome("ours", false, 1)] },
  ],
};

Deno.test("each row shows the median of ours as a ratio to the best peer, above 1 where ours is better", () => {
  const picture = pictureOf(measured);
  const texts = [...picture.matchAll(/<text [^>]*>([^<]*)<\/text>/g)].map(([, text]) => text!);
  const at = (name: string) => texts.slice(texts.indexOf(name), texts.indexOf(name) + 3);
  assertEquals(at("reads"), ["reads", "1.50", "of fast"]);
  assertEquals(at("memory"), ["memory", "0.25", "of fast"]);
  assert(!texts.includes("alone"), "a row without a peer has no ratio");
  assert(!picture.includes("null"), "what stores nothing is no peer");
  assert(
    picture.includes('<circle class="other"') && picture.includes("<title>ours before 2.00</title>"),
    picture,
  );
});

Deno.test("the picture names its commit and its machine, in text that is safe in XML", () => {
  const picture = pictureOf(measured);
  assert(picture.includes("commit 1234567. Medians of 3 rounds"), picture);
  assert(picture.includes("2 cores of A &amp; B"), picture);
  assert(!picture.includes("other work"), "the machine was idle");
  assert(pictureOf({ ...measured, load: 4 }).includes("had other work when this was measured (load 4.0)"));
});

Deno.test("what the bench has not printed is refused with a sentence", () => {
  for (const text of ["", "null", "[]", '{"facts":[]}']) {
    assertThrows(
      () => measuredOf(text, "x.json"),
      UserError,
      "x.json is not what deno task bench --json prints",
    );
  }
  assertThrows(() => pictureOf({ ...measured, lean: [] }), UserError, 'No row has "ours" and a peer');
});
