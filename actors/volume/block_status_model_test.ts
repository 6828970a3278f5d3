/** Block status of every export after every change that a pool knows, against the metadata and the bytes. */
import type { VolumeRecord } from "../../storage/catalogue.ts";
import { assert, assertEquals } from "@std/assert";
import type { Extent } from "./block_status.ts";
import { present } from "../../storage/base/assert.ts";
import type { MemoryDevice } from "../../tests/support/memory_device.ts";
import { Recount } from "../../tests/support/metadata_recount.ts";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import { Random, RandomPolicy } from "../../tests/support/world.ts";

/** A pool whose volumes change in every way there is; what it should say is read from the metadata device. */
class Model {
  readonly pool: TestingPool;
  readonly #random: Random;
  #nameLast = 0;
  #valueLast = 0;
  /** What snapshots held when they were taken, by uid. */
  readonly taken = new Map<string, Uint8Array>();
  compared = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    this.pool = new TestingPool(makeTestingFiles(512, 1024), { policy: new RandomPolicy(seed) });
    this.pool.admin({ verb: "create", name: "v0", sizeBytes: 40 * bs });
  }

  #names(isSnapshot?: boolean): string[] {
    const names = recordsOf(this.pool).map(({ name }) => name);
    return names.filter((name) => isSnapshot === undefined || name.includes("@") === isSnapshot).sort();
  }

  #any(names: readonly string[]): string | undefined {
    return names[this.#random.below(names.length)];
  }

  /** A command; whether it is refused does not matter. */
  step(): void {
    const random = this.#random;
    const [volume, snapshot] = [this.#any(this.#names(false)), this.#any(this.#names(true))];
    const dice = random.below(100);
    const fresh = `v${++this.#nameLast}`;
    if (volume === undefined) this.pool.admin({ verb: "create", name: fresh, sizeBytes: 40 * bs });
    else if (dice < 60) this.#change(volume);
    else if (dice < 72) this.#snapshot(`${volume}@${fresh}`);
    else if (dice < 76) this.pool.admin({ verb: "clone", source: snapshot ?? volume, name: fresh });
    else if (dice < 80 && snapshot !== undefined) {
      this.#rollback(snapshot);
    } else if (dice < 86) this.#remove(this.#any(this.#names())!);
    else if (dice < 94) {
      const sizeBytes = (20 + random.below(40)) * bs + 512 * random.below(4);
      this.pool.admin({ verb: "resize", name: volume, sizeBytes, force: true });
    } else this.pool.admin({ verb: "rename", from: volume, to: fresh });
  }

  #snapshot(name: string): void {
    if (this.pool.admin({ verb: "snapshot", names: [name] }).kind === "done") {
      const snapshot = this.pool.attach(name);
      snapshot.detach();
      this.taken.set(snapshot.uid, bytesOf(this.pool, name));
    }
  }

  /** What the volume had is a snapshot then. */
  #rollback(snapshot: string): void {
    const volume = snapshot.slice(0, snapshot.indexOf("@"));
    const held = this.#names(false).includes(volume) ? bytesOf(this.pool, volume) : undefined;
    const result = this.pool.admin({ verb: "rollback", snapshot, force: true });
    if (result.kind !== "rolledBack" || held === undefined) return;
    const kept = this.pool.attach(result.kept);
    kept.detach();
    this.taken.set(kept.uid, held);
  }

  #remove(name: string): void {
    if (this.#names().length > 3) this.pool.admin({ verb: "rm", names: [name], force: false, dryRun: false });
  }

  #change(name: string): void {
    const volume = this.pool.attach(name);
    for (let count = 0; count < 6; count++) {
      const begin = this.#random.below(40) * bs;
      const length = (1 + this.#random.below(4)) * bs;
      if (this.#random.chance(0.3)) volume.submit("discard", begin, length);
      else {volume.submit("write", begin, length - 100, {
          data: new Uint8Array(length - 100).fill(++this.#valueLast),
        });}
    }
    this.pool.drain();
    volume.detach();
  }

  /** Every context of every export, against the metadata as it is on the device after a commit. */
  compare(): void {
    const records = recordsOf(this.pool);
    const someVolume = this.pool.attach(records[0]!.name);
    someVolume.perform("flush", 0, 0);
    someVolume.detach();
    const { devices } = new Recount((this.pool.files.metadata as MemoryDevice).bytes);
    const blocksOfThin = (id: number) =>
      new Map([...devices.get(id)!].map(([vblock, [dblock]]) => [vblock, dblock]));
    for (const record of records) {
      const own = blocksOfThin(record.thinId);
      const blocks = Math.ceil(record.sizeBytes / bs);
      const sources = this.pool.contexts(record.name).map(({ source }) => source);
      const volume = this.pool.attach(record.name);
      const { status, extents } = volume.status(sources, 0, record.sizeBytes);
      volume.detach();
      assertEquals(status, "ok");
      for (const [index, source] of sources.entries()) {
        const other = source.kind === "dirty" ? blocksOfThin(source.thinId) : undefined;
        const flags = Array.from({ length: blocks }, (_, block) => {
          if (other === undefined) return own.has(block) ? 0 : 3;
          return own.get(block) === other.get(block) ? 0 : 1;
        });
        assertEquals(extents[index], extentsOf(flags, record.sizeBytes));
        this.compared++;
      }
    }
  }
}

const sizeBytesMax = 64 * bs;

function recordsOf(pool: TestingPool): VolumeRecord[] {
  return pool.ask(pool.pool.registry()).records.filter(({ deleting }) => !deleting);
}

/** What a volume or snapshot holds; what is beyond its end counts as zeroes. */
function bytesOf(pool: TestingPool, name: string): Uint8Array {
  const volume = pool.attach(name);
  const record = recordsOf(pool).find((each) => each.name === name)!;
  const bytes = new Uint8Array(sizeBytesMax);
  bytes.set(volume.read(0, record.sizeBytes));
  volume.detach();
  return bytes;
}

/** For every export, what is clean is what the snapshot held when it was taken, and what is a hole reads as zeroes. */
function compareContent({ pool, taken }: Model): number {
  const records = recordsOf(pool);
  const takenOfThin = new Map(records.map((record) => [record.thinId, taken.get(record.uid)]));
  let clean = 0;
  for (const record of records) {
    const own = bytesOf(pool, record.name);
    const volume = pool.attach(record.name);
    for (const { source } of pool.contexts(record.name)) {
      const other = source.kind === "dirty"
        ? present(takenOfThin.get(source.thinId), "what a snapshot held is known")
        : new Uint8Array(sizeBytesMax);
      const sameFlags = source.kind === "dirty" ? 0 : 3;
      let at = 0;
      for (const { lengthBytes, flags } of volume.status(source, 0, record.sizeBytes).extents[0]!) {
        const end = at + lengthBytes;
        if (flags === sameFlags) {
          assert(isSame(own.subarray(at, end), other.subarray(at, end)), "what is clean differs");
          clean++;
        }
        at = end;
      }
    }
    volume.detach();
  }
  return clean;
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  for (let index = 0; index < one.length; index++) if (one[index] !== other[index]) return false;
  return true;
}

/** The extents of blocks with these flags; the last block may be a part of one. */
function extentsOf(flags: readonly number[], sizeBytes: number): Extent[] {
  const extents: { lengthBytes: number; flags: number }[] = [];
  for (const [block, each] of flags.entries()) {
    const lengthBytes = Math.min(bs, sizeBytes - block * bs);
    const last = extents.at(-1);
    if (last?.flags === each) last.lengthBytes += lengthBytes;
    else extents.push({ lengthBytes, flags: each });
  }
  return extents;
}

Deno.test("every context of every export agrees with metadata and bytes, whatever was done to the volumes", () => {
  let compared = 0;
  let clean = 0;
  for (let seed = 0; seed < 12; seed++) {
    const model = new Model(seed);
    for (let step = 0; step < 60; step++) {
      model.step();
      if (step % 6 === 5) model.compare();
    }
    compared += model.compared;
    clean += compareContent(model);
  }
  assert(compared > 1000 && clean > 500, `${compared} contexts and ${clean} extents were compared`);
});
