import { assert, assertEquals } from "@std/assert";
import { Kernel } from "../kernel/kernel.ts";
import { sleep } from "../kernel/task.ts";
import { DenoClock } from "./deno_clock.ts";
import { type Polled, SocketPoll } from "./socket_poll.ts";

/** A test of the sockets of a kernel of its own. */
function pollTest(name: string, run: (poll: SocketPoll, kernel: Kernel) => Promise<void>): void {
  Deno.test(name, async () => {
    const clock = new DenoClock();
    const kernel = new Kernel({ clock });
    await run(new SocketPoll(kernel), kernel);
    kernel.stop();
    await pause(2);
    clock.close();
  });
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Keeps the thread for so long. */
function work(ms: number): void {
  const endMs = performance.now() + ms;
  while (performance.now() < endMs);
}

/** A socket whose client sends when the test says so. */
class FakeSocket implements Polled {
  polls = 0;
  waits = 0;
  heard = 0;
  /** Bytes are there for the next poll. */
  hasBytes = false;
  /** What is done when it was heard. */
  act: () => void = () => {};

  poll(): boolean {
    this.polls += 1;
    if (!this.hasBytes) return false;
    this.heard += 1;
    this.act();
    return true;
  }

  wait(): void {
    this.waits += 1;
  }
}

/** A socket whose client never stops sending, and which takes `ms` to serve each time. */
function flooding(poll: SocketPoll, ms: number): FakeSocket {
  const socket = new FakeSocket();
  socket.hasBytes = true;
  socket.act = () => {
    work(ms);
    poll.add(socket);
  };
  return socket;
}

/** So many clients have waited for so long each. */
async function learn(poll: SocketPoll, ms: number, times: number): Promise<void> {
  for (let time = 0; time < times; time += 1) {
    const socket = new FakeSocket();
    poll.add(socket);
    while (socket.waits === 0) await pause(0);
    poll.waited(ms);
  }
}

/** Clients have lately answered that fast. */
const learnFast = (poll: SocketPoll) => learn(poll, 0.02, 10);

pollTest("who sends nothing is asked once, and then waited for", async (poll) => {
  const socket = new FakeSocket();
  poll.add(socket);
  assertEquals([socket.polls, socket.waits], [0, 0]);
  await pause(5);
  assertEquals([socket.polls, socket.waits], [1, 1]);
});

pollTest("what is there is heard at once, without a wait", async (poll) => {
  const socket = new FakeSocket();
  socket.hasBytes = true;
  poll.add(socket);
  await pause(5);
  assertEquals([socket.polls, socket.waits, socket.heard], [1, 0, 1]);
});

if (navigator.hardwareConcurrency > 1) {
  pollTest("a moment is spent on asking again where clients were fast, and no longer", async (poll) => {
    const asked: number[] = [];
    for (let times = 0; times < 10; times += 1) {
      await learnFast(poll);
      const socket = new FakeSocket();
      poll.add(socket);
      await pause(5);
      assertEquals(socket.waits, 1);
      asked.push(socket.polls);
    }
    // Many times: the thread may have lost its processor for longer than that moment.
    assert(Math.max(...asked) > 2 && Math.max(...asked) < 5000, `asked ${asked} times`);
  });
}

pollTest("once clients are slow nobody is asked again, from the third wait on", async (poll) => {
  await learnFast(poll);
  await learn(poll, 10, 5);
  const socket = new FakeSocket();
  poll.add(socket);
  await pause(5);
  assertEquals([socket.polls, socket.waits], [1, 1]);
});

pollTest(
  "nobody is asked again while somebody waits for what the event loop alone can tell",
  async (poll, kernel) => {
    await learnFast(poll);
    kernel.start("a long wait", sleep(60_000));
    kernel.run();
    const socket = new FakeSocket();
    poll.add(socket);
    await pause(5);
    assertEquals([socket.polls, socket.waits], [1, 1]);
  },
);

pollTest("a socket that is removed is not asked, nor waited for", async (poll) => {
  const [kept, removed] = [new FakeSocket(), new FakeSocket()];
  poll.add(kept);
  poll.add(removed);
  poll.remove(removed);
  await pause(5);
  assertEquals([removed.polls, removed.waits, kept.polls, kept.waits], [0, 0, 1, 1]);
});

pollTest("a socket that serving another one closes is not asked any more", async (poll) => {
  const sockets = Array.from({ length: 4 }, () => new FakeSocket());
  const [, closing, closed] = sockets;
  closing!.hasBytes = true;
  closing!.act = () => poll.remove(closed!);
  for (const socket of sockets) poll.add(socket);
  await pause(5);
  assertEquals(sockets.map(({ waits }) => waits), [1, 0, 0, 1]);
  assertEquals(closed!.polls, 0);
});

pollTest("beside one that floods, the others are heard as often", async (poll) => {
  const sockets = Array.from({ length: 5 }, () => flooding(poll, 0.1));
  for (const socket of sockets) poll.add(socket);
  await pause(100);
  for (const socket of sockets) socket.act = () => {};
  await pause(10);
  const heard = sockets.map((socket) => socket.heard);
  assert(Math.min(...heard) > 10 && Math.max(...heard) - Math.min(...heard) <= 1, `heard ${heard}`);
});

if (navigator.hardwareConcurrency > 1) {
  pollTest(
    "one that answers quickly is waited for after 2 ms, and asked again once it was heard",
    async (poll) => {
      await learnFast(poll);
      const socket = flooding(poll, 0.05);
      const { act } = socket;
      const served: number[] = [0];
      socket.act = () => {
        served[0]! += 1;
        socket.hasBytes = false;
        act();
      };
      // Its next request is there when it is asked for the second time.
      socket.poll = () => {
        if (FakeSocket.prototype.poll.call(socket)) return true;
        socket.hasBytes = true;
        return false;
      };
      socket.wait = () => {
        served.unshift(0);
        if (served.length > 10) return;
        setTimeout(() => {
          poll.waited(0.02);
          poll.add(socket);
        }, 0);
      };
      poll.add(socket);
      await pause(100);
      // 2 ms of requests that take 50 us each, but where the thread has lost its processor.
      const turns = served.filter((count) => count > 10 && count <= 41).length;
      assert(served.length === 11 && turns >= 5, `served by turns: ${served}`);
    },
  );
}

for (
  const [what, count, ms] of [["one that floods", 1, 0.05], ["forty that take their time", 40, 0.5]] as const
) {
  pollTest(`timers go on beside ${what}`, async (poll) => {
    const sockets = Array.from({ length: count }, () => flooding(poll, ms));
    for (const socket of sockets) poll.add(socket);
    const servedBetween: number[] = [];
    const served = () => sockets.reduce((sum, { heard }) => sum + heard, 0);
    for (let timers = 0, before = served(); timers < 30; timers += 1) {
      await pause(0);
      servedBetween.push(served() - before);
      before = served();
    }
    for (const socket of sockets) socket.act = () => {};
    await pause(60);
    // What is served takes time on this thread, so their number tells of time without that of other processes.
    const mostMs = Math.max(...servedBetween) * ms;
    assert(mostMs <= 10, `${mostMs} ms of serving without a timer`);
    assert(sockets.every(({ heard }) => heard > 0), "somebody was not heard");
  });
}
