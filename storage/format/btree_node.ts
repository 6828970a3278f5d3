/**
 * A B-tree node (`struct btree_node`, drivers/md/persistent-data/dm-btree-internal.h). The values begin after the space
 * for
 * `maxEntries` keys, not after the keys in use. All functions take a DataView of the whole block; keys are numbers below 2^53.
 */
import { type MetadataBlock, metadataBlock, metadataBlockSizeBytes } from "../base/ids.ts";
import { exactNumberEnd, readU32, readU64, writeU32, writeU64 } from "./fields.ts";

const flagsOffset = 4;
const entriesOffset = 16;
const maxEntriesOffset = 20;
const valueSizeOffset = 24;
/** Where the keys begin in the block, and bytes of a key. */
export const keysOffset = 32;
export const keySizeBytes = 8;

const flagInternal = 1;
const flagLeaf = 2;

/** Bytes of a child pointer, which is the value of every internal node, whatever the values of the leaves are. */
export const childSizeBytes = 8;

/** Entries that a node can hold: as many as fit, rounded down to a multiple of three. Every reader computes it so. */
export function nodeCapacity(valueSizeBytes: number): number {
  const fits = Math.floor((metadataBlockSizeBytes - keysOffset) / (keySizeBytes + valueSizeBytes));
  return fits - fits % 3;
}

/** Whether the node is a leaf. */
export function nodeIsLeaf(view: DataView): boolean {
  return readU32(view, flagsOffset) === flagLeaf;
}

/** Entries in use. */
export function nodeEntries(view: DataView): number {
  return readU32(view, entriesOffset);
}

/** Sets the number of entries in use. */
export function setNodeEntries(view: DataView, entries: number): void {
  writeU32(view, entriesOffset, entries);
}

/** The stored capacity, which {@linkcode verifyNode} compares with {@linkcode nodeCapacity}. */
export function nodeMaxEntries(view: DataView): number {
  return readU32(view, maxEntriesOffset);
}

/** Bytes of a value. */
export function nodeValueSize(view: DataView): number {
  return readU32(view, valueSizeOffset);
}

/** Key `index`, exact below 2^53. */
export function nodeKey(view: DataView, index: number): number {
  return readU64(view, keysOffset + index * keySizeBytes);
}

/** Sets key `index`, a whole number below 2^53. */
export function setNodeKey(view: DataView, index: number, key: number): void {
  writeU64(view, keysOffset + index * keySizeBytes, key);
}

/** Byte offset of value `index` in the block. */
export function nodeValueOffset(view: DataView, index: number): number {
  return keysOffset + nodeMaxEntries(view) * keySizeBytes + index * nodeValueSize(view);
}

/** Child `index` of an internal node, or a value that is a metadata block number. */
export function nodeChild(view: DataView, index: number): MetadataBlock {
  return metadataBlock(readU64(view, nodeValueOffset(view, index)));
}

/** Sets child `index`, or a value that is a metadata block number. */
export function setNodeChild(view: DataView, index: number, child: MetadataBlock): void {
  writeU64(view, nodeValueOffset(view, index), child);
}

/** Fills the header of an empty node. */
export function initNode(view: DataView, isLeaf: boolean, valueSizeBytes: number): void {
  writeU32(view, flagsOffset, isLeaf ? flagLeaf : flagInternal);
  writeU32(view, entriesOffset, 0);
  writeU32(view, maxEntriesOffset, nodeCapacity(valueSizeBytes));
  writeU32(view, valueSizeOffset, valueSizeBytes);
}

/** Index of the last key at or below `key`, -1 if all keys are above it. */
export function nodeFindAtOrBelow(view: DataView, key: number): number {
  let low = -1;
  let high = nodeEntries(view);
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (nodeKey(view, middle) <= key) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * Checks what one node shows: kind, sizes, and that the keys are below 2^53 and strictly ascending. verifyBlock checks
 * the checksum. `leafValueSizeBytes` is that of the tree. Returns undefined, or what is wrong, as the end of a
 * sentence.
 */
export function verifyNode(view: DataView, leafValueSizeBytes: number): string | undefined {
  const flags = readU32(view, flagsOffset);
  if (flags !== flagInternal && flags !== flagLeaf) return `its node flags are ${flags}`;
  const valueSizeBytes = flags === flagLeaf ? leafValueSizeBytes : childSizeBytes;
  if (nodeValueSize(view) !== valueSizeBytes) {
    return `its values have ${nodeValueSize(view)} bytes instead of ${valueSizeBytes}`;
  }
  const capacity = nodeCapacity(valueSizeBytes);
  if (nodeMaxEntries(view) !== capacity) {
    return `its capacity is ${nodeMaxEntries(view)} entries instead of ${capacity}`;
  }
  const entries = nodeEntries(view);
  if (entries > capacity) return `it claims ${entries} entries of at most ${capacity}`;
  if (flags === flagInternal && entries === 0) return "it is an inner node without children";
  let previous = -1;
  for (let index = 0; index < entries; index++) {
    const key = nodeKey(view, index);
    if (key >= exactNumberEnd) return "a key is beyond 2^53";
    if (key <= previous) return "its keys are not in ascending order";
    previous = key;
  }
  return undefined;
}
