/**
 * The exact counts of data blocks with 3 or more references: the overflow tree of the data space map
 * (drivers/md/persistent-data/dm-space-map-common.c). The bitmaps have 3 for all of them.
 */
import { assert } from "./base/assert.ts";
import { Btree, plainValues } from "./btree.ts";
import { BtreeRemover } from "./btree_remove.ts";
import { countOverflows } from "./format/bitmap.ts";
import { nodeValueOffset } from "./format/btree_node.ts";
import { readU32, writeU32 } from "./format/fields.ts";
import { overflowValueSizeBytes } from "./format/space_map_root.ts";
import type { DBlock, MetadataBlock } from "./base/ids.ts";
import { damaged } from "./metadata_fault.ts";
import type { Transaction } from "./transaction.ts";

/** The largest count that an overflow tree holds. */
export const overflowCountMax = 0xffff_ffff;

/** See the head of this file. */
export class OverflowCounts {
  readonly #transaction: Transaction;
  readonly #tree: Btree;
  readonly #remover: BtreeRemover;
  #root: MetadataBlock;
  #rootBefore: MetadataBlock;

  constructor(transaction: Transaction, root: MetadataBlock) {
    this.#transaction = transaction;
    this.#tree = new Btree(transaction, overflowValueSizeBytes, plainValues);
    this.#remover = new BtreeRemover(this.#tree);
    this.#root = this.#rootBefore = root;
  }

  get root(): MetadataBlock {
    return this.#root;
  }

  /** Makes the empty tree of a new pool. */
  format(): void {
    this.#root = this.#transaction.allocateLeaf(overflowValueSizeBytes).block;
  }

  /** Reads the root, so that a damaged one is found when the pool is opened. */
  load(): void {
    this.#tree.node(this.#root);
  }

  begin(): void {
    this.#rootBefore = this.#root;
  }

  /** Undoes all since {@linkcode begin}; the transaction restores the blocks. */
  rollback(): void {
    this.#root = this.#rootBefore;
  }

  /** The count of a block whose bitmap says that it is here. Faults if it is not. */
  count(block: DBlock): number {
    if (!this.#tree.find(this.#root, block)) {
      damaged(this.#root, `data block ${block} has three or more references but no exact count`);
    }
    const { leaf, index } = this.#tree;
    const count = readU32(leaf.view, nodeValueOffset(leaf.view, index));
    if (count < countOverflows) {
      damaged(leaf.block, `its count of data block ${block} contradicts the bitmap`);
    }
    return count;
  }

  /** Enters a block, or changes its count. */
  write(block: DBlock, count: number): void {
    assert(
      count >= countOverflows && count <= overflowCountMax,
      "a count does not belong to the overflow tree",
    );
    this.#root = this.#tree.prepareInsert(this.#root, block);
    const { leaf, index } = this.#tree;
    writeU32(leaf.view, nodeValueOffset(leaf.view, index), count);
  }

  /** The count fell below 3: from now on the bitmap has it. */
  delete(block: DBlock): void {
    this.#root = this.#remover.removeKey(this.#root, block);
  }
}
