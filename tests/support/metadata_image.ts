/**
 * Builds metadata images in memory from a description, sharing included: thin_restore never shares a node and holds no
 * metadata snapshot, and a test that only had our own writer's images could not tell one misreading from another.
 */
import { bitmapEntries, setBitmapCount } from "../../storage/format/bitmap.ts";
import { type BlockKind, sealBlock, verifyBlock } from "../../storage/format/block_header.ts";
import { packBlockTime } from "../../storage/format/block_time.ts";
import {
  childSizeBytes,
  initNode,
  nodeCapacity,
  nodeValueOffset,
  setNodeEntries,
  setNodeKey,
} from "../../storage/format/btree_node.ts";
import { deviceDetailsSizeBytes, packDeviceDetails } from "../../storage/format/device_details.ts";
import { viewOf, writeU32, writeU64 } from "../../storage/format/fields.ts";
import { indexEntrySizeBytes, packIndexEntry } from "../../storage/format/index_entry.ts";
import { packMetadataIndexEntry } from "../../storage/format/metadata_index.ts";
import type { SpaceMapRoot } from "../../storage/format/space_map_root.ts";
import { packSuperblock, type Superblock } from "../../storage/format/superblock.ts";
import { dblock, type MetadataBlock, metadataBlock, metadataBlockSizeBytes } from "../../storage/base/ids.ts";

/** vblock, dblock, time. */
export type Mapping = readonly [number, number, number];
/** The mappings of one leaf. Where two devices name the same array, the image has one physical leaf. */
export type Leaf = readonly Mapping[];

export interface ImageDevice {
  readonly id: number;
  /** Where two devices name the same array, they share their root. */
  readonly leaves: readonly Leaf[];
  readonly mappedBlocks?: number;
}

export interface ImageDescription {
  readonly metadataBlocks: number;
  readonly dataBlocks: number;
  readonly devices: readonly ImageDevice[];
  /** Devices of a held metadata snapshot. The same array as `devices` shares the top-level roots. */
  readonly held?: readonly ImageDevice[];
  readonly time?: number;
}

/** Mappings as leaves of `perLeaf` entries, the last two evened out so that none is underfull. */
export function leavesOf(mappings: readonly Mapping[], perLeaf = 126): Leaf[] {
  const count = Math.max(1, Math.floor(mappings.length / perLeaf));
  const leaves: Leaf[] = [];
  for (let leaf = 0; leaf < count; leaf++) {
    const begin = Math.floor(leaf * mappings.length / count);
    leaves.push(mappings.slice(begin, Math.floor((leaf + 1) * mappings.length / count)));
  }
  return leaves;
}

/** `length` mappings one after the other. */
export function run(vblock: number, data: number, length: number, time = 0): Mapping[] {
  return Array.from({ length }, (_, index) => [vblock + index, data + index, time] as const);
}

/** Makes the image. Throws when the description does not fit. */
export function makeImage(description: ImageDescription): Uint8Array {
  return new ImageBuilder(description).build();
}

/** Applies `change` to one block of a copy of the image and seals it again, unless its checksum is what is changed. */
export function withBlock(
  image: Uint8Array,
  block: MetadataBlock,
  change: (view: DataView, bytes: Uint8Array) => void,
): Uint8Array {
  const copy = image.slice();
  const bytes = copy.subarray(block * metadataBlockSizeBytes, (block + 1) * metadataBlockSizeBytes);
  const kinds: BlockKind[] = ["superblock", "btreeNode", "metadataIndex", "bitmap"];
  const kind = kinds.find((candidate) => !verifyBlock(bytes, candidate, block)?.includes("checksum"));
  if (kind === undefined) throw new Error(`metadata block ${block} has no valid checksum to renew`);
  change(viewOf(bytes), bytes);
  const blockNumber = bytes.slice(8, 16);
  sealBlock(bytes, kind, block);
  // Sealing wrote the right block number; a test that changed it wants its own, under a matching checksum.
  if (blockNumber.some((byte, index) => byte !== bytes[8 + index])) {
    const wrong = viewOf(blockNumber).getUint32(0, true);
    sealBlock(bytes, kind, metadataBlock(wrong));
  }
  return copy;
}

class ImageBuilder {
  readonly #image: Uint8Array;
  readonly #counts: Uint32Array;
  readonly #dataCounts = new Map<number, number>();
  readonly #leafBlocks = new Map<Leaf, MetadataBlock>();
  readonly #treeRoots = new Map<readonly Leaf[], MetadataBlock>();
  #next = 1;

  constructor(readonly description: ImageDescription) {
    this.#image = new Uint8Array(description.metadataBlocks * metadataBlockSizeBytes);
    this.#counts = new Uint32Array(description.metadataBlocks);
    this.#counts[0] = 1;
  }

  build(): Uint8Array {
    const { devices, held, time = 9 } = this.description;
    const roots = this.#devicesRoots(devices);
    let heldRoot = metadataBlock(0);
    let heldRoots = roots;
    if (held !== undefined) {
      heldRoot = this.#allocate();
      this.#refer(heldRoot);
      heldRoots = held === devices ? roots : this.#devicesRoots(held);
      this.#refer(heldRoots.mappingRoot);
      this.#refer(heldRoots.detailsRoot);
    }
    this.#refer(roots.mappingRoot);
    this.#refer(roots.detailsRoot);
    const none: SpaceMapRoot = {
      blocks: 0,
      allocated: 0,
      bitmapRoot: metadataBlock(0),
      overflowRoot: metadataBlock(0),
    };
    const dataSpaceMap = this.#dataSpaceMap();
    const superblock: Superblock = {
      flags: 0,
      uuid: new Uint8Array(16),
      version: 2,
      time,
      transactionId: 0x1234_5678_9abc_def0n,
      heldRoot,
      dataSpaceMap,
      metadataSpaceMap: this.#metadataSpaceMap(),
      ...roots,
      dataBlockSizeSectors: 128,
      metadataBlocksAtFormat: this.description.metadataBlocks,
      compatFlags: 0,
      compatRoFlags: 0,
      incompatFlags: 0,
    };
    this.#image.set(packSuperblock(superblock), 0);
    if (held !== undefined) {
      const copy = {
        ...superblock,
        ...heldRoots,
        heldRoot: metadataBlock(0),
        dataSpaceMap: none,
        metadataSpaceMap: none,
      };
      this.#image.set(packSuperblock(copy, undefined, heldRoot), heldRoot * metadataBlockSizeBytes);
    }
    return this.#image;
  }

  #devicesRoots(devices: readonly ImageDevice[]): { mappingRoot: MetadataBlock; detailsRoot: MetadataBlock } {
    const ids = devices.map((device) => device.id);
    const roots = devices.map((device) => this.#deviceRoot(device.leaves));
    for (const root of roots) this.#refer(root);
    const mappingRoot = this.#tree(
      ids,
      childSizeBytes,
      (view, at, index) => writeU64(view, at, roots[index]!),
    );
    const detailsRoot = this.#tree(ids, deviceDetailsSizeBytes, (view, at, index) => {
      const { leaves, mappedBlocks } = devices[index]!;
      const mapped = leaves.reduce((sum, leaf) => sum + leaf.length, 0);
      packDeviceDetails(view, at, {
        mappedBlocks: mappedBlocks ?? mapped,
        transactionId: 3n,
        creationTime: 1,
        snapshottedTime: 2,
      });
    });
    return { mappingRoot, detailsRoot };
  }

  #deviceRoot(leaves: readonly Leaf[]): MetadataBlock {
    const known = this.#treeRoots.get(leaves);
    if (known !== undefined) return known;
    const blocks = leaves.map((leaf) => this.#leaf(leaf));
    const root = this.#levels(leaves.map((leaf) => leaf[0]?.[0] ?? 0), blocks);
    this.#treeRoots.set(leaves, root);
    return root;
  }

  #leaf(leaf: Leaf): MetadataBlock {
    const known = this.#leafBlocks.get(leaf);
    if (known !== undefined) return known;
    const keys = leaf.map((mapping) => mapping[0]);
    const block = this.#node(true, childSizeBytes, keys, (view, at, index) => {
      const [, data, time] = leaf[index]!;
      packBlockTime(view, at, dblock(data), time);
      this.#dataCounts.set(data, (this.#dataCounts.get(data) ?? 0) + 1);
    });
    this.#leafBlocks.set(leaf, block);
    return block;
  }

  /** A tree over ascending keys, leaves filled evenly. Adds no reference to the root. */
  #tree(
    keys: readonly number[],
    valueSize: number,
    write: (view: DataView, at: number, index: number) => void,
  ): MetadataBlock {
    const count = Math.max(1, Math.ceil(keys.length / nodeCapacity(valueSize)));
    const firsts: number[] = [];
    const blocks: MetadataBlock[] = [];
    for (let leaf = 0; leaf < count; leaf++) {
      const begin = Math.floor(leaf * keys.length / count);
      const part = keys.slice(begin, Math.floor((leaf + 1) * keys.length / count));
      firsts.push(part[0] ?? 0);
      blocks.push(this.#node(true, valueSize, part, (view, at, index) => write(view, at, begin + index)));
    }
    return this.#levels(firsts, blocks);
  }

  /** Inner nodes above the given ones, up to a single root. */
  #levels(keys: readonly number[], blocks: readonly MetadataBlock[]): MetadataBlock {
    if (blocks.length === 1) return blocks[0]!;
    for (const block of blocks) this.#refer(block);
    const count = Math.ceil(blocks.length / nodeCapacity(childSizeBytes));
    const firsts: number[] = [];
    const parents: MetadataBlock[] = [];
    for (let node = 0; node < count; node++) {
      const begin = Math.floor(node * blocks.length / count);
      const part = keys.slice(begin, Math.floor((node + 1) * blocks.length / count));
      firsts.push(part[0]!);
      parents.push(this.#node(false, childSizeBytes, part, (view, at, index) => {
        writeU64(view, at, blocks[begin + index]!);
      }));
    }
    return this.#levels(firsts, parents);
  }

  #node(
    isLeaf: boolean,
    valueSize: number,
    keys: readonly number[],
    write: (view: DataView, at: number, index: number) => void,
  ): MetadataBlock {
    const block = this.#allocate();
    const bytes = this.#bytes(block);
    const view = viewOf(bytes);
    initNode(view, isLeaf, valueSize);
    setNodeEntries(view, keys.length);
    for (const [index, key] of keys.entries()) {
      setNodeKey(view, index, key);
      write(view, nodeValueOffset(view, index), index);
    }
    sealBlock(bytes, "btreeNode", block);
    return block;
  }

  #dataSpaceMap(): SpaceMapRoot {
    const { dataBlocks } = this.description;
    const overflowed = [...this.#dataCounts].filter(([, count]) => count >= 3).sort(([a], [b]) => a - b);
    const overflowRoot = this.#tree(overflowed.map(([block]) => block), 4, (view, at, index) => {
      writeU32(view, at, overflowed[index]![1]);
    });
    const bitmaps = this.#bitmaps(dataBlocks, (block) => this.#dataCounts.get(block) ?? 0);
    const bitmapRoot = this.#tree(
      bitmaps.map((_, ordinal) => ordinal),
      indexEntrySizeBytes,
      (view, at, index) => {
        packIndexEntry(view, at, {
          bitmap: bitmaps[index]!.block,
          free: bitmaps[index]!.free,
          noneFreeBefore: 0,
        });
      },
    );
    this.#refer(bitmapRoot);
    this.#refer(overflowRoot);
    return { blocks: dataBlocks, allocated: this.#dataCounts.size, bitmapRoot, overflowRoot };
  }

  /** Last, because laying out the metadata space map itself takes blocks: room first, then the counts. */
  #metadataSpaceMap(): SpaceMapRoot {
    const blocks = this.description.metadataBlocks;
    const index = this.#allocate();
    this.#refer(index);
    const overflowed: number[] = [];
    for (let block = 0; block < this.#next; block++) if (this.#counts[block]! >= 3) overflowed.push(block);
    const overflowRoot = this.#tree(
      overflowed,
      4,
      (view, at, n) => writeU32(view, at, this.#counts[overflowed[n]!]!),
    );
    this.#refer(overflowRoot);
    const count = Math.ceil(blocks / bitmapEntries);
    const first = this.#next;
    for (let block = first; block < first + count; block++) this.#counts[block] = 1;
    const bitmaps = this.#bitmaps(blocks, (block) => this.#counts[block]!);
    for (const [ordinal, { block, free }] of bitmaps.entries()) {
      packMetadataIndexEntry(viewOf(this.#bytes(index)), ordinal, { bitmap: block, free, noneFreeBefore: 0 });
      this.#counts[block] = 1;
    }
    sealBlock(this.#bytes(index), "metadataIndex", index);
    const allocated = this.#counts.reduce((sum, c) => sum + (c > 0 ? 1 : 0), 0);
    return { blocks, allocated, bitmapRoot: index, overflowRoot };
  }

  #bitmaps(blocks: number, countOf: (block: number) => number): { block: MetadataBlock; free: number }[] {
    const bitmaps: { block: MetadataBlock; free: number }[] = [];
    for (let begin = 0; begin < blocks; begin += bitmapEntries) {
      const block = this.#allocate();
      const bytes = this.#bytes(block);
      let free = bitmapEntries;
      for (let at = 0; at < Math.min(bitmapEntries, blocks - begin); at++) {
        const count = countOf(begin + at);
        setBitmapCount(bytes, at, Math.min(count, 3));
        if (count > 0) free--;
      }
      sealBlock(bytes, "bitmap", block);
      this.#counts[block] = 1;
      bitmaps.push({ block, free });
    }
    return bitmaps;
  }

  #allocate(): MetadataBlock {
    if (this.#next >= this.description.metadataBlocks) throw new Error("the described metadata does not fit");
    return metadataBlock(this.#next++);
  }

  #refer(block: MetadataBlock): void {
    this.#counts[block] = this.#counts[block]! + 1;
  }

  #bytes(block: MetadataBlock): Uint8Array {
    return this.#image.subarray(block * metadataBlockSizeBytes, (block + 1) * metadataBlockSizeBytes);
  }
}
