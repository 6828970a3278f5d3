/**
 * An independent look at mutated metadata: which volumes are whole, so that they must never show a wrong byte. Written for
 * small images, and apart from the engine: it is what the engine is measured against.
 */
import { bitmapCount, bitmapEntries } from "../../storage/format/bitmap.ts";
import type { BlockKind } from "../../storage/format/block_header.ts";
import { blockTimeDblock } from "../../storage/format/block_time.ts";
import {
  childSizeBytes,
  nodeChild,
  nodeEntries,
  nodeIsLeaf,
  nodeKey,
  nodeValueOffset,
  verifyNode,
} from "../../storage/format/btree_node.ts";
import { deviceDetailsSizeBytes } from "../../storage/format/device_details.ts";
import { readU32, viewOf } from "../../storage/format/fields.ts";
import { indexEntrySizeBytes, unpackIndexEntry } from "../../storage/format/index_entry.ts";
import { metadataIndexEntry } from "../../storage/format/metadata_index.ts";
import { type Superblock, unpackSuperblock } from "../../storage/format/superblock.ts";
import { metadataBlockSizeBytes as blockBytes } from "../../storage/base/ids.ts";

/** Thrown where the walk cannot go on: nothing is known then. */
class Broken extends Error {}

/** What one device maps: vblock to data block, and the nodes on the way. Undefined if its tree is broken. */
export type WalkedDevice =
  | { readonly mappings: ReadonlyMap<number, number>; readonly nodes: ReadonlySet<number> }
  | undefined;

/** What the walk found. */
export interface Walked {
  readonly superblock: Superblock;
  /** The kind of each block in use. */
  readonly kinds: ReadonlyMap<number, BlockKind>;
  /** Bytes of a value in the leaves of the tree that a node belongs to. */
  readonly valueSizes: ReadonlyMap<number, number>;
  readonly devices: ReadonlyMap<number, WalkedDevice>;
  /** Data and metadata blocks with more references than their stored count says. */
  readonly understated: { readonly data: ReadonlySet<number>; readonly metadata: ReadonlySet<number> };
  /** Some block has references and a stored count of 0, so that it may be given away. */
  readonly hasFreeInUse: boolean;
}

/** Walks an image, or says nothing where its own structure is broken. */
export function walk(image: Uint8Array): Walked | undefined {
  try {
    return new Walk(image).run();
  } catch (error) {
    if (error instanceof Broken) return undefined;
    throw error;
  }
}

class Walk {
  readonly #kinds = new Map<number, BlockKind>();
  readonly #valueSizes = new Map<number, number>();
  readonly #metadataRefs = new Map<number, number>();
  readonly #dataRefs = new Map<number, number>();
  readonly #nodesCounted = new Set<number>();

  constructor(readonly image: Uint8Array) {}

  run(): Walked {
    const superblock = unpackSuperblock(this.image.subarray(0, blockBytes));
    if (typeof superblock === "string") throw new Broken();
    this.#kinds.set(0, "superblock");
    this.#metadataRefs.set(0, 1);
    const metadataCounts = this.#metadataCounts(superblock);
    const dataCounts = this.#dataCounts(superblock);
    this.#tree(superblock.detailsRoot, deviceDetailsSizeBytes, () => {});
    const roots = new Map<number, number>();
    this.#tree(superblock.mappingRoot, childSizeBytes, (leaf, index) => {
      roots.set(nodeKey(leaf, index), nodeChild(leaf, index));
    });
    const devices = new Map<number, WalkedDevice>();
    for (const [id, root] of roots) devices.set(id, this.#device(root));
    const metadata = new Set<number>();
    const data = new Set<number>();
    let hasFreeInUse = false;
    for (const [block, refs] of this.#metadataRefs) {
      const stored = metadataCounts(block);
      if (stored < refs) metadata.add(block);
      if (stored === 0) hasFreeInUse = true;
    }
    for (const [block, refs] of this.#dataRefs) {
      const stored = dataCounts(block);
      if (stored < refs) data.add(block);
      if (stored === 0) hasFreeInUse = true;
    }
    return {
      superblock,
      kinds: this.#kinds,
      valueSizes: this.#valueSizes,
      devices,
      understated: { data, metadata },
      hasFreeInUse,
    };
  }

  #bytes(block: number): Uint8Array {
    if (!(block > 0 && block < this.image.length / blockBytes)) throw new Broken();
    return this.image.subarray(block * blockBytes, (block + 1) * blockBytes);
  }

  /** One more parent points to the block. Answers whether it is met for the first time. */
  #refer(block: number, kind: BlockKind, valueSizeBytes = 0): boolean {
    const refs = this.#metadataRefs.get(block) ?? 0;
    this.#metadataRefs.set(block, refs + 1);
    if (refs > 0) return false;
    this.#kinds.set(block, kind);
    this.#valueSizes.set(block, valueSizeBytes);
    return true;
  }

  #metadataCounts({ metadataSpaceMap: root }: Superblock): (block: number) => number {
    this.#refer(root.bitmapRoot, "metadataIndex");
    const index = viewOf(this.#bytes(root.bitmapRoot));
    const counts: number[] = [];
    for (let ordinal = 0; ordinal * bitmapEntries < root.blocks; ordinal++) {
      const { bitmap } = metadataIndexEntry(index, ordinal);
      this.#refer(bitmap, "bitmap");
      const bytes = this.#bytes(bitmap);
      for (let at = 0; at < bitmapEntries; at++) counts.push(bitmapCount(bytes, at));
    }
    const exact = this.#overflow(root.overflowRoot);
    return (block) => exact.get(block) ?? counts[block] ?? 0;
  }

  #dataCounts({ dataSpaceMap: root }: Superblock): (block: number) => number {
    const bitmaps = new Map<number, number>();
    this.#tree(root.bitmapRoot, indexEntrySizeBytes, (leaf, index) => {
      const { bitmap } = unpackIndexEntry(leaf, nodeValueOffset(leaf, index));
      this.#refer(bitmap, "bitmap");
      bitmaps.set(nodeKey(leaf, index), bitmap);
    });
    const exact = this.#overflow(root.overflowRoot);
    return (block) => {
      const bitmap = bitmaps.get(Math.floor(block / bitmapEntries));
      if (bitmap === undefined) return 0;
      return exact.get(block) ?? bitmapCount(this.#bytes(bitmap), block % bitmapEntries);
    };
  }

  #overflow(root: number): Map<number, number> {
    const exact = new Map<number, number>();
    this.#tree(root, 4, (leaf, index) => {
      exact.set(nodeKey(leaf, index), readU32(leaf, nodeValueOffset(leaf, index)));
    });
    return exact;
  }

  /** Visits every entry below `root`; throws {@linkcode Broken} where it is no tree. Nodes met before are counted only. */
  #tree(
    root: number,
    valueSizeBytes: number,
    visit: (leaf: DataView, index: number) => void,
    depth = 0,
  ): void {
    if (depth > 10) throw new Broken();
    if (!this.#refer(root, "btreeNode", valueSizeBytes)) return;
    const view = viewOf(this.#bytes(root));
    if (verifyNode(view, valueSizeBytes) !== undefined) throw new Broken();
    for (let index = 0; index < nodeEntries(view); index++) {
      if (nodeIsLeaf(view)) visit(view, index);
      else this.#tree(nodeChild(view, index), valueSizeBytes, visit, depth + 1);
    }
  }

  /** All that a tree refers to counts, even where it turns out to be none. */
  #device(root: number): WalkedDevice {
    const nodes = new Set<number>();
    const mappings = new Map<number, number>();
    this.#refer(root, "btreeNode", childSizeBytes);
    const isWhole = this.#deviceNode(root, { begin: 0, end: Infinity, depth: 0 }, nodes, mappings);
    return isWhole ? { mappings, nodes } : undefined;
  }

  #deviceNode(
    block: number,
    place: { readonly begin: number; readonly end: number; readonly depth: number },
    nodes: Set<number>,
    mappings: Map<number, number>,
  ): boolean {
    if (place.depth > 10 || block === 0 || block >= this.image.length / blockBytes) return false;
    const view = viewOf(this.#bytes(block));
    if (verifyNode(view, childSizeBytes) !== undefined) return false;
    nodes.add(block);
    const isFirst = !this.#nodesCounted.has(block);
    this.#nodesCounted.add(block);
    const isLeaf = nodeIsLeaf(view);
    const entries = nodeEntries(view);
    let isWhole = true;
    for (let index = 0; index < entries; index++) {
      const key = nodeKey(view, index);
      if (key < place.begin || key >= place.end) isWhole = false;
      if (isLeaf) {
        const mapped = blockTimeDblock(view, nodeValueOffset(view, index));
        mappings.set(key, mapped);
        if (isFirst) this.#dataRefs.set(mapped, (this.#dataRefs.get(mapped) ?? 0) + 1);
        continue;
      }
      const child = nodeChild(view, index);
      if (isFirst) this.#refer(child, "btreeNode", childSizeBytes);
      const next = index + 1 < entries ? nodeKey(view, index + 1) : place.end;
      // A loop is followed once.
      if (!isFirst && !isWhole) continue;
      const below = { begin: key, end: next, depth: place.depth + 1 };
      if (!this.#deviceNode(child, below, nodes, mappings)) isWhole = false;
    }
    return isWhole;
  }
}
