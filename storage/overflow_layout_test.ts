/** The overflow tree of the metadata space map: always what the counts say, and rewritten only where they changed. */
import { assert, assertEquals } from "@std/assert";
import { BlockCache, type CacheEntry } from "./block_cache.ts";
import { Btree, plainValues } from "./btree.ts";
import {
  childSizeBytes,
  initNode,
  nodeCapacity,
  nodeChild,
  nodeEntries,
  nodeIsLeaf,
  nodeKey,
  nodeValueOffset,
  setNodeChild,
  setNodeEntries,
  setNodeKey,
} from "./format/btree_node.ts";
import { readU32, writeU32 } from "./format/fields.ts";
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";
import { overflowValueSizeBytes } from "./format/space_map_root.ts";
import { OverflowLayout, type OverflowLeaf } from "./overflow_layout.ts";
import { MetadataSpaceMap, overflowCountMin } from "./space_map_metadata.ts";
import { Transaction } from "./transaction.ts";

/** Blocks that others use; the tree's own lie above. */
const usedBlocks = 6000;

/** A space map, most of whose blocks somebody uses, with its overflow tree. */
class Harness {
  readonly space = new MetadataSpaceMap(usedBlocks + 2000);
  readonly transaction = new Transaction(new BlockCache(4096), this.space);
  readonly layout = new OverflowLayout(this.transaction);

  /**
   * @param leafSizes for a tree as others may leave it, entries of one leaf after the other; else there is an empty one
   */
  constructor(leafSizes?: readonly number[], keyStep = 1) {
    for (let block = 0; block < usedBlocks; block++) this.space.load(metadataBlock(block), 1);
    if (leafSizes === undefined) this.commit(() => {});
    else this.#makeTree(leafSizes, keyStep);
  }

  #makeTree(leafSizes: readonly number[], keyStep: number): void {
    let next = 0;
    this.transaction.begin();
    const leaves: OverflowLeaf[] = leafSizes.map((length) => {
      const keys = Uint32Array.from({ length }, () => (next += keyStep) - keyStep);
      keys.forEach((key) => this.space.load(metadataBlock(key), overflowCountMin));
      const { block, view } = this.#makeNode(true, keys);
      keys.forEach((_, index) => writeU32(view, nodeValueOffset(view, index), overflowCountMin));
      return { block, keys };
    });
    const root = this.#makeNode(false, Uint32Array.from(leaves, ({ keys }) => keys[0]!));
    leaves.forEach(({ block }, index) => setNodeChild(root.view, index, block));
    this.transaction.succeed();
    this.transaction.freeze();
    this.transaction.durable();
    this.layout.load(root.block, leaves, [root.block]);
  }

  #makeNode(isLeaf: boolean, keys: Uint32Array): CacheEntry {
    const node = this.transaction.allocate(overflowValueSizeBytes);
    initNode(node.view, isLeaf, isLeaf ? overflowValueSizeBytes : childSizeBytes);
    setNodeEntries(node.view, keys.length);
    keys.forEach((key, index) => setNodeKey(node.view, index, key));
    return node;
  }

  /** Makes changes, moves the tree if that is wanted, and takes it all back. */
  undone(change: () => void, isMoved: boolean): void {
    this.transaction.begin();
    change();
    if (isMoved) {
      this.layout.move();
      this.layout.rollback();
    }
    this.transaction.rollback();
    assertEquals(this.space.recounted, []);
  }

  /** Makes changes and commits them; answers how many blocks of the tree that wrote. */
  commit(change: () => void): number {
    this.transaction.begin();
    change();
    const needed = this.layout.blocksNeededMax;
    const before = this.space.newInUse;
    this.layout.move();
    const written = this.space.newInUse - before;
    this.transaction.succeed();
    assert(written <= needed, "no more blocks are needed than were said");
    this.transaction.freeze();
    this.transaction.durable();
    return written;
  }

  set(block: number, count: number): void {
    const at = metadataBlock(block);
    while (this.space.count(at) < count) this.space.increment(at);
    while (this.space.count(at) > count) this.space.decrement(at);
  }

  /**
   * What the tree holds; its nodes are sound, filled as they must be, and all that is in use beside the others' blocks.
   */
  read(): Map<number, number> {
    const tree = new Btree(this.transaction, overflowValueSizeBytes, plainValues);
    const found = new Map<number, number>();
    let nodes = 0;
    let last = -1;
    this.transaction.cache.beginOperation();
    const walk = (block: MetadataBlock, firstKey: number, isRoot: boolean) => {
      nodes++;
      assertEquals(this.space.count(block), 1);
      const { view } = tree.node(block);
      const isLeaf = nodeIsLeaf(view);
      const capacity = nodeCapacity(isLeaf ? overflowValueSizeBytes : 8);
      assert(isRoot || nodeEntries(view) >= capacity / 3, "a node is filled by a third");
      for (let index = 0; index < nodeEntries(view); index++) {
        const key = nodeKey(view, index);
        assert(index > 0 || key >= firstKey, "a node's keys are not below its parent's");
        if (!isLeaf) walk(nodeChild(view, index), key, false);
        else {
          assert(key > last, "keys ascend");
          last = key;
          found.set(key, readU32(view, nodeValueOffset(view, index)));
        }
      }
    };
    walk(this.layout.root, 0, true);
    assertEquals(this.space.used, usedBlocks + nodes - this.#freedOfOthers());
    return found;
  }

  #freedOfOthers(): number {
    let freed = 0;
    for (let block = 0; block < usedBlocks; block++) {
      if (this.space.count(metadataBlock(block)) === 0) freed++;
    }
    return freed;
  }

  expected(): Map<number, number> {
    const counts = new Map<number, number>();
    for (let block = 0; block < this.space.blocks; block++) {
      const count = this.space.count(metadataBlock(block));
      if (count >= overflowCountMin) counts.set(block, count);
    }
    return counts;
  }
}

/** Numbers that look random, the same each time. */
function* random(seed: number): Generator<number> {
  for (let state = seed;;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield state / 2 ** 32;
  }
}

/** Changes counts here and there, or of a whole stretch of at most `stretchMax`, as snapshots come and go. */
function changeSome(harness: Harness, next: (end: number) => number, stretchMax: number): void {
  const [begin, count, isStretch] = [next(usedBlocks - stretchMax), 1 + next(4), next(3) === 0];
  for (let changes = isStretch ? next(stretchMax) : next(12); changes >= 0; changes--) {
    if (isStretch) harness.set(begin + changes, count);
    else harness.set(next(usedBlocks), 1 + next(5));
  }
}

Deno.test("after any changes the tree holds exactly the counts of three and more", () => {
  for (let seed = 1; seed <= 6; seed++) {
    const numbers = random(seed);
    const next = (end: number) => Math.floor(numbers.next().value! * end);
    const harness = new Harness();
    for (let round = 0; round < 40; round++) {
      harness.commit(() => changeSome(harness, next, 1500));
      assertEquals(harness.read(), harness.expected());
    }
    harness.commit(() => {
      for (let block = 1; block < usedBlocks; block++) harness.set(block, 1);
    });
    assertEquals(harness.read().size, 0);
  }
});

Deno.test("a tree that others have filled differently is changed like ours, with changes taken back in between", () => {
  const least = nodeCapacity(overflowValueSizeBytes) / 3;
  for (let seed = 1; seed <= 8; seed++) {
    const numbers = random(seed);
    const next = (end: number) => Math.floor(numbers.next().value! * end);
    // From a third full to two thirds.
    const harness = new Harness(Array.from({ length: 26 }, () => least + (seed === 1 ? 0 : next(least))));
    assertEquals(harness.read(), harness.expected());
    for (let round = 0; round < 20; round++) {
      harness.undone(() => changeSome(harness, next, 300), round % 2 === 0);
      harness.commit(() => changeSome(harness, next, 300));
      assertEquals(harness.read(), harness.expected());
    }
  }
});

Deno.test("full leaves that get an entry become two each, and those between them stay", () => {
  const capacity = nodeCapacity(overflowValueSizeBytes);
  const harness = new Harness(Array.from({ length: 8 }, () => capacity), 2);
  const written = harness.commit(() => {
    for (let leaf = 0; leaf < 8; leaf += 2) harness.set(2 * capacity * leaf + 101, 3);
  });
  assertEquals(written, 4 * 2 + 1);
  assertEquals(harness.read(), harness.expected());
});

Deno.test("one changed count writes one leaf and the root, however many there are", () => {
  const harness = new Harness();
  const whole = harness.commit(() => {
    for (let block = 1; block < usedBlocks; block++) harness.set(block, 3);
  });
  assert(whole > 15, "there are many leaves");
  assertEquals(harness.commit(() => harness.set(3000, 4)), 2);
  assertEquals(harness.commit(() => harness.set(3000, 1)), 2);
  assertEquals(harness.commit(() => {}), 0);
  assertEquals(harness.read(), harness.expected());
});

Deno.test("an undone move leaves the tree where it was", () => {
  const harness = new Harness();
  harness.commit(() => {
    for (let block = 1; block < 2000; block++) harness.set(block, 3);
  });
  const before = harness.expected();
  harness.transaction.begin();
  for (let block = 500; block < 700; block++) harness.set(block, 1);
  harness.layout.move();
  harness.layout.rollback();
  harness.transaction.rollback();
  assertEquals(harness.space.recounted, []);
  assertEquals(harness.read(), before);
  harness.commit(() => harness.set(100, 5));
  assertEquals(harness.read(), before.set(100, 5));
});
