/** Block status of volumes in a pool in memory: what is provisioned, and what differs from a snapshot. */
import { assert, assertEquals } from "@std/assert";
import type { Extent, StatusSource } from "./block_status.ts";
import { defaultKnobs } from "../knobs.ts";
import { VolumeStub } from "./volume_messages.ts";
import { FailingDevice } from "../../tests/support/devices.ts";
import type { MemoryDevice } from "../../tests/support/memory_device.ts";
import {
  type DevicePort,
  ioOk,
  type IoResult,
  type ReadDone,
  readInto,
  type ReadTarget,
} from "../../storage/device/port.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../../tests/support/pool.ts";
import { Random, RandomPolicy } from "../../tests/support/world.ts";

const allocation: StatusSource = { kind: "allocation" };

function makeVolume(pool: TestingPool, sizeBytes = 16 * bs): TestingVolume {
  pool.admin({ verb: "create", name: "a", sizeBytes });
  return pool.attach("a");
}

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** The source of the context of that name. */
function sourceOf(pool: TestingPool, volume: string, context: string): StatusSource {
  const found = pool.contexts(volume).find(({ name }) => name === context);
  if (found === undefined) throw new Error(`no context ${context}`);
  return found.source;
}

Deno.test("a terabyte that was never written is one hole", () => {
  const volume = makeVolume(new TestingPool(makeTestingFiles()), 2 ** 40);
  const { status, extents } = volume.status(allocation, 0, 2 ** 40);
  assertEquals([status, extents], ["ok", [[{ lengthBytes: 2 ** 40, flags: 3 }]]]);
});

Deno.test("what was written is allocated, and extents are cut to the range that was asked", () => {
  const volume = makeVolume(new TestingPool(makeTestingFiles()));
  volume.write(2 * bs, new Uint8Array(10));
  volume.write(3 * bs, new Uint8Array(10));
  const { extents } = volume.status(allocation, bs + 512, 3 * bs);
  assertEquals(extents, [[
    { lengthBytes: bs - 512, flags: 3 },
    { lengthBytes: 2 * bs, flags: 0 },
    { lengthBytes: 512, flags: 3 },
  ]]);
  assertEquals(volume.status(allocation, bs, 15 * bs, 1).extents, [[{ lengthBytes: bs, flags: 3 }]]);
});

Deno.test("what was written since a snapshot is dirty", () => {
  const pool = new TestingPool(makeTestingFiles());
  const volume = makeVolume(pool);
  volume.write(0, new Uint8Array(4 * bs));
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  volume.write(bs, new Uint8Array(10));
  const dirty = sourceOf(pool, "a", "qemu:dirty-bitmap:s");
  const { extents } = volume.status([dirty, allocation], 0, 16 * bs);
  assertEquals(extents, [
    [{ lengthBytes: bs, flags: 0 }, { lengthBytes: bs, flags: 1 }, { lengthBytes: 14 * bs, flags: 0 }],
    [{ lengthBytes: 4 * bs, flags: 0 }, { lengthBytes: 12 * bs, flags: 3 }],
  ]);
});

/** The blocks whose extents have these flags; every extent must be of whole blocks. */
function blocksOf(extents: readonly Extent[], flags: number): Set<number> {
  const blocks = new Set<number>();
  let at = 0;
  for (const extent of extents) {
    const end = at + extent.lengthBytes / bs;
    if (extent.flags === flags) { for (let block = at; block < end; block++) blocks.add(block); }
    at = end;
  }
  return blocks;
}

Deno.test("contexts are named after the snapshots of the family, short where they are the volume's own", () => {
  const pool = new TestingPool(makeTestingFiles());
  makeVolume(pool).detach();
  pool.admin({ verb: "create", name: "stranger", sizeBytes: bs });
  pool.admin({ verb: "snapshot", names: ["a@s1", "stranger@s1"] });
  pool.admin({ verb: "snapshot", names: ["a@s2"] });
  pool.admin({ verb: "clone", source: "a@s1", name: "c" });
  pool.admin({ verb: "snapshot", names: ["c@s1"] });
  const names = (name: string) =>
    pool.contexts(name).map((context) => context.name.replace("qemu:dirty-bitmap:", ""));
  assertEquals(names("a"), ["base:allocation", "c@s1", "s1", "s2"]);
  assertEquals(names("a@s2"), ["base:allocation", "c@s1", "s1"]);
  assertEquals(names("c"), ["base:allocation", "a@s1", "a@s2", "s1"]);
  assertEquals(names("stranger@s1"), ["base:allocation"]);
  pool.admin({ verb: "rollback", snapshot: "a@s1", force: true });
  pool.admin({ verb: "rename", from: "a", to: "b" });
  assertEquals(names("b"), ["base:allocation", "before-rollback-1", "c@s1", "s1", "s2"]);
  assertEquals(names("c"), ["base:allocation", "b@before-rollback-1", "b@s1", "b@s2", "s1"]);
  pool.admin({ verb: "rm", names: ["b", "b@s2", "b@before-rollback-1"], force: true, dryRun: false });
  pool.admin({ verb: "create", name: "b", sizeBytes: bs });
  assertEquals(names("b"), ["base:allocation"], "a new volume is no relative of the snapshots of an old one");
  assertEquals(names("c"), ["base:allocation", "b@s1", "s1"]);
  pool.admin({ verb: "clone", source: "b@s1", name: "d" });
  pool.admin({ verb: "rm", names: ["b@s1"], force: false, dryRun: false });
  assertEquals(names("d"), ["base:allocation", "c@s1"], "clones of what is gone are still relatives");
});

Deno.test("what differs between two snapshots is told on either", () => {
  const pool = new TestingPool(makeTestingFiles());
  const volume = makeVolume(pool);
  pool.admin({ verb: "snapshot", names: ["a@s1"] });
  volume.write(3 * bs, filled(10, 1));
  pool.admin({ verb: "snapshot", names: ["a@s2"] });
  volume.write(5 * bs, filled(10, 1));
  for (const [name, other] of [["a@s1", "s2"], ["a@s2", "s1"]] as const) {
    const { extents } = pool.attach(name).status(
      sourceOf(pool, name, `qemu:dirty-bitmap:${other}`),
      0,
      16 * bs,
    );
    assertEquals(blocksOf(extents[0]!, 1), new Set([3]));
  }
});

Deno.test("a pool opened read-only tells the same", () => {
  const files = makeTestingFiles();
  const before = new TestingPool(files);
  const volume = makeVolume(before);
  volume.write(0, filled(2 * bs, 1));
  before.admin({ verb: "snapshot", names: ["a@s"] });
  volume.write(bs, filled(10, 1));
  volume.perform("flush", 0, 0);
  const sources = [allocation, sourceOf(before, "a", "qemu:dirty-bitmap:s")];
  const expected = volume.status(sources, 0, 16 * bs);
  const again = new TestingPool(files, { readOnly: true }).attach("a").status(sources, 0, 16 * bs);
  assertEquals([again.status, again.extents], ["ok", expected.extents]);
});

Deno.test("a snapshot that is removed is told from nothing any more", () => {
  const pool = new TestingPool(makeTestingFiles());
  const volume = makeVolume(pool);
  volume.write(0, filled(bs, 1));
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  const dirty = sourceOf(pool, "a", "qemu:dirty-bitmap:s");
  pool.admin({ verb: "rm", names: ["a@s"], force: false, dryRun: false });
  const { status, extents } = volume.status([allocation, dirty], 0, 16 * bs);
  assertEquals([status, extents], ["ioError", []]);
  assertEquals(volume.status(allocation, 0, bs).status, "ok");
});

Deno.test("a snapshot is no context any more while it is being removed", () => {
  const pool = new TestingPool(makeTestingFiles());
  makeVolume(pool);
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  pool.kernel.start("test", pool.pool.admin({ verb: "rm", names: ["a@s"], force: false, dryRun: false }));
  pool.kernel.run();
  pool.files.journal.pending.shift()!();
  // What is left to do waits for the catalogue's last line.
  assertEquals(pool.kernel.tasksInFlight().length, 2);
  assertEquals(pool.contexts("a").map(({ name }) => name), ["base:allocation"]);
});

Deno.test("a range beyond the end of a volume that shrank is refused", () => {
  const pool = new TestingPool(makeTestingFiles());
  const volume = makeVolume(pool);
  pool.admin({ verb: "resize", name: "a", sizeBytes: 4 * bs, force: true });
  assertEquals(volume.status(allocation, 0, 4 * bs + 512).status, "outOfRange");
  assertEquals(volume.status(allocation, 0, 4 * bs).status, "ok");
});

Deno.test("a suspended volume answers, and one that closes answers first", () => {
  for (let seed = 0; seed < 50; seed++) {
    const pool = new TestingPool(makeTestingFiles(), { policy: new RandomPolicy(seed) });
    const volume = makeVolume(pool);
    const stub = new VolumeStub(pool.kernel, volume.address);
    pool.ask(stub.suspend());
    assertEquals(volume.status(allocation, 0, bs).status, "ok");
    const questions = Array.from(
      { length: 3 * defaultKnobs.statusPerVolumeMax },
      () => volume.askStatus(allocation, 0, bs),
    );
    // Runs until the volume has them all, and leaves them half-way.
    pool.kernel.start("test", stub.close());
    pool.drain();
    for (const question of questions) assert(volume.isAnswered(question), `seed ${seed}`);
  }
});

Deno.test("damaged metadata is an error, and no answer", () => {
  const files = makeTestingFiles();
  const before = new TestingPool(files);
  const volume = makeVolume(before);
  volume.write(0, filled(bs, 1));
  before.admin({ verb: "snapshot", names: ["a@s"] });
  volume.write(bs, filled(bs, 1));
  volume.perform("flush", 0, 0);
  const pool = new TestingPool(files);
  const { bytes } = files.metadata as MemoryDevice;
  const again = pool.attach("a");
  const dirty = sourceOf(pool, "a", "qemu:dirty-bitmap:s");
  for (let at = metadataBlockSizeBytes; at < bytes.length; at += metadataBlockSizeBytes) bytes[at + 40]! ^= 1;
  assertEquals(again.status(dirty, 0, 16 * bs).status, "ioError");
  assertEquals(again.status(allocation, 0, 16 * bs).status, "ioError");
});

Deno.test("a rollback under a question gives the answer for the device before or after", () => {
  const seen = new Set<string>();
  for (let seed = 0; seed < 60; seed++) {
    const pool = new TestingPool(makeTestingFiles(), { policy: new RandomPolicy(seed) });
    const volume = makeVolume(pool);
    volume.write(0, filled(bs, 1));
    pool.admin({ verb: "snapshot", names: ["a@s"] });
    volume.write(5 * bs, filled(bs, 1));
    const dirty = sourceOf(pool, "a", "qemu:dirty-bitmap:s");
    pool.kernel.start("test", pool.pool.admin({ verb: "rollback", snapshot: "a@s", force: true }));
    pool.kernel.run();
    const questions = Array.from(
      { length: 100 },
      () => volume.askStatus([dirty, dirty, allocation], 0, 16 * bs),
    );
    // The line of the catalogue is written: from here on the command and the questions take turns at random.
    pool.files.journal.pending.shift()!();
    pool.drain();
    for (const { status, extents } of questions) {
      assertEquals(status, "ok", `seed ${seed}`);
      const blocks = JSON.stringify(extents.map((list) => [...blocksOf(list, list === extents[2] ? 0 : 1)]));
      seen.add(blocks);
    }
  }
  assertEquals([...seen].sort(), ["[[5],[5],[0,5]]", "[[],[],[0]]"]);
});

Deno.test("a question that a rollback takes the device away from is answered for the new one", () => {
  const files = makeTestingFiles();
  const before = new TestingPool(files);
  const volume = makeVolume(before);
  before.admin({ verb: "snapshot", names: ["a@s"] });
  volume.write(5 * bs, filled(bs, 1));
  volume.perform("flush", 0, 0);
  const metadata = new HoldingDevice(files.metadata);
  const pool = new TestingPool({ ...files, metadata });
  const again = pool.attach("a");
  const dirty = sourceOf(pool, "a", "qemu:dirty-bitmap:s");
  metadata.held = [];
  const question = again.askStatus([dirty, dirty, allocation], 0, 16 * bs);
  pool.kernel.start("test", pool.pool.admin({ verb: "rollback", snapshot: "a@s", force: true }));
  pool.drain();
  assertEquals(again.isAnswered(question), false);
  while (metadata.held.length > 0) {
    for (const release of metadata.release()) release();
    metadata.held = [];
    pool.drain();
  }
  assert(again.isAnswered(question));
  assertEquals(question.status, "ok");
  assertEquals(question.extents, [
    [{ lengthBytes: 16 * bs, flags: 0 }],
    [{ lengthBytes: 16 * bs, flags: 0 }],
    [{ lengthBytes: 16 * bs, flags: 3 }],
  ]);
});

/** A device in memory whose reads wait to be released from when {@linkcode held} is set. */
class HoldingDevice extends FailingDevice {
  held: (() => void)[] | undefined;

  override read(target: ReadTarget, offsetBytes: number, done: ReadDone): IoResult | "pending" {
    const buffer = target.memory();
    const result = readInto(this.device, buffer, offsetBytes, (later) => done(later, target));
    if (this.held === undefined || result === "pending") return result;
    this.held.push(() => done(result, target));
    return "pending";
  }

  /** From now on reads are not held; what was held is to be called. */
  release(): (() => void)[] {
    const held = this.held ?? [];
    this.held = undefined;
    return held;
  }
}

Deno.test("what was answered before a question is in its answer, whatever goes on beside it", () => {
  for (let seed = 0; seed < 150; seed++) {
    const random = new Random(seed);
    const files = makeTestingFiles(256);
    const policy = new RandomPolicy(seed);
    let uids = 0;
    const newUid = () => `uid${++uids}`;
    const before = new TestingPool(files, { newUid });
    const first = makeVolume(before, 64 * bs);
    for (let block = 0; block < 64; block += 2) first.write(block * bs, filled(10, 1));
    before.admin({ verb: "snapshot", names: ["a@s"] });
    first.perform("flush", 0, 0);
    // Opened again, so that questions and writes miss blocks and are run again.
    const pool = new TestingPool(files, { policy, newUid });
    const volume = pool.attach("a");
    const dirty = sourceOf(pool, "a", "qemu:dirty-bitmap:s");
    const change = (block: number) =>
      block % 2 === 0 && random.chance(0.3)
        ? volume.submit("discard", block * bs, bs)
        : volume.submit("write", block * bs, 10, { data: filled(10, 2) });
    const changed = new Set<number>();
    const pending: { block: number; request: ReturnType<typeof change> }[] = [];
    for (let round = 0; round < 12; round++) {
      for (let index = 0; index < 3; index++) {
        const block = random.below(32);
        pending.push({ block, request: change(block) });
      }
      if (random.chance(0.3)) volume.submit("flush", 0, 0);
      if (random.chance(0.3)) pool.drain();
      for (const { block, request } of pending) if (volume.isDone(request)) changed.add(block);
      const certain = new Set(changed);
      const question = volume.askStatus(dirty, 0, 64 * bs);
      pool.drain();
      const possible = new Set(pending.map(({ block }) => block));
      const found = blocksOf(question.extents[0]!, 1);
      assert(certain.isSubsetOf(found) && found.isSubsetOf(possible), `seed ${seed}, round ${round}`);
    }
  }
});

/** A data device of any size that keeps nothing. */
class ForgetfulDevice implements DevicePort {
  readonly local = undefined;
  constructor(readonly sizeBytes: number) {}

  read(target: ReadTarget): IoResult {
    target.memory().fill(0);
    return ioOk;
  }
  write(): IoResult {
    return ioOk;
  }
  zero(): IoResult {
    return ioOk;
  }
  copy(): IoResult {
    return ioOk;
  }
  flush(): IoResult {
    return ioOk;
  }
}

Deno.test("extents go on over the turns that they take, up to as many as were asked for", () => {
  const files = makeTestingFiles(20_000);
  const pool = new TestingPool({ ...files, data: new ForgetfulDevice(files.data.sizeBytes) });
  const volume = makeVolume(pool, 20_000 * bs);
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  const dirty = sourceOf(pool, "a", "qemu:dirty-bitmap:s");
  // More leaves than a turn reads.
  volume.perform("writeZeroes", 0, 12_000 * bs, { noHole: true });
  assertEquals(volume.status([allocation, dirty], 0, 20_000 * bs, 2).extents, [
    [{ lengthBytes: 12_000 * bs, flags: 0 }, { lengthBytes: 8000 * bs, flags: 3 }],
    [{ lengthBytes: 12_000 * bs, flags: 1 }, { lengthBytes: 8000 * bs, flags: 0 }],
  ]);
  assertEquals(volume.status(dirty, 0, 20_000 * bs, 1).extents, [[{ lengthBytes: 12_000 * bs, flags: 1 }]]);
  // More runs than a turn finds.
  for (let block = 0; block < 3000; block += 2) volume.submit("discard", block * bs, bs);
  pool.drain();
  const { extents } = volume.status([dirty, allocation], 0, 20_000 * bs);
  assertEquals(extents.map((list) => list.length), [3001, 3001]);
  const some = volume.status([dirty, allocation], 512, 20_000 * bs - 512, 2000).extents;
  assertEquals(some[0], [
    { lengthBytes: bs - 512, flags: 0 },
    ...Array.from({ length: 1999 }, (_, index) => ({ lengthBytes: bs, flags: (index + 1) % 2 })),
  ]);
});
