/**
 * Reads one metadata tree leaf by leaf in key order, without I/O: the cursor tells which block it needs, and its caller
 * supplies the bytes. For scans that print or count. Nodes are verified, reference counts are not: check.ts does that.
 */
import { scannedLevelsMax } from "./base/limits.ts";
import { verifyBlock } from "./format/block_header.ts";
import { nodeChild, nodeEntries, nodeIsLeaf, nodeKey, verifyNode } from "./format/btree_node.ts";
import { viewOf } from "./format/fields.ts";
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";

/** The metadata cannot be read to the end; `sentence` says why. */
export interface MetadataDamaged {
  readonly kind: "damaged";
  readonly sentence: string;
}

/**
 * What a scan yields to pause: the superblock's number, because its driver has that block in memory. A scan that needs
 * no block for `devicesPerPause` devices yields it, so that other work can run.
 */
export const scanPause: MetadataBlock = metadataBlock(0);

/**
 * A scan of metadata: it yields the number of a block and is resumed with its bytes, undefined if they cannot be read.
 */
export type MetadataScan<Result> = Generator<MetadataBlock, Result, Uint8Array | undefined>;

/** An inner node between the root and the block wanted. */
interface Level {
  readonly keys: Float64Array;
  readonly children: Float64Array;
  next: number;
}

/** Walks the leaves of one tree. */
export class TreeCursor {
  readonly #valueSizeBytes: number;
  readonly #name: string;
  readonly #levels: Level[] = [];
  #wanted: MetadataBlock | undefined;
  #keyMin = 0;
  #keyLast = -1;
  #leafDepth = -1;

  /** `name` completes a sentence: "the device details tree". */
  constructor(root: MetadataBlock, valueSizeBytes: number, name: string) {
    this.#wanted = root;
    this.#valueSizeBytes = valueSizeBytes;
    this.#name = name;
  }

  /** The block to read next, or undefined at the end of the tree. */
  wanted(): MetadataBlock | undefined {
    return this.#wanted;
  }

  /** Skips the subtree under the block wanted. */
  skip(): void {
    this.#wanted = this.#advance();
  }

  /**
   * Takes the bytes of the block wanted, undefined when they cannot be read. Returns a leaf, or undefined for an inner
   * node, or the damage. The cursor does not use the bytes after it returns; a returned leaf is a DataView of them.
   */
  supply(bytes: Uint8Array | undefined): DataView | MetadataDamaged | undefined {
    const block = this.#wanted;
    if (block === undefined) return undefined;
    if (bytes === undefined) return this.#damaged(block, "it cannot be read");
    const node = viewOf(bytes);
    const reason = verifyBlock(bytes, "btreeNode", block) ?? verifyNode(node, this.#valueSizeBytes) ??
      this.#misplaced(node);
    if (reason !== undefined) return this.#damaged(block, reason);
    const entries = nodeEntries(node);
    if (nodeIsLeaf(node)) {
      this.#leafDepth = this.#levels.length;
      if (entries > 0) this.#keyLast = nodeKey(node, entries - 1);
      this.#wanted = this.#advance();
      return node;
    }
    const level: Level = { keys: new Float64Array(entries), children: new Float64Array(entries), next: 0 };
    for (let index = 0; index < entries; index++) {
      level.keys[index] = nodeKey(node, index);
      level.children[index] = nodeChild(node, index);
    }
    this.#levels.push(level);
    this.#wanted = this.#advance();
    return undefined;
  }

  /** What is wrong with the node's place in the tree, if anything. */
  #misplaced(node: DataView): string | undefined {
    const entries = nodeEntries(node);
    if (entries === 0 && !nodeIsLeaf(node)) return "it is an inner node without children";
    if (entries === 0 && this.#levels.length > 0) return "it is an empty leaf below a root";
    if (this.#levels.length >= scannedLevelsMax) return "it lies deeper than any tree can be";
    if (this.#leafDepth >= 0 && nodeIsLeaf(node) !== (this.#levels.length === this.#leafDepth)) {
      return "it is not as deep as its siblings";
    }
    if (entries > 0 && nodeKey(node, 0) < this.#keyMin) {
      return "its first key is below the one its parent gives";
    }
    if (entries > 0 && nodeKey(node, 0) <= this.#keyLast) return "its keys overlap those of the node before";
    return undefined;
  }

  #advance(): MetadataBlock | undefined {
    for (let level = this.#levels.at(-1); level !== undefined; level = this.#levels.at(-1)) {
      if (level.next < level.children.length) {
        this.#keyMin = level.keys[level.next] ?? 0;
        return metadataBlock(level.children[level.next++] ?? 0);
      }
      this.#levels.pop();
    }
    return undefined;
  }

  #damaged(block: MetadataBlock, reason: string): MetadataDamaged {
    return { kind: "damaged", sentence: `Metadata block ${block} (${this.#name}) is damaged: ${reason}.` };
  }
}

/** Whether a step of a scan found damage. */
export function isDamaged(value: object | undefined): value is MetadataDamaged {
  return value !== undefined && "kind" in value && value.kind === "damaged";
}

/** The damage of a superblock that is not valid. */
export function superblockDamaged(reason: string): MetadataDamaged {
  return { kind: "damaged", sentence: `The superblock (metadata block 0) is damaged: ${reason}.` };
}
