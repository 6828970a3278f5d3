/** A queue takes as many as its sum allows; one more is a defect, and stops the pool before memory fills. */
import { assertThrows } from "@std/assert";
import { LookQueue } from "./control/look_queue.ts";
import type { Admin } from "./control/pool_messages.ts";
import { ParkedRequests } from "./nbd/parked_requests.ts";
import type { Commit } from "./pool/commit_messages.ts";
import { CommitRequests } from "./pool/commit_requests.ts";
import { type Attempt, WaitingOperations } from "./pool/waiting_operations.ts";
import { queues } from "./queues.ts";
import { ClientTurns } from "./volume/client_turns.ts";

/** `enter` is given a number that no earlier call was given. */
function takesNoMoreThan(queueMax: number, message: string, enter: (ordinal: number) => void): void {
  for (let ordinal = 0; ordinal < queueMax; ordinal++) enter(ordinal);
  assertThrows(() => enter(queueMax), Error, message);
}

Deno.test("no more waits for the turns of clients than was allowed, also after some has left", () => {
  const turns = new ClientTurns<number>(3);
  const [a, b] = [{}, {}];
  turns.push(a, 1);
  turns.push(b, 2);
  turns.push(a, 3);
  turns.take();
  turns.push(b, 4);
  turns.remove(4);
  turns.push(b, 5);
  turns.shift();
  turns.push(b, 6);
  assertThrows(() => turns.push(a, 7), Error, "more waits for a turn than there can be");
  turns.takeAll();
  takesNoMoreThan(3, "more waits for a turn", (ordinal) => turns.push(a, ordinal));
});

Deno.test("no more operations of metadata wait than tasks can ask for, whatever they wait for", () => {
  const waiting = new WaitingOperations(8);
  const attempt = { misses: 0 } as Attempt;
  waiting.miss(attempt, 7 as never);
  takesNoMoreThan(queues.operations - 1, "more operations of metadata wait", () => waiting.slowDown(attempt));
  waiting.takeMissing(7 as never);
  waiting.slowDown(attempt);
});

Deno.test("no more tasks wait for a commit than there can be", () => {
  const requests = new CommitRequests();
  takesNoMoreThan(queues.commits, "more tasks wait for a commit", () => requests.push({} as Commit));
});

Deno.test("no more commands wait than the pool takes", () => {
  const looks = new LookQueue(1);
  takesNoMoreThan(queues.commands, "more commands that look wait", () => looks.push({} as Admin));
});

Deno.test("no more requests of a client wait for space than it can have", () => {
  const parked = new ParkedRequests();
  const data = new Uint8Array();
  takesNoMoreThan(
    queues.parkedRequests,
    "more requests wait for space",
    () => parked.add({ hasMoved: false, data }),
  );
});
