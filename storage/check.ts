/**
 * An independent checker of pool metadata: it walks every tree from the superblock, counts all references, and compares
 * them with both space maps. With the code that changes metadata it shares only the packing of blocks (format/). It
 * reports a problem whenever thin_check 0.9, thin_check 1.x or the kernel would refuse the metadata
 * (tests/compat/mutations.ts has the list).
 */
import { BlockUse, type CountedSubtree, DataCounts, MetadataCounts, SharedSubtrees } from "./check_counts.ts";
import { type CheckedDevice, type CheckReport, Findings } from "./check_report.ts";
import { compareDataSpaceMap, compareMetadataCounts, loadMetadataSpaceMap } from "./check_space_map.ts";
import {
  addReference,
  type CheckContext,
  type LeafVisitor,
  type MetadataReading,
  readWalkedBlock,
  walkTree,
} from "./check_tree.ts";
import { blockTimeDblock, blockTimeTime, dataBlocksMax } from "./format/block_time.ts";
import { childSizeBytes, nodeChild, nodeEntries, nodeKey, nodeValueOffset } from "./format/btree_node.ts";
import { type DeviceDetails, deviceDetailsSizeBytes, unpackDeviceDetails } from "./format/device_details.ts";
import { metadataBlocksMax } from "./format/metadata_index.ts";
import {
  dataBlockSizeSectorsMax,
  dataBlockSizeSectorsMin,
  flagNeedsCheck,
  type Superblock,
  superblockLocation,
  unpackSuperblock,
} from "./format/superblock.ts";
import { type MetadataBlock, type ThinId, thinId, thinIdMax } from "./base/ids.ts";
import { devicesPerPause } from "./base/limits.ts";
import { scanPause } from "./metadata_scan.ts";
import { SliceEnd } from "./slices.ts";

export type { CheckedDevice, CheckReport } from "./check_report.ts";
export type { MetadataReading } from "./check_tree.ts";

/** Options of a check. */
export interface CheckOptions {
  /** Size of the metadata device in blocks. Blocks beyond it are never requested. */
  readonly deviceBlocks: number;
  /** For simulations with small state: accepts blocks of any number of sectors, which no other program makes. */
  readonly takesSmallBlocks?: boolean;
}

/**
 * Checks the metadata of a pool. Yields the number of each block that it needs, once per node, and is resumed with its
 * bytes, or with undefined when they cannot be read. Memory: 9 bytes for each metadata block, about 1 for each data
 * block in a mapped region, 25 for each shared node. Damage throws nothing; it is in the report.
 */
export function* checkMetadata(
  options: CheckOptions,
): Generator<MetadataBlock, CheckReport, Uint8Array | undefined> {
  const findings = new Findings();
  const bytes = options.deviceBlocks > 0 ? yield superblockLocation : undefined;
  const superblock = bytes === undefined ? "it cannot be read" : unpackSuperblock(bytes);
  if (typeof superblock === "string") {
    findings.damage(`The superblock (metadata block 0) is damaged: ${superblock}.`);
    return reportUnreadable(findings);
  }
  checkSuperblock(superblock, options, findings);
  const blocks = Math.min(superblock.metadataSpaceMap.blocks, metadataBlocksMax);
  const counts = new MetadataCounts(blocks);
  const context: CheckContext = { findings, counts, deviceBlocks: options.deviceBlocks };
  addReference(context, superblockLocation, BlockUse.superblock, "the superblock");
  const countsKnown = yield* loadMetadataSpaceMap(context, superblock.metadataSpaceMap);
  const check: MappingCheck = {
    context,
    time: superblock.time,
    transactionId: superblock.transactionId,
    shared: new SharedSubtrees(counts.recorded, !countsKnown),
    dataCounts: new DataCounts(superblock.dataSpaceMap.blocks),
  };
  const live = yield* walkDevices(check, superblock, "");
  const held = superblock.heldRoot === 0 ? undefined : yield* walkHeldSnapshot(check, superblock.heldRoot);
  const walkedAll = live.sound && (held?.sound ?? true);
  if (live.rootsCounted + (held?.rootsCounted ?? 0) <= 1) checkOnlyDevice(check);
  const dataUsed = yield* compareDataSpaceMap(context, superblock.dataSpaceMap, check.dataCounts, walkedAll);
  const complete = walkedAll && countsKnown;
  const metadataUsed = compareMetadataCounts(context, complete);
  if (!complete) findings.note("Leaks were not looked for, because damage hides some of the references.");
  return {
    ...findings.summary(),
    complete,
    transactionId: superblock.transactionId,
    needsCheck: (superblock.flags & flagNeedsCheck) !== 0,
    heldSnapshot: superblock.heldRoot === 0 ? undefined : superblock.heldRoot,
    dataBlockSizeSectors: superblock.dataBlockSizeSectors,
    devices: live.devices,
    dataTotalBlocks: superblock.dataSpaceMap.blocks,
    dataUsedBlocks: dataUsed,
    metadataTotalBlocks: superblock.metadataSpaceMap.blocks,
    metadataUsedBlocks: metadataUsed,
  };
}

function reportUnreadable(findings: Findings): CheckReport {
  return {
    ...findings.summary(),
    complete: false,
    transactionId: 0n,
    needsCheck: false,
    heldSnapshot: undefined,
    dataBlockSizeSectors: 0,
    devices: [],
    dataTotalBlocks: 0,
    dataUsedBlocks: 0,
    metadataTotalBlocks: 0,
    metadataUsedBlocks: 0,
  };
}

/** Checks the fields with which the kernel refuses a pool, though thin_check accepts them. */
function checkSuperblock(superblock: Superblock, options: CheckOptions, findings: Findings): void {
  const { deviceBlocks } = options;
  const unitSectors = options.takesSmallBlocks === true ? 1 : dataBlockSizeSectorsMin;
  const sectors = superblock.dataBlockSizeSectors;
  const inBounds = sectors >= unitSectors && sectors <= dataBlockSizeSectorsMax;
  if (!inBounds || sectors % unitSectors !== 0) {
    findings.damage(
      `The superblock says that data blocks have ${sectors} sectors; legal are multiples of ` +
        `${dataBlockSizeSectorsMin} up to ${dataBlockSizeSectorsMax}.`,
    );
  }
  if (superblock.incompatFlags !== 0) {
    findings.damage(`The superblock has unknown incompatible features (flags ${superblock.incompatFlags}).`);
  }
  if (superblock.compatRoFlags !== 0) {
    findings.damage(
      `The superblock has unknown features that allow reading only (flags ${superblock.compatRoFlags}).`,
    );
  }
  const metadataBlocks = superblock.metadataSpaceMap.blocks;
  if (metadataBlocks > metadataBlocksMax) {
    findings.damage(
      `The superblock says that there are ${metadataBlocks} metadata blocks; at most ${metadataBlocksMax} can be.`,
    );
  }
  if (metadataBlocks > deviceBlocks) {
    findings.damage(
      `The superblock says that there are ${metadataBlocks} metadata blocks, but the device has only ${deviceBlocks}.`,
    );
  }
  if (superblock.dataSpaceMap.blocks > dataBlocksMax) {
    findings.damage(
      `The superblock says that there are ${superblock.dataSpaceMap.blocks} data blocks; at most ${dataBlocksMax} can be.`,
    );
  }
  if ((superblock.flags & flagNeedsCheck) !== 0) {
    findings.note("The superblock asks for a check (needs_check is set).");
  }
}

/** The state of the walk over the mappings. */
interface MappingCheck {
  readonly context: CheckContext;
  /** The snapshot clock. */
  readonly time: number;
  readonly transactionId: bigint;
  readonly shared: SharedSubtrees;
  readonly dataCounts: DataCounts;
}

interface DevicesWalk {
  readonly devices: CheckedDevice[];
  /** False if a part of a tree could not be read. */
  readonly sound: boolean;
  /** Number of device roots that were not counted under another superblock before. */
  readonly rootsCounted: number;
}

/**
 * Two devices may share a data block. But if one device maps a data block twice, a write to one vblock changes the
 * other too. With several devices the counts do not show this; with one device, a count of 2 does.
 */
function checkOnlyDevice(check: MappingCheck): void {
  const dblock = check.dataCounts.someShared();
  if (dblock === undefined) return;
  check.context.findings.damage(
    `Data block ${dblock} is mapped more than once, by the only thin device there is.`,
  );
}

const nothingWalked: DevicesWalk = { devices: [], sound: false, rootsCounted: 0 };

/** Walks the trees of the metadata snapshot, whose root is a copy of a superblock. */
function* walkHeldSnapshot(check: MappingCheck, location: MetadataBlock): MetadataReading<DevicesWalk> {
  const { context } = check;
  const name = "the metadata snapshot";
  const before = addReference(context, location, BlockUse.metadataSnapshot, name);
  const bytes = before === undefined ? undefined : yield* readWalkedBlock(context, location, name);
  if (bytes === undefined) return nothingWalked;
  const superblock = unpackSuperblock(bytes, location);
  if (typeof superblock !== "string") {
    return yield* walkDevices(check, superblock, " in the metadata snapshot");
  }
  context.findings.damage(`Metadata block ${location} (${name}) is damaged: ${superblock}.`);
  return nothingWalked;
}

/** Walks the details tree, the top level of the mapping tree, and each device's own tree under one superblock. */
function* walkDevices(
  check: MappingCheck,
  superblock: Superblock,
  where: string,
): MetadataReading<DevicesWalk> {
  const { context, shared } = check;
  const details = new DetailsVisitor(check, where);
  const detailsTree = yield* walkTree(context, {
    use: BlockUse.details,
    valueSizeBytes: deviceDetailsSizeBytes,
    name: `the device details tree${where}`,
    visitor: details,
    shared,
    rereads: true,
  }, superblock.detailsRoot);
  const top = new TopVisitor(context.findings, where);
  const topTree = yield* walkTree(context, {
    use: BlockUse.mappingTop,
    valueSizeBytes: childSizeBytes,
    name: `the top level of the mapping tree${where}`,
    visitor: top,
    shared,
    rereads: true,
  }, superblock.mappingRoot);
  const devices: CheckedDevice[] = [];
  let sound = detailsTree.sound && topTree.sound;
  let rootsCounted = 0;
  const end = new SliceEnd(devicesPerPause);
  for (const device of top.devices) {
    if (end.isDue()) yield scanPause;
    const record = details.byDevice.get(device.thinId);
    if (record === undefined && detailsTree.sound) {
      context.findings.damage(`Thin device ${device.thinId}${where} has mappings, but no details.`);
    }
    if (record !== undefined) devices.push({ thinId: device.thinId, mappedBlocks: record.mappedBlocks });
    // An entry that the live superblock has too was counted there, and its device was checked there.
    if (!device.counts) continue;
    rootsCounted++;
    const tree = yield* walkDevice(check, device);
    sound = sound && tree.sound;
    if (record !== undefined && !tree.sound) {
      context.findings.damage(
        `Thin device ${device.thinId}${where} is damaged: of its ${record.mappedBlocks} mappings ${tree.entries} can be read.`,
      );
    } else if (record !== undefined && tree.entries !== record.mappedBlocks) {
      context.findings.damage(
        `Thin device ${device.thinId}${where} has ${tree.entries} mappings, but its details say ${record.mappedBlocks}.`,
      );
    }
  }
  if (topTree.sound) reportUnmapped(details, top, where, context.findings);
  return { devices, sound, rootsCounted };
}

function walkDevice(check: MappingCheck, device: TopEntry): MetadataReading<CountedSubtree> {
  return walkTree(check.context, {
    use: BlockUse.mappingBottom,
    valueSizeBytes: childSizeBytes,
    name: `the mapping tree of thin device ${device.thinId}`,
    visitor: new MappingVisitor(check, device.thinId),
    shared: check.shared,
    rereads: false,
  }, device.root);
}

function reportUnmapped(details: DetailsVisitor, top: TopVisitor, where: string, findings: Findings): void {
  const mapped = new Set<number>();
  for (const device of top.devices) mapped.add(device.thinId);
  for (const id of details.byDevice.keys()) {
    if (!mapped.has(id)) findings.damage(`Thin device ${id}${where} has details, but no mapping tree.`);
  }
}

class DetailsVisitor implements LeafVisitor {
  readonly byDevice: Map<number, DeviceDetails> = new Map();

  constructor(readonly check: MappingCheck, readonly where: string) {}

  visitLeaf(leaf: DataView): void {
    const { context, time, transactionId } = this.check;
    for (let index = 0; index < nodeEntries(leaf); index++) {
      const id = nodeKey(leaf, index);
      const details = unpackDeviceDetails(leaf, nodeValueOffset(leaf, index));
      this.byDevice.set(id, details);
      if (details.transactionId > transactionId) {
        context.findings.note(`Thin device ${id}${this.where} was made in a transaction yet to come.`);
      }
      if (details.creationTime > time || details.snapshottedTime > time) {
        context.findings.note(`Thin device ${id}${this.where} has a time beyond the superblock's ${time}.`);
      }
    }
  }
}

interface TopEntry {
  readonly thinId: ThinId;
  readonly root: MetadataBlock;
  /** Whether this entry is visited for the first time, so that its reference is counted. */
  readonly counts: boolean;
}

class TopVisitor implements LeafVisitor {
  readonly devices: TopEntry[] = [];

  constructor(readonly findings: Findings, readonly where: string) {}

  visitLeaf(leaf: DataView, counts: boolean): void {
    for (let index = 0; index < nodeEntries(leaf); index++) {
      const id = nodeKey(leaf, index);
      if (id > thinIdMax) {
        this.findings.damage(`Thin device ${id}${this.where} has a number of more than 24 bits.`);
      }
      this.devices.push({ thinId: thinId(id), root: nodeChild(leaf, index), counts });
    }
  }
}

/** Counts the data blocks that a device's leaves refer to. */
class MappingVisitor implements LeafVisitor {
  #notedTime = false;

  constructor(readonly check: MappingCheck, readonly device: ThinId) {}

  visitLeaf(leaf: DataView): void {
    const { context, dataCounts, time } = this.check;
    const entries = nodeEntries(leaf);
    const begin = nodeValueOffset(leaf, 0);
    for (let index = 0; index < entries; index++) {
      const dblock = blockTimeDblock(leaf, begin + index * childSizeBytes);
      if (dblock < dataCounts.blocks) {
        dataCounts.add(dblock);
      } else {
        context.findings.damage(
          `Thin device ${this.device} maps block ${nodeKey(leaf, index)} to data block ${dblock}, ` +
            `but there are only ${dataCounts.blocks}.`,
        );
      }
      if (!this.#notedTime && blockTimeTime(leaf, begin + index * childSizeBytes) > time) {
        this.#notedTime = true;
        context.findings.note(
          `Thin device ${this.device} has mappings with a time beyond the superblock's ${time}.`,
        );
      }
    }
  }
}
