/** Finds the parts of a metadata image that tests damage, and damages them. */
import { bitmapCount, bitmapEntries, setBitmapCount } from "../../storage/format/bitmap.ts";
import { nodeChild, nodeEntries, nodeIsLeaf, nodeValueOffset } from "../../storage/format/btree_node.ts";
import { viewOf } from "../../storage/format/fields.ts";
import { unpackIndexEntry } from "../../storage/format/index_entry.ts";
import { metadataIndexEntry } from "../../storage/format/metadata_index.ts";
import { type Superblock, unpackSuperblock } from "../../storage/format/superblock.ts";
import { type MetadataBlock, metadataBlock, metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { withBlock } from "../support/metadata_image.ts";

/** Where the parts of one image lie. The device looked at is the first; it has several leaves. */
export class Anatomy {
  readonly superblock: Superblock;

  constructor(readonly image: Uint8Array) {
    const superblock = unpackSuperblock(image.subarray(0, metadataBlockSizeBytes));
    if (typeof superblock === "string") throw new Error(`the image has no superblock: ${superblock}`);
    this.superblock = superblock;
  }

  view(block: MetadataBlock): DataView {
    return viewOf(this.bytes(block));
  }

  bytes(block: MetadataBlock): Uint8Array {
    return this.image.subarray(block * metadataBlockSizeBytes, (block + 1) * metadataBlockSizeBytes);
  }

  child(block: MetadataBlock, index: number): MetadataBlock {
    return nodeChild(this.view(block), index);
  }

  /** The leftmost leaf under `root`. */
  firstLeaf(root: MetadataBlock): MetadataBlock {
    return nodeIsLeaf(this.view(root)) ? root : this.firstLeaf(this.child(root, 0));
  }

  get deviceRoot(): MetadataBlock {
    return this.child(this.firstLeaf(this.superblock.mappingRoot), 0);
  }

  /** Leaf `index` of the first device, whose root is the only inner node. */
  deviceLeaf(index: number): MetadataBlock {
    return this.child(this.deviceRoot, index);
  }

  get metadataBitmap(): MetadataBlock {
    return metadataIndexEntry(this.view(this.superblock.metadataSpaceMap.bitmapRoot), 0).bitmap;
  }

  dataBitmap(ordinal: number): MetadataBlock {
    const leaf = this.view(this.firstLeaf(this.superblock.dataSpaceMap.bitmapRoot));
    return unpackIndexEntry(leaf, nodeValueOffset(leaf, ordinal)).bitmap;
  }

  /** The first block below `end` whose count in `bitmap` is `count`. */
  blockWithCount(bitmap: MetadataBlock, count: number, from = 0, end = bitmapEntries): number {
    for (let index = from; index < end; index++) {
      if (bitmapCount(this.bytes(bitmap), index) === count) return index;
    }
    throw new Error(`no block with count ${count}`);
  }

  /** A copy with one count changed. */
  withCount(bitmap: MetadataBlock, index: number, count: number): Uint8Array {
    return withBlock(this.image, bitmap, (_, bytes) => setBitmapCount(bytes, index, count));
  }

  /** A copy with a 32-bit field changed. */
  with32(block: MetadataBlock, offset: number, value: number): Uint8Array {
    return withBlock(this.image, block, (view) => view.setUint32(offset, value, true));
  }

  /** A copy with a 64-bit field changed. */
  with64(block: MetadataBlock, offset: number, value: number): Uint8Array {
    return withBlock(this.image, block, (view) => view.setBigUint64(offset, BigInt(value), true));
  }

  /** A copy in which one byte of a block is wrong and its checksum not renewed. */
  withFlippedByte(block: MetadataBlock, offset = 1000): Uint8Array {
    const copy = this.image.slice();
    const at = block * metadataBlockSizeBytes + offset;
    copy[at] = copy[at]! ^ 0x10;
    return copy;
  }

  lastEntry(block: MetadataBlock): number {
    return nodeEntries(this.view(block)) - 1;
  }

  /** Every block that something refers to. */
  usedBlocks(): MetadataBlock[] {
    const used: MetadataBlock[] = [];
    for (let block = 0; block < this.superblock.metadataSpaceMap.blocks; block++) {
      if (bitmapCount(this.bytes(this.metadataBitmap), block) > 0) used.push(metadataBlock(block));
    }
    return used;
  }
}
