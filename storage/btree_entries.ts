/** Moves entries inside a node and between nodes of equal capacity. The caller has called `edit` for both. */
import { assert } from "./base/assert.ts";
import type { CacheEntry } from "./block_cache.ts";
import {
  keySizeBytes,
  keysOffset,
  nodeEntries,
  nodeMaxEntries,
  nodeValueOffset,
  nodeValueSize,
  setNodeEntries,
} from "./format/btree_node.ts";

/** Inserts `count` entries at `index`. Their content is undefined until it is written. */
export function openGap(node: CacheEntry, index: number, count: number): void {
  const entries = nodeEntries(node.view);
  assert(
    index <= entries && entries + count <= nodeMaxEntries(node.view),
    "a node holds what its capacity allows",
  );
  moveWithin(node, index, index + count, entries - index);
  setNodeEntries(node.view, entries + count);
}

/** Removes `count` entries from `index` on. */
export function closeGap(node: CacheEntry, index: number, count: number): void {
  const entries = nodeEntries(node.view);
  assert(index + count <= entries, "only entries in use are removed");
  moveWithin(node, index + count, index, entries - index - count);
  setNodeEntries(node.view, entries - count);
}

/** Copies `count` entries over entries that are in use in `to`. */
export function copyEntries(
  from: CacheEntry,
  fromIndex: number,
  to: CacheEntry,
  toIndex: number,
  count: number,
): void {
  assert(nodeMaxEntries(from.view) === nodeMaxEntries(to.view), "entries move between nodes of one capacity");
  const keysBegin = keysOffset + fromIndex * keySizeBytes;
  to.bytes.set(
    from.bytes.subarray(keysBegin, keysBegin + count * keySizeBytes),
    keysOffset + toIndex * keySizeBytes,
  );
  const valuesBegin = nodeValueOffset(from.view, fromIndex);
  to.bytes.set(
    from.bytes.subarray(valuesBegin, valuesBegin + count * nodeValueSize(from.view)),
    nodeValueOffset(to.view, toIndex),
  );
}

function moveWithin(node: CacheEntry, fromIndex: number, toIndex: number, count: number): void {
  const keysBegin = keysOffset + fromIndex * keySizeBytes;
  node.bytes.copyWithin(keysOffset + toIndex * keySizeBytes, keysBegin, keysBegin + count * keySizeBytes);
  const valuesBegin = nodeValueOffset(node.view, fromIndex);
  const valuesEnd = valuesBegin + count * nodeValueSize(node.view);
  node.bytes.copyWithin(nodeValueOffset(node.view, toIndex), valuesBegin, valuesEnd);
}
