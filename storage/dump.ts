/** Writes a pool's mappings as XML, byte for byte as thin_dump 0.9 does, with its always empty uuid. */
import { blockTimeDblock, blockTimeTime } from "./format/block_time.ts";
import { childSizeBytes, nodeChild, nodeEntries, nodeKey, nodeValueOffset } from "./format/btree_node.ts";
import { type DeviceDetails, deviceDetailsSizeBytes, unpackDeviceDetails } from "./format/device_details.ts";
import { readOpaqueU64 } from "./format/fields.ts";
import { type Superblock, superblockLocation, unpackSuperblock } from "./format/superblock.ts";
import type { MetadataBlock } from "./base/ids.ts";
import { dumpPieceChars } from "./base/limits.ts";
import { isDamaged, type MetadataDamaged, superblockDamaged, TreeCursor } from "./metadata_scan.ts";

/** What {@linkcode dumpMetadata} yields: a block that it needs, to be resumed with its bytes, or a piece of text. */
export type DumpStep =
  | { readonly kind: "read"; readonly block: MetadataBlock }
  | { readonly kind: "text"; readonly text: string };

/** How a dump ended. After damage the text is not a complete document. */
export type DumpEnd = { readonly kind: "whole" } | MetadataDamaged;

type Dumping<Result> = Generator<DumpStep, Result, Uint8Array | undefined>;

/** A record of the details tree. The number of mapped blocks is printed with all 64 bits, whatever it is. */
interface DumpedDetails extends DeviceDetails {
  readonly mappedBlocksExact: bigint;
}

interface DumpedDevice {
  readonly id: number;
  readonly root: MetadataBlock;
}

/**
 * Dumps the metadata under the superblock. A "read" step is resumed with the block's bytes, or with undefined when they
 * cannot be read. The bytes are not used after the next step. Memory: one record for each thin device, one node for
 * each level.
 */
export function* dumpMetadata(): Dumping<DumpEnd> {
  const bytes = yield { kind: "read", block: superblockLocation };
  const superblock = bytes === undefined ? "it cannot be read" : unpackSuperblock(bytes);
  if (typeof superblock === "string") return superblockDamaged(superblock);
  const details = yield* readDetails(superblock);
  if (isDamaged(details)) return details;
  const devices = yield* readDevices(superblock);
  if (isDamaged(devices)) return devices;
  yield { kind: "text", text: superblockOpening(superblock) };
  for (const device of devices) {
    const record = details.get(device.id);
    if (record === undefined) {
      return {
        kind: "damaged",
        sentence: `Thin device ${device.id} has mappings, but the device details tree does not list it.`,
      };
    }
    const damage = yield* dumpDevice(device, record);
    if (damage !== undefined) return damage;
  }
  yield { kind: "text", text: "</superblock>\n" };
  return { kind: "whole" };
}

function superblockOpening(superblock: Superblock): string {
  return `<superblock uuid="" time="${superblock.time}" transaction="${superblock.transactionId}"` +
    ` flags="${superblock.flags}" version="${superblock.version}"` +
    ` data_block_size="${superblock.dataBlockSizeSectors}" nr_data_blocks="${superblock.dataSpaceMap.blocks}">\n`;
}

function* readDetails(superblock: Superblock): Dumping<Map<number, DumpedDetails> | MetadataDamaged> {
  const records = new Map<number, DumpedDetails>();
  const cursor = new TreeCursor(superblock.detailsRoot, deviceDetailsSizeBytes, "the device details tree");
  for (let block = cursor.wanted(); block !== undefined; block = cursor.wanted()) {
    const leaf = cursor.supply(yield { kind: "read", block });
    if (leaf === undefined) continue;
    if (isDamaged(leaf)) return leaf;
    for (let index = 0; index < nodeEntries(leaf); index++) {
      const offset = nodeValueOffset(leaf, index);
      const record = unpackDeviceDetails(leaf, offset);
      records.set(nodeKey(leaf, index), { ...record, mappedBlocksExact: readOpaqueU64(leaf, offset) });
    }
  }
  return records;
}

function* readDevices(superblock: Superblock): Dumping<DumpedDevice[] | MetadataDamaged> {
  const devices: DumpedDevice[] = [];
  const cursor = new TreeCursor(superblock.mappingRoot, childSizeBytes, "the top level of the mapping tree");
  for (let block = cursor.wanted(); block !== undefined; block = cursor.wanted()) {
    const leaf = cursor.supply(yield { kind: "read", block });
    if (leaf === undefined) continue;
    if (isDamaged(leaf)) return leaf;
    for (let index = 0; index < nodeEntries(leaf); index++) {
      devices.push({ id: nodeKey(leaf, index), root: nodeChild(leaf, index) });
    }
  }
  return devices;
}

function* dumpDevice(device: DumpedDevice, details: DumpedDetails): Dumping<MetadataDamaged | undefined> {
  const writer = new MappingWriter();
  writer.text = `  <device dev_id="${device.id}" mapped_blocks="${details.mappedBlocksExact}"` +
    ` transaction="${details.transactionId}" creation_time="${details.creationTime}"` +
    ` snap_time="${details.snapshottedTime}">\n`;
  const cursor = new TreeCursor(device.root, childSizeBytes, `the mapping tree of thin device ${device.id}`);
  for (let block = cursor.wanted(); block !== undefined; block = cursor.wanted()) {
    const leaf = cursor.supply(yield { kind: "read", block });
    if (leaf === undefined) continue;
    if (isDamaged(leaf)) return leaf;
    writer.addLeaf(leaf);
    if (writer.text.length < dumpPieceChars) continue;
    yield { kind: "text", text: writer.text };
    writer.text = "";
  }
  writer.endRun();
  yield { kind: "text", text: `${writer.text}  </device>\n` };
  return undefined;
}

/**
 * Joins mappings into runs: vblocks and dblocks are consecutive, times are equal. A run may extend over several leaves.
 */
class MappingWriter {
  text = "";
  #vblockBegin = 0;
  #dblockBegin = 0;
  #time = 0;
  #length = 0;

  addLeaf(leaf: DataView): void {
    const entries = nodeEntries(leaf);
    const begin = nodeValueOffset(leaf, 0);
    for (let index = 0; index < entries; index++) {
      const vblock = nodeKey(leaf, index);
      const offset = begin + index * childSizeBytes;
      const dblock = blockTimeDblock(leaf, offset);
      const time = blockTimeTime(leaf, offset);
      const joins = this.#length > 0 && vblock === this.#vblockBegin + this.#length &&
        dblock === this.#dblockBegin + this.#length && time === this.#time;
      if (!joins) {
        this.endRun();
        this.#vblockBegin = vblock;
        this.#dblockBegin = dblock;
        this.#time = time;
      }
      this.#length++;
    }
  }

  endRun(): void {
    if (this.#length === 1) {
      this.text +=
        `    <single_mapping origin_block="${this.#vblockBegin}" data_block="${this.#dblockBegin}"` +
        ` time="${this.#time}"/>\n`;
    } else if (this.#length > 1) {
      this.text +=
        `    <range_mapping origin_begin="${this.#vblockBegin}" data_begin="${this.#dblockBegin}"` +
        ` length="${this.#length}" time="${this.#time}"/>\n`;
    }
    this.#length = 0;
  }
}
