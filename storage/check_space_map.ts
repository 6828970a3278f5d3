/**
 * Reads both space maps for the checker and compares them with the references found by walking. Counts must be exact.
 * The hints (nr_free, none_free_before, nr_allocated) are not used; a wrong one is a note in the report.
 */
import {
  BlockUse,
  countPending,
  countUnknown,
  DataBlockSet,
  type DataCounts,
  type MetadataCounts,
} from "./check_counts.ts";
import { blockRange, type Findings } from "./check_report.ts";
import {
  addReference,
  type CheckContext,
  type LeafVisitor,
  type MetadataReading,
  readWalkedBlock,
  walkTree,
} from "./check_tree.ts";
import {
  bitmapCount,
  bitmapEntries,
  bitmapNextFree,
  bitmapNextUsed,
  bitmapUsed,
  countOverflows,
} from "./format/bitmap.ts";
import { verifyBlock } from "./format/block_header.ts";
import { nodeEntries, nodeKey, nodeValueOffset } from "./format/btree_node.ts";
import { readU32, viewOf } from "./format/fields.ts";
import { type IndexEntry, indexEntrySizeBytes, unpackIndexEntry } from "./format/index_entry.ts";
import { metadataIndexEntry } from "./format/metadata_index.ts";
import { overflowValueSizeBytes, type SpaceMapRoot } from "./format/space_map_root.ts";

/**
 * Fills `counts.recorded` from the metadata space map. Returns whether all of it could be read. Entries of a bitmap
 * that cannot be read are {@linkcode countUnknown}.
 */
export function* loadMetadataSpaceMap(context: CheckContext, root: SpaceMapRoot): MetadataReading<boolean> {
  const { counts, findings } = context;
  const name = "the metadata space map's index";
  addReference(context, root.bitmapRoot, BlockUse.spaceMapIndex, name);
  const index = yield* readWalkedBlock(context, root.bitmapRoot, name);
  const reason = index && verifyBlock(index, "metadataIndex", root.bitmapRoot);
  if (index === undefined || reason !== undefined) {
    if (reason !== undefined) {
      findings.damage(`Metadata block ${root.bitmapRoot} (${name}) is damaged: ${reason}.`);
    }
    counts.recorded.fill(countUnknown);
    return false;
  }
  const view = viewOf(index);
  const entries: IndexEntry[] = [];
  for (let ordinal = 0; ordinal * bitmapEntries < counts.blocks; ordinal++) {
    entries.push(metadataIndexEntry(view, ordinal));
  }
  let isWhole = true;
  let used = 0;
  for (const [ordinal, entry] of entries.entries()) {
    const begin = ordinal * bitmapEntries;
    const end = Math.min(begin + bitmapEntries, counts.blocks);
    const bitmap = yield* readBitmap(context, entry, end - begin, `metadata bitmap ${ordinal}`);
    if (bitmap === undefined) {
      counts.recorded.fill(countUnknown, begin, end);
      isWhole = false;
      continue;
    }
    used += bitmapUsed(bitmap, end - begin);
    for (let block = begin; block < end; block++) {
      const count = bitmapCount(bitmap, block - begin);
      counts.recorded[block] = count === countOverflows ? countPending : count;
    }
  }
  if (isWhole) noteAllocated(findings, "metadata", root.allocated, used);
  return (yield* loadMetadataOverflow(context, root)) && isWhole;
}

function* loadMetadataOverflow(context: CheckContext, root: SpaceMapRoot): MetadataReading<boolean> {
  const { counts, findings } = context;
  const tree = yield* walkTree(context, {
    use: BlockUse.metadataOverflow,
    valueSizeBytes: overflowValueSizeBytes,
    name: "the metadata space map's overflow tree",
    visitor: new MetadataOverflowVisitor(counts, findings),
    shared: undefined,
    rereads: false,
  }, root.overflowRoot);
  for (let block = 0; block < counts.blocks; block++) {
    if (counts.recorded[block] !== countPending) continue;
    counts.recorded[block] = countUnknown;
    if (tree.sound) {
      findings.damage(`Metadata block ${block} has a count of 3 or more, but no entry in the overflow tree.`);
    }
  }
  return tree.sound;
}

class MetadataOverflowVisitor implements LeafVisitor {
  constructor(readonly counts: MetadataCounts, readonly findings: Findings) {}

  visitLeaf(leaf: DataView): void {
    for (let index = 0; index < nodeEntries(leaf); index++) {
      const block = nodeKey(leaf, index);
      const count = readU32(leaf, nodeValueOffset(leaf, index));
      const recorded = this.counts.recorded[block];
      if (recorded === countUnknown) continue;
      if (recorded === countPending && count >= countOverflows) this.counts.recorded[block] = count;
      else this.findings.damage(strayOverflow("Metadata", block, count));
    }
  }
}

function strayOverflow(what: string, block: number, count: number): string {
  return `${what} block ${block} has an overflow entry with count ${count} that its space map does not call for.`;
}

/** Verifies the bitmap of an index entry and checks the entry's hints. Undefined after damage was reported. */
function* readBitmap(
  context: CheckContext,
  entry: IndexEntry,
  entries: number,
  name: string,
): MetadataReading<Uint8Array | undefined> {
  const before = addReference(context, entry.bitmap, BlockUse.bitmap, name);
  if (before === undefined) return undefined;
  if (before > 0) {
    context.findings.damage(`Metadata block ${entry.bitmap} is ${name}, but another bitmap lies there too.`);
  }
  const bytes = yield* readWalkedBlock(context, entry.bitmap, name);
  if (bytes === undefined) return undefined;
  const reason = verifyBlock(bytes, "bitmap", entry.bitmap);
  if (reason !== undefined) {
    context.findings.damage(`Metadata block ${entry.bitmap} (${name}) is damaged: ${reason}.`);
    return undefined;
  }
  const used = bitmapUsed(bytes, entries);
  // The kernel counts the last bitmap as if it were whole. thin_restore 0.9 counts only the entries that stand for
  // blocks.
  if (entry.free !== bitmapEntries - used && entry.free !== entries - used) {
    context.findings.note(
      `The index says that ${name} has ${entry.free} free entries, but it has ${entries - used}.`,
    );
  }
  const firstFree = bitmapNextFree(bytes, 0, entries);
  if (entry.noneFreeBefore > firstFree) {
    context.findings.note(
      `The index says that ${name} has nothing free before entry ${entry.noneFreeBefore}, but entry ${firstFree} is free.`,
    );
  }
  return bytes;
}

function noteAllocated(findings: Findings, what: string, stored: number, used: number): void {
  if (stored !== used) {
    findings.note(`The ${what} space map says that ${stored} blocks are allocated, but ${used} are.`);
  }
}

/**
 * Compares the data space map with the references found. `walkedAll` is false if damage hid some references; then a
 * count above the references found is not reported. Returns the number of data blocks in use.
 */
export function* compareDataSpaceMap(
  context: CheckContext,
  root: SpaceMapRoot,
  found: DataCounts,
  walkedAll: boolean,
): MetadataReading<number> {
  const { findings } = context;
  const runs = new MismatchRuns(findings, "Data block", walkedAll);
  const overflow = new DataOverflowVisitor(found, runs, findings);
  const overflowTree = yield* walkTree(context, {
    use: BlockUse.dataOverflow,
    valueSizeBytes: overflowValueSizeBytes,
    name: "the data space map's overflow tree",
    visitor: overflow,
    shared: undefined,
    rereads: false,
  }, root.overflowRoot);
  runs.flush();
  const index = new DataIndexVisitor();
  const indexTree = yield* walkTree(context, {
    use: BlockUse.dataIndex,
    valueSizeBytes: indexEntrySizeBytes,
    name: "the data space map's index tree",
    visitor: index,
    shared: undefined,
    rereads: false,
  }, root.bitmapRoot);
  const bitmaps = Math.ceil(found.blocks / bitmapEntries);
  if (indexTree.sound && (index.isSparse || index.entries.length !== bitmaps)) {
    findings.damage(
      `The data space map's index tree has ${index.entries.length} entries, not the ${bitmaps} that ` +
        `${found.blocks} data blocks need, or not in unbroken order.`,
    );
  }
  let used = 0;
  let isWhole = indexTree.sound;
  for (const [ordinal, entry] of index.entries.entries()) {
    const begin = ordinal * bitmapEntries;
    const entries = Math.max(0, Math.min(bitmapEntries, found.blocks - begin));
    const bitmap = yield* readBitmap(context, entry, entries, `data bitmap ${ordinal}`);
    if (bitmap === undefined) {
      isWhole = false;
      continue;
    }
    used += bitmapUsed(bitmap, entries);
    compareBitmap(bitmap, entries, begin, found, runs);
    if (overflowTree.sound) checkOverflowEntries(bitmap, entries, begin, overflow.listed, findings);
  }
  runs.flush();
  if (isWhole) noteAllocated(findings, "data", root.allocated, used);
  return used;
}

/** Compares counts of 0, 1 and 2. Greater counts are in the overflow tree, and were compared there. */
function compareBitmap(
  bitmap: Uint8Array,
  entries: number,
  begin: number,
  found: DataCounts,
  runs: MismatchRuns,
): void {
  const page = found.page(begin / bitmapEntries);
  if (page === undefined) {
    // No block of this bitmap is mapped: every count above 0 is a leak.
    let index = bitmapNextUsed(bitmap, 0, entries);
    while (index < entries) {
      const count = bitmapCount(bitmap, index);
      if (count !== countOverflows) runs.add(begin + index, 0, count);
      index = bitmapNextUsed(bitmap, index + 1, entries);
    }
    return;
  }
  for (let index = 0; index < entries; index++) {
    const count = bitmapCount(bitmap, index);
    const references = page[index] ?? 0;
    if (count !== references && count !== countOverflows) runs.add(begin + index, references, count);
  }
}

function checkOverflowEntries(
  bitmap: Uint8Array,
  entries: number,
  begin: number,
  listed: DataBlockSet,
  findings: Findings,
): void {
  let index = bitmapNextUsed(bitmap, 0, entries);
  while (index < entries) {
    if (bitmapCount(bitmap, index) === countOverflows && !listed.has(begin + index)) {
      findings.damage(
        `Data block ${begin + index} has a count of 3 or more, but no entry in the overflow tree.`,
      );
    }
    index = bitmapNextUsed(bitmap, index + 1, entries);
  }
}

class DataOverflowVisitor implements LeafVisitor {
  readonly listed = new DataBlockSet();

  constructor(readonly found: DataCounts, readonly runs: MismatchRuns, readonly findings: Findings) {}

  visitLeaf(leaf: DataView): void {
    for (let index = 0; index < nodeEntries(leaf); index++) {
      const block = nodeKey(leaf, index);
      const count = readU32(leaf, nodeValueOffset(leaf, index));
      if (block >= this.found.blocks || count < countOverflows) {
        this.findings.damage(strayOverflow("Data", block, count));
        continue;
      }
      this.listed.add(block);
      const references = this.found.get(block);
      if (references !== count) this.runs.add(block, references, count);
    }
  }
}

class DataIndexVisitor implements LeafVisitor {
  readonly entries: IndexEntry[] = [];
  isSparse = false;

  visitLeaf(leaf: DataView): void {
    for (let index = 0; index < nodeEntries(leaf); index++) {
      if (nodeKey(leaf, index) !== this.entries.length) this.isSparse = true;
      this.entries.push(unpackIndexEntry(leaf, nodeValueOffset(leaf, index)));
    }
  }
}

/** Compares every metadata block's recorded count with the references found. Returns the number of blocks in use. */
export function compareMetadataCounts(context: CheckContext, walkedAll: boolean): number {
  const { counts } = context;
  const runs = new MismatchRuns(context.findings, "Metadata block", walkedAll);
  let used = 0;
  for (let block = 0; block < counts.blocks; block++) {
    const recorded = counts.recorded[block] ?? 0;
    const references = counts.found[block] ?? 0;
    if (recorded !== 0) used++;
    if (recorded !== references && recorded !== countUnknown) runs.add(block, references, recorded);
  }
  runs.flush();
  return used;
}

/** Joins mismatches of consecutive blocks into one sentence. */
class MismatchRuns {
  #begin = 0;
  #end = 0;
  #references = 0;
  #recorded = 0;

  constructor(readonly findings: Findings, readonly what: string, readonly walkedAll: boolean) {}

  /** Adds a block whose recorded count differs from the number of references found. */
  add(block: number, references: number, recorded: number): void {
    if (recorded > references && !this.walkedAll) return;
    const joins = block === this.#end && references === this.#references && recorded === this.#recorded;
    if (!joins) {
      this.flush();
      this.#begin = block;
      this.#references = references;
      this.#recorded = recorded;
    }
    this.#end = block + 1;
  }

  /** Reports the current run of blocks. */
  flush(): void {
    if (this.#end === this.#begin) return;
    const range = blockRange(this.what, this.#begin, this.#end);
    const counts = `${this.#references} references were found, but the space map counts ${this.#recorded}`;
    if (this.#recorded > this.#references) this.findings.leak(`${range}: ${counts}: leaked.`);
    else this.findings.damage(`${range}: ${counts}: in danger of being overwritten.`);
    this.#begin = this.#end;
  }
}
