/** What the pool tells its clients, what it makes wait, and what each mode refuses. Commands: command_queue_test.ts. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { FailingDevice } from "../../tests/support/devices.ts";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import { Recorder, startCollecting } from "../../tests/support/stand_ins.ts";
import type { AdminCommand, AdminResult } from "./admin_command.ts";
import type { PoolNotice } from "./export_messages.ts";

const done: AdminResult = { kind: "done" };

function createOf(name: string): AdminCommand {
  return { verb: "create", name, sizeBytes: 4 * bs };
}

function removalOf(name: string, force: boolean): AdminCommand {
  return { verb: "rm", names: [name], force, dryRun: false };
}

/** A pool with these volumes and snapshots. */
function poolWith(...names: string[]): TestingPool {
  const pool = new TestingPool(makeTestingFiles());
  for (const name of names) {
    const command: AdminCommand = name.includes("@") ? { verb: "snapshot", names: [name] } : createOf(name);
    assertEquals(pool.admin(command), done);
  }
  return pool;
}

/** A client of a pool. */
class Client extends Recorder<PoolNotice> {
  readonly #pool: TestingPool;

  constructor(pool: TestingPool) {
    super(pool.kernel, "client");
    this.#pool = pool;
  }

  /** Asks to attach, and gives what the pool has told since. */
  attach(name: string): PoolNotice[] {
    this.ask("attach", name);
    this.#pool.drain();
    return this.take();
  }

  ask(type: "attach" | "describe" | "describeContexts", name: string): void {
    this.#pool.kernel.tell(this.#pool.pool.address, { type, name, client: this.address });
  }

  /** Attaches, and gives the uid of the volume. */
  uidOf(name: string): string {
    const [notice] = this.attach(name);
    if (notice?.type !== "attached") throw new Error(`not attached: ${notice?.type}`);
    return notice.info.uid;
  }

  detach(uid: string): PoolNotice[] {
    this.#pool.kernel.tell(this.#pool.pool.address, { type: "detach", uid, client: this.address });
    this.#pool.drain();
    return this.take();
  }
}

/** Gives a command, and lets happen what can before the journal has written its line. */
function begin(pool: TestingPool, command: AdminCommand): AdminResult[] {
  const results: AdminResult[] = [];
  startCollecting(pool.kernel, pool.pool.admin(command), results);
  pool.kernel.run();
  return results;
}

function attachedTo(pool: TestingPool): number {
  const result = pool.admin({ verb: "status" });
  return result.kind === "status" ? result.status.attached : -1;
}

function reasonsOf(notices: readonly PoolNotice[]): string[] {
  return notices.map((notice) => notice.type === "unknownExport" ? notice.reason : notice.type);
}

Deno.test("a client that asks for a name that is not there is told so, whatever it asks", () => {
  const pool = poolWith("a");
  const client = new Client(pool);
  for (const type of ["attach", "describe", "describeContexts"] as const) client.ask(type, "b");
  pool.drain();
  assertEquals(reasonsOf(client.take()), Array(3).fill("there is no such volume"));
});

Deno.test("the empty name is the only volume, snapshots not counted", () => {
  const client = new Client(poolWith("a", "a@s"));
  const [notice] = client.attach("");
  assertEquals(notice?.type === "attached" && notice.info.name, "a");
});

Deno.test("the empty name is none where there are two volumes, or none", () => {
  for (const names of [[], ["a", "b"]]) {
    const client = new Client(poolWith(...names));
    assertEquals(reasonsOf(client.attach("")), ["there is no default export; name one"]);
  }
});

Deno.test("a snapshot is attached read-only, and its volume is not", () => {
  const pool = poolWith("a", "a@s");
  const readOnly = ["a", "a@s"].map((name) => {
    const [notice] = new Client(pool).attach(name);
    return notice?.type === "attached" && notice.info.readOnly;
  });
  assertEquals(readOnly, [false, true]);
});

Deno.test("a volume for a single writer takes a second client when the first has left, and its snapshots take many", () => {
  const pool = poolWith("b");
  pool.admin({ verb: "create", name: "a", sizeBytes: bs, singleWriter: true });
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  pool.admin({ verb: "clone", source: "a", name: "c" });
  const [first, second] = [new Client(pool), new Client(pool)];
  const [attached] = first.attach("a");
  assertEquals(attached?.type === "attached" && attached.info.isSingleWriter, true);
  assertEquals(reasonsOf(second.attach("a")), [
    '"a" takes one client at a time (--single-writer), and a client is attached',
  ]);
  for (const name of ["a@s", "a@s", "b", "b", "c", "c"]) {
    assertEquals(new Client(pool).attach(name)[0]?.type, "attached", name);
  }
  pool.admin({ verb: "rename", from: "a", to: "z" });
  assertEquals(reasonsOf(second.attach("z")), [
    '"z" takes one client at a time (--single-writer), and a client is attached',
  ]);
  const uid = attached?.type === "attached" ? attached.info.uid : "";
  pool.kernel.tell(pool.pool.address, { type: "detach", uid, client: first.address });
  pool.drain();
  assertEquals(second.attach("z")[0]?.type, "attached");
});

Deno.test("clients are counted while they are attached, and each is told that it is detached", () => {
  const pool = poolWith("a");
  const [first, second] = [new Client(pool), new Client(pool)];
  const uid = first.uidOf("a");
  second.uidOf("a");
  assertEquals(attachedTo(pool), 2);
  assertEquals(first.detach(uid), [{ type: "detached", uid }]);
  assertEquals([attachedTo(pool), second.take()], [1, []]);
});

Deno.test("detaching from what is not attached is a defect", () => {
  const pool = poolWith("a");
  const uid = new Client(pool).uidOf("a");
  assertThrows(() => new Client(pool).detach(uid), Error, "detached without being attached");
  assertThrows(() => new Client(poolWith("a")).detach("b"), Error, "a volume that is not open");
});

Deno.test("a volume with an attached client is not removed", () => {
  const pool = poolWith("a");
  const client = new Client(pool);
  client.uidOf("a");
  assertEquals(pool.admin(removalOf("a", false)).kind, "refused");
  assertEquals([client.take(), attachedTo(pool)], [[], 1]);
});

Deno.test("a forced removal tells the clients to leave, and is carried out when the last has left", () => {
  const pool = poolWith("a", "b");
  const [first, second, other] = [new Client(pool), new Client(pool), new Client(pool)];
  const uid = first.uidOf("a");
  second.uidOf("a");
  other.uidOf("b");
  const results = begin(pool, removalOf("a", true));
  pool.drain();
  assertEquals([first.take(), second.take(), other.take()], [
    [{ type: "exportGone", uid }],
    [{ type: "exportGone", uid }],
    [],
  ]);
  first.detach(uid);
  assertEquals(results, []);
  second.detach(uid);
  assertEquals(results, [done]);
});

Deno.test("a volume that is being removed takes no new clients", () => {
  const pool = poolWith("a");
  const client = new Client(pool);
  const uid = client.uidOf("a");
  begin(pool, removalOf("a", true));
  assertEquals(reasonsOf(new Client(pool).attach("a")), ["the volume is being removed"]);
  client.detach(uid);
  assertEquals(reasonsOf(new Client(pool).attach("a")), ["there is no such volume"]);
});

Deno.test("a volume whose removal was refused takes clients again", () => {
  const pool = poolWith("a", "b");
  const client = new Client(pool);
  client.uidOf("b");
  const names = ["a", "b"];
  assertEquals(pool.admin({ verb: "rm", names, force: false, dryRun: false }).kind, "refused");
  assertEquals(new Client(pool).attach("a")[0]?.type, "attached");
});

Deno.test("a client that attaches while its volume changes waits until the change is settled, and others do not", () => {
  const pool = poolWith("a", "b");
  const results = begin(pool, { verb: "resize", name: "a", sizeBytes: 8 * bs, force: true });
  const [waiting, other] = [new Client(pool), new Client(pool)];
  waiting.ask("attach", "a");
  other.ask("attach", "b");
  pool.kernel.run();
  assertEquals([waiting.types, other.types, results], [[], ["attached"], []]);
  pool.drain();
  const [notice] = waiting.take();
  assertEquals([notice?.type === "attached" && notice.info.sizeBytes, results], [8 * bs, [done]]);
});

Deno.test("a client that waited for a change that is refused is attached to the volume as it was", () => {
  const pool = poolWith("a");
  const { journal } = pool.files;
  const { append } = journal;
  journal.append = (_line, _room, finished) => {
    journal.pending.push(() => finished({ kind: "ioError", reason: "a fault of the test" }));
  };
  const results = begin(pool, { verb: "resize", name: "a", sizeBytes: 8 * bs, force: true });
  const client = new Client(pool);
  client.ask("attach", "a");
  pool.drain();
  journal.append = append;
  const [notice] = client.take();
  assertEquals([notice?.type === "attached" && notice.info.sizeBytes, results[0]?.kind], [4 * bs, "refused"]);
});

Deno.test("the clients of a volume are told its new size, and those of other volumes nothing", () => {
  const pool = poolWith("a", "b");
  const [client, other] = [new Client(pool), new Client(pool)];
  const uid = client.uidOf("a");
  other.uidOf("b");
  assertEquals(pool.admin({ verb: "resize", name: "a", sizeBytes: 8 * bs, force: true }), done);
  assertEquals([client.take(), other.take()], [[{ type: "exportResized", uid, sizeBytes: 8 * bs }], []]);
});

Deno.test("a pool that stops takes no new clients", () => {
  const pool = poolWith("a");
  assertEquals(pool.ask(pool.pool.stop()), done);
  assertEquals(reasonsOf(new Client(pool).attach("a")), ["the server is stopping"]);
});

/** A pool whose volume `a` has a block, on devices that can be made to fail. */
function failingPool() {
  const files = makeTestingFiles();
  const metadata = new FailingDevice(files.metadata);
  const pool = new TestingPool({ ...files, metadata });
  assertEquals(pool.admin(createOf("a")), done);
  const volume = pool.attach("a");
  volume.write(0, new Uint8Array(bs).fill(1), { fua: true });
  return { pool, metadata, volume };
}

Deno.test("after a failed commit the pool refuses changes, reads and writes, and says so in the log once", () => {
  const { pool, metadata, volume } = failingPool();
  metadata.failsWrites = true;
  volume.write(bs, new Uint8Array(bs).fill(2));
  assertEquals(volume.perform("flush", 0, 0).status, "poolFailed");
  const after = [
    volume.perform("read", 0, 10),
    volume.write(0, new Uint8Array(10)),
    volume.perform("flush", 0, 0),
  ];
  assertEquals(after.map(({ status }) => status), Array(3).fill("poolFailed"));
  const reason = "writing metadata blocks: a fault of the test";
  assertEquals(pool.admin(createOf("b")), {
    kind: "refused",
    reason:
      `The pool takes no changes (mode fail): ${reason}. Start it again: it goes on from the last commit, or says what to do first.`,
  });
  assertEquals(pool.logged, [
    `The pool has failed: ${reason}. Start it again: it goes on from the last commit, or says what to do first.`,
  ]);
});

Deno.test("a volume that is opened after the pool has failed refuses too", () => {
  const { pool, metadata, volume } = failingPool();
  pool.admin(createOf("b"));
  metadata.failsWrites = true;
  volume.write(bs, new Uint8Array(bs).fill(2), { fua: true });
  assertEquals(pool.attach("b").perform("read", 0, 10).status, "poolFailed");
});

Deno.test("damage makes the pool read-only: reads go on, writes and changes are refused", () => {
  const before = failingPool();
  for (const name of ["b", "c"]) {
    before.pool.admin(createOf(name));
    before.pool.attach(name).write(0, new Uint8Array(bs).fill(3), { fua: true });
  }
  const metadata = new FailingDevice(before.pool.files.metadata);
  const pool = new TestingPool({ ...before.pool.files, metadata });
  const [a, b] = [pool.attach("a"), pool.attach("b")];
  a.read(0, 10);
  metadata.failsReads = true;
  assertEquals(b.perform("read", 0, 10).status, "ioError");
  assertEquals(a.read(0, 10), new Uint8Array(10).fill(1));
  assertEquals(a.write(0, new Uint8Array(10)).status, "ioError");
  const result = pool.admin({ verb: "status" });
  assertEquals(result.kind === "status" && result.status.mode, "read-only");
  const refused = pool.admin(createOf("d"));
  assert(
    refused.kind === "refused" && refused.reason.startsWith("The pool takes no changes (mode read-only): "),
  );
  assertEquals(pool.logged.length, 1);
});

Deno.test("a pool that was opened read-only serves reads, and refuses changes with what to do", () => {
  const { pool } = failingPool();
  const readOnly = new TestingPool(pool.files, { readOnly: true });
  const [notice] = new Client(readOnly).attach("a");
  assertEquals(notice?.type === "attached" && notice.info.readOnly, true);
  assertEquals(readOnly.attach("a").read(0, 10), new Uint8Array(10).fill(1));
  assertEquals(readOnly.admin(createOf("b")), {
    kind: "refused",
    reason: "The pool is open read-only. Stop that server, or serve without --read-only.",
  });
});
