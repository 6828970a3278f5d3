/**
 * How many data blocks each thin device maps, and how many of them no other device maps: the numbers of
 * `thin_ls -o DEV,MAPPED_BLOCKS,EXCLUSIVE_BLOCKS`. A data block is exclusive if it is mapped by exactly one vblock of one
 * device. The mappings of a metadata snapshot are not counted.
 */
import { bitmapCount, bitmapEntries } from "./format/bitmap.ts";
import { verifyBlock } from "./format/block_header.ts";
import { blockTimeDblock } from "./format/block_time.ts";
import { childSizeBytes, nodeChild, nodeEntries, nodeKey, nodeValueOffset } from "./format/btree_node.ts";
import { deviceDetailsSizeBytes, unpackDeviceDetails } from "./format/device_details.ts";
import { viewOf } from "./format/fields.ts";
import { indexEntrySizeBytes, unpackIndexEntry } from "./format/index_entry.ts";
import { metadataBlocksMax, metadataIndexEntry } from "./format/metadata_index.ts";
import { type Superblock, superblockLocation, unpackSuperblock } from "./format/superblock.ts";
import { type MetadataBlock, type ThinId, thinId } from "./base/ids.ts";
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

/** How usage is counted. */
export interface UsageOptions {
  /**
   * Count every mapping, even if the space maps would decide. Needed only for metadata with counts that are too high,
   * which a kernel leaves if it crashes during a discard. It is always done if there is a metadata snapshot.
   */
  readonly recount?: boolean;
  /**
   * Only these devices are counted. They must be whole families (families.ts). A recount takes what other devices map for
   * gone, so it is also for families with a device that is being deleted.
   */
  readonly only?: ReadonlySet<ThinId>;
}

/** The space that one thin device uses, in data blocks. */
export interface DeviceUsage {
  readonly thinId: ThinId;
  readonly mappedBlocks: number;
  readonly exclusiveBlocks: number;
}

/** Usage of the devices in ascending order of their ids, or the damage. */
export type UsageResult =
  | { readonly kind: "usage"; readonly devices: readonly DeviceUsage[] }
  | MetadataDamaged;

interface UsedDevice {
  readonly id: number;
  readonly root: MetadataBlock;
  readonly mappedBlocks: number;
}

/**
 * Computes the usage of all devices, or of some families. Yields the number of each block that it needs, and is resumed with its bytes, or
 * with undefined when they cannot be read. It uses the bytes only until it yields again.
 *
 * Without a metadata snapshot the counts are used as follows. Every node and every leaf entry is then reachable from a
 * live device. If all nodes from a device's root down to a leaf have count 1, and the data block has count 1, one leaf
 * entry refers to the block, on one path: the block is exclusive. If the block has count 2, two entries refer to it. If
 * a node on the path has count 2, it has two parents. In both cases a second vblock, of this device or of another one,
 * maps the block. So a subtree under a shared node has no exclusive blocks, and is not read. A metadata snapshot adds
 * counts without a live device, so then every mapping is counted.
 */
export function* deviceUsage(options: UsageOptions = {}): MetadataScan<UsageResult> {
  const bytes = yield superblockLocation;
  const superblock = bytes === undefined ? "it cannot be read" : unpackSuperblock(bytes);
  if (typeof superblock === "string") return superblockDamaged(superblock);
  const found = yield* readDevices(superblock);
  if (isDamaged(found)) return found;
  const { only } = options;
  const devices = only === undefined ? found : found.filter(({ id }) => only.has(thinId(id)));
  const recount = options.recount === true || superblock.heldRoot !== 0;
  const exclusive = recount ? yield* countByRecount(devices) : yield* countBySpaceMaps(superblock, devices);
  if (isDamaged(exclusive)) return exclusive;
  return {
    kind: "usage",
    devices: devices.map((device, index) => ({
      thinId: thinId(device.id),
      mappedBlocks: device.mappedBlocks,
      exclusiveBlocks: exclusive[index] ?? 0,
    })),
  };
}

function* readDevices(superblock: Superblock): MetadataScan<UsedDevice[] | MetadataDamaged> {
  const roots = new Map<number, MetadataBlock>();
  const top = new TreeCursor(superblock.mappingRoot, childSizeBytes, "the top level of the mapping tree");
  for (let block = top.wanted(); block !== undefined; block = top.wanted()) {
    const leaf = top.supply(yield block);
    if (leaf === undefined) continue;
    if (isDamaged(leaf)) return leaf;
    for (let index = 0; index < nodeEntries(leaf); index++) {
      roots.set(nodeKey(leaf, index), nodeChild(leaf, index));
    }
  }
  const devices: UsedDevice[] = [];
  const details = new TreeCursor(superblock.detailsRoot, deviceDetailsSizeBytes, "the device details tree");
  for (let block = details.wanted(); block !== undefined; block = details.wanted()) {
    const leaf = details.supply(yield block);
    if (leaf === undefined) continue;
    if (isDamaged(leaf)) return leaf;
    for (let index = 0; index < nodeEntries(leaf); index++) {
      const id = nodeKey(leaf, index);
      const root = roots.get(id);
      if (root === undefined) {
        return { kind: "damaged", sentence: `Thin device ${id} has details, but no mapping tree.` };
      }
      const { mappedBlocks } = unpackDeviceDetails(leaf, nodeValueOffset(leaf, index));
      devices.push({ id, root, mappedBlocks });
    }
  }
  return devices;
}

function mappingCursor(device: UsedDevice): TreeCursor {
  return new TreeCursor(device.root, childSizeBytes, `the mapping tree of thin device ${device.id}`);
}

function* countBySpaceMaps(
  superblock: Superblock,
  devices: readonly UsedDevice[],
): MetadataScan<Float64Array | MetadataDamaged> {
  const metadataCounts = yield* loadMetadataIndex(superblock);
  if (isDamaged(metadataCounts)) return metadataCounts;
  const dataCounts = yield* loadDataIndex(superblock);
  if (isDamaged(dataCounts)) return dataCounts;
  const exclusive = new Float64Array(devices.length);
  const end = new SliceEnd(devicesPerPause);
  for (const [at, device] of devices.entries()) {
    if (end.isDue()) yield scanPause;
    const cursor = mappingCursor(device);
    for (let block = cursor.wanted(); block !== undefined; block = cursor.wanted()) {
      const missing = metadataCounts.missing(block);
      if (missing !== undefined) {
        const damage = metadataCounts.load(missing, yield missing.bitmap);
        if (damage !== undefined) return damage;
      }
      if (metadataCounts.count(block) > 1) {
        cursor.skip();
        continue;
      }
      const leaf = cursor.supply(yield block);
      if (leaf === undefined) continue;
      if (isDamaged(leaf)) return leaf;
      const counted = yield* countUnshared(leaf, dataCounts);
      if (isDamaged(counted)) return counted;
      exclusive[at] = (exclusive[at] ?? 0) + counted.blocks;
    }
  }
  return exclusive;
}

/** Counts the entries of a leaf whose data block has count 1. */
function* countUnshared(
  leaf: DataView,
  dataCounts: CountReader,
): MetadataScan<{ readonly blocks: number } | MetadataDamaged> {
  // Copied, because the leaf's buffer may be reused once a bitmap is requested.
  const dblocks = new Float64Array(nodeEntries(leaf));
  for (let index = 0; index < dblocks.length; index++) {
    dblocks[index] = blockTimeDblock(leaf, nodeValueOffset(leaf, index));
  }
  let blocks = 0;
  for (const dblock of dblocks) {
    const missing = dataCounts.missing(dblock);
    if (missing !== undefined) {
      const damage = dataCounts.load(missing, yield missing.bitmap);
      if (damage !== undefined) return damage;
    }
    if (dataCounts.count(dblock) === 1) blocks++;
  }
  return { blocks };
}

function* loadMetadataIndex(superblock: Superblock): MetadataScan<CountReader | MetadataDamaged> {
  const { blocks, bitmapRoot } = superblock.metadataSpaceMap;
  const bytes = yield bitmapRoot;
  const reason = bytes === undefined ? "it cannot be read" : verifyBlock(bytes, "metadataIndex", bitmapRoot);
  if (bytes === undefined || reason !== undefined) {
    return {
      kind: "damaged",
      sentence: `Metadata block ${bitmapRoot} (the metadata space map's index) is damaged: ${reason}.`,
    };
  }
  const view = viewOf(bytes);
  const bitmaps: MetadataBlock[] = [];
  const governed = Math.min(blocks, metadataBlocksMax);
  for (let ordinal = 0; ordinal * bitmapEntries < governed; ordinal++) {
    bitmaps.push(metadataIndexEntry(view, ordinal).bitmap);
  }
  return new CountReader(bitmaps);
}

function* loadDataIndex(superblock: Superblock): MetadataScan<CountReader | MetadataDamaged> {
  const bitmaps: MetadataBlock[] = [];
  const name = "the data space map's index tree";
  const cursor = new TreeCursor(superblock.dataSpaceMap.bitmapRoot, indexEntrySizeBytes, name);
  for (let block = cursor.wanted(); block !== undefined; block = cursor.wanted()) {
    const leaf = cursor.supply(yield block);
    if (leaf === undefined) continue;
    if (isDamaged(leaf)) return leaf;
    for (let index = 0; index < nodeEntries(leaf); index++) {
      bitmaps.push(unpackIndexEntry(leaf, nodeValueOffset(leaf, index)).bitmap);
    }
  }
  return new CountReader(bitmaps);
}

/** A bitmap that must be loaded before its counts can be read. */
interface MissingBitmap {
  readonly ordinal: number;
  readonly bitmap: MetadataBlock;
}

/** Two-bit counts of one space map. Bitmaps are loaded when they are needed: a quarter byte for each block at most. */
class CountReader {
  readonly #bitmaps: readonly MetadataBlock[];
  readonly #loaded: Map<number, Uint8Array> = new Map();

  constructor(bitmaps: readonly MetadataBlock[]) {
    this.#bitmaps = bitmaps;
  }

  /** The bitmap to load before the count of `block` can be read, or undefined if it is loaded or does not exist. */
  missing(block: number): MissingBitmap | undefined {
    const ordinal = Math.floor(block / bitmapEntries);
    const bitmap = this.#bitmaps[ordinal];
    return bitmap === undefined || this.#loaded.has(ordinal) ? undefined : { ordinal, bitmap };
  }

  /** Takes the bytes of a missing bitmap. */
  load(missing: MissingBitmap, bytes: Uint8Array | undefined): MetadataDamaged | undefined {
    const reason = bytes === undefined ? "it cannot be read" : verifyBlock(bytes, "bitmap", missing.bitmap);
    if (bytes === undefined || reason !== undefined) {
      return {
        kind: "damaged",
        sentence: `Metadata block ${missing.bitmap} (a space map bitmap) is damaged: ${reason}.`,
      };
    }
    this.#loaded.set(missing.ordinal, bytes.slice());
    return undefined;
  }

  /** 0, 1, 2, or 3 for 3 or more; 0 for a block beyond the space map. */
  count(block: number): number {
    const ordinal = Math.floor(block / bitmapEntries);
    const bytes = this.#loaded.get(ordinal);
    return bytes === undefined ? 0 : bitmapCount(bytes, block - ordinal * bitmapEntries);
  }
}

const metOnce = 1;
const metOften = 2;

/**
 * Counts without the space maps. The entries of a node that is reached a second time are shared. A node is read at most
 * twice to mark them, however many devices share it, and once more if its entries may be exclusive.
 */
function* countByRecount(devices: readonly UsedDevice[]): MetadataScan<Float64Array | MetadataDamaged> {
  const nodes = new MarkedBlocks();
  const data = new MarkedBlocks();
  for (const device of devices) {
    const cursor = mappingCursor(device);
    for (let block = cursor.wanted(); block !== undefined; block = cursor.wanted()) {
      if (nodes.mark(block) === metOften) {
        cursor.skip();
        continue;
      }
      const leaf = cursor.supply(yield block);
      if (leaf === undefined) continue;
      if (isDamaged(leaf)) return leaf;
      for (let index = 0; index < nodeEntries(leaf); index++) {
        data.mark(blockTimeDblock(leaf, nodeValueOffset(leaf, index)));
      }
    }
  }
  const exclusive = new Float64Array(devices.length);
  for (const [at, device] of devices.entries()) {
    const cursor = mappingCursor(device);
    for (let block = cursor.wanted(); block !== undefined; block = cursor.wanted()) {
      if (nodes.get(block) === metOften) {
        cursor.skip();
        continue;
      }
      const leaf = cursor.supply(yield block);
      if (leaf === undefined) continue;
      if (isDamaged(leaf)) return leaf;
      exclusive[at] = (exclusive[at] ?? 0) + metOnceEntries(leaf, data);
    }
  }
  return exclusive;
}

function metOnceEntries(leaf: DataView, data: MarkedBlocks): number {
  let blocks = 0;
  for (let index = 0; index < nodeEntries(leaf); index++) {
    if (data.get(blockTimeDblock(leaf, nodeValueOffset(leaf, index))) === metOnce) blocks++;
  }
  return blocks;
}

/**
 * How often blocks were marked: not at all, once, or more often. Two bits for each; a page exists once a block in it is
 * marked.
 */
class MarkedBlocks {
  readonly #pages: Map<number, Uint8Array> = new Map();

  /** Marks a block, and returns its mark before. */
  mark(block: number): number {
    const ordinal = Math.floor(block / bitmapEntries);
    let page = this.#pages.get(ordinal);
    if (page === undefined) {
      page = new Uint8Array(bitmapEntries / 4);
      this.#pages.set(ordinal, page);
    }
    const at = block - ordinal * bitmapEntries;
    const shift = (at & 3) * 2;
    const before = ((page[at >>> 2] ?? 0) >>> shift) & 3;
    if (before < metOften) page[at >>> 2] = (page[at >>> 2] ?? 0) + (1 << shift);
    return before;
  }

  get(block: number): number {
    const ordinal = Math.floor(block / bitmapEntries);
    const at = block - ordinal * bitmapEntries;
    return ((this.#pages.get(ordinal)?.[at >>> 2] ?? 0) >>> ((at & 3) * 2)) & 3;
  }
}
