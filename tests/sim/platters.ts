/** What the run's disks hold, durably and not, from life to life. */
import { geometryOf } from "../../storage/base/geometry.ts";
import { catalogueFrom, settleCatalogue } from "../../storage/catalogue_open.ts";
import { readJournal } from "../../storage/catalogue_journal.ts";
import { checkMetadata } from "../../storage/check.ts";
import { flagNeedsCheck, packSuperblock, unpackSuperblock } from "../../storage/format/superblock.ts";
import { metadataBlockSizeBytes, sectorSizeBytes } from "../../storage/base/ids.ts";
import { ThinMetadata } from "../../storage/thin_metadata.ts";
import { DeviceReplay, JournalReplay } from "../crash/power_cut.ts";
import { RunLog } from "../crash/recording_device.ts";
import { poisoned } from "../crash/stamps.ts";
import { Recount } from "../support/metadata_recount.ts";
import type { Random } from "../support/world.ts";
import { cutIntents, type IntentsLeft } from "./intent_file.ts";
import type { Life } from "./life.ts";
import type { Swarm } from "./swarm.ts";
import { Violation } from "./violation.ts";

/** See the head of this file. */
export class Platters {
  log = new RunLog();
  /** What a program that opens the disks now reads. */
  metadata: Uint8Array;
  data: Uint8Array;
  journal: string;
  /** Of the file of the intent journal. */
  intents: IntentsLeft = { bytes: new Uint8Array(0), bootId: "boot 0" };
  #boots = 0;
  #metadataReplay: DeviceReplay;
  #dataReplay: DeviceReplay;

  /** The disks of a new pool, full of bytes that nobody may ever see. */
  constructor(swarm: Swarm) {
    const { metadataBlocks, dataBlocks, blockSectors, growthBlocks } = swarm;
    this.metadata = new Uint8Array((metadataBlocks + growthBlocks.metadata) * metadataBlockSizeBytes).fill(
      0x5a,
    );
    const blockSizeBytes = blockSectors * sectorSizeBytes;
    const geometry = geometryOf({ metadataBlocks, dataBlocks, blockSizeBytes });
    for (const { block, bytes } of ThinMetadata.format(geometry)) {
      this.metadata.set(bytes, block * metadataBlockSizeBytes);
    }
    this.data = poisoned((dataBlocks + growthBlocks.data) * blockSizeBytes);
    const settings = { blockSizeBytes, metadataPath: "m", dataPath: "d" };
    const empty = catalogueFrom({ transactionId: 0n, settings, nextThinId: 1, volumes: [] });
    this.journal = empty.snapshotLine();
    this.#metadataReplay = new DeviceReplay("metadata", this.metadata);
    this.#dataReplay = new DeviceReplay("data", this.data);
  }

  /**
   * What opening a pool does on the host on which a process ended: it flushes, has the host let go of what it has in memory,
   * and reads. What a failed flush has lost, each sector of it or not, is seen to be lost, and what is seen is durable.
   */
  seeDisks(swarm: Swarm, random: Random): void {
    this.#advance();
    const keeps = (percent: number) => () => random.below(100) >= percent;
    const { lossPercent } = swarm;
    const sizes = { metadata: this.metadata.length, data: this.data.length };
    this.metadata = this.#metadataReplay.reread(new Uint8Array(sizes.metadata), keeps(lossPercent.metadata));
    this.data = this.#dataReplay.reread(new Uint8Array(sizes.data), keeps(lossPercent.data));
    this.#beginAnew();
  }

  /** The power fails: of what is not durable each sector is there or not. */
  cutPower(life: Life, swarm: Swarm, random: Random): void {
    this.#advance();
    const keeps = (percent: number) => () => random.below(100) >= percent;
    const { lossPercent } = swarm;
    this.metadata = this.#metadataReplay.cut(
      new Uint8Array(this.metadata.length),
      keeps(lossPercent.metadata),
    );
    this.data = this.#dataReplay.cut(new Uint8Array(this.data.length), keeps(lossPercent.data));
    const journal = new JournalReplay(life.journal.bytes);
    journal.advance(life.journal.log, life.journal.log.records.length);
    const style = random.below(3);
    const bytes = journal.cut(style === 0 ? "lost" : style === 1 ? "kept" : (end) => random.below(end));
    this.journal = new TextDecoder().decode(bytes);
    this.#boots += 1;
    this.intents = cutIntents(life.intentFile?.bytes ?? this.intents.bytes, this.#boots, random);
    this.#beginAnew();
  }

  /** All that there is is durable. */
  #beginAnew(): void {
    this.log = new RunLog();
    this.#metadataReplay = new DeviceReplay("metadata", this.metadata);
    this.#dataReplay = new DeviceReplay("data", this.data);
  }

  /** The process ends: the host keeps what it was given, and may still lose it in a power cut. */
  kill(life: Life): void {
    this.#advance();
    this.metadata = this.#metadataReplay.memory.slice();
    this.data = this.#dataReplay.memory.slice();
    const journal = new JournalReplay(life.journal.bytes);
    journal.advance(life.journal.log, life.journal.log.records.length);
    this.journal = new TextDecoder().decode(journal.memory);
    const { bootId } = this.intents;
    // It asks the operator for that where it cannot remove the file itself.
    const isByHand = life.logged.some((sentence) => sentence.includes("remove it by hand"));
    this.intents = {
      bytes: isByHand ? new Uint8Array(0) : life.intentFile?.bytes ?? this.intents.bytes,
      bootId,
    };
  }

  /** The host flushes, as opening a pool asks it to before anything is built on what it reads. */
  flush(device: "metadata" | "data"): void {
    const asked = this.log.records.length;
    this.log.records.push({ kind: "flush", device, asked, unanswered: new Set() });
  }

  /** What opening a pool directory does to the catalogue: what did not hold is gone. */
  settle(): void {
    const superblock = this.superblock();
    const { catalogue } = settleCatalogue(readJournal(this.journal), superblock.transactionId);
    this.journal = catalogue.snapshotLine();
  }

  superblock() {
    const superblock = unpackSuperblock(this.metadata.slice(0, metadataBlockSizeBytes));
    if (typeof superblock === "string") throw new Violation(`the superblock is damaged: ${superblock}`);
    return superblock;
  }

  /** As `thin_check --clear-needs-check-flag` does. True if a commit had failed. */
  clearNeedsCheck(): boolean {
    const superblock = this.superblock();
    if ((superblock.flags & flagNeedsCheck) === 0) return false;
    const block = this.metadata.slice(0, metadataBlockSizeBytes);
    const bytes = packSuperblock({ ...superblock, flags: superblock.flags & ~flagNeedsCheck }, block);
    this.write("metadata", 0, bytes);
    return true;
  }

  /** A program other than the server writes. */
  write(device: "metadata" | "data", offsetBytes: number, bytes: Uint8Array): void {
    this[device].set(bytes, offsetBytes);
    this.log.records.push({ kind: "write", device, offsetBytes, bytes: bytes.slice() });
  }

  /** Throws unless the metadata is sound; `isThorough`: by a second count too, which shares nothing with the first. */
  check(isThorough: boolean): void {
    const deviceBlocks = this.metadata.length / metadataBlockSizeBytes;
    const check = checkMetadata({ deviceBlocks, takesSmallBlocks: true });
    let step = check.next();
    while (!step.done) {
      const at = step.value * metadataBlockSizeBytes;
      step = check.next(this.metadata.subarray(at, at + metadataBlockSizeBytes));
    }
    if (step.value.problemCount > 0) {
      throw new Violation(`the metadata is not sound: ${step.value.problems.join(" ")}`);
    }
    if (isThorough) new Recount(this.metadata);
  }

  #advance(): void {
    this.#metadataReplay.advance(this.log, this.log.records.length);
    this.#dataReplay.advance(this.log, this.log.records.length);
  }
}
