/** The judge of long runs must be able to say no. */
import { assertEquals } from "@std/assert";
import { compareTenths, type Quantity } from "./tenths.ts";

const bytes: Quantity = { key: "bytes", unit: "B", perUnit: 1, factorMax: 1.3, slack: 10, by: "largest" };
const latency: Quantity = { key: "ms", unit: "ms", perUnit: 1, factorMax: 1.3, slack: 0, by: "median" };

function samplesOf(value: (cycle: number) => number) {
  return Array.from({ length: 100 }, (_, index) => {
    const cycle = (index + 1) * 10;
    return { cycle, values: { bytes: value(cycle), ms: value(cycle) } };
  });
}

const areFlat = (value: (cycle: number) => number) =>
  compareTenths(samplesOf(value), 1000, [bytes, latency]).map(({ isFlat }) => isFlat);

Deno.test("what stays as it is, or goes up and down, is flat", () => {
  assertEquals(areFlat(() => 1000), [true, true]);
  assertEquals(areFlat((cycle) => 1000 + (cycle % 100)), [true, true]);
});

Deno.test("what grows with each cycle is not flat", () => {
  assertEquals(areFlat((cycle) => 1000 + cycle), [false, false]);
});

Deno.test("one late outlier counts for what is bounded, and not for what is usual", () => {
  assertEquals(areFlat((cycle) => cycle === 990 ? 5000 : 1000), [false, true]);
});

Deno.test("the quickest tenth grows only where all grow", () => {
  const quickest: Quantity = { ...latency, by: "quickest tenth" };
  const isFlat = (value: (cycle: number) => number) =>
    compareTenths(samplesOf(value), 1000, [quickest])[0]!.isFlat;
  assertEquals(isFlat((cycle) => cycle > 500 && cycle % 50 > 0 ? 9000 : 1000), true);
  assertEquals(isFlat((cycle) => cycle > 500 ? 9000 : 1000), false);
});

Deno.test("nothing measured is not flat", () => {
  const unknown: Quantity = { ...bytes, key: "other" };
  assertEquals(compareTenths(samplesOf(() => 1), 1000, [unknown])[0]!.isFlat, false);
});
