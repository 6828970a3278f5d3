/** Throw-away volumes in simulated time: when the pool removes them by itself, and when not. */
import { assertEquals } from "@std/assert";
import { thinId } from "../../storage/base/ids.ts";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import { Recorder } from "../../tests/support/stand_ins.ts";
import type { AdminResult, LifetimeOptions } from "./admin_command.ts";
import type { PoolNotice } from "./export_messages.ts";

/** A pool with the volume "a", and what clients do to it. */
class Lifetimes {
  readonly pool: TestingPool;
  #uid = "";

  constructor(
    lifetime: LifetimeOptions,
    files = makeTestingFiles(),
    options: ConstructorParameters<typeof TestingPool>[1] = {},
  ) {
    this.pool = new TestingPool(files, options);
    this.pool.admin({ verb: "create", name: "a", sizeBytes: 4 * bs, ...lifetime });
  }

  attach(): Recorder<PoolNotice> {
    const client = new Recorder<PoolNotice>(this.pool.kernel, "client");
    this.pool.kernel.tell(this.pool.pool.address, { type: "attach", name: "a", client: client.address });
    this.pool.drain();
    const [notice] = client.take();
    if (notice?.type === "attached") this.#uid = notice.info.uid;
    return client;
  }

  write(): void {
    this.pool.kernel.tell(this.pool.pool.address, { type: "wrote", uid: this.#uid });
    this.pool.drain();
  }

  leave(client: Recorder<PoolNotice>, isClean: boolean): void {
    const message = { type: "detach", uid: this.#uid, client: client.address, isClean } as const;
    this.pool.kernel.tell(this.pool.pool.address, message);
    this.pool.drain();
  }

  pass(ms: number): void {
    for (let passedMs = 0; passedMs < ms; passedMs += 1000) {
      this.pool.clock.advance(Math.min(1000, ms - passedMs));
      this.pool.drain();
    }
  }

  get isThere(): boolean {
    const result = this.pool.admin({ verb: "list" });
    return result.kind === "volumes" && result.volumes.some(({ name }) => name === "a");
  }
}

Deno.test("an ephemeral volume goes with the clean disconnect of its last client", () => {
  const lifetimes = new Lifetimes({ ephemeral: true });
  const [first, second] = [lifetimes.attach(), lifetimes.attach()];
  lifetimes.write();
  lifetimes.leave(first, true);
  assertEquals(lifetimes.isThere, true);
  lifetimes.leave(second, true);
  assertEquals(lifetimes.isThere, false);
});

Deno.test("an ephemeral volume that no client has written to stays, however its clients leave", () => {
  const lifetimes = new Lifetimes({ ephemeral: true });
  lifetimes.leave(lifetimes.attach(), true);
  lifetimes.leave(lifetimes.attach(), false);
  lifetimes.pass(3_600_000);
  assertEquals(lifetimes.isThere, true);
});

Deno.test("an ephemeral volume whose client was lost stays for its linger time, and longer if one comes back", () => {
  const lifetimes = new Lifetimes({ ephemeral: true, lingerMs: 60_000 });
  const lost = lifetimes.attach();
  lifetimes.write();
  lifetimes.leave(lost, false);
  lifetimes.pass(58_000);
  assertEquals(lifetimes.isThere, true);
  const back = lifetimes.attach();
  lifetimes.pass(600_000);
  lifetimes.leave(back, false);
  lifetimes.pass(58_000);
  assertEquals(lifetimes.isThere, true);
  lifetimes.pass(3_000);
  assertEquals(lifetimes.isThere, false);
});

Deno.test("without a linger time of its own it stays for ten minutes", () => {
  const lifetimes = new Lifetimes({ ephemeral: true });
  const lost = lifetimes.attach();
  lifetimes.write();
  lifetimes.leave(lost, false);
  lifetimes.pass(598_000);
  assertEquals(lifetimes.isThere, true);
  lifetimes.pass(3_000);
  assertEquals(lifetimes.isThere, false);
});

Deno.test("a restart begins the linger time of what was written to, and of nothing else", () => {
  for (const isWritten of [true, false]) {
    const files = makeTestingFiles();
    const before = new Lifetimes({ ephemeral: true, lingerMs: 60_000 }, files);
    before.attach();
    if (isWritten) before.write();
    const after = new Lifetimes({}, before.pool.files);
    after.pass(58_000);
    assertEquals(after.isThere, true);
    after.pass(3_000);
    assertEquals(after.isThere, !isWritten);
  }
});

Deno.test("a volume whose first write was replayed from the intent journal counts as written to", () => {
  const before = new Lifetimes({ ephemeral: true, lingerMs: 60_000 });
  const after = new Lifetimes({}, before.pool.files, { writtenThins: new Set([thinId(1)]) });
  after.leave(after.attach(), true);
  assertEquals(after.isThere, false);
});

Deno.test("a volume that expires goes in time, written or not, and waits for its client", () => {
  const alone = new Lifetimes({ ttlMs: 90_000 });
  alone.pass(88_000);
  assertEquals(alone.isThere, true);
  alone.pass(3_000);
  assertEquals(alone.isThere, false);
  const used = new Lifetimes({ ttlMs: 90_000 });
  const client = used.attach();
  used.pass(600_000);
  assertEquals(used.isThere, true);
  used.leave(client, false);
  assertEquals(used.isThere, false);
});

Deno.test("a volume that is neither ephemeral nor expires stays", () => {
  const lifetimes = new Lifetimes({});
  const client = lifetimes.attach();
  lifetimes.write();
  lifetimes.leave(client, true);
  lifetimes.pass(3_600_000);
  assertEquals(lifetimes.isThere, true);
});

/** A pool with the volume "a", which is held, and its uid. */
function heldIn(files = makeTestingFiles()): TestingPool {
  const pool = new TestingPool(files);
  const content = { sizeBytes: 4 * bs };
  assertEquals(pool.admin({ verb: "makeHeld", uid: "held", name: "a", content }), { kind: "done" });
  return pool;
}

/** A client that asks at a place where the volume with the uid `only` is all that there is. */
function answersOf(pool: TestingPool, names: readonly string[], only?: string): string[] {
  return names.map((name) => {
    const client = new Recorder<PoolNotice>(pool.kernel, "client");
    pool.kernel.tell(pool.pool.address, { type: "attach", name, only, client: client.address });
    pool.drain();
    const [notice] = client.take();
    return notice?.type === "attached" ? notice.info.name : notice?.type ?? "";
  });
}

function namesIn(pool: TestingPool): string[] {
  const result = pool.admin({ verb: "list" });
  return result.kind === "volumes" ? result.volumes.map(({ name }) => name) : [];
}

function passIn(pool: TestingPool, seconds: number): void {
  for (let second = 0; second < seconds; second += 1) {
    pool.clock.advance(1000);
    pool.drain();
  }
}

/** Ends the hold. The answer is in what it returns when there is one. */
function endHold(pool: TestingPool): AdminResult[] {
  const ended: AdminResult[] = [];
  const end = function* () {
    ended.push(yield* pool.pool.admin({ verb: "endHeld", uid: "held" }));
  };
  pool.kernel.start("end", end());
  pool.drain();
  return ended;
}

Deno.test("a volume that is held stays without a client, and the end of the hold removes it under its clients", () => {
  const pool = heldIn();
  passIn(pool, 3600);
  assertEquals(namesIn(pool), ["a"]);
  const client = new Recorder<PoolNotice>(pool.kernel, "client");
  const leave = () => {
    const message = { type: "detach", uid: "held", client: client.address, isClean: true } as const;
    pool.kernel.tell(pool.pool.address, message);
    pool.drain();
  };
  const attach = () => {
    pool.kernel.tell(pool.pool.address, { type: "attach", name: "a", client: client.address });
    pool.drain();
    return client.take().map(({ type }) => type);
  };
  assertEquals(attach(), ["attached"]);
  leave();
  assertEquals(client.take().map(({ type }) => type), ["detached"]);
  passIn(pool, 10);
  assertEquals(namesIn(pool), ["a"]);
  assertEquals(attach(), ["attached"]);
  const ended = endHold(pool);
  assertEquals(client.take().map(({ type }) => type), ["exportGone"]);
  leave();
  assertEquals([ended, namesIn(pool)], [[{ kind: "done" }], []]);
});

Deno.test("the end of a hold whose volume a command has removed is answered as such", () => {
  const pool = heldIn();
  assertEquals(pool.admin({ verb: "rm", names: ["a"], dryRun: false, force: false }), { kind: "done" });
  assertEquals(endHold(pool), [{ kind: "refused", reason: "The volume is gone.", isGone: true }]);
});

Deno.test("a volume that was held is removed by the next start, though no client has written to it", () => {
  const before = heldIn();
  assertEquals(namesIn(before), ["a"]);
  const after = new TestingPool(before.files);
  after.drain();
  assertEquals(namesIn(after), []);
});

Deno.test("where one volume alone is served, it has its name and the empty one, and no other is there", () => {
  const pool = heldIn();
  pool.admin({ verb: "create", name: "b", sizeBytes: bs });
  assertEquals(answersOf(pool, ["a", "", "b"], "held"), ["a", "a", "unknownExport"]);
  pool.admin({ verb: "rename", from: "a", to: "c" });
  assertEquals(answersOf(pool, ["c", "", "a"], "held"), ["c", "c", "unknownExport"]);
  assertEquals(answersOf(pool, ["c", "b", ""]), ["c", "b", "unknownExport"]);
});

Deno.test("what is reserved for an ephemeral volume is free again when the volume is gone", () => {
  const lives = new Lifetimes({ ephemeral: true });
  const reserved = () => {
    const result = lives.pool.admin({ verb: "status" });
    return result.kind === "status" ? result.status.data_reserved_bytes : undefined;
  };
  assertEquals(lives.pool.admin({ verb: "reserve", name: "a", reserveBytes: 2 * bs }), { kind: "done" });
  assertEquals(reserved(), 2 * bs);
  const client = lives.attach();
  lives.write();
  lives.leave(client, true);
  assertEquals([lives.isThere, reserved()], [false, 0]);
});
