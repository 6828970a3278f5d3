import { assert, assertEquals } from "@std/assert";
import { logBytesMax, logLinesMax } from "../limits.ts";
import { guardedLog, LogSink, type LogWriter } from "./log_sink.ts";

const decoder = new TextDecoder();

/** A descriptor whose writes end as the test says. */
class Output implements LogWriter {
  text = "";
  writes = 0;
  mostAtOnce = 0;
  #underWay = 0;
  /** How the next writes end: bytes taken, an error, or a wait. Afterwards all is taken. */
  readonly next: (number | Error | Promise<number>)[] = [];

  async write(bytes: Uint8Array): Promise<number> {
    this.writes += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#underWay);
    try {
      const ending = this.next.shift() ?? bytes.length;
      if (ending instanceof Error) throw ending;
      const count = await ending;
      this.text += decoder.decode(bytes.subarray(0, count));
      return count;
    } finally {
      this.#underWay -= 1;
    }
  }
}

Deno.test("lines are written in order, one write at a time, also when each write takes a part", async () => {
  const output = new Output();
  output.next.push(1, 2, 1);
  const sink = new LogSink(output);
  for (const text of ["one", "two", "three"]) sink.line(text);
  await sink.drained(1000);
  assertEquals(output.text, "one\ntwo\nthree\n");
  assertEquals(output.mostAtOnce, 1);
});

Deno.test("a line that cannot be written is dropped, and the next one says how many were", async () => {
  for (const error of [new Deno.errors.BrokenPipe(), new Error("No space left on device (os error 28)")]) {
    const output = new Output();
    output.next.push(error, error, error);
    const sink = new LogSink(output);
    sink.line("one");
    sink.line("two");
    await sink.drained(1000);
    assertEquals([output.text, sink.dropped], ["", 2]);
    sink.line("three");
    await sink.drained(1000);
    assertEquals(output.text, "2 lines of the log were dropped.\nthree\n");
    assertEquals(sink.dropped, 0);
  }
});

Deno.test("a line that was written in part is ended before the next one", async () => {
  const output = new Output();
  output.next.push(2, new Deno.errors.BrokenPipe());
  const sink = new LogSink(output);
  sink.line("one");
  sink.line("two");
  await sink.drained(1000);
  assertEquals(output.text, "on\n1 line of the log was dropped.\ntwo\n");
});

Deno.test("a full pipe that does not block is waited for, and nothing is lost", async () => {
  const output = new Output();
  output.next.push(new Deno.errors.WouldBlock(), 2, new Deno.errors.WouldBlock());
  const sink = new LogSink(output);
  sink.line("one");
  sink.line("two");
  await sink.drained(5000);
  assertEquals(output.text, "one\ntwo\n");
});

Deno.test("behind a write that never ends, so many lines and bytes are kept, and the wait for it has an end", async () => {
  for (const text of ["line", "x".repeat(logBytesMax / 8)]) {
    const output = new Output();
    const stuck = Promise.withResolvers<number>();
    output.next.push(stuck.promise);
    const sink = new LogSink(output);
    const lines = 3 * logLinesMax;
    for (let count = 0; count < lines; count += 1) sink.line(text);
    await sink.drained(10);
    assertEquals(output.writes, 1);
    const kept = lines - sink.dropped;
    assert(kept <= logLinesMax + 1 && kept * (text.length + 1) <= logBytesMax + text.length, `${kept} kept`);
    stuck.resolve(text.length + 1);
    await sink.drained(5000);
    assertEquals(output.text.split("\n").filter((line) => line === text).length, kept);
    // Where they are missing: behind all that were kept.
    const end = `${text}\n${lines - kept} lines of the log were dropped.\n`;
    assert(output.text.endsWith(end));
    sink.line("next");
    await sink.drained(5000);
    assert(output.text.endsWith(`${end}next\n`));
  }
});

Deno.test("a program's log that throws, rejects or never ends is no trouble, and hears later what it missed", async () => {
  const heard: string[] = [];
  let broken: "throws" | "rejects" | "stuck" | undefined = "throws";
  const log = guardedLog((sentence) => {
    if (broken === "throws") throw new Error("full");
    if (broken === "rejects") return Promise.reject(new Error("full"));
    heard.push(sentence);
    return broken === "stuck" ? new Promise(() => {}) : undefined;
  });
  log("one");
  log("two");
  broken = "rejects";
  log("three");
  await new Promise((resolve) => setTimeout(resolve, 1));
  broken = "stuck";
  log("four");
  broken = undefined;
  log("five");
  assertEquals(heard.filter((sentence) => !sentence.includes("dropped")), ["four", "five"]);
  assert(heard.some((sentence) => sentence.includes("dropped")), heard.join("\n"));
});
