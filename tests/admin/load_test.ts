/** Admin commands while others are at work: many at once, beside writers, in a pool with many volumes, at the end of the clock. */
import { assert, assertEquals } from "@std/assert";
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import type { RequestsDone, VolumeRequest } from "../../actors/volume/bio.ts";
import type { Actor } from "../../actors/kernel/address.ts";
import type { LineRoom } from "../../actors/control/catalogue_room.ts";
import { assert as require } from "../../storage/base/assert.ts";
import { settleCatalogue } from "../../storage/catalogue_open.ts";
import { readJournal } from "../../storage/catalogue_journal.ts";
import { MemoryDevice } from "../support/memory_device.ts";
import { type IoDone, type IoResult, readInto } from "../../storage/device/port.ts";
import { timeMax } from "../../storage/format/block_time.ts";
import { packSuperblock, unpackSuperblock } from "../../storage/format/superblock.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import {
  makeTestingFiles,
  MemoryJournal,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../support/pool.ts";
import { RandomPolicy } from "../support/world.ts";
import { assertSound, begin, createVolume, namesIn, reasonOf } from "../support/pool_checks.ts";

const done: AdminResult = { kind: "done" };

Deno.test("a snapshot taken while large requests are half admitted waits for none that waits for it", () => {
  for (let seed = 1; seed <= 3; seed += 1) {
    const pool = new TestingPool(makeTestingFiles(2200, 512), { policy: new RandomPolicy(seed) });
    createVolume(pool, "a", 1100);
    assertEquals(pool.admin({ verb: "snapshot", names: ["a@empty"] }), done);
    const a = pool.attach("a");
    const write = (value: number) =>
      a.submit("write", 512, 32 << 20, { data: new Uint8Array(32 << 20).fill(value) });
    const requests = [write(1), write(2), a.submit("flush", 0, 0), write(3)];
    const results: AdminResult[] = [];
    begin(pool, { verb: "snapshot", names: ["a@s"] }, results);
    begin(pool, { verb: "rollback", snapshot: "a@empty", force: true }, results);
    requests.push(write(4));
    pool.drain();
    assertEquals(results.map(({ kind }) => kind).sort(), ["done", "rolledBack"]);
    assertEquals(requests.map((request) => a.isDone(request) && request.status), Array(5).fill("ok"));
    assertSound(pool);
  }
});

/** A device whose writes wait until they are let go. */
class HeldDevice extends MemoryDevice {
  held: (() => void)[] | undefined;

  override write(buffer: Uint8Array, offsetBytes: number, finished?: IoDone): IoResult {
    if (this.held === undefined || finished === undefined) return super.write(buffer, offsetBytes);
    this.held.push(() => finished(super.write(buffer, offsetBytes)));
    return "pending" as unknown as IoResult;
  }
}

Deno.test("a snapshot waits for the writes that are on their way, and never changes afterwards", () => {
  const { metadata, journal } = makeTestingFiles();
  const data = new HeldDevice(64 * bs);
  const pool = new TestingPool({ data, metadata, journal });
  createVolume(pool, "a", 4);
  createVolume(pool, "b", 4);
  const [a, b] = [pool.attach("a"), pool.attach("b")];
  a.write(0, new Uint8Array(2 * bs).fill(1));
  b.write(0, new Uint8Array(bs).fill(1));
  data.held = [];
  const early = a.submit("write", 100, 1000, { data: new Uint8Array(1000).fill(2) });
  pool.drain();
  const results: AdminResult[] = [];
  begin(pool, { verb: "snapshot", names: ["a@s", "b@s"] }, results);
  pool.drain();
  const late = [a, b].map((volume) => volume.submit("write", 0, bs, { data: new Uint8Array(bs).fill(3) }));
  pool.drain();
  assertEquals(results, [], "the snapshot is taken though a write is on its way");
  const held = data.held;
  data.held = undefined;
  for (const write of held) write();
  pool.drain();
  assertEquals(results, [done]);
  assertEquals([early, ...late].map((request) => request.status), ["ok", "ok", "ok"]);
  const snapshot = pool.attach("a@s").read(0, 2000);
  // What was answered before the cut is in it, what came later is not; the early write was answered before.
  assertEquals(snapshot.subarray(100, 1100), new Uint8Array(1000).fill(2));
  assertEquals(snapshot.subarray(0, 100), new Uint8Array(100).fill(1));
  assertEquals(pool.attach("b@s").read(0, bs), new Uint8Array(bs).fill(1));
  assertEquals(a.read(0, bs), new Uint8Array(bs).fill(3));
  assertSound(pool);
});

/** Writes a number to one volume, and when that is answered, to the other; then the next number. */
class LockStepWriter implements Actor<RequestsDone> {
  readonly #volumes: readonly TestingVolume[];
  #step = 0;
  readonly #steps: number;

  constructor(volumes: readonly TestingVolume[], numbers: number) {
    this.#volumes = volumes;
    this.#steps = numbers * volumes.length;
  }

  /** The numbers are submitted to this address by {@linkcode receive}; the first by `begin`. */
  receive(message: RequestsDone): void {
    for (const { status, client } of message.requests) {
      assertEquals(status, "ok");
      this.next(client);
    }
  }

  next(client: VolumeRequest["client"]): void {
    if (this.#step === this.#steps) return;
    const volume = this.#volumes[this.#step % this.#volumes.length]!;
    const data = new Uint8Array(512).fill(1 + Math.floor(this.#step / this.#volumes.length));
    this.#step += 1;
    const request: VolumeRequest = {
      kind: "write",
      offsetBytes: bs - 512,
      lengthBytes: 512,
      data,
      fua: false,
      noHole: false,
      fastZero: false,
      client,
      status: "ok",
      holes: new Uint8Array(0),
    };
    volume.pool.kernel.tell(volume.address, { type: "submit", requests: [request] });
  }
}

Deno.test("snapshots of one command cut two volumes that are written in lock-step at one instant", () => {
  const snapshots = 12;
  for (let seed = 1; seed <= 20; seed += 1) {
    const pool = new TestingPool(makeTestingFiles(), { policy: new RandomPolicy(seed) });
    createVolume(pool, "a", 1);
    createVolume(pool, "b", 1);
    const writer = new LockStepWriter([pool.attach("a"), pool.attach("b")], 100);
    const client = pool.kernel.spawn("lock-step writer", 16, () => writer);
    const results: AdminResult[] = [];
    for (let index = 0; index < snapshots; index += 1) {
      // In both orders: it is not the order of the names that makes it right.
      const names = index % 2 === 0 ? [`a@${index}`, `b@${index}`] : [`b@${index}`, `a@${index}`];
      begin(pool, { verb: "snapshot", names }, results);
    }
    writer.next(client);
    pool.drain();
    assertEquals(results, Array(snapshots).fill(done));
    let last = 0;
    for (let index = 0; index < snapshots; index += 1) {
      const [a, b] = ["a", "b"].map((name) => pool.attach(`${name}@${index}`).read(bs - 512, 1)[0]!);
      assert(a === b || a === b! + 1, `seed ${seed}: a holds ${a} and b holds ${b}`);
      assert(a! >= last, "a later snapshot is not older");
      last = a!;
    }
    assert(last > 0, "the writer and the snapshots went on side by side");
  }
});

/** What a command costs the world: messages, bytes for the journal. */
function costOf(pool: TestingPool, command: AdminCommand): number[] {
  const [deliveries, lengthBytes] = [pool.kernel.deliveries, pool.files.journal.text.length];
  assertEquals(pool.admin(command), done);
  return [pool.kernel.deliveries - deliveries, pool.files.journal.text.length - lengthBytes];
}

Deno.test("making a volume costs as much after a thousand as at first", () => {
  const pool = new TestingPool(makeTestingFiles(64, 2048));
  const costs: number[][] = [];
  const startMs = performance.now();
  let halfMs = 0;
  for (let index = 0; index < 1000; index += 1) {
    costs.push(costOf(pool, { verb: "create", name: `volume-${index}`, sizeBytes: bs }));
    if (index === 499) halfMs = performance.now() - startMs;
  }
  const totalMs = performance.now() - startMs;
  const [early, late] = [costs[10]!, costs[999]!];
  // A tree one level higher, and numbers with more digits.
  assert(late[0]! <= early[0]! + 20, `${late[0]} messages, at first ${early[0]}`);
  assert(late[1]! <= early[1]! + 20, `${late[1]} bytes of journal, at first ${early[1]}`);
  assert(totalMs - halfMs < 4 * halfMs + 500, `${totalMs - halfMs} ms after the first ${halfMs} ms`);
  assertEquals(namesIn(pool).length, 1000);
  assertSound(pool);
});

Deno.test("at the end of the snapshot clock a snapshot is refused with a sentence, and what needs no tick goes on", () => {
  const files = makeTestingFiles();
  const first = new TestingPool(files);
  createVolume(first, "a", 4);
  first.attach("a").write(0, new Uint8Array(bs).fill(1), { fua: true });
  assertEquals(first.admin({ verb: "snapshot", names: ["a@s"] }), done);
  const block = new Uint8Array(metadataBlockSizeBytes);
  readInto(files.metadata, block, 0, () => {});
  const superblock = unpackSuperblock(block);
  require(typeof superblock !== "string", "the superblock is sound");
  files.metadata.write(packSuperblock({ ...superblock, time: timeMax }), 0, () => {});

  const pool = new TestingPool(files, { newUid: () => `later-${uidLast += 1}` });
  const before = files.journal.text;
  for (
    const command of [
      { verb: "snapshot", names: ["a@t"] },
      { verb: "clone", source: "a", name: "b" },
      // What it replaces becomes a snapshot.
      { verb: "rollback", snapshot: "a@s", force: true },
    ] satisfies AdminCommand[]
  ) {
    assertEquals(
      reasonOf(pool.admin(command)),
      "The pool was not changed: the pool's 24-bit snapshot clock has reached its end; copy the volumes to a new pool.",
    );
  }
  assertEquals(files.journal.text, before);
  assertEquals(namesIn(pool), ["a", "a@s"]);
  assertEquals(pool.admin({ verb: "clone", source: "a@s", name: "c" }), done);
  assertEquals(pool.admin({ verb: "create", name: "d", sizeBytes: bs }), done);
  assertEquals(pool.attach("a").write(0, new Uint8Array(bs).fill(2)).status, "ok");
  assertEquals(pool.attach("c").read(0, 1), new Uint8Array([1]));
  assertSound(pool);
});

let uidLast = 0;

/** A journal whose host is full for one line. */
class FullJournal extends MemoryJournal {
  isFull = false;

  override append(line: string, room: LineRoom, finished: IoDone): void {
    if (!this.isFull) return super.append(line, room, finished);
    this.pending.push(() => finished({ kind: "noSpace" }));
  }
}

Deno.test("a change whose line finds the host full leaves the pool and the line before it alone", () => {
  const { data, metadata, journal: empty } = makeTestingFiles();
  const journal = new FullJournal(empty.text);
  const pool = new TestingPool({ data, metadata, journal });
  createVolume(pool, "a", 4);
  const before = journal.text;
  journal.isFull = true;
  assertEquals(
    reasonOf(pool.admin({ verb: "create", name: "b", sizeBytes: bs })),
    "The pool was not changed: the host is full, and what room there is in the catalogue is kept for removing. " +
      "Remove volumes or snapshots, or make room on the host.",
  );
  assertEquals(settledText(journal.text), settledText(before));
  journal.isFull = false;
  createVolume(pool, "b", 4);
  assertEquals(namesIn(new TestingPool({ data, metadata, journal })), ["a", "b"]);
});

/** The same journal as one line: it may have been written anew to make room. */
function settledText(text: string): string {
  const id = [...text.matchAll(/^\{.*?"transaction_id":"(\d+)"/gm)].at(-1)![1]!;
  return settleCatalogue(readJournal(text), BigInt(id)).catalogue.snapshotLine();
}
