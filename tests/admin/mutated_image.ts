/** A pool image, and changes of a field or two of its metadata. */
import type { AdminCommand } from "../../actors/control/admin_command.ts";
import { assert } from "../../storage/base/assert.ts";
import { MemoryDevice } from "../support/memory_device.ts";
import { bitmapEntries, setBitmapCount } from "../../storage/format/bitmap.ts";
import { sealBlock } from "../../storage/format/block_header.ts";
import { nodeCapacity, nodeEntries, nodeIsLeaf, nodeValueOffset } from "../../storage/format/btree_node.ts";
import { viewOf } from "../../storage/format/fields.ts";
import { metadataBlock, metadataBlockSizeBytes as blockBytes } from "../../storage/base/ids.ts";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../support/pool.ts";
import { Random } from "../support/world.ts";
import { walk, type Walked } from "./mutated_walk.ts";

const dataBlocks = 512;
const metadataBlocks = 256;
export const volumeBlocks = 300;

export interface Image {
  readonly data: Uint8Array;
  readonly metadata: Uint8Array;
  readonly journal: string;
}

/** Volume, vblock from and to, and what each block begins with. */
export const content: readonly (readonly [name: string, begin: number, end: number, value: number])[] = [
  ["a", 0, 40, 2],
  ["a", 40, volumeBlocks, 1],
  ["a@s", 0, volumeBlocks, 1],
  ["a@t", 0, volumeBlocks, 1],
  ["b", 0, 40, 3],
  ["c", 0, volumeBlocks, 1],
];

/** By name, the thin id. */
export const thinIds: ReadonlyMap<string, number> = new Map([["a", 1], ["b", 2], ["a@s", 3], ["a@t", 4], [
  "c",
  5,
]]);

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
export function mutate(metadata: Uint8Array, random: Random): string {
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
