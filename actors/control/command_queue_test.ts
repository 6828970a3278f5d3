/** The order in which a pool carries out what it is told, and how much of it may wait. */
import { assert, assertEquals } from "@std/assert";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import { startCollecting } from "../../tests/support/stand_ins.ts";
import type { Steps } from "../kernel/task.ts";
import { adminQueueMax } from "../limits.ts";
import type { AdminCommand, AdminResult } from "./admin_command.ts";
import { TextOut, type TextPort } from "./text_out.ts";
import { assertSound, begin, createVolume, namesIn, reasonOf } from "../../tests/support/pool_checks.ts";

const done: AdminResult = { kind: "done" };

Deno.test("commands given at once are carried out one after the other, in order", () => {
  const pool = new TestingPool(makeTestingFiles());
  const results: AdminResult[] = [];
  const remove = (name: string): AdminCommand => ({ verb: "rm", names: [name], dryRun: false, force: false });
  for (let index = 0; index < 40; index += 1) {
    begin(pool, { verb: "create", name: "a", sizeBytes: bs }, results);
    begin(pool, { verb: "snapshot", names: [`a@${index}`] }, results);
    begin(pool, remove("a"), results);
    begin(pool, remove("a"), results);
  }
  pool.drain();
  const kinds = ["done", "done", "done", "refused"];
  assertEquals(results.map((result) => result.kind), Array.from({ length: 160 }, (_, at) => kinds[at % 4]));
  assertEquals(namesIn(pool).length, 40);
  assertSound(pool);
});

Deno.test("more commands at once than may wait are refused with a sentence, and none is lost", () => {
  const pool = new TestingPool(makeTestingFiles(64, 2048));
  const results: AdminResult[] = [];
  for (let index = 0; index < 1500; index += 1) {
    begin(pool, { verb: "create", name: `v${index}`, sizeBytes: bs }, results);
    begin(pool, { verb: "status" }, results);
  }
  pool.drain();
  assertEquals(results.length, 3000);
  const refused = results.filter((result) => result.kind === "refused");
  assert(refused.length > 0);
  assert(refused.every((result) => /^Too many commands wait already\. /.test(reasonOf(result))));
  const made = results.filter((result) => result.kind === "done").length;
  assert(made >= 1024);
  assertEquals(namesIn(pool).length, made);
});

/** The reader of a dump that never asks for more. */
const stuckReader: TextPort = { write: () => {} };

Deno.test("a reader that takes no more of a dump delays no other command", () => {
  const pool = new TestingPool(makeTestingFiles());
  createVolume(pool, "a", 4);
  const out = pool.kernel.spawn(
    "stuck reader",
    16,
    (self) => new TextOut(pool.kernel, self, stuckReader),
  );
  const results: AdminResult[] = [];
  begin(pool, { verb: "dump" }, results, out);
  pool.drain();
  assertEquals(results, []);
  for (let index = 0; index < 20; index += 1) {
    pool.attach("a").write(0, new Uint8Array(bs).fill(index));
    assertEquals(pool.admin({ verb: "snapshot", names: [`a@${index}`] }), done);
  }
  assertEquals(namesIn(pool).length, 21);
  assertSound(pool);
});

Deno.test("readers that take no more of their dumps delay no command that looks, however many they are", () => {
  const pool = new TestingPool(makeTestingFiles());
  createVolume(pool, "a", 4);
  const results: AdminResult[] = [];
  for (let index = 0; index < 10; index += 1) {
    const name = `stuck reader ${index}`;
    const out = pool.kernel.spawn(name, 16, (self) => new TextOut(pool.kernel, self, stuckReader));
    begin(pool, { verb: "dump" }, results, out);
  }
  pool.drain();
  assertEquals(results, []);
  assertEquals(namesIn(pool), ["a"]);
  assertEquals(pool.admin({ verb: "check" }).kind, "checked");
  assertEquals(pool.admin({ verb: "status" }).kind, "status");
});

Deno.test("a pool stops however many commands wait", () => {
  const pool = new TestingPool(makeTestingFiles());
  const answers: string[] = [];
  for (let count = 0; count < adminQueueMax + 10; count += 1) {
    const command: AdminCommand = { verb: "rename", from: "a", to: "b" };
    pool.kernel.start("command", answerTask(pool.pool.admin(command), answers));
  }
  pool.kernel.start("stop", answerTask(pool.pool.stop(), answers));
  pool.drain();
  assertEquals(answers.filter((answer) => answer.includes("Too many commands")).length, 10);
  assertEquals(answers.at(-1), '{"kind":"done"}');
});

Deno.test("the end of a hold is taken, however many commands wait", () => {
  const pool = new TestingPool(makeTestingFiles());
  const content = { sizeBytes: bs };
  assertEquals(pool.admin({ verb: "makeHeld", uid: "held", name: "a", content }), done);
  const answers: string[] = [];
  for (let count = 0; count < adminQueueMax; count += 1) {
    const command: AdminCommand = { verb: "rename", from: "b", to: "c" };
    pool.kernel.start("command", answerTask(pool.pool.admin(command), answers));
  }
  pool.kernel.start("end", answerTask(pool.pool.admin({ verb: "endHeld", uid: "held" }), answers));
  pool.drain();
  assertEquals([answers.at(-1), namesIn(pool)], ['{"kind":"done"}', []]);
});

function* answerTask(steps: Steps<unknown>, answers: string[]): Steps<void> {
  answers.push(JSON.stringify(yield* steps));
}

Deno.test("a command that only looks does not wait for one that changes something", () => {
  const pool = new TestingPool(makeTestingFiles());
  const [changes, looks]: AdminResult[][] = [[], []];
  begin(pool, { verb: "create", name: "a", sizeBytes: bs }, changes!);
  begin(pool, { verb: "status" }, looks!);
  pool.kernel.run();
  assertEquals([changes!.length, looks![0]?.kind], [0, "status"], "the journal has not answered");
  pool.drain();
  assertEquals(changes, [done]);
});

Deno.test("a stop waits for the commands that look, and for those that were given before it", () => {
  const pool = new TestingPool(makeTestingFiles());
  let take = () => {};
  const port: TextPort = { write: (_piece, taken) => take = () => taken("taken") };
  const out = pool.kernel.spawn("reader", 16, (self) => new TextOut(pool.kernel, self, port));
  const [dumps, changes, stops]: AdminResult[][] = [[], [], []];
  begin(pool, { verb: "dump" }, dumps!, out);
  begin(pool, { verb: "create", name: "a", sizeBytes: bs }, changes!);
  startCollecting(pool.kernel, pool.pool.stop(), stops!);
  pool.drain();
  assertEquals([dumps, changes, stops], [[], [done], []]);
  while (dumps!.length === 0) {
    take();
    pool.drain();
  }
  assertEquals(stops, [done]);
});

Deno.test("what comes after a stop is refused, whether it changes something, looks, or is a second stop", () => {
  const files = makeTestingFiles();
  const pool = new TestingPool(files);
  const [before, stops, after]: AdminResult[][] = [[], [], []];
  begin(pool, { verb: "create", name: "a", sizeBytes: bs }, before!);
  startCollecting(pool.kernel, pool.pool.stop(), stops!);
  begin(pool, { verb: "create", name: "b", sizeBytes: bs }, after!);
  begin(pool, { verb: "status" }, after!);
  startCollecting(pool.kernel, pool.pool.stop(), after!);
  pool.drain();
  begin(pool, { verb: "create", name: "c", sizeBytes: bs }, after!);
  pool.drain();
  assertEquals([before, stops], [[done], [done]]);
  const reason = "The pool is being closed. Try again when it is open again.";
  assertEquals(after, Array.from({ length: 4 }, () => ({ kind: "refused", reason })));
  assertEquals(namesIn(new TestingPool(files)), ["a"]);
});

Deno.test("a long journal is rewritten after the command that made it long is answered, and before the next", () => {
  const pool = new TestingPool(makeTestingFiles());
  createVolume(pool, "a", 1);
  const { journal } = pool.files;
  journal.isLong = () => true;
  const order: string[] = [];
  pool.kernel.trace = {
    record: ({ kind, text }) => void (kind === "ask" && order.push(text.split(" ")[0]!)),
  };
  begin(pool, { verb: "create", name: "b", sizeBytes: bs }, []);
  begin(pool, { verb: "create", name: "c", sizeBytes: bs }, []);
  pool.drain();
  const steps = order.filter((type) => ["commit", "finishRewrite", "appendLine"].includes(type));
  assertEquals(steps, ["appendLine", "commit", "finishRewrite", "appendLine", "commit", "finishRewrite"]);
  assertEquals(journal.text.trimEnd().split("\n").length, 1);
  assertEquals(namesIn(new TestingPool(pool.files)), ["a", "b", "c"]);
});
