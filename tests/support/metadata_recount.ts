/**
 * A recount of a metadata image, as plain as it can be and sharing nothing with the engine but the codecs:
 * follows every pointer from the superblock, counts, and compares with what both space maps say. Also checks
 * what readers demand of the trees: fill, key order, separators, equal depth, right numbers of mappings.
 */
import { bitmapCount, bitmapEntries } from "../../storage/format/bitmap.ts";
import { type BlockKind, verifyBlock } from "../../storage/format/block_header.ts";
import { blockTimeDblock, blockTimeTime } from "../../storage/format/block_time.ts";
import {
  nodeChild,
  nodeEntries,
  nodeIsLeaf,
  nodeKey,
  nodeMaxEntries,
  nodeValueOffset,
  verifyNode,
} from "../../storage/format/btree_node.ts";
import { unpackDeviceDetails } from "../../storage/format/device_details.ts";
import { readU32, viewOf } from "../../storage/format/fields.ts";
import { type IndexEntry, unpackIndexEntry } from "../../storage/format/index_entry.ts";
import { metadataIndexEntry } from "../../storage/format/metadata_index.ts";
import type { SpaceMapRoot } from "../../storage/format/space_map_root.ts";
import { type Superblock, unpackSuperblock } from "../../storage/format/superblock.ts";
import { type MetadataBlock, metadataBlock } from "../../storage/base/ids.ts";

const blockBytes = 4096;

/** Throws unless the image is as it should be. */
function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`recount: ${message}`);
}

function same(actual: unknown, expected: unknown, message: string): void {
  assert(actual === expected, `${message}: ${actual} instead of ${expected}`);
}

/** What a walk found: device to vblock to [dblock, time]. */
export type RecountedDevices = Map<number, Map<number, readonly [number, number]>>;

export class Recount {
  readonly superblock: Superblock;
  readonly devices: RecountedDevices = new Map();
  readonly metadataCounts = new Map<number, number>();
  readonly dataCounts = new Map<number, number>();
  readonly #image: Uint8Array;
  readonly #areHintsChecked: boolean;

  /**
   * Throws when anything is not as it should be. `image` is a whole metadata device. Others leave the numbers
   * of free and allocated blocks wrong, which are hints: those are looked at unless `areHintsChecked` is
   * false.
   */
  constructor(image: Uint8Array, areHintsChecked = true) {
    this.#areHintsChecked = areHintsChecked;
    this.#image = image;
    const superblock = unpackSuperblock(image.slice(0, blockBytes));
    assert(typeof superblock !== "string", `superblock: ${superblock}`);
    this.superblock = superblock;
    this.#add(this.metadataCounts, 0);
    this.#walkDevices(superblock.mappingRoot, superblock.detailsRoot, true);
    if (superblock.heldRoot !== 0) this.#walkHeld(superblock.heldRoot);
    this.#compareData(superblock.dataSpaceMap);
    this.#compareMetadata(superblock.metadataSpaceMap);
  }

  #block(block: number, kind: BlockKind): Uint8Array {
    const bytes = this.#image.subarray(block * blockBytes, (block + 1) * blockBytes);
    same(verifyBlock(bytes, kind, metadataBlock(block)), undefined, `block ${block}`);
    return bytes;
  }

  /** Counts one reference; true if it is the first, so that what is below must be walked. */
  #add(counts: Map<number, number>, block: number): boolean {
    const count = counts.get(block) ?? 0;
    counts.set(block, count + 1);
    return count === 0;
  }

  /**
   * Calls `each` for every leaf entry of a tree. `isNew` says whether this is the first way to its node, in
   * which case the node's pointers count. Nodes are walked again for every parent, so `each` sees every key
   * of every tree.
   */
  #walk(
    root: MetadataBlock,
    valueSize: number,
    each: (view: DataView, index: number, isNew: boolean) => void,
    isNewWay = true,
  ): void {
    const depths = new Set<number>();
    let previous = -1;
    const visit = (block: number, low: number, high: number, depth: number, parentIsNew: boolean): void => {
      const isNew = parentIsNew && this.#add(this.metadataCounts, block);
      const view = viewOf(this.#block(block, "btreeNode"));
      same(verifyNode(view, valueSize), undefined, `block ${block}`);
      const entries = nodeEntries(view);
      assert(depth === 0 || entries >= nodeMaxEntries(view) / 3, `block ${block} is underfull: ${entries}`);
      for (let index = 0; index < entries; index++) {
        const key = nodeKey(view, index);
        assert(key >= low && key < high, `block ${block}: key ${key} is outside of ${low}..${high}`);
        if (nodeIsLeaf(view)) {
          assert(key > previous, `block ${block}: key ${key} after ${previous}`);
          previous = key;
          each(view, index, isNew);
        } else {
          visit(
            nodeChild(view, index),
            key,
            index + 1 < entries ? nodeKey(view, index + 1) : high,
            depth + 1,
            isNew,
          );
        }
      }
      if (nodeIsLeaf(view)) depths.add(depth);
    };
    visit(root, 0, Infinity, 0, isNewWay);
    same(depths.size, 1, "all leaves are equally deep");
  }

  #walkDevices(mappingRoot: MetadataBlock, detailsRoot: MetadataBlock, isCurrent: boolean): void {
    const mapped = new Map<number, number>();
    this.#walk(mappingRoot, 8, (view, index, isNew) => {
      const mappings = new Map<number, readonly [number, number]>();
      const root = nodeChild(view, index);
      this.#walkMappings(root, isNew, mappings);
      mapped.set(nodeKey(view, index), mappings.size);
      if (isCurrent) this.devices.set(nodeKey(view, index), mappings);
    });
    const details = new Map<number, number>();
    this.#walk(detailsRoot, 24, (view, index) => {
      details.set(nodeKey(view, index), unpackDeviceDetails(view, nodeValueOffset(view, index)).mappedBlocks);
    });
    same(details.size, mapped.size, "devices in details and mapping tree");
    for (const [device, count] of mapped) {
      same(details.get(device), count, `mapped blocks of device ${device}`);
    }
  }

  #walkMappings(
    root: MetadataBlock,
    isNewWay: boolean,
    mappings: Map<number, readonly [number, number]>,
  ): void {
    this.#walk(root, 8, (view, index, isNew) => {
      const offset = nodeValueOffset(view, index);
      const dblock = blockTimeDblock(view, offset);
      mappings.set(nodeKey(view, index), [dblock, blockTimeTime(view, offset)]);
      if (isNew) this.#add(this.dataCounts, dblock);
    }, isNewWay);
  }

  #walkHeld(heldRoot: MetadataBlock): void {
    this.#add(this.metadataCounts, heldRoot);
    const held = unpackSuperblock(this.#block(heldRoot, "superblock"), heldRoot);
    assert(typeof held !== "string", `held superblock: ${held}`);
    this.#walkDevices(held.mappingRoot, held.detailsRoot, false);
  }

  #compareData(root: SpaceMapRoot): void {
    const entries: IndexEntry[] = [];
    this.#walk(root.bitmapRoot, 16, (view, index) => {
      same(nodeKey(view, index), entries.length, "the data index is dense");
      const entry = unpackIndexEntry(view, nodeValueOffset(view, index));
      this.#add(this.metadataCounts, entry.bitmap);
      entries.push(entry);
    });
    this.#compare("data", root, entries, this.#overflow(root.overflowRoot), this.dataCounts);
  }

  #compareMetadata(root: SpaceMapRoot): void {
    const index = viewOf(this.#block(root.bitmapRoot, "metadataIndex"));
    this.#add(this.metadataCounts, root.bitmapRoot);
    const entries: IndexEntry[] = [];
    for (let ordinal = 0; ordinal < Math.ceil(root.blocks / bitmapEntries); ordinal++) {
      entries.push(metadataIndexEntry(index, ordinal));
      this.#add(this.metadataCounts, entries[ordinal]!.bitmap);
    }
    const overflow = this.#overflow(root.overflowRoot);
    this.#compare("metadata", root, entries, overflow, this.metadataCounts);
  }

  #overflow(root: MetadataBlock): Map<number, number> {
    const overflow = new Map<number, number>();
    this.#walk(root, 4, (view, index) => {
      overflow.set(nodeKey(view, index), readU32(view, nodeValueOffset(view, index)));
    });
    return overflow;
  }

  #compare(
    what: string,
    root: SpaceMapRoot,
    entries: readonly IndexEntry[],
    overflow: ReadonlyMap<number, number>,
    counted: ReadonlyMap<number, number>,
  ): void {
    same(entries.length, Math.ceil(root.blocks / bitmapEntries), `${what}: bitmaps`);
    let overflowing = 0;
    let allocated = 0;
    entries.forEach((entry, ordinal) => {
      const bytes = this.#block(entry.bitmap, "bitmap");
      let free = bitmapEntries;
      for (let index = 0; index < bitmapEntries; index++) {
        const block = ordinal * bitmapEntries + index;
        const stored = bitmapCount(bytes, index);
        const exact = stored === 3 ? overflow.get(block) : stored;
        if (stored === 3) overflowing++;
        assert(
          exact === (counted.get(block) ?? 0),
          `${what} block ${block}: says ${exact}, is ${counted.get(block)}`,
        );
        assert(block < root.blocks || stored === 0, `${what}: a bit beyond the end`);
        if (stored === 0) {
          assert(
            !this.#areHintsChecked || index >= entry.noneFreeBefore,
            `${what}: none_free_before is too high`,
          );
        } else free--;
      }
      allocated += bitmapEntries - free;
      if (this.#areHintsChecked) same(entry.free, free, `${what} bitmap ${ordinal}: nr_free`);
    });
    same(
      overflow.size,
      overflowing,
      `${what}: overflow entries exist for counts of three and more only`,
    );
    if (this.#areHintsChecked) same(root.allocated, allocated, `${what}: nr_allocated`);
  }
}
