import { assertEquals, assertThrows } from "@std/assert";
import { parseDurationMs } from "./durations.ts";
import { UsageError } from "./errors.ts";

Deno.test("a time is read with its unit, and seconds without one", () => {
  const times: readonly (readonly [text: string, durationMs: number])[] = [
    ["60s", 60_000],
    ["60", 60_000],
    ["0.5", 500],
    ["500ms", 500],
    ["0.1ms", 1],
    ["5m", 300_000],
    ["1.5h", 5_400_000],
  ];
  for (const [text, durationMs] of times) assertEquals(parseDurationMs(text), durationMs, text);
});

Deno.test("what is no time, or none at all, is refused", () => {
  for (const text of ["", "0", "0s", "-1", "soon", "1d", "1 s", "s", "1e3", "NaN"]) {
    assertThrows(() => parseDurationMs(text), UsageError, "is not a time", text);
  }
});
