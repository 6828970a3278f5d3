/**
 * Computes how much space the removal of some thin devices would free. A scan that yields the blocks it needs, as
 * check.ts.
 */
import { blockTimeDblock } from "./format/block_time.ts";
import { childSizeBytes, nodeChild, nodeEntries, nodeKey, nodeValueOffset } from "./format/btree_node.ts";
import { superblockLocation, unpackSuperblock } from "./format/superblock.ts";
import { BlockSet } from "./block_set.ts";
import { dblock, type MetadataBlock, type ThinId, thinId } from "./base/ids.ts";
import { devicesPerPause } from "./base/limits.ts";
import {
  isDamaged,
  type MetadataDamaged,
  type MetadataScan,
  scanPause,
  superblockDamaged,
  TreeCursor,
} from "./metadata_scan.ts";
import { SliceEnd } from "./slices.ts";

/** The number of data blocks that would have no mapping any more, or the damage. */
export type RemovalResult = { readonly kind: "freed"; readonly blocks: number } | MetadataDamaged;

/** The devices that a removal concerns. */
export interface RemovalWanted {
  readonly leaving: ReadonlySet<ThinId>;
  /**
   * Devices that stay and may share blocks with those. Devices that are in neither set count as gone: those that are being
   * deleted, and those of other families, which share nothing (families.ts).
   */
  readonly staying: ReadonlySet<ThinId>;
}

/**
 * Counts the data blocks that come free if exactly the devices `leaving` go. First it walks the trees of those that stay, with
 * those of the metadata snapshot, each shared node once. Then it walks the trees to remove, and counts the data blocks that
 * were not found before. Memory: one bit for each data block found.
 */
export function* blocksFreedByRemoval({ leaving, staying }: RemovalWanted): MetadataScan<RemovalResult> {
  const bytes = yield superblockLocation;
  const superblock = bytes === undefined ? "it cannot be read" : unpackSuperblock(bytes);
  if (typeof superblock === "string") return superblockDamaged(superblock);
  const roots = yield* readRoots(superblock.mappingRoot);
  if (isDamaged(roots)) return roots;
  const nodes = new Set<MetadataBlock>();
  const blocks = new BlockSet();
  const stayingRoots: MetadataBlock[] = [];
  const leavingRoots: MetadataBlock[] = [];
  const end = new SliceEnd(devicesPerPause);
  for (const [id, root] of roots) {
    if (end.isDue()) yield scanPause;
    if (leaving.has(id)) leavingRoots.push(root);
    else if (staying.has(id)) stayingRoots.push(root);
  }
  if (superblock.heldRoot !== 0) {
    const held = yield* readHeldRoots(superblock.heldRoot);
    if (isDamaged(held)) return held;
    stayingRoots.push(...held.values());
  }
  const stayingMet = yield* addMapped(stayingRoots, nodes, blocks);
  if (isDamaged(stayingMet)) return stayingMet;
  const before = blocks.size;
  const leavingMet = yield* addMapped(leavingRoots, nodes, blocks);
  if (isDamaged(leavingMet)) return leavingMet;
  return { kind: "freed", blocks: blocks.size - before };
}

function* readHeldRoots(heldRoot: MetadataBlock): MetadataScan<Map<ThinId, MetadataBlock> | MetadataDamaged> {
  const bytes = yield heldRoot;
  const held = bytes === undefined ? "it cannot be read" : unpackSuperblock(bytes, heldRoot);
  if (typeof held === "string") return superblockDamaged(held);
  return yield* readRoots(held.mappingRoot);
}

function* readRoots(mappingRoot: MetadataBlock): MetadataScan<Map<ThinId, MetadataBlock> | MetadataDamaged> {
  const roots = new Map<ThinId, MetadataBlock>();
  const cursor = new TreeCursor(mappingRoot, childSizeBytes, "the top level of the mapping tree");
  for (let block = cursor.wanted(); block !== undefined; block = cursor.wanted()) {
    const leaf = cursor.supply(yield block);
    if (leaf === undefined) continue;
    if (isDamaged(leaf)) return leaf;
    for (let index = 0; index < nodeEntries(leaf); index++) {
      roots.set(thinId(nodeKey(leaf, index)), nodeChild(leaf, index));
    }
  }
  return roots;
}

/** Adds every data block under the roots to the set, and skips nodes that were visited before. */
function* addMapped(
  roots: readonly MetadataBlock[],
  nodes: Set<MetadataBlock>,
  blocks: BlockSet,
): MetadataScan<MetadataDamaged | undefined> {
  const end = new SliceEnd(devicesPerPause);
  for (const root of roots) {
    if (end.isDue()) yield scanPause;
    const cursor = new TreeCursor(root, childSizeBytes, "a device's mapping tree");
    for (let block = cursor.wanted(); block !== undefined; block = cursor.wanted()) {
      if (nodes.has(block)) {
        cursor.skip();
        continue;
      }
      nodes.add(block);
      const leaf = cursor.supply(yield block);
      if (leaf === undefined) continue;
      if (isDamaged(leaf)) return leaf;
      for (let index = 0; index < nodeEntries(leaf); index++) {
        const mapped = dblock(blockTimeDblock(leaf, nodeValueOffset(leaf, index)));
        if (!blocks.has(mapped)) blocks.add(mapped);
      }
    }
  }
  return undefined;
}
