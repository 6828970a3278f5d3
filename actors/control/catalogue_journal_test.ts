/** What the journal's actor answers, whatever its port does. */
import { assertEquals, assertThrows } from "@std/assert";
import type { IoDone, IoResult } from "../../storage/device/port.ts";
import { World } from "../../tests/support/world.ts";
import type { Steps } from "../kernel/task.ts";
import { CatalogueJournal, type JournalPort, JournalStub } from "./catalogue_journal.ts";

const room = { contentBytes: 70, usesHeadroom: false };
const failed: IoResult = { kind: "ioError", reason: "a fault of the test" };

/** A port that notes its calls and answers later, as the test says; a journal of more than 50 bytes of content is long. */
class NotedPort implements JournalPort {
  readonly calls: string[] = [];
  result: IoResult = { kind: "ok" };
  throws = false;
  #done: IoDone | undefined;

  append(line: string, _room: unknown, done: IoDone): void {
    this.#call(`append ${line}`, done);
  }
  retract(done: IoDone): void {
    this.#call("retract", done);
  }
  rewrite(piece: string, isFirst: boolean, done: IoDone): void {
    this.#call(`rewrite ${piece} ${isFirst}`, done);
  }
  finishRewrite(contentBytes: number, done: IoDone): void {
    this.#call(`finish ${contentBytes}`, done);
  }
  isLong(contentBytes: number): boolean {
    this.calls.push(`isLong ${contentBytes}`);
    return contentBytes > 50;
  }
  end(): void {
    this.#done?.(this.result);
  }
  #call(text: string, done: IoDone): void {
    this.calls.push(text);
    if (this.throws) throw new Error("a fault of the test");
    this.#done = done;
  }
}

function journalOf(port: JournalPort): { world: World; stub: JournalStub } {
  const world = new World();
  const address = world.kernel.spawn("journal", 8, (self) => new CatalogueJournal(world.kernel, self, port));
  return { world, stub: new JournalStub(address as JournalStub["address"]) };
}

function* useJournal(journal: JournalStub, answers: unknown[]): Steps<void> {
  answers.push(yield* journal.append("line", room));
  answers.push(yield* journal.retract());
  answers.push(yield* journal.rewrite("piece", true));
  answers.push(yield* journal.finishRewrite(3));
}

/** Makes every call of a journal one after the other. */
function useOf(port: NotedPort): unknown[] {
  const { world, stub } = journalOf(port);
  const answers: unknown[] = [];
  world.kernel.start("use", useJournal(stub, answers));
  world.runReady();
  for (let count = 0; count < 4; count += 1) {
    assertEquals(answers.length, port.throws ? 4 : count, "an answer came before the port's");
    port.end();
    world.runReady();
  }
  return answers;
}

Deno.test("each request is answered when the port has done it, and an append says whether the journal is long", () => {
  const port = new NotedPort();
  const ok = { kind: "ok" };
  assertEquals(useOf(port), [{ result: ok, isLong: true }, ok, ok, ok]);
  assertEquals(port.calls, ["append line", "isLong 70", "retract", "rewrite piece true", "finish 3"]);
});

Deno.test("a failure of the port is the answer, and a line that was not appended makes no journal long", () => {
  const port = new NotedPort();
  port.result = failed;
  assertEquals(useOf(port), [{ result: failed, isLong: false }, failed, failed, failed]);
});

Deno.test("what the catalogue's port throws is the answer", () => {
  const port = new NotedPort();
  port.throws = true;
  const answer: IoResult = { kind: "ioError", reason: "the catalogue: a fault of the test" };
  assertEquals(useOf(port), [{ result: answer, isLong: false }, answer, answer, answer]);
});

Deno.test("two changes of the catalogue at the same time are a defect", () => {
  const { world, stub } = journalOf(new NotedPort());
  assertThrows(() => world.runAll<unknown>([stub.append("a", room), stub.retract()]), Error, "at a time");
});
