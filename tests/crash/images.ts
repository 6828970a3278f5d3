/** What the devices and files of a pool hold, before a recorded run and after a crash in it. */
import { IntentJournal } from "../../actors/pool/intent_journal.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { readInto } from "../../storage/device/port.ts";
import { intentHeaderBytes } from "../../storage/intent_headers.ts";
import { intentRecordBytes } from "../../storage/intent_record.ts";
import { IntentMemory, testBinding } from "../support/intent_memory.ts";
import { makeTestingFiles, testingBlockSizeBytes } from "../support/pool.ts";
import { RecordingIntents, type RunLog } from "./recording_device.ts";
import { poisoned } from "./stamps.ts";

/** See the head of this file. */
export interface Images {
  readonly metadata: Uint8Array;
  readonly data: Uint8Array;
  readonly journal: Uint8Array;
  /** The file of the intent journal; empty if there is none. */
  readonly intents: Uint8Array;
  /** Opened on the boot on which the intent journal was written: the process ended, and the power did not fail. */
  readonly isSameBoot: boolean;
}

/** The devices of a new pool, full of bytes that nobody may ever see. */
export function newImages(dataBlocks: number, metadataBlocks: number): Images {
  const files = makeTestingFiles(dataBlocks, metadataBlocks);
  const metadata = new Uint8Array(metadataBlocks * metadataBlockSizeBytes);
  readInto(files.metadata, metadata, 0, () => {});
  for (let at = 0; at < metadata.length; at += metadataBlockSizeBytes) {
    const block = metadata.subarray(at, at + metadataBlockSizeBytes);
    if (block.every((byte) => byte === 0)) block.fill(0x5a);
  }
  const journal = new TextEncoder().encode(files.journal.text);
  const data = poisoned(dataBlocks * testingBlockSizeBytes);
  return { metadata, data, journal, intents: new Uint8Array(0), isSameBoot: true };
}

/** An intent journal whose file is recorded. */
export function recordedIntents(log: RunLog, records: number): IntentJournal {
  const segmentBytes = intentHeaderBytes + records * intentRecordBytes;
  const memory = new IntentMemory(segmentBytes);
  const port = new RecordingIntents(memory, log, memory.bytes.length);
  return new IntentJournal({ port, binding: testBinding, segmentBytes, log: () => {} });
}
