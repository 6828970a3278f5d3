import { assert, assertEquals, assertThrows } from "@std/assert";
import { Defect } from "../../storage/base/assert.ts";
import { World } from "../../tests/support/world.ts";
import type { Actor, Address, Message } from "./address.ts";
import type { Kernel } from "./kernel.ts";
import { rest, type Steps } from "./task.ts";

interface Note extends Message {
  readonly type: "note";
  readonly count: number;
}

const note = (count: number): Note => ({ type: "note", count });

/** Does with each note what the test says. */
class Doer implements Actor<Note> {
  constructor(readonly act: (count: number) => void) {}

  receive(message: Note): void {
    this.act(message.count);
  }
}

function doer(kernel: Kernel, act: (count: number) => void, name = "doer"): Address<Note> {
  return kernel.spawn(name, 10_000, () => new Doer(act));
}

Deno.test("telling never runs the receiver; running does", () => {
  const { kernel } = new World();
  const heard: number[] = [];
  const address = doer(kernel, (count) => heard.push(count));
  kernel.tell(address, note(1));
  assertEquals(heard, []);
  kernel.run();
  assertEquals(heard, [1]);
});

Deno.test("messages from one sender to one receiver keep their order under any schedule", () => {
  for (let seed = 0; seed < 200; seed += 1) {
    const { kernel } = new World({ seed });
    const heard: number[][] = [[], [], []];
    const receiver = doer(kernel, (count) => heard[Math.floor(count / 100)]!.push(count));
    for (let sender = 0; sender < 3; sender += 1) {
      const sending = doer(kernel, (count) => kernel.tell(receiver, note(sender * 100 + count)));
      for (let count = 0; count < 10; count += 1) kernel.tell(sending, note(count));
    }
    kernel.run();
    assertEquals(heard, [0, 1, 2].map((sender) => Array.from({ length: 10 }, (_, at) => sender * 100 + at)));
  }
});

Deno.test("an actor that tells itself is not run again inside, and not forgotten", () => {
  for (const options of [{}, { seed: 1 }]) {
    const { kernel } = new World(options);
    const heard: string[] = [];
    const address: Address<Note> = doer(kernel, (count) => {
      heard.push(`begin ${count}`);
      if (count < 3) kernel.tell(address, note(count + 1));
      heard.push(`end ${count}`);
    });
    kernel.post(address, note(1));
    assertEquals(heard, ["begin 1", "end 1", "begin 2", "end 2", "begin 3", "end 3"]);
  }
});

Deno.test("an actor takes no more messages in a turn than the policy allows, so that others come in between", () => {
  const { kernel } = new World();
  const heard: string[] = [];
  const first = doer(kernel, () => heard.push("first"));
  const second = doer(kernel, () => heard.push("second"));
  for (let count = 0; count < 65; count += 1) kernel.tell(first, note(count));
  kernel.tell(second, note(0));
  kernel.run();
  assertEquals(heard.indexOf("second"), 64);
  assertEquals(heard.length, 66);
});

Deno.test("running from inside a turn only notes that there is work", () => {
  const { kernel } = new World();
  const heard: number[] = [];
  const inner = doer(kernel, (count) => heard.push(count));
  const outer = doer(kernel, () => {
    kernel.post(inner, note(7));
    kernel.run();
    assertEquals(heard, []);
  });
  kernel.post(outer, note(0));
  assertEquals(heard, [7]);
});

Deno.test("a mailbox that overflows its bound is a defect of the sender's turn", () => {
  const { kernel } = new World();
  const small = kernel.spawn("small", 2, () => new Doer(() => {}));
  const flood = doer(kernel, () => {
    for (let count = 0; count < 3; count += 1) kernel.tell(small, note(count));
  });
  assertThrows(() => kernel.post(flood, note(0)), Defect, "a mailbox overflowed its bound");
  assertEquals(kernel.stopped, true);
});

Deno.test("a post from outside that overflows a mailbox is a defect too", () => {
  const defects: unknown[] = [];
  const { kernel } = new World({ onDefect: (defect) => defects.push(defect) });
  const heard: number[] = [];
  const small = kernel.spawn("small", 1, () => new Doer((count) => heard.push(count)));
  kernel.tell(small, note(0));
  kernel.post(small, note(1));
  assertEquals(String(defects), "Defect: a mailbox overflowed its bound");
  assertEquals([kernel.stopped, heard], [true, []]);
});

Deno.test("a defect stops delivery before another message, is told once, and stops what comes after", () => {
  const defects: unknown[] = [];
  const { kernel } = new World({ onDefect: (defect) => defects.push(defect) });
  const heard: number[] = [];
  const address = doer(kernel, (count) => {
    heard.push(count);
    if (count === 2) throw new Error("half-changed");
  });
  const other = doer(kernel, (count) => heard.push(100 + count));
  for (let count = 1; count < 4; count += 1) kernel.tell(address, note(count));
  kernel.tell(other, note(1));
  kernel.run();
  kernel.post(other, note(2));
  kernel.run();
  assertEquals(heard, [1, 2]);
  assertEquals(defects.map(String), ["Error: half-changed"]);
});

Deno.test("without onDefect, a defect is thrown to the caller of run", () => {
  const { kernel } = new World();
  const address = doer(kernel, () => {
    throw "a string";
  });
  assertThrows(() => kernel.post(address, note(0)), Defect, "a string");
});

Deno.test("a stop in the middle of a turn lets the message end and delivers no other", () => {
  const { kernel } = new World();
  const heard: number[] = [];
  const address = doer(kernel, (count) => {
    if (count === 1) kernel.stop();
    heard.push(count);
  });
  kernel.tell(address, note(1));
  kernel.tell(address, note(2));
  kernel.run();
  assertEquals(heard, [1]);
});

Deno.test("an address does not reach the actor that was later given the same slot", () => {
  const { kernel } = new World();
  const old = doer(kernel, () => {});
  kernel.retire(old);
  const heard: number[] = [];
  const young = doer(kernel, (count) => heard.push(count));
  assertThrows(() => kernel.tell(old, note(1)), Defect, "sent to a stale address");
  kernel.post(young, note(2));
  assertEquals(heard, [2]);
});

Deno.test("sending to a retired actor, and retiring one with messages waiting, are defects", () => {
  const { kernel } = new World();
  const address = doer(kernel, () => {});
  kernel.tell(address, note(1));
  assertThrows(() => kernel.retire(address), Defect, "retired an actor with messages waiting");
  kernel.run();
  kernel.retire(address);
  assertThrows(() => kernel.tell(address, note(2)), Defect, "sent to a retired actor");
});

Deno.test("an actor can retire in its own turn, and its slot can be used again in the same turn", () => {
  for (const options of [{}, { seed: 3 }]) {
    const { kernel } = new World(options);
    const heard: number[] = [];
    const address: Address<Note> = doer(kernel, () => {
      kernel.retire(address);
      const young = doer(kernel, (count) => heard.push(count));
      kernel.tell(young, note(5));
    });
    kernel.post(address, note(0));
    assertEquals(heard, [5]);
    assertThrows(() => kernel.tell(address, note(1)), Defect);
  }
});

Deno.test("an actor may spawn others while it is being made", () => {
  const { kernel } = new World();
  const heard: string[] = [];
  let inner: Address<Note> | undefined;
  const outer = kernel.spawn("outer", 10, () => {
    inner = doer(kernel, (count) => heard.push(`inner ${count}`));
    return new Doer((count) => heard.push(`outer ${count}`));
  });
  kernel.tell(outer, note(1));
  kernel.tell(inner!, note(2));
  kernel.run();
  assertEquals(heard, ["outer 1", "inner 2"]);
});

Deno.test("idle notices come when nothing is ready, in the order they were asked for", () => {
  for (let seed = 0; seed < 20; seed += 1) {
    const { kernel } = new World({ seed });
    const heard: number[] = [];
    const last = doer(kernel, (count) => heard.push(count));
    const worker: Address<Note> = doer(kernel, (count) => {
      heard.push(count);
      if (count === 0) { for (const idle of [100, 101]) kernel.whenIdle(last, note(idle)); }
      if (count < 5) kernel.tell(worker, note(count + 1));
    });
    kernel.post(worker, note(0));
    assertEquals(heard, [0, 1, 2, 3, 4, 5, 100, 101]);
  }
});

Deno.test("an idle notice asked for by an idle notice waits for what the first one caused", () => {
  const { kernel } = new World();
  const heard: number[] = [];
  const worker = doer(kernel, (count) => heard.push(count));
  const last: Address<Note> = doer(kernel, (count) => {
    heard.push(count);
    if (count !== 1) return;
    kernel.whenIdle(last, note(2));
    kernel.tell(worker, note(10));
  });
  kernel.whenIdle(last, note(1));
  kernel.run();
  assertEquals(heard, [1, 10, 2]);
});

Deno.test("a run of few turns that take long lets the event loop have its turn as well", () => {
  const { kernel, clock } = new World();
  let count = 0;
  const busy: Address<Note> = doer(kernel, () => {
    count += 1;
    clock.nowMs += 5;
    if (count < 100) kernel.tell(busy, note(0));
  });
  kernel.post(busy, note(0));
  assert(count < 20, `${count} turns of 5 ms`);
  assertEquals(clock.yieldsAsked, 1);
  while (clock.runYields());
  assertEquals(count, 100);
});

Deno.test("a long run lets the event loop have its turn, asks for it once, and goes on where it was", () => {
  const { kernel, clock } = new World();
  let count = 0;
  const busy: Address<Note> = doer(kernel, () => {
    count += 1;
    if (count < 10_000) kernel.tell(busy, note(0));
  });
  kernel.post(busy, note(0));
  assertEquals([count, clock.yieldsAsked], [4096, 1]);
  // What the event loop brings meanwhile runs too, but does not ask a second time.
  kernel.run();
  assertEquals([count, clock.yieldsAsked], [8192, 1]);
  clock.runYields();
  assertEquals([count, clock.yieldsAsked], [10_000, 1]);
});

Deno.test("what comes in while the event loop has its turn waits for the next run and brings none of its own", () => {
  const { kernel, clock } = new World();
  let count = 0;
  const busy: Address<Note> = doer(kernel, () => {
    count += 1;
    if (count < 10_000) kernel.tell(busy, note(0));
  });
  const heard: number[] = [];
  const other = doer(kernel, (number) => heard.push(number));
  kernel.post(busy, note(0));
  for (let completion = 1; completion <= 3; completion += 1) kernel.post(other, note(completion));
  assertEquals([count, heard], [4096, []]);
  clock.runYields();
  assertEquals(heard, [1, 2, 3]);
  assert(count < 8193, `${count} turns`);
});

for (const [what, turnMs] of [["many turns", 0], ["turns that take long", 1]] as const) {
  Deno.test(`an idle notice comes in the run in which it was asked for, though that ends after ${what}`, () => {
    const { kernel, clock } = new World();
    const heard: number[] = [];
    const last = doer(kernel, () => heard.push(kernel.drains));
    let count = 0;
    const busy: Address<Note> = doer(kernel, () => {
      if (count % 1000 === 0) kernel.whenIdle(last, note(0));
      count += 1;
      clock.nowMs += turnMs;
      if (count < 10_000) kernel.tell(busy, note(0));
    });
    kernel.post(busy, note(0));
    assertEquals(clock.yieldsAsked, 1);
    assert(heard.length > 0 && heard.every((run) => run === 1), `heard in the runs ${heard}`);
  });
}

Deno.test("a kernel that an idle notice stops resumes no resting task, also at the end of a long run", () => {
  const { kernel } = new World();
  const stopper = doer(kernel, () => kernel.stop());
  const busy: Address<Note> = doer(kernel, () => kernel.tell(busy, note(0)));
  let rests = 0;
  kernel.start(
    "resting",
    (function* (): Steps<void> {
      yield* rest();
      rests += 1;
    })(),
  );
  kernel.whenIdle(stopper, note(0));
  kernel.post(busy, note(0));
  assertEquals([kernel.stopped, rests], [true, 0]);
});

Deno.test("idle notices whose work takes long are all told before the run ends", () => {
  const { kernel, clock } = new World();
  const heard: number[] = [];
  for (let count = 0; count < 50; count += 1) {
    const slow = doer(kernel, () => {
      heard.push(kernel.drains);
      clock.nowMs += 1;
    });
    kernel.whenIdle(slow, note(count));
  }
  kernel.run();
  assertEquals(heard, Array(50).fill(1));
});

Deno.test("a message told for later comes when the clock is there, and not if it is cancelled", () => {
  const { kernel, clock } = new World();
  const heard: number[] = [];
  const address = doer(kernel, (count) => heard.push(count));
  kernel.tellLater(10, address, note(1));
  const cancelled = kernel.tellLater(20, address, note(2));
  kernel.tellLater(30, address, note(3));
  assertEquals(clock.alarmMs, 10);
  clock.advance(9);
  assertEquals(heard, []);
  clock.advance(1);
  assertEquals(heard, [1]);
  kernel.cancelTimer(cancelled);
  clock.advance(100);
  assertEquals(heard, [1, 3]);
  assertEquals(clock.alarmMs, undefined);
});

Deno.test("timers that an event finds due are told in order of time, before what the event itself brings", () => {
  const { kernel, clock } = new World();
  const heard: number[] = [];
  const address = doer(kernel, (count) => heard.push(count));
  for (const [ms, count] of [[5, 1], [3, 0], [5, 2]] as const) kernel.tellLater(ms, address, note(count));
  clock.nowMs = 50;
  kernel.run();
  assertEquals(heard, [0, 1, 2]);
});

Deno.test("the alarm is set again only when the next time has changed", () => {
  const { kernel, clock } = new World();
  const address = doer(kernel, () => {});
  kernel.tellLater(10, address, note(1));
  for (let count = 0; count < 5; count += 1) kernel.post(address, note(2));
  kernel.tellLater(20, address, note(3));
  assertEquals(clock.alarmsSet, 1);
  kernel.tellLater(5, address, note(4));
  assertEquals([clock.alarmsSet, clock.alarmMs], [2, 5]);
});

Deno.test("an alarm rings no more once the kernel has stopped", () => {
  const { kernel, clock } = new World();
  const heard: number[] = [];
  kernel.tellLater(10, doer(kernel, (count) => heard.push(count)), note(1));
  kernel.stop();
  assertEquals(clock.alarmMs, undefined);
  clock.nowMs = 20;
  kernel.run();
  assertEquals(heard, []);
});

Deno.test("the fill of every mailbox is known by the actor's name", () => {
  const { kernel } = new World();
  const address = doer(kernel, () => {}, "full");
  for (let count = 0; count < 5; count += 1) kernel.tell(address, note(count));
  kernel.run();
  assertEquals(kernel.mailboxHighWater(), new Map([["full", 5]]));
});
