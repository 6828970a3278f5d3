/**
 * Metadata of a real pool with some fields changed and its checksums renewed: what a disk may say though no program wrote
 * it so. The pool is opened on it and used; whatever it says, there is no defect and no hang, and a volume that the
 * change does not concern shows no wrong byte.
 *
 * By hand, for as long as one likes: `deno run -A tests/admin/mutated_pool.ts 1 10000` (first seed, how many).
 */
import { UserError } from "../../storage/base/errors.ts";
import { OpenRefused } from "../../storage/thin_metadata.ts";
import type { IoResult } from "../../storage/device/port.ts";
import { MemoryDevice } from "../support/memory_device.ts";
import { checkImage, dumpImage, usageOfImage } from "../support/metadata_reader.ts";
import {
  MemoryJournal,
  StartRefused,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../support/pool.ts";
import { Random } from "../support/world.ts";
import { walk, type Walked } from "./mutated_walk.ts";
import { base, content, type Image, mutate, thinIds, volumeBlocks } from "./mutated_image.ts";

/** What a volume that the change does not concern holds: the first byte of each block, -1 where it is uncertain. */
type Model = Int16Array;

function modelsOf(walked: Walked | undefined): Map<string, Model> {
  const models = new Map<string, Model>();
  if (walked === undefined || walked.hasFreeInUse) return models;
  const whole = base().walked;
  const systemNodes = [...walked.understated.metadata].some((block) => {
    return ![...walked.devices.values()].some((device) => device?.nodes.has(block) ?? false);
  });
  if (systemNodes) return models;
  for (const [name, id] of thinIds) {
    const [now, before] = [walked.devices.get(id), whole.devices.get(id)];
    if (now === undefined || before === undefined || now.mappings.size !== before.mappings.size) continue;
    const isSame = [...before.mappings].every(([vblock, mapped]) => now.mappings.get(vblock) === mapped);
    const isUnderstated = [...now.mappings.values()].some((mapped) => walked.understated.data.has(mapped)) ||
      [...now.nodes].some((node) => walked.understated.metadata.has(node));
    if (isSame && !isUnderstated) models.set(name, new Int16Array(volumeBlocks));
  }
  for (const [name, begin, end, value] of content) models.get(name)?.fill(value, begin, end);
  return models;
}

/** How a run ended. */
export type MutatedEnd = "refused" | "damaged" | "used";

/** Runs one seed. Throws where a defect, a hang or a wrong byte was met. */
export function runMutated(seed: number): { readonly end: MutatedEnd; readonly what: string } {
  const random = new Random(seed);
  const { image } = base();
  const metadata = image.metadata.slice();
  const whats: string[] = [];
  for (let left = 1 + random.below(2); left > 0; left -= 1) whats.push(mutate(metadata, random));
  const what = whats.join("; ");
  try {
    // Whether or not it is opened, what only looks must cope with it.
    checkImage(metadata);
    dumpImage(metadata);
    usageOfImage(metadata);
    usageOfImage(metadata, { recount: true });
    if (seed % 4 === 0) new Run(image, metadata.slice(), new Random(seed)).readOnly();
    return { end: new Run(image, metadata, random).run(), what };
  } catch (error) {
    const stack = error instanceof Error ? error.stack : String(error);
    throw new Error(`seed ${seed} (${what}): ${stack}`);
  }
}

/** The data of the base, of which each run gets back what the one before has changed: to copy all takes longer than a run. */
class ReusedDevice extends MemoryDevice {
  readonly #base: Uint8Array;
  readonly #changed = new Set<number>();

  constructor(base: Uint8Array) {
    super(base.slice());
    this.#base = base;
  }

  restore(): void {
    for (const block of this.#changed) {
      this.bytes.set(this.#base.subarray(block * bs, (block + 1) * bs), block * bs);
    }
    this.#changed.clear();
  }

  override write(buffer: Uint8Array, offsetBytes: number): IoResult {
    this.#note(offsetBytes, buffer.length);
    return super.write(buffer, offsetBytes);
  }

  override zero(offsetBytes: number, lengthBytes: number): IoResult {
    this.#note(offsetBytes, lengthBytes);
    return super.zero(offsetBytes, lengthBytes);
  }

  override copy(fromBytes: number, toBytes: number, lengthBytes: number): IoResult {
    this.#note(toBytes, lengthBytes);
    return super.copy(fromBytes, toBytes, lengthBytes);
  }

  #note(offsetBytes: number, lengthBytes: number): void {
    const end = Math.min(this.sizeBytes, offsetBytes + lengthBytes);
    for (let block = Math.floor(offsetBytes / bs); block * bs < end; block += 1) this.#changed.add(block);
  }
}

let reused: ReusedDevice | undefined;

class Run {
  readonly #random: Random;
  readonly #models: Map<string, Model>;
  readonly #files;
  #names = [...thinIds.keys()];
  #last = 0;

  constructor(image: Image, metadata: Uint8Array, random: Random) {
    this.#random = random;
    this.#models = modelsOf(walk(metadata));
    reused ??= new ReusedDevice(image.data);
    reused.restore();
    this.#files = {
      data: reused,
      metadata: new MemoryDevice(metadata),
      journal: new MemoryJournal(image.journal),
    };
  }

  run(): MutatedEnd {
    const pool = this.#open();
    if (pool === undefined) return "refused";
    for (let step = 0; step < 24; step += 1) this.#step(pool);
    for (const name of this.#names) this.#verify(pool, name);
    const isDamaged = pool.logged.some((line) => line.startsWith("The pool writes no more"));
    const flushed = this.#volume(pool, this.#names[0])?.perform("flush", 0, 0).status === "ok";
    if (flushed) {
      const again = this.#open();
      if (again !== undefined) { for (const name of this.#names) this.#verify(again, name); }
    }
    return isDamaged ? "damaged" : "used";
  }

  /** A pool opened read-only reads no counts. */
  readOnly(): void {
    const pool = this.#open(true);
    if (pool === undefined) return;
    for (const name of this.#names) this.#verify(pool, name);
    this.#look(pool);
  }

  #open(readOnly = false): TestingPool | undefined {
    let uid = this.#last;
    try {
      return new TestingPool(this.#files, {
        readOnly,
        newUid: () => `m${this.#random.below(2 ** 30)}-${uid++}`,
      });
    } catch (error) {
      if (error instanceof OpenRefused || error instanceof UserError || error instanceof StartRefused) {
        return undefined;
      }
      throw error;
    }
  }

  #volume(pool: TestingPool, name: string | undefined): TestingVolume | undefined {
    if (name === undefined) return undefined;
    try {
      return pool.attach(name);
    } catch (error) {
      if (error instanceof Error && error.message.startsWith("not attached")) return undefined;
      throw error;
    }
  }

  #step(pool: TestingPool): void {
    const random = this.#random;
    const name = this.#names[random.below(this.#names.length)];
    if (name === undefined) return;
    switch (random.below(12)) {
      case 0:
        return this.#snapshot(pool, name);
      case 1:
        return this.#clone(pool, name);
      case 2:
        return this.#remove(pool, name);
      case 3:
        return this.#look(pool);
      case 4:
        return this.#verify(pool, name);
      default:
        return this.#io(pool, name);
    }
  }

  #io(pool: TestingPool, name: string): void {
    const random = this.#random;
    const volume = this.#volume(pool, name);
    if (volume === undefined || name.includes("@")) return;
    const model = this.#models.get(name);
    const at = random.below(volumeBlocks);
    const count = Math.min(
      volumeBlocks - at,
      random.below(4) === 0 ? 1 + random.below(120) : 1 + random.below(3),
    );
    const value = 10 + random.below(200);
    switch (random.below(5)) {
      case 0: {
        const status = volume.perform("discard", at * bs, count * bs).status;
        model?.fill(status === "ok" ? 0 : -1, at, at + count);
        break;
      }
      case 1: {
        const status = volume.perform("writeZeroes", at * bs, bs, { noHole: random.below(2) === 0 }).status;
        model?.fill(status === "ok" ? 0 : -1, at, at + 1);
        break;
      }
      case 2:
        volume.perform("flush", 0, 0);
        break;
      default:
        for (let block = at; block < at + Math.min(count, 3); block += 1) {
          const bytes = random.below(2) === 0 ? 1 : bs;
          const status = volume.write(block * bs, new Uint8Array(bytes).fill(value)).status;
          model?.fill(status === "ok" ? value : -1, block, block + 1);
        }
    }
  }

  #snapshot(pool: TestingPool, name: string): void {
    if (name.includes("@")) return;
    const snapshot = `${name}@n${this.#last += 1}`;
    if (pool.admin({ verb: "snapshot", names: [snapshot] }).kind === "done") this.#made(name, snapshot);
  }

  #clone(pool: TestingPool, name: string): void {
    const clone = `k${this.#last += 1}`;
    if (pool.admin({ verb: "clone", source: name, name: clone }).kind === "done") this.#made(name, clone);
  }

  #made(from: string, name: string): void {
    this.#names.push(name);
    const model = this.#models.get(from);
    if (model !== undefined) this.#models.set(name, model.slice());
  }

  #remove(pool: TestingPool, name: string): void {
    pool.admin({ verb: "rm", names: [name], force: true, dryRun: true });
    for (const volume of this.#attached(pool, name)) volume.detach();
    pool.admin({ verb: "rm", names: [name], force: false, dryRun: false });
    this.#names = this.#names.filter((other) => other !== name || this.#volume(pool, name) !== undefined);
  }

  /** Nothing stays attached that could keep a removal waiting: the client of these tests answers nothing. */
  #attached(pool: TestingPool, name: string): TestingVolume[] {
    const volume = this.#volume(pool, name);
    return volume === undefined ? [] : [volume];
  }

  #look(pool: TestingPool): void {
    pool.admin({ verb: "list" });
    pool.admin({ verb: "status" });
    pool.admin({ verb: "check" });
  }

  #verify(pool: TestingPool, name: string): void {
    const volume = this.#volume(pool, name);
    if (volume === undefined) return;
    const model = this.#models.get(name);
    const reads = Array.from({ length: volumeBlocks }, (_, at) => volume.submit("read", at * bs, 1));
    pool.drain();
    const tasks = pool.kernel.tasksInFlight();
    if (tasks.length > 0) throw new Error(`not done; in flight: ${tasks.join("; ")}`);
    for (const [at, read] of reads.entries()) {
      if (read.status !== "ok" || model === undefined || model[at] === -1) continue;
      if (read.data[0] !== model[at]) {
        throw new Error(`${name} block ${at} reads ${read.data[0]} instead of ${model[at]}`);
      }
    }
  }
}

if (import.meta.main) {
  const [first = 1, count = 1000] = Deno.args.map(Number);
  const ends: Record<MutatedEnd, number> = { refused: 0, damaged: 0, used: 0 };
  let failed = 0;
  for (let seed = first; seed < first + count; seed += 1) {
    try {
      ends[runMutated(seed).end] += 1;
    } catch (error) {
      failed += 1;
      console.log(error instanceof Error ? error.message : error);
      if (failed >= 20) break;
    }
  }
  console.log(JSON.stringify({ first, count, ...ends, failed }));
  if (failed > 0) Deno.exit(1);
}
