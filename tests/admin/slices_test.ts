/** Commands of thousands of names go in slices: others are served between them, and nothing ever shows or keeps a part. */
import { assert, assertEquals } from "@std/assert";
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import type { VolumeRequest } from "../../actors/volume/bio.ts";
import type { Actor, Address } from "../../actors/kernel/address.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import { defaultKnobs, type Knobs } from "../../actors/knobs.ts";
import type { ThinVolumeMessage } from "../../actors/volume/volume_messages.ts";
import { assert as require } from "../../storage/base/assert.ts";
import {
  type ClientMessage,
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  TestingPool,
} from "../support/pool.ts";
import { RandomPolicy } from "../support/world.ts";
import { assertSound, begin, namesIn } from "../support/pool_checks.ts";

const done: AdminResult = { kind: "done" };

function slicesOf(size: number): Partial<Knobs> {
  return { sliceRecords: size, sliceDevices: size, sliceDevicesMax: size };
}

function namesOf(volume: string, count: number): string[] {
  return Array.from({ length: count }, (_, at) => `${volume}@s${at}`);
}

function removalOf(names: readonly string[]): AdminCommand {
  return { verb: "rm", names, dryRun: false, force: false };
}

/** A client that reads again as soon as it is answered, until it is told to stop. */
class Reader implements Actor<ClientMessage> {
  reads = 0;
  isStopped = false;
  readonly #pool: TestingPool;
  #volume: Address<ThinVolumeMessage> | undefined;

  constructor(pool: TestingPool, readonly self: Address<ClientMessage>) {
    this.#pool = pool;
  }

  receive(message: ClientMessage): void {
    if (message.type === "attached") this.#volume = message.volume;
    else {
      require(
        message.type === "requestsDone" && message.requests.every(({ status }) => status === "ok"),
        "it only reads",
      );
      this.reads += 1;
    }
    if (this.isStopped) return;
    // The drain would let the journal answer when nothing else is to do any more.
    this.#pool.files.journal.pending.shift()?.();
    const request: VolumeRequest = {
      kind: "read",
      offsetBytes: 0,
      lengthBytes: 512,
      data: new Uint8Array(512),
      fua: false,
      noHole: false,
      fastZero: false,
      client: this.self,
      status: "ok",
      holes: new Uint8Array(0),
    };
    this.#pool.kernel.tell(this.#volume!, { type: "submit", requests: [request] });
  }
}

/** Reads from a volume as fast as it is answered while the command is carried out. Answers how often. */
function readsBeside(pool: TestingPool, volume: string, command: AdminCommand): number {
  let reader: Reader | undefined;
  const client = pool.kernel.spawn<ClientMessage>("reader", 16, (self) => reader = new Reader(pool, self));
  pool.kernel.tell(pool.pool.address, { type: "attach", name: volume, client });
  pool.kernel.start("test", stopAfter(pool.pool.admin(command), reader!));
  pool.drain();
  return reader!.reads;
}

function* stopAfter(steps: Steps<AdminResult>, reader: Reader): Steps<void> {
  assertEquals(yield* steps, done);
  reader.isStopped = true;
}

Deno.test("a volume that a command does not name is read from between the slices of that command", () => {
  const policy = new RandomPolicy(1);
  const pool = new TestingPool(makeTestingFiles(64, 1024), { knobs: slicesOf(10), policy });
  for (const name of ["a", "b"]) assertEquals(pool.admin({ verb: "create", name, sizeBytes: bs }), done);
  pool.attach("b").write(0, new Uint8Array(bs).fill(1));
  const names = namesOf("a", 2000);
  // Planned, tried, taken back, written down, made, and made true, ten at a time; a read takes a few turns.
  assert(readsBeside(pool, "b", { verb: "snapshot", names }) > 200);
  assert(readsBeside(pool, "b", { verb: "rename", from: "a", to: "c" }) > 200);
  assert(readsBeside(pool, "b", removalOf(namesOf("c", 2000))) > 400);
});

Deno.test("slices of a change of devices grow where it takes too long, and not where it does not", () => {
  const slicesFor = (msPerSlice: number): number => {
    const knobs = { sliceRecords: 100, sliceDevices: 10, sliceDevicesMax: 640 };
    const pool = new TestingPool(makeTestingFiles(64, 1024), { knobs });
    assertEquals(pool.admin({ verb: "create", name: "a", sizeBytes: bs }), done);
    let changes = 0;
    pool.kernel.trace = {
      record: ({ kind, text }) => {
        if (kind !== "ask" || !text.startsWith("change ")) return;
        changes += 1;
        pool.clock.nowMs += msPerSlice;
      },
    };
    assertEquals(pool.admin({ verb: "snapshot", names: namesOf("a", 2000) }), done);
    return changes;
  };
  assertEquals(slicesFor(0), 200);
  assertEquals(slicesFor(defaultKnobs.changeMsMax / 400), 200);
  const slices = slicesFor(defaultKnobs.changeMsMax / 10);
  assert(slices >= 8 && slices <= 20, `${slices} slices`);
});

Deno.test("the commit of a change waits for none of the catalogue's slices", () => {
  const pool = new TestingPool(makeTestingFiles(64, 1024), { knobs: slicesOf(10) });
  assertEquals(pool.admin({ verb: "create", name: "a", sizeBytes: bs }), done);
  const asks: string[] = [];
  pool.kernel.trace = { record: ({ kind, text }) => void (kind === "ask" && asks.push(text)) };
  assertEquals(pool.admin({ verb: "snapshot", names: namesOf("a", 200) }), done);
  const lastChange = asks.findLastIndex((text) => text.startsWith("change "));
  const afterChange = asks.slice(lastChange + 1).map((text) => text.split(" ")[0]);
  assertEquals(afterChange[0], "commit");
  assertEquals(afterChange.filter((verb) => verb === "settle").length > 10, true);
});

for (const perSlice of [1, 7, 100]) {
  Deno.test(`a command of many names, ${perSlice} in a slice, does what it does at once`, () => {
    const pool = new TestingPool(makeTestingFiles(64, 1024), { knobs: slicesOf(perSlice) });
    for (const name of ["a", "b"]) {
      assertEquals(pool.admin({ verb: "create", name, sizeBytes: 4 * bs }), done);
    }
    const a = pool.attach("a");
    a.write(0, new Uint8Array(bs).fill(1));
    const names = [...namesOf("a", 150), ...namesOf("b", 150)];
    assertEquals(pool.admin({ verb: "snapshot", names }), done);
    assertEquals(namesIn(pool), ["a", ...namesOf("a", 150), "b", ...namesOf("b", 150)]);
    assertEquals(pool.attach("a@s149").read(0, 1), new Uint8Array([1]));
    assertEquals(pool.admin({ verb: "rename", from: "a", to: "c" }), done);
    assertEquals(pool.contexts("c").length, 151);
    const removed = [...namesOf("c", 149), ...namesOf("b", 150)];
    assertEquals(pool.admin(removalOf(removed)), done);
    assertEquals(namesIn(pool), ["b", "c", "c@s149"]);
    assertSound(pool);
    const again = new TestingPool(pool.files);
    assertEquals(namesIn(again), ["b", "c", "c@s149"]);
    assertEquals(again.logged, []);
  });
}

Deno.test("a command that finds no space for metadata half way leaves nothing behind", () => {
  for (const perSlice of [1, 10, 64]) {
    const pool = new TestingPool(makeTestingFiles(16, 40), { knobs: slicesOf(perSlice) });
    assertEquals(pool.admin({ verb: "create", name: "a", sizeBytes: 4 * bs }), done);
    const a = pool.attach("a");
    a.write(0, new Uint8Array(bs).fill(1));
    const results = begin(pool, { verb: "snapshot", names: namesOf("a", 4000) });
    const flush = a.submit("flush", 0, 0);
    pool.drain();
    assert(results[0]?.kind === "refused" && results[0].reason.includes("the metadata is full"));
    assert(a.isDone(flush) && flush.status === "ok", "the flush waited for the end of the change only");
    assertEquals(namesIn(pool), ["a"]);
    assertSound(pool);
    a.write(0, new Uint8Array(bs).fill(2), { fua: true });
    const again = new TestingPool(pool.files, { newUid: () => "another" });
    assertEquals(again.logged, []);
    assertEquals(namesIn(again), ["a"]);
    assertEquals(again.attach("a").read(0, 1), new Uint8Array([2]));
    assertEquals(again.admin({ verb: "snapshot", names: ["a@s"] }), done);
    assertSound(again);
  }
});

Deno.test("what looks at a pool while a command goes in slices sees all of the command or nothing", () => {
  const seen = new Map<number, number>();
  for (let seed = 1; seed <= 10; seed += 1) {
    const policy = new RandomPolicy(seed);
    const pool = new TestingPool(makeTestingFiles(64, 1024), { knobs: slicesOf(1), policy });
    assertEquals(pool.admin({ verb: "create", name: "a", sizeBytes: bs }), done);
    const results: AdminResult[] = [];
    pool.kernel.start("test", takeAndRemove(pool, namesOf("a", 20), results));
    pool.kernel.start("test", lookUntilEnded(pool, results, seen));
    pool.drain();
    assertEquals(results, [done]);
  }
  assertEquals([...seen.keys()].sort(), [1, 21]);
});

function* takeAndRemove(pool: TestingPool, names: readonly string[], results: AdminResult[]): Steps<void> {
  assertEquals(yield* pool.pool.admin({ verb: "snapshot", names }), done);
  results.push(yield* pool.pool.admin(removalOf(names)));
}

function* lookUntilEnded(
  pool: TestingPool,
  results: readonly AdminResult[],
  seen: Map<number, number>,
): Steps<void> {
  while (results.length === 0) {
    const result = yield* pool.pool.admin({ verb: "status" });
    require(result.kind === "status", "status answers");
    // The drain would let the journal answer when nothing else is to do any more.
    pool.files.journal.pending.shift()?.();
    const { volumes } = result.status;
    seen.set(volumes, (seen.get(volumes) ?? 0) + 1);
  }
}
