/**
 * Another program between a kill and the next open: it knows nothing of the intent journal, and sees the last commit.
 *
 * A change of the metadata, which every program ends with another superblock, must be noticed: nothing is replayed, and one
 * sentence says so. A write in place, to a block that is mapped already, changes no metadata and cannot be noticed.
 */
import { settleCatalogue } from "../../storage/catalogue_open.ts";
import { readJournal } from "../../storage/catalogue_journal.ts";
import { packSuperblock } from "../../storage/format/superblock.ts";
import { type DBlock, dblock, metadataBlockSizeBytes, type ThinId, vblock } from "../../storage/base/ids.ts";
import { MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import { type Lineage, WritableContent } from "../crash/content.ts";
import { stamped } from "../crash/stamps.ts";
import { MetadataDriver } from "../support/metadata_driver.ts";
import { Random } from "../support/world.ts";
import {
  areSameBytes,
  baseOf,
  intentHeaderBytes,
  unpackFileHeader,
  unpackSegmentHeader,
} from "../../storage/intent_headers.ts";
import { findIntents, segmentBegin } from "../../storage/intent_read.ts";
import { bindingOf } from "./intent_file.ts";
import type { Life } from "./life.ts";
import type { Oracle } from "./oracle.ts";
import type { Platters } from "./platters.ts";

/** What it has changed. "mapping": a transaction of its own; "superblock": only that, as a flag or an id. */
export type ForeignChange = "mapping" | "superblock" | "data";

/** A writable volume as the last commit and the catalogue have it. */
interface Target {
  readonly thin: ThinId;
  readonly sizeBytes: number;
  readonly lineage: Lineage;
}

/** Of so many kills one is followed by another program. */
const killsPerForeign = 8;

/** When it comes, and what the next open must say of it. */
export class ForeignWriter {
  readonly counts = new Map<ForeignChange, number>();
  /** Of a source of its own, so that the other choices of a seed do not depend on it. */
  readonly #random: Random;
  readonly #overlooks: boolean;
  /** The intent journal had changes for the superblock that is gone now. */
  #mustSay = false;
  /** An open that was interrupted may have replayed, and its own journal not begun. */
  #mayBeReplayed = false;
  #before: Uint8Array | undefined;

  constructor(seed: number, overlooks: boolean) {
    this.#random = new Random(Math.imul(seed, 0x2c1b3c6d) ^ 0xf0e1);
    this.#overlooks = overlooks;
  }

  /** Only a fault has one: the superblock before the change. */
  get believed(): Uint8Array | undefined {
    return this.#overlooks ? this.#before : undefined;
  }

  /** The process was killed. True if the metadata was changed now, so that nothing of the intent journal is there any more. */
  write(platters: Platters, oracle: Oracle): boolean {
    [this.#mustSay, this.#before] = [false, undefined];
    if (this.#random.below(killsPerForeign) > 0) return false;
    const { bytes, bootId } = platters.intents;
    const superblock = platters.metadata.slice(0, metadataBlockSizeBytes);
    const change = writeForeign(platters, oracle, this.#random);
    if (change === undefined) return false;
    this.counts.set(change, (this.counts.get(change) ?? 0) + 1);
    if (change === "data") return false;
    this.#mustSay = findIntents(bytes, bindingOf(bootId), superblock).kind === "found";
    this.#before = superblock;
    return true;
  }

  /** What is wrong with what an open did and said, or undefined. */
  problemOf({ replayed, notReplayed }: Life): string | undefined {
    const [mustSay, maySay] = [this.#mustSay, this.#mayBeReplayed];
    const wasChanged = this.#before !== undefined;
    [this.#mustSay, this.#mayBeReplayed, this.#before] = [false, false, undefined];
    if (wasChanged && replayed === "replayed") {
      return "the intent journal was replayed over changes by another program";
    }
    if (mustSay && notReplayed.length !== 1) {
      return `changes by another program are told in ${notReplayed.length} sentences`;
    }
    const isFalse = !wasChanged && !maySay && notReplayed.some((why) => why.includes("another program"));
    return isFalse ? "an open tells of another program, and there was none" : undefined;
  }

  /** Another crash came before an open had ended. */
  openInterrupted({ hasIntents, notReplayed }: Life): void {
    // What was not replayed stays in the file until the new journal begins there.
    this.#mayBeReplayed ||= hasIntents || notReplayed.length > 0 || this.#before !== undefined;
    [this.#mustSay, this.#before] = [false, undefined];
  }
}

/** Changes the disks, durably, and tells the oracle what may be found. Undefined if there is nothing that it could change. */
function writeForeign(platters: Platters, oracle: Oracle, random: Random): ForeignChange | undefined {
  const kind = (["mapping", "superblock", "data"] as const)[random.below(3)]!;
  if (kind === "superblock") return changeSuperblock(platters, random);
  const targets = targetsOf(platters, oracle);
  const target = targets[random.below(targets.length)];
  if (target === undefined) return undefined;
  const driver = new MetadataDriver(platters.metadata.slice(), 256, false, true);
  return kind === "mapping"
    ? changeMapping(platters, oracle, driver, target, random)
    : changeData(platters, oracle, driver, target, random);
}

/** Those of which it is certain what their name means: no command was on its way. */
function targetsOf(platters: Platters, oracle: Oracle): Target[] {
  if (oracle.command !== undefined) return [];
  const { catalogue } = settleCatalogue(readJournal(platters.journal), platters.superblock().transactionId);
  const targets: Target[] = [];
  for (const { name, thinId: thin, sizeBytes } of catalogue.volumes()) {
    const content = oracle.current.volumes.get(name);
    if (!(content instanceof WritableContent) || content.sizeBytes !== sizeBytes) continue;
    targets.push({ thin, sizeBytes, lineage: content.lineage });
  }
  return targets;
}

function changeSuperblock(platters: Platters, random: Random): ForeignChange {
  const superblock = platters.superblock();
  const uuid = superblock.uuid.slice();
  uuid[random.below(uuid.length)]! ^= 1 + random.below(255);
  const block = platters.metadata.slice(0, metadataBlockSizeBytes);
  platters.write("metadata", 0, packSuperblock({ ...superblock, uuid }, block));
  platters.flush("metadata");
  return "superblock";
}

/** Maps a block of its own where nothing is mapped, or discards what is mapped there. */
function changeMapping(
  platters: Platters,
  oracle: Oracle,
  driver: MetadataDriver,
  { thin, sizeBytes, lineage }: Target,
  random: Random,
): ForeignChange | undefined {
  const { blockSizeBytes } = driver.engine.geometry;
  const at = vblock(random.below(Math.ceil(sizeBytes / blockSizeBytes)));
  let fresh: DBlock | undefined;
  try {
    if (driver.run((engine) => isMapped(engine, thin, at))) {
      driver.run((engine) => engine.removeRange(thin, at, vblock(at + 1)));
    } else {
      fresh = driver.run((engine) => engine.findFreeData(dblock(0), 1)).runs[0]?.begin;
      const block = fresh;
      if (block === undefined) return undefined;
      driver.run((engine) => engine.insert(thin, at, block));
    }
    driver.commit();
  } catch (error) {
    // It has no room for that in the metadata.
    if (error instanceof MetadataFault) return undefined;
    throw error;
  }
  if (isOwnCommit(platters, driver.image)) return undefined;
  const offsetBytes = at * blockSizeBytes;
  const lengthBytes = Math.min(blockSizeBytes, sizeBytes - offsetBytes);
  if (fresh === undefined) {
    const data = new Uint8Array(0);
    oracle.submit(lineage, { kind: "writeZeroes", offsetBytes, lengthBytes, data, fua: false });
  } else {
    const data = stampOf(oracle, lineage, offsetBytes, lengthBytes, random);
    oracle.submit(lineage, { kind: "write", offsetBytes, lengthBytes, data, fua: false });
    const block = new Uint8Array(blockSizeBytes);
    block.set(data);
    platters.write("data", fresh * blockSizeBytes, block);
    platters.flush("data");
  }
  writeChanged(platters, driver.image);
  return "mapping";
}

/** Writes the metadata blocks that differ. */
function writeChanged(platters: Platters, image: Uint8Array): void {
  for (let begin = 0; begin < image.length; begin += metadataBlockSizeBytes) {
    const block = image.subarray(begin, begin + metadataBlockSizeBytes);
    const isSame = block.every((byte, index) => byte === platters.metadata[begin + index]);
    if (!isSame) platters.write("metadata", begin, block);
  }
  platters.flush("metadata");
}

function stampOf(oracle: Oracle, lineage: Lineage, offsetBytes: number, lengthBytes: number, random: Random) {
  const sequence = 0x7000_0000 + random.below(0x1000_0000);
  return stamped(oracle.numberOf(lineage), offsetBytes / 512, lengthBytes / 512, sequence);
}

/** The server had begun the very same transaction, and its next segment builds on it: that is not the work of another program. */
function isOwnCommit({ intents }: Platters, image: Uint8Array): boolean {
  const base = baseOf(image.subarray(0, metadataBlockSizeBytes));
  const header = unpackFileHeader(intents.bytes);
  if (typeof header !== "object") return false;
  return ([0, 1] as const).some((segment) => {
    const at = segmentBegin(segment, header.segmentBytes);
    const found = unpackSegmentHeader(intents.bytes.subarray(at, at + intentHeaderBytes));
    return found !== undefined && areSameBytes(found.base, base);
  });
}

function isMapped(engine: ThinMetadata, thin: ThinId, at: ReturnType<typeof vblock>): boolean {
  return engine.device(thin) !== undefined && engine.lookup(thin, at).kind === "provisioned";
}

/** Writes to a block of one volume in place. */
function changeData(
  platters: Platters,
  oracle: Oracle,
  driver: MetadataDriver,
  target: Target,
  random: Random,
): ForeignChange | undefined {
  const { thin, sizeBytes, lineage } = target;
  const { blockSizeBytes } = driver.engine.geometry;
  const at = vblock(random.below(Math.ceil(sizeBytes / blockSizeBytes)));
  const mapping = driver.run((engine) => isMapped(engine, thin, at) ? engine.lookup(thin, at) : undefined);
  // Where it may be shared the program breaks the sharing first, which changes the metadata.
  if (mapping?.kind !== "provisioned" || mapping.shared) return undefined;
  const offsetBytes = at * blockSizeBytes;
  const lengthBytes = Math.min(blockSizeBytes, sizeBytes - offsetBytes);
  const data = stampOf(oracle, lineage, offsetBytes, lengthBytes, random);
  oracle.submit(lineage, { kind: "write", offsetBytes, lengthBytes, data, fua: false });
  platters.write("data", mapping.dblock * blockSizeBytes, data);
  platters.flush("data");
  return "data";
}
