import { assertEquals, assertThrows } from "@std/assert";
import { Defect } from "../../storage/base/assert.ts";
import { World } from "../../tests/support/world.ts";
import type { Actor, Address, Message, Request } from "./address.ts";
import { unasked } from "./address.ts";
import type { Kernel } from "./kernel.ts";
import { ask, join, rest, sleep, type Steps } from "./task.ts";

interface Question extends Request<string> {
  readonly type: "question";
  readonly text: string;
}

interface Released extends Message {
  readonly type: "released";
  readonly name: string;
}

/** Keeps questions until the test answers them, and notes what is released. */
class Oracle implements Actor<Question | Released> {
  readonly kernel: Kernel;
  readonly address: Address<Question | Released>;
  readonly asked: Question[] = [];
  readonly released: string[] = [];

  constructor(kernel: Kernel) {
    this.kernel = kernel;
    this.address = kernel.spawn("oracle", 1000, () => this);
  }

  receive(message: Question | Released): void {
    if (message.type === "question") this.asked.push(message);
    else this.released.push(message.name);
  }

  question(text: string): Steps<string> {
    const request: Question = { type: "question", replyTo: unasked, text };
    return ask(this.address, request);
  }

  /** Answers the oldest question with this text. */
  answer(text: string, answer: string): void {
    const index = this.asked.findIndex((question) => question.text === text);
    this.kernel.reply(this.asked.splice(index, 1)[0]!, answer);
    this.kernel.run();
  }
}

/** Something held, whose release is a message. */
class Held implements Disposable {
  constructor(readonly oracle: Oracle, readonly name: string, readonly log: string[]) {}

  [Symbol.dispose](): void {
    this.log.push(this.name);
    this.oracle.kernel.tell(this.oracle.address, { type: "released", name: this.name });
  }
}

function* asking(oracle: Oracle, text: string, into: string[]): Steps<string> {
  const answer = yield* oracle.question(text);
  into.push(answer);
  return answer;
}

function* holding(oracle: Oracle, name: string, log: string[]): Steps<void> {
  using _outer = new Held(oracle, `${name} outer`, log);
  using _inner = new Held(oracle, `${name} inner`, log);
  yield* oracle.question(name);
}

function* joining(oracle: Oracle, name: string, log: string[]): Steps<void> {
  using _held = new Held(oracle, name, log);
  yield* join(name, [holding(oracle, `${name} child`, log)]);
}

function* sleeping(ms: number, name: string, into: string[]): Steps<void> {
  yield* sleep(ms);
  into.push(name);
}

function* sleepingTwice(ms: number, name: string, into: string[]): Steps<void> {
  yield* sleep(ms);
  into.push(`${name} once`);
  yield* sleep(ms);
  into.push(`${name} twice`);
}

function* looking(oracle: Oracle, into: string[]): Steps<void> {
  yield* oracle.question("look");
  into.push(...oracle.kernel.tasksInFlight());
}

function* failing(oracle: Oracle, log: string[]): Steps<void> {
  using _held = new Held(oracle, "failing", log);
  yield* oracle.question("fail");
  throw new Error("broken");
}

function* stopping(oracle: Oracle, log: string[]): Steps<void> {
  using _held = new Held(oracle, "stopping", log);
  yield* oracle.question("stop");
  oracle.kernel.stop();
  yield* oracle.question("never");
}

function* failingWhenCancelled(oracle: Oracle, log: string[]): Steps<void> {
  try {
    yield* oracle.question("cancelled");
  } finally {
    log.push("cancelled");
    throwError();
  }
}

function throwError(): void {
  throw new Error("while cleaning up");
}

function* answerOf(value: string): Steps<string> {
  return value;
}

function* nested(oracle: Oracle): Steps<string[]> {
  const answers = yield* join("outer", [
    join("a", [oracle.question("a0"), oracle.question("a1")]),
    join("b", [oracle.question("b0"), answerOf("b1")]),
    join<string>("c", []),
  ]);
  return answers.map((parts) => parts.join("+"));
}

Deno.test("a task asks, waits, and goes on with its answer", () => {
  const { kernel } = new World();
  const oracle = new Oracle(kernel);
  const heard: string[] = [];
  kernel.start("asker", asking(oracle, "why", heard));
  kernel.run();
  assertEquals(kernel.tasksInFlight(), ["asker: question text why -> oracle"]);
  assertEquals(kernel.tasksRunning, 1);
  oracle.answer("why", "because");
  assertEquals(heard, ["because"]);
  assertEquals(kernel.tasksRunning, 0);
});

Deno.test("a task that has its answer and not its turn is listed as ready, even if the actor that answered is gone", () => {
  const { kernel } = new World();
  const oracle = new Oracle(kernel);
  kernel.start("asker", asking(oracle, "why", []));
  kernel.run();
  kernel.reply(oracle.asked[0]!, "because");
  kernel.retire(oracle.address);
  assertEquals(kernel.tasksInFlight(), ["asker: ready"]);
});

Deno.test("a task that has its turn is not listed as waiting", () => {
  const { kernel } = new World();
  const oracle = new Oracle(kernel);
  const seen: string[] = [];
  kernel.start("looker", looking(oracle, seen));
  kernel.run();
  oracle.answer("look", "now");
  assertEquals(seen, ["looker: ready"]);
});

Deno.test("an answer to a request of an earlier step is dropped", () => {
  const { kernel } = new World();
  const oracle = new Oracle(kernel);
  const heard: string[] = [];
  kernel.start("first", asking(oracle, "first", heard));
  kernel.run();
  const first = oracle.asked[0]!;
  const stale = { ...first };
  oracle.answer("first", "yes");
  // The same slot, another task.
  kernel.start("second", asking(oracle, "second", heard));
  kernel.reply(stale, "stale before its first step");
  kernel.run();
  kernel.reply(stale, "stale while it waits");
  kernel.run();
  assertEquals(heard, ["yes"]);
  oracle.answer("second", "no");
  assertEquals(heard, ["yes", "no"]);
});

Deno.test("answering twice before the task has its turn is a defect, and so is answering what was never asked", () => {
  const { kernel } = new World();
  const oracle = new Oracle(kernel);
  kernel.start("asker", asking(oracle, "why", []));
  kernel.run();
  kernel.reply(oracle.asked[0]!, "one");
  assertThrows(() => kernel.reply(oracle.asked[0]!, "two"), Defect, "a task was answered twice");
  const never: Question = { type: "question", replyTo: unasked, text: "never" };
  assertThrows(() => kernel.reply(never, "no task"), Defect, "answered a request that was never asked");
});

Deno.test("joined answers are in the children's order, whatever order they come in", () => {
  for (let seed = 0; seed < 50; seed += 1) {
    const world = new World({ seed });
    const oracle = new Oracle(world.kernel);
    const ended: string[] = [];
    world.kernel.start("outer", collected(nested(oracle), ended));
    world.kernel.run();
    const texts = ["a0", "a1", "b0"];
    for (let left = texts.length; left > 0; left -= 1) {
      assertEquals(ended, []);
      const text = texts.splice((seed * 7 + left) % left, 1)[0]!;
      oracle.answer(text, text.toUpperCase());
    }
    assertEquals(ended, ["A0+A1", "B0+b1", ""]);
    assertEquals(world.kernel.tasksRunning, 0);
  }
});

function* collected(steps: Steps<string[]>, into: string[]): Steps<void> {
  into.push(...yield* steps);
}

Deno.test("joining no children is answered without waiting", () => {
  assertEquals(new World().run(join("none", [])), []);
});

Deno.test("sleepers wake by time, equal times in order, and a clock that jumps wakes them all at once", () => {
  const { kernel, clock } = new World();
  const woken: string[] = [];
  for (const [ms, name] of [[20, "c"], [10, "a"], [20, "d"], [10, "b"], [30, "e"]] as const) {
    kernel.start(name, sleeping(ms, name, woken));
  }
  kernel.run();
  clock.advance(9.5);
  assertEquals(woken, []);
  clock.advance(0.5);
  assertEquals(woken, ["a", "b"]);
  clock.advance(1000);
  assertEquals(woken, ["a", "b", "c", "d", "e"]);
});

Deno.test("a jump of the clock wakes a sleeper once; its next sleep begins then", () => {
  const { kernel, clock } = new World();
  const woken: string[] = [];
  kernel.start("sleeper", sleepingTwice(10, "s", woken));
  kernel.run();
  clock.advance(1000);
  assertEquals(woken, ["s once"]);
  assertEquals(clock.alarmMs, 1010);
  clock.advance(10);
  assertEquals(woken, ["s once", "s twice"]);
});

Deno.test("an alarm that rings early wakes no task and is set again", () => {
  const { kernel, clock } = new World();
  const woken: string[] = [];
  kernel.start("sleeper", sleeping(10, "s", woken));
  kernel.run();
  clock.advance(4);
  kernel.run();
  assertEquals([woken, clock.alarmMs], [[], 10]);
  clock.advance(6);
  assertEquals(woken, ["s"]);
});

Deno.test("a stop runs the declarations of every suspended task, inner first, and their messages go nowhere", () => {
  const { kernel } = new World();
  const oracle = new Oracle(kernel);
  const log: string[] = [];
  kernel.start("one", holding(oracle, "one", log));
  kernel.start("two", joining(oracle, "two", log));
  kernel.start("not begun", asking(oracle, "not begun", log));
  kernel.run();
  kernel.start("started and not run", holding(oracle, "late", log));
  kernel.stop();
  kernel.run();
  assertEquals(log, ["one inner", "one outer", "two", "two child inner", "two child outer"]);
  assertEquals(oracle.released, []);
  assertEquals([kernel.tasksRunning, kernel.tasksInFlight()], [0, []]);
  // Whatever still answers does so in vain.
  for (const question of oracle.asked) kernel.reply(question, "too late");
});

Deno.test("a task that fails stops the others before another message, its own declarations run too", () => {
  const defects: unknown[] = [];
  const { kernel } = new World({ onDefect: (defect) => defects.push(defect) });
  const oracle = new Oracle(kernel);
  const log: string[] = [];
  kernel.start("one", holding(oracle, "one", log));
  kernel.start("failing", failing(oracle, log));
  kernel.start("two", holding(oracle, "two", log));
  kernel.run();
  oracle.answer("fail", "now");
  kernel.run();
  assertEquals(log, ["failing", "one inner", "one outer", "two inner", "two outer"]);
  assertEquals(oracle.released, []);
  assertEquals(defects.map(String), ["Error: broken"]);
});

Deno.test("a task that stops the kernel is cancelled like the others", () => {
  const { kernel } = new World();
  const oracle = new Oracle(kernel);
  const log: string[] = [];
  kernel.start("stopping", stopping(oracle, log));
  kernel.start("one", holding(oracle, "one", log));
  kernel.run();
  oracle.answer("stop", "now");
  assertEquals(log, ["one inner", "one outer", "stopping"]);
});

Deno.test("an error while one task is cancelled keeps no other from being cancelled; stop throws it at the end", () => {
  const { kernel } = new World();
  const oracle = new Oracle(kernel);
  const log: string[] = [];
  kernel.start("bad", failingWhenCancelled(oracle, log));
  kernel.start("one", holding(oracle, "one", log));
  kernel.run();
  assertThrows(() => kernel.stop(), Error, "while cleaning up");
  assertEquals(log, ["cancelled", "one inner", "one outer"]);
});

Deno.test("an error while cancelling after a defect does not hide the defect", () => {
  const defects: unknown[] = [];
  const { kernel } = new World({ onDefect: (defect) => defects.push(defect) });
  const oracle = new Oracle(kernel);
  const log: string[] = [];
  kernel.start("bad", failingWhenCancelled(oracle, log));
  kernel.start("failing", failing(oracle, log));
  kernel.run();
  oracle.answer("fail", "now");
  assertEquals(defects.map(String), ["Error: broken"]);
  assertEquals(log, ["failing", "cancelled"]);
});

Deno.test("a test that waits for what never comes says which task waits for what", () => {
  const world = new World();
  const oracle = new Oracle(world.kernel);
  assertThrows(
    () => world.run(oracle.question("lost")),
    Error,
    "nothing moves any more: test: join; part 0: question text lost -> oracle",
  );
});

function* restingSteps(steps: number, log: string[], work: () => void = () => {}): Steps<void> {
  for (let step = 1; step <= steps; step += 1) {
    yield* rest();
    log.push(`rested ${step}`);
    work();
  }
}

Deno.test("a resting task goes on when nothing else is ready, idle notices included", () => {
  const { kernel } = new World();
  const log: string[] = [];
  const hop: Address<Message> = kernel.spawn("hop", 10, () => ({
    receive: () => {
      log.push(`hop ${log.length}`);
      if (log.length < 3) kernel.tell(hop, { type: "hop" });
      else if (log.length === 3) kernel.whenIdle(hop, { type: "hop" });
    },
  }));
  kernel.start("resting", restingSteps(2, log));
  kernel.tell(hop, { type: "hop" });
  kernel.run();
  assertEquals(log, ["hop 0", "hop 1", "hop 2", "hop 3", "rested 1", "rested 2"]);
});

Deno.test("resting tasks wait a millisecond after every three, until the event loop has heard its sockets", () => {
  const { kernel, clock } = new World();
  const log: string[] = [];
  clock.nowMs = 100;
  kernel.start("resting", restingSteps(20, log, () => clock.nowMs += 0.5));
  kernel.run();
  while (clock.runYields());
  assertEquals([log.length, clock.nowMs], [6, 103]);
  kernel.run();
  assertEquals(log.length, 6);
  clock.advance(1);
  while (clock.runYields());
  assertEquals([log.length, clock.nowMs], [12, 107]);
});

Deno.test("a resting task goes on however busy others are", () => {
  const { kernel, clock } = new World();
  const log: string[] = [];
  kernel.start("resting", restingSteps(10, log));
  const hop: Address<Message> = kernel.spawn("hop", 10, () => ({
    receive: () => {
      clock.nowMs += 0.01;
      kernel.tell(hop, { type: "hop" });
    },
  }));
  kernel.tell(hop, { type: "hop" });
  kernel.run();
  for (let run = 1; run <= 20; run += 1) {
    clock.nowMs += 1;
    clock.runYields();
  }
  assertEquals(log.length, 10);
});
