/** The first open after a power cut begins its intent journal in a file of which any part has survived. */
import { IntentJournal } from "../../actors/pool/intent_journal.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { intentHeaderBytes } from "../../storage/intent_headers.ts";
import { findIntents } from "../../storage/intent_read.ts";
import { IntentMemory } from "../support/intent_memory.ts";
import type { Images } from "./images.ts";
import { hostOf } from "./recovery.ts";

/**
 * What is wrong if the process dies in the midst of that, or undefined. Nothing of the file may ever be replayed: after the
 * power cut its changes lead to bytes that may be lost.
 */
export function problemOfNextBoot(images: Images): string | undefined {
  const segmentBytes = (images.intents.length - intentHeaderBytes) / 2;
  const file = new IntentMemory(segmentBytes);
  file.bytes.set(images.intents);
  const superblock = images.metadata.slice(0, metadataBlockSizeBytes);
  const host = hostOf({ ...images, isSameBoot: false });
  const problems: string[] = [];
  const look = (what: string) => {
    const { kind } = findIntents(file.bytes, host, superblock);
    if (kind !== "none") problems.push(`${what} its changes from before the power cut are believed`);
  };
  look("when the pool is opened");
  let writes = 0;
  file.written = () => look(`after write ${++writes} of the new intent journal`);
  const log = () => {};
  new IntentJournal({ port: file, binding: host, segmentBytes, log }).start(superblock);
  return problems[0];
}
