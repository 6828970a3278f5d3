/**
 * Damage as data: one field of good metadata changed, its checksum renewed, and who refuses the
 * result. The kernel's column is that table's; the tools' columns are asserted against the tools.
 */
import { nodeKey, nodeValueOffset } from "../../storage/format/btree_node.ts";
import { type MetadataBlock, metadataBlock, metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import type { Anatomy } from "./anatomy.ts";

export interface Mutation {
  readonly name: string;
  readonly change: (anatomy: Anatomy) => Uint8Array;
  /** Who refuses: "9" thin_check 0.9, "1" thin_check 1.x, "k" the kernel, "u" only we; "" nobody. */
  readonly refusedBy: string;
}

const superblock = metadataBlock(0);
const nodeKeysOffset = 32;

function superblock32(name: string, offset: number, value: number, refusedBy: string): Mutation {
  return { name, change: (a) => a.with32(superblock, offset, value), refusedBy };
}

function superblock64(name: string, offset: number, value: number, refusedBy: string): Mutation {
  return { name, change: (a) => a.with64(superblock, offset, value), refusedBy };
}

const superblockMutations: Mutation[] = [
  { name: "superblock checksum", change: (a) => a.withFlippedByte(superblock), refusedBy: "91k" },
  superblock32("superblock magic", 32, 12345, "k"),
  superblock32("superblock block number", 8, 5, "k"),
  superblock32("version 1", 40, 1, ""),
  superblock32("version 99", 40, 99, ""),
  superblock32("metadata_block_size 0", 340, 0, ""),
  superblock64("metadata_nr_blocks wrong", 344, 7, ""),
  superblock32("a byte after the fields", 2000, 7, ""),
  superblock32("padding of the data space map root", 64 + 40, 7, ""),
  superblock32("unknown flag 0x80", 4, 0x80, ""),
  superblock32("compat_flags", 352, 4, ""),
  superblock32("compat_ro_flags", 356, 4, "k"),
  superblock32("incompat_flags", 360, 4, "k"),
  superblock32("data_block_size 100", 336, 100, "k"),
  superblock32("data_block_size 2 GiB", 336, 4_194_304, "k"),
  superblock32("needs_check", 4, 1, ""),
  {
    name: "held_root at a node",
    change: (a) => a.with64(superblock, 56, a.superblock.detailsRoot),
    refusedBy: "91",
  },
  superblock64("held_root beyond the end", 56, 1e6, "91"),
  superblock64("data nr_allocated too high", 64 + 8, 99_999, ""),
  superblock64("metadata nr_allocated 0", 192 + 8, 0, ""),
  superblock64("data nr_blocks below used blocks", 64, 60, "1"),
  {
    name: "mapping root at the details tree",
    change: (a) => a.with64(superblock, 320, a.superblock.detailsRoot),
    refusedBy: "91k",
  },
];

function metadataIndexMutations(): Mutation[] {
  const index = (a: Anatomy) => a.superblock.metadataSpaceMap.bitmapRoot;
  return [
    { name: "metadata index checksum", change: (a) => a.withFlippedByte(index(a)), refusedBy: "91k" },
    { name: "metadata index block number", change: (a) => a.with32(index(a), 8, 77), refusedBy: "91k" },
    { name: "nr_free 0", change: (a) => a.with32(index(a), 24, 0), refusedBy: "" },
    { name: "none_free_before too high", change: (a) => a.with32(index(a), 28, 200), refusedBy: "" },
  ];
}

function bitmapMutations(): Mutation[] {
  const bitmap = (a: Anatomy) => a.metadataBitmap;
  const free = (a: Anatomy) => a.blockWithCount(bitmap(a), 0);
  return [
    { name: "bitmap checksum", change: (a) => a.withFlippedByte(bitmap(a)), refusedBy: "91k" },
    { name: "metadata bitmap block number", change: (a) => a.with32(bitmap(a), 8, 77), refusedBy: "9k" },
    { name: "data bitmap block number", change: (a) => a.with32(a.dataBitmap(0), 8, 77), refusedBy: "9k" },
    { name: "bitmap unused word", change: (a) => a.with32(bitmap(a), 4, 3), refusedBy: "" },
    { name: "bits past nr_blocks", change: (a) => a.with32(bitmap(a), 4092, 0xaaaa_aaaa), refusedBy: "" },
    { name: "metadata leak of 1", change: (a) => a.withCount(bitmap(a), free(a), 1), refusedBy: "91" },
    { name: "metadata leak of 2", change: (a) => a.withCount(bitmap(a), free(a), 2), refusedBy: "91" },
    { name: "metadata leak of 3", change: (a) => a.withCount(bitmap(a), free(a), 3), refusedBy: "91" },
    {
      name: "used metadata block with count 0",
      change: (a) => a.withCount(bitmap(a), a.superblock.detailsRoot, 0),
      refusedBy: "91",
    },
    {
      name: "used metadata block with count 2 instead of 1",
      change: (a) => a.withCount(bitmap(a), a.superblock.detailsRoot, 2),
      refusedBy: "91",
    },
    {
      name: "metadata count 3 without overflow entry",
      change: (a) => a.withCount(bitmap(a), a.superblock.detailsRoot, 3),
      refusedBy: "91",
    },
  ];
}

function dataCountMutations(): Mutation[] {
  const bitmap = (a: Anatomy) => a.dataBitmap(0);
  const recount = (from: number, to: number): Mutation => ({
    name: `data count ${to} instead of ${from}`,
    change: (a) => a.withCount(bitmap(a), a.blockWithCount(bitmap(a), from), to),
    refusedBy: "1",
  });
  return [
    recount(0, 1),
    recount(0, 2),
    recount(1, 0),
    recount(1, 2),
    recount(1, 3),
    recount(2, 1),
    recount(3, 2),
    {
      name: "leak in a data bitmap without mappings",
      change: (a) => a.withCount(a.dataBitmap(1), 77, 1),
      refusedBy: "1",
    },
    {
      name: "data overflow count wrong",
      change: (a) => {
        const leaf = a.superblock.dataSpaceMap.overflowRoot;
        return a.with32(leaf, nodeValueOffset(a.view(leaf), 0), 17);
      },
      refusedBy: "1",
    },
    {
      // The kernel looks such a count up and finds nothing.
      name: "data counts of 3 and more without overflow entries",
      change: (a) => a.with32(a.superblock.dataSpaceMap.overflowRoot, 16, 0),
      refusedBy: "k",
    },
    {
      name: "data overflow entry for the wrong block",
      change: (a) => {
        const leaf = a.superblock.dataSpaceMap.overflowRoot;
        return a.with64(leaf, nodeKeysOffset, nodeKey(a.view(leaf), 0) - 1);
      },
      refusedBy: "1",
    },
    {
      name: "data index entry at a node",
      change: (a) => {
        const leaf = a.firstLeaf(a.superblock.dataSpaceMap.bitmapRoot);
        return a.with64(leaf, nodeValueOffset(a.view(leaf), 1), a.superblock.detailsRoot);
      },
      refusedBy: "91k",
    },
  ];
}

function detailsMutations(): Mutation[] {
  const leaf = (a: Anatomy) => a.firstLeaf(a.superblock.detailsRoot);
  const record = (a: Anatomy) => nodeValueOffset(a.view(leaf(a)), 0);
  return [
    { name: "mapped_blocks wrong", change: (a) => a.with64(leaf(a), record(a), 5), refusedBy: "1" },
    {
      name: "transaction of a device yet to come",
      change: (a) => withOpaque64(a, leaf(a), record(a) + 8, 0xffff_0000_0000_0000n),
      refusedBy: "",
    },
    {
      name: "snap_time beyond the clock",
      change: (a) => a.with32(leaf(a), record(a) + 20, 1e6),
      refusedBy: "",
    },
    {
      name: "device with mappings but no details",
      change: (a) => a.with32(leaf(a), 16, a.lastEntry(leaf(a))),
      refusedBy: "1k",
    },
    {
      name: "device with details but no mappings",
      change: (a) => a.with32(a.superblock.mappingRoot, 16, a.lastEntry(a.superblock.mappingRoot)),
      refusedBy: "91",
    },
  ];
}

function withOpaque64(a: Anatomy, block: MetadataBlock, offset: number, value: bigint): Uint8Array {
  const low = a.with32(block, offset, Number(value & 0xffff_ffffn));
  const other = new (a.constructor as typeof Anatomy)(low);
  return other.with32(block, offset + 4, Number(value >> 32n));
}

function leafMutations(): Mutation[] {
  const leaf = (a: Anatomy) => a.deviceLeaf(1);
  const value = (a: Anatomy) => nodeValueOffset(a.view(leaf(a)), 0);
  return [
    {
      name: "mapping beyond the data device",
      change: (a) => a.with32(leaf(a), value(a) + 4, 0x00ff_0000),
      refusedBy: "1k",
    },
    {
      name: "mapping time beyond the clock",
      change: (a) =>
        a.with32(leaf(a), value(a), (a.view(leaf(a)).getUint32(value(a), true) | 0xff_ffff) >>> 0),
      refusedBy: "",
    },
    { name: "node checksum", change: (a) => a.withFlippedByte(leaf(a)), refusedBy: "91k" },
    { name: "node block number", change: (a) => a.with32(leaf(a), 8, 1), refusedBy: "91k" },
    { name: "node flags 0", change: (a) => a.with32(leaf(a), 4, 0), refusedBy: "91k" },
    { name: "node flags 3", change: (a) => a.with32(leaf(a), 4, 3), refusedBy: "91k" },
    { name: "node value_size", change: (a) => a.with32(leaf(a), 24, 4), refusedBy: "91k" },
    { name: "node max_entries 251", change: (a) => a.with32(leaf(a), 20, 251), refusedBy: "91" },
    { name: "node max_entries 255", change: (a) => a.with32(leaf(a), 20, 255), refusedBy: "91" },
    { name: "node max_entries 249", change: (a) => a.with32(leaf(a), 20, 249), refusedBy: "1k" },
    { name: "node nr_entries above max", change: (a) => a.with32(leaf(a), 16, 253), refusedBy: "91k" },
    { name: "node padding", change: (a) => a.with32(leaf(a), 28, 9), refusedBy: "" },
    { name: "empty leaf below a root", change: (a) => a.with32(leaf(a), 16, 0), refusedBy: "91" },
    { name: "leaf with 83 entries", change: (a) => a.with32(leaf(a), 16, 83), refusedBy: "91" },
  ];
}

function keyMutations(): Mutation[] {
  const leaf = (a: Anatomy) => a.deviceLeaf(1);
  return [
    {
      name: "duplicate key",
      change: (a) => a.with64(leaf(a), nodeKeysOffset + 8, nodeKey(a.view(leaf(a)), 0)),
      refusedBy: "91k",
    },
    {
      name: "parent key one below the child's first",
      change: (a) => a.with64(a.deviceRoot, nodeKeysOffset + 8, nodeKey(a.view(leaf(a)), 0) - 1),
      refusedBy: "",
    },
    {
      // Both tools accept it, but a look-up of the last key of the leaf before goes to the wrong leaf.
      name: "parent key equal to the last key of the leaf before",
      change: (a) => a.with64(a.deviceRoot, nodeKeysOffset + 16, nodeKey(a.view(a.deviceLeaf(2)), 0) - 1),
      refusedBy: "u",
    },
    {
      name: "parent key one above the child's first",
      change: (a) => a.with64(a.deviceRoot, nodeKeysOffset + 8, nodeKey(a.view(leaf(a)), 0) + 1),
      refusedBy: "91k",
    },
    {
      name: "last key of a leaf reaching into the next",
      change: (a) => {
        const left = a.deviceLeaf(0);
        return a.with64(left, nodeKeysOffset + 8 * a.lastEntry(left), nodeKey(a.view(leaf(a)), 0));
      },
      refusedBy: "91",
    },
    {
      name: "child pointer beyond the end",
      change: (a) => a.with64(a.deviceRoot, nodeValueOffset(a.view(a.deviceRoot), 1), 1e6),
      refusedBy: "91k",
    },
    {
      name: "node that is its own child",
      change: (a) => a.with64(a.deviceRoot, nodeValueOffset(a.view(a.deviceRoot), 1), a.deviceRoot),
      refusedBy: "91",
    },
    {
      name: "leaf pointed to twice by one node",
      change: (a) => a.with64(a.deviceRoot, nodeValueOffset(a.view(a.deviceRoot), 2), leaf(a)),
      refusedBy: "91",
    },
    {
      name: "bottom root at the top level's leaf",
      change: (a) => {
        const top = a.superblock.mappingRoot;
        return a.with64(top, nodeValueOffset(a.view(top), 0), top);
      },
      refusedBy: "91",
    },
  ];
}

const fileMutations: Mutation[] = [
  {
    name: "file longer than the space map says",
    change: (a) => {
      const longer = new Uint8Array(a.image.length + 5 * metadataBlockSizeBytes);
      longer.set(a.image);
      return longer;
    },
    refusedBy: "",
  },
  {
    name: "file shorter, no used block cut",
    change: (a) => a.image.slice(0, a.image.length - 3 * metadataBlockSizeBytes),
    refusedBy: "k",
  },
  {
    name: "file shorter, used blocks cut",
    change: (a) => a.image.slice(0, (Math.max(...a.usedBlocks()) - 1) * metadataBlockSizeBytes),
    refusedBy: "91k",
  },
];

/** Every row. They need an image of several devices, the first of several leaves with a gap before the second. */
export const mutations: readonly Mutation[] = [
  ...superblockMutations,
  ...metadataIndexMutations(),
  ...bitmapMutations(),
  ...dataCountMutations(),
  ...detailsMutations(),
  ...leafMutations(),
  ...keyMutations(),
  ...fileMutations,
];
