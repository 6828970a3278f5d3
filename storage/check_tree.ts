/**
 * Walks one B-tree for the checker: counts one reference per parent, reads each node once, and checks the relations
 * between nodes: keys against the parent's, all leaves at one depth, and nodes at least a third full (as thin_check
 * demands).
 */
import { checkedDepthMax } from "./base/limits.ts";
import {
  type BlockUse,
  blockUseNames,
  type CountedSubtree,
  type MetadataCounts,
  type SharedSubtrees,
} from "./check_counts.ts";
import type { Findings } from "./check_report.ts";
import { verifyBlock } from "./format/block_header.ts";
import {
  childSizeBytes,
  nodeCapacity,
  nodeChild,
  nodeEntries,
  nodeIsLeaf,
  nodeKey,
  verifyNode,
} from "./format/btree_node.ts";
import { viewOf } from "./format/fields.ts";
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";

/**
 * A computation over metadata blocks. It yields the number of the block that it needs, and is resumed with its bytes,
 * or with undefined when it cannot be read. It uses the bytes only until it yields again, so the driver may reuse the
 * buffer.
 */
export type MetadataReading<Result> = Generator<MetadataBlock, Result, Uint8Array | undefined>;

/** The state that all walks of one check share. */
export interface CheckContext {
  readonly findings: Findings;
  readonly counts: MetadataCounts;
  /** Size of the device in blocks. Blocks beyond it are never requested. */
  readonly deviceBlocks: number;
}

/** Is called for the leaves of a tree in key order. */
export interface LeafVisitor {
  /** `counts` is false if the leaf's entries have been counted under another root before. */
  visitLeaf(leaf: DataView, counts: boolean): void;
}

/** How one tree is walked. */
export interface TreeWalk {
  readonly use: BlockUse;
  readonly valueSizeBytes: number;
  /** The name for messages: "the device details tree". */
  readonly name: string;
  readonly visitor: LeafVisitor;
  /** Where results for shared nodes are stored. If undefined, a node that is found twice is damage. */
  readonly shared: SharedSubtrees | undefined;
  /** Whether the leaves of a shared subtree are visited again, without being counted. */
  readonly rereads: boolean;
}

/**
 * The place of a node in the tree: the range of its keys by its parent, and its depth. The root is at {@linkcode
 * rootPlace}.
 */
interface NodePlace {
  readonly keyMin: number;
  readonly keyEnd: number;
  readonly depth: number;
}

const rootPlace: NodePlace = { keyMin: 0, keyEnd: Infinity, depth: 0 };

const nothingSound: CountedSubtree = {
  height: 0,
  entries: 0,
  keyFirst: 0,
  keyLast: 0,
  sound: false,
  underfull: false,
};

/** Walks the tree under `root`, adding one reference to it. */
export function walkTree(
  context: CheckContext,
  walk: TreeWalk,
  root: MetadataBlock,
): MetadataReading<CountedSubtree> {
  return walkNode(context, walk, root, rootPlace, true);
}

/** Requests a block. Undefined, after damage was reported, if it is beyond the end of the device or cannot be read. */
export function* readWalkedBlock(
  context: CheckContext,
  block: MetadataBlock,
  name: string,
): MetadataReading<Uint8Array | undefined> {
  const bytes = block < context.deviceBlocks ? yield block : undefined;
  if (bytes !== undefined) return bytes;
  context.findings.damage(
    block < context.deviceBlocks
      ? `Metadata block ${block} (${name}) cannot be read.`
      : `Metadata block ${block} (${name}) lies beyond the end of the device.`,
  );
  return undefined;
}

/**
 * Adds a reference to `block` with the given use. Returns the number of references found before, or undefined after
 * damage was reported: the block does not exist, or it was found with another use.
 */
export function addReference(
  context: CheckContext,
  block: MetadataBlock,
  use: BlockUse,
  name: string,
): number | undefined {
  const { counts, findings } = context;
  if (!(block < counts.blocks)) {
    findings.damage(
      `Metadata block ${block} is referred to by ${name}, but there are only ${counts.blocks}.`,
    );
    return undefined;
  }
  const before = counts.found[block] ?? 0;
  counts.found[block] = before + 1;
  if (before === 0) {
    counts.uses[block] = use;
    return 0;
  }
  const known = counts.uses[block] ?? 0;
  if (known === use) return before;
  findings.damage(
    `Metadata block ${block} is part of ${name}, but it is part of ${
      blockUseNames[known] ?? "something"
    } too.`,
  );
  return undefined;
}

function* walkNode(
  context: CheckContext,
  walk: TreeWalk,
  block: MetadataBlock,
  place: NodePlace,
  counting: boolean,
): MetadataReading<CountedSubtree> {
  let isFirst = counting;
  if (counting) {
    const before = addReference(context, block, walk.use, walk.name);
    if (before === undefined) return nothingSound;
    if (before > 0) {
      const known = recall(context, walk, block, place);
      // A sound subtree has no loop, so reading it again ends.
      if (!walk.rereads || !known.sound) return known;
      isFirst = false;
    }
  }
  const node = yield* readNode(context, walk, block);
  if (node === undefined) {
    if (isFirst) walk.shared?.set(block, nothingSound);
    return nothingSound;
  }
  const subtree = nodeIsLeaf(node)
    ? visitLeaf(walk, node, isFirst)
    : yield* walkChildren(context, walk, block, node, place, isFirst);
  if (isFirst) {
    checkPlace(context, walk, block, subtree, place);
    walk.shared?.set(block, subtree);
  }
  return subtree;
}

/** The verified node, or undefined after damage was reported. */
function* readNode(
  context: CheckContext,
  walk: TreeWalk,
  block: MetadataBlock,
): MetadataReading<DataView | undefined> {
  const bytes = yield* readWalkedBlock(context, block, walk.name);
  if (bytes === undefined) return undefined;
  const view = viewOf(bytes);
  const reason = verifyBlock(bytes, "btreeNode", block) ?? verifyNode(view, walk.valueSizeBytes);
  if (reason === undefined) return view;
  context.findings.damage(`Metadata block ${block} (${walk.name}) is damaged: ${reason}.`);
  return undefined;
}

/** The stored result for a shared node, checked against this place. */
function recall(
  context: CheckContext,
  walk: TreeWalk,
  block: MetadataBlock,
  place: NodePlace,
): CountedSubtree {
  const known = walk.shared?.get(block);
  if (known === undefined) {
    context.findings.damage(
      `Metadata block ${block} (${walk.name}) is reached again, but its count is 1 or it lies below itself.`,
    );
    return nothingSound;
  }
  checkPlace(context, walk, block, known, place);
  return known;
}

function visitLeaf(walk: TreeWalk, leaf: DataView, counts: boolean): CountedSubtree {
  const entries = nodeEntries(leaf);
  walk.visitor.visitLeaf(leaf, counts);
  return {
    height: 1,
    entries,
    keyFirst: entries === 0 ? 0 : nodeKey(leaf, 0),
    keyLast: entries === 0 ? 0 : nodeKey(leaf, entries - 1),
    sound: true,
    underfull: entries < nodeCapacity(walk.valueSizeBytes) / 3,
  };
}

function* walkChildren(
  context: CheckContext,
  walk: TreeWalk,
  block: MetadataBlock,
  node: DataView,
  place: NodePlace,
  counting: boolean,
): MetadataReading<CountedSubtree> {
  const fanout = nodeEntries(node);
  if (fanout === 0 || place.depth === checkedDepthMax) {
    const what = fanout === 0 ? "has no children" : "lies deeper than any tree can be";
    context.findings.damage(`Metadata block ${block} (${walk.name}) is an inner node that ${what}.`);
    return nothingSound;
  }
  // Copied, because the buffer may be reused once the first child is requested.
  const keys = new Float64Array(fanout + 1);
  const children = new Float64Array(fanout);
  for (let index = 0; index < fanout; index++) {
    keys[index] = nodeKey(node, index);
    children[index] = nodeChild(node, index);
  }
  keys[fanout] = place.keyEnd;
  let height = 0;
  let entries = 0;
  let sound = true;
  let keyLast = keys[fanout - 1] ?? 0;
  for (let index = 0; index < fanout; index++) {
    const childPlace = { keyMin: keys[index] ?? 0, keyEnd: keys[index + 1] ?? 0, depth: place.depth + 1 };
    const child = yield* walkNode(context, walk, metadataBlock(children[index] ?? 0), childPlace, counting);
    if (height > 0 && child.height > 0 && child.height !== height) {
      context.findings.damage(
        `The leaves below metadata block ${block} (${walk.name}) are not equally deep.`,
      );
      sound = false;
    }
    height = Math.max(height, child.height);
    entries += child.entries;
    sound = sound && child.sound;
    if (child.entries > 0) keyLast = Math.max(keyLast, child.keyLast);
  }
  const underfull = fanout < nodeCapacity(childSizeBytes) / 3;
  return { height: height + 1, entries, keyFirst: keys[0] ?? 0, keyLast, sound, underfull };
}

/**
 * Checks that the keys of a node are in its parent's range, and that a node below the root is at least a third full.
 */
function checkPlace(
  context: CheckContext,
  walk: TreeWalk,
  block: MetadataBlock,
  subtree: CountedSubtree,
  place: NodePlace,
): void {
  if (place.depth > 0 && subtree.underfull) {
    context.findings.damage(
      `Metadata block ${block} (${walk.name}) has too few entries for a node below a root.`,
    );
  }
  if (subtree.entries === 0) return;
  if (subtree.keyFirst < place.keyMin) {
    context.findings.damage(
      `Metadata block ${block} (${walk.name}) begins with key ${subtree.keyFirst}, ` +
        `but its parent says that it begins at ${place.keyMin}.`,
    );
  }
  if (subtree.keyLast >= place.keyEnd) {
    context.findings.damage(
      `Metadata block ${block} (${walk.name}) reaches to key ${subtree.keyLast}, ` +
        `but its parent says that the next node begins at ${place.keyEnd}.`,
    );
  }
}
