/**
 * The fuzzer's command line.
 *
 *   deno task fuzz                so many frames as in a test run, from seed 1
 *   deno task fuzz --frames N     frames for the decoders, a part of them for simulated connections too
 *   deno task fuzz --live N       frames on real connections to a really served pool
 *   deno task fuzz --seed S       the first seed of both; what fails names its own, and S, S + 1... repeat it
 */
import { fuzzCodec, type FuzzReport, sentenceOf } from "./fuzz_codec.ts";
import { fuzzLive } from "./fuzz_live.ts";

/** Frames of a test run. */
export const framesInTests = { codec: 1_000_000, live: 50_000 };

const usage = "use deno task fuzz [--frames N] [--live N] [--seed S]";

function numbersOf(args: readonly string[]): Map<string, number> | undefined {
  const numbers = new Map<string, number>();
  for (let at = 0; at < args.length; at += 2) {
    const value = args[at + 1] ?? "";
    if (!["--frames", "--live", "--seed"].includes(args[at]!) || !/^\d+$/.test(value)) return undefined;
    numbers.set(args[at]!, Number(value));
  }
  return numbers;
}

function sentence(what: string, { frames, sessions, verdicts }: FuzzReport, begunMs: number): string {
  const seconds = ((performance.now() - begunMs) / 1000).toFixed(1);
  const judged = `${verdicts.handshake} judged in the handshake, ${verdicts.transmission} beyond`;
  return `${what}: ${frames} frames in ${sessions} sessions, ${judged}, in ${seconds} s`;
}

if (import.meta.main) {
  const numbers = numbersOf(Deno.args);
  if (numbers === undefined) {
    console.error(usage);
    Deno.exit(2);
  }
  const seed = numbers.get("--seed") ?? 1;
  try {
    let begunMs = performance.now();
    console.log(sentence("codec", fuzzCodec(numbers.get("--frames") ?? framesInTests.codec, seed), begunMs));
    begunMs = performance.now();
    console.log(sentence("live", await fuzzLive(numbers.get("--live") ?? framesInTests.live, seed), begunMs));
  } catch (error) {
    console.error(sentenceOf(error));
    console.error(error instanceof Error ? error.cause : "");
    Deno.exit(1);
  }
}
