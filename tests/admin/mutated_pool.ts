/**
 * Metadata of a real pool with some fields changed and its checksums renewed: what a disk may say though no program wrote
 * it so. The pool is opened on it and used; whatever it says, there is no defect and no hang, and a volume that the
 * change does not concern shows no wrong byte.
 *
 * By hand, for as long as one likes: `deno run -A tests/admin/mutated_pool.ts 1 10000` (first seed, how many).
 */
import type { AdminCommand } from "../../actors/control/admin_command.ts";
import { assert } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";
import { OpenRefused } from "../../storage/thin_metadata.ts";
import type { IoResult } from "../../storage/device/port.ts";
import { MemoryDevice } from "../support/memory_device.ts";
import { bitmapEntries, setBitmapCount } from "../../storage/format/bitmap.ts";
import { sealBlock } from "../../storage/format/block_header.ts";
import { nodeCapacity, nodeEntries, nodeIsLeaf, nodeValueOffset } from "../../storage/format/btree_node.ts";
import { viewOf } from "../../storage/format/fields.ts";
import { metadataBlock, metadataBlockSizeBytes as blockBytes } from "../../storage/base/ids.ts";
import { checkImage, dumpImage, usageOfImage } from "../support/metadata_reader.ts";
import {
  makeTestingFiles,
  MemoryJournal,
  StartRefused,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../support/pool.ts";
import { Random } from "../support/world.ts";
import { walk, type Walked } from "./mutated_walk.ts";

const dataBlocks = 512;
const metadataBlocks = 256;
const volumeBlocks = 300;

interface Image {
  readonly data: Uint8Array;
  readonly metadata: Uint8Array;
  readonly journal: string;
}

/** Volume, vblock from and to, and what each block begins with. */
const content: readonly (readonly [name: string, begin: number, end: number, value: number])[] = [
  ["a", 0, 40, 2],
  ["a", 40, volumeBlocks, 1],
  ["a@s", 0, volumeBlocks, 1],
  ["a@t", 0, volumeBlocks, 1],
  ["b", 0, 40, 3],
  ["c", 0, volumeBlocks, 1],
];

/** By name, the thin id. */
const thinIds: ReadonlyMap<string, number> = new Map([["a", 1], ["b", 2], ["a@s", 3], ["a@t", 4], ["c", 5]]);

function makeBase(): Image {
  const { journal, ...devices } = makeTestingFiles(dataBlocks, metadataBlocks);
  const pool = new TestingPool({ ...devices, journal });
  const run = (command: AdminCommand) => assert(pool.admin(command).kind === "done", "a command of the base");
  const fill = (volume: TestingVolume, begin: number, end: number, value: number) => {
    for (let at = begin; at < end; at += 1) volume.write(at * bs, new Uint8Array(1).fill(value));
  };
  run({ verb: "create", name: "a", sizeBytes: volumeBlocks * bs });
  run({ verb: "create", name: "b", sizeBytes: volumeBlocks * bs });
  const [a, b] = [pool.attach("a"), pool.attach("b")];
  fill(a, 0, volumeBlocks, 1);
  run({ verb: "snapshot", names: ["a@s"] });
  run({ verb: "snapshot", names: ["a@t"] });
  run({ verb: "clone", source: "a@s", name: "c" });
  fill(a, 0, 40, 2);
  fill(b, 0, 40, 3);
  assert(a.perform("flush", 0, 0).status === "ok", "the base is flushed");
  assert(devices.data instanceof MemoryDevice, "it is in memory");
  assert(devices.metadata instanceof MemoryDevice, "it is in memory");
  return { data: devices.data.bytes, metadata: devices.metadata.bytes, journal: journal.text };
}

let made: { readonly image: Image; readonly walked: Walked } | undefined;

/** What all seeds begin with, and what a walk finds in it. */
export function base(): { readonly image: Image; readonly walked: Walked } {
  if (made !== undefined) return made;
  const image = makeBase();
  const walked = walk(image.metadata);
  assert(walked !== undefined, "the base is whole");
  return made = { image, walked };
}

/**
 * Offsets of 32-bit fields of the superblock, and of the first words of 64-bit ones. Not of those that are compared with the
 * files when a pool is opened: block size and number of data blocks.
 */
const superblockFields = [4, 44, 48, 56, 72, 80, 88, 192, 200, 208, 216, 320, 328, 344];

/** Changes one field; says which. */
function mutate(metadata: Uint8Array, random: Random): string {
  const { kinds, valueSizes } = base().walked;
  const blocks = [...kinds.keys()];
  const block = blocks[random.below(blocks.length)]!;
  const bytes = metadata.subarray(block * blockBytes, (block + 1) * blockBytes);
  const view = viewOf(bytes);
  const kind = kinds.get(block)!;
  let what: string;
  if (kind === "superblock") {
    const offset = superblockFields[random.below(superblockFields.length)]!;
    what = setField(view, offset, random);
  } else if (kind === "bitmap") {
    const index = random.below(random.below(8) === 0 ? bitmapEntries : dataBlocks);
    const count = random.below(4);
    setBitmapCount(bytes, index, count);
    what = `count ${index} = ${count}`;
    if (index % 7 === 0) setBitmapCount(bytes, index + 1, count);
  } else if (kind === "metadataIndex") what = setField(view, 16 + 4 * random.below(4), random);
  else what = mutateNode(view, valueSizes.get(block)!, random);
  sealBlock(bytes, kind, metadataBlock(block));
  return `${kind} ${block}: ${what}`;
}

function mutateNode(view: DataView, valueSizeBytes: number, random: Random): string {
  // The mutation before this one may have said anything.
  const entries = Math.min(nodeEntries(view), nodeCapacity(valueSizeBytes));
  const choice = random.below(10);
  if (choice === 0 || entries === 0) return setField(view, [4, 16, 16, 20, 24, 28][random.below(6)]!, random);
  const index = random.below(entries);
  if (choice < 3) return setField(view, 32 + 8 * index, random);
  const offset = nodeValueOffset(view, index);
  if (offset + valueSizeBytes > blockBytes) return "nothing";
  if (!nodeIsLeaf(view) || valueSizeBytes <= 8) {
    const other = Math.min(blockBytes - 8, nodeValueOffset(view, random.below(entries)));
    if (choice < 6 && valueSizeBytes === 8) {
      view.setBigUint64(offset, view.getBigUint64(other, true), true);
      return `value at ${offset} = the one at ${other}`;
    }
    // The low byte of a data block is the high byte of the first word.
    if (choice < 8 && nodeIsLeaf(view)) {
      view.setUint8(offset + 3, random.below(256));
      return `byte at ${offset + 3} = ${view.getUint8(offset + 3)}`;
    }
    return setField(
      view,
      offset + (random.below(4) === 0 && (valueSizeBytes === 8 || !nodeIsLeaf(view)) ? 4 : 0),
      random,
    );
  }
  const size = nodeIsLeaf(view) ? valueSizeBytes : 8;
  return setField(view, offset + 4 * random.below(size / 4), random);
}

function setField(view: DataView, offset: number, random: Random): string {
  const before = view.getUint32(offset, true);
  const values = [
    0,
    1,
    2,
    3,
    before + 1,
    before - 1,
    before ^ (1 << random.below(32)),
    before * 2,
    random.below(metadataBlocks),
    random.below(metadataBlocks),
    random.below(dataBlocks),
    0xffff_ffff,
    0x0100_0000,
    0x00ff_ffff,
  ];
  const value = values[random.below(values.length)]! >>> 0;
  view.setUint32(offset, value, true);
  return `word at ${offset} = ${value} (was ${before})`;
}

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

/** How a run ended, for whoever counts. */
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
    // Whether or not it is opened, those who only look must cope with it.
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
