/** Opening what a crash left the way the product does, and comparing it with what the history allows. */
import { checkMetadata } from "../../storage/check.ts";
import { settleCatalogue } from "../../storage/catalogue_open.ts";
import { readJournal } from "../../storage/catalogue_journal.ts";
import { MemoryDevice } from "../support/memory_device.ts";
import { flagNeedsCheck, unpackSuperblock } from "../../storage/format/superblock.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import type { IntentBinding } from "../../storage/device/intent_port.ts";
import { unpackFileHeader } from "../../storage/intent_headers.ts";
import { testBinding } from "../support/intent_memory.ts";
import { replayOn } from "../support/intent_replay.ts";
import { MemoryJournal, TestingPool } from "../support/pool.ts";
import { type Content, Cut, type Survivor, WritableContent } from "./content.ts";
import { type Allowance, type History, noAllowance, type Version } from "./history.ts";
import type { Images } from "./images.ts";
import { describeSector, hashSector } from "./stamps.ts";

/** What is wrong with metadata, or undefined. */
export function problemOfMetadata(metadata: Uint8Array): string | undefined {
  const blocks = metadata.length / metadataBlockSizeBytes;
  const check = checkMetadata({ deviceBlocks: blocks });
  let step = check.next();
  while (!step.done) {
    const at = step.value * metadataBlockSizeBytes;
    step = check.next(metadata.subarray(at, at + metadataBlockSizeBytes));
  }
  if (step.value.problemCount === 0) return undefined;
  return `the metadata is not sound: ${step.value.problems.join(" ")}`;
}

/** A pool on the images. It changes them as a restart does, unless it is read-only. Throws what keeps it from opening. */
export function reopen(images: Images, options: { readonly readOnly?: boolean } = {}): TestingPool {
  const devices = { metadata: new MemoryDevice(images.metadata), data: new MemoryDevice(images.data) };
  // A pool that needs a check is opened read-only, and then nothing is committed.
  const replayed = options.readOnly ? undefined : replayOn(devices, images.intents, hostOf(images));
  if (replayed !== undefined && replayed.kind !== "replayed") {
    throw new Error(`the intent journal is ${replayed.kind}: ${replayed.sentence}`);
  }
  const superblock = unpackSuperblock(images.metadata.subarray(0, metadataBlockSizeBytes));
  if (typeof superblock === "string") throw new Error(`the superblock is damaged: ${superblock}`);
  const journal = readJournal(new TextDecoder().decode(images.journal));
  const { catalogue } = settleCatalogue(journal, superblock.transactionId);
  return new TestingPool({
    ...devices,
    // As opening a pool directory does: what did not hold is gone.
    journal: new MemoryJournal(catalogue.snapshotLine()),
  }, options);
}

/** The host that opens the images: the same files, on the boot of the intent journal or on the next one. */
export function hostOf({ intents, isSameBoot }: Images): IntentBinding {
  const header = unpackFileHeader(intents);
  const binding = typeof header === "object" ? header.binding : testBinding;
  return isSameBoot ? binding : { ...binding, bootId: "boot 2" };
}

/** Whether a commit has failed before the crash and could say so: the pool then opens read-only. */
export function needsCheck(images: Pick<Images, "metadata">): boolean {
  const superblock = unpackSuperblock(images.metadata.subarray(0, metadataBlockSizeBytes));
  return typeof superblock !== "string" && (superblock.flags & flagNeedsCheck) !== 0;
}

/** A volume as it is found. */
export interface FoundVolume {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** One for each sector. */
  readonly words: Uint32Array;
  /** The sectors of its mapped blocks, as [begin, end); left out where no one has asked. */
  readonly mapped?: readonly (readonly [number, number])[];
  /** Left out where no one has asked. */
  readonly allowances?: Allowance;
}

/** Everything that a pool serves. */
export function readPool(pool: TestingPool): FoundVolume[] {
  const listed = pool.admin({ verb: "list" });
  if (listed.kind !== "volumes") throw new Error(`list answered ${listed.kind}`);
  return listed.volumes.map((listing) => {
    const volume = pool.attach(listing.name);
    const bytes = volume.read(0, listing.size_bytes);
    return {
      name: listing.name,
      sizeBytes: listing.size_bytes,
      readOnly: listing.read_only,
      words: new Uint32Array(bytes.buffer),
    };
  });
}

/** What is wrong with what a crash left that came right before `instant`, or undefined. Changes the images. */
export function problemOfCrash(
  images: Images,
  history: History,
  instant: number,
  survivor: Survivor = "flushed",
): string | undefined {
  const before = problemOfMetadata(images.metadata);
  if (before !== undefined) return before;
  let found: FoundVolume[];
  const readOnly = needsCheck(images);
  try {
    found = readPool(reopen(images, { readOnly }));
  } catch (error) {
    return `the pool does not open: ${error instanceof Error ? error.stack : error}`;
  }
  const after = problemOfMetadata(images.metadata);
  if (after !== undefined) return `after the restart ${after}`;
  return problemOfFound(found, history, instant, survivor);
}

/** Compares with every state that the commands allow. */
export function problemOfFound(
  found: readonly FoundVolume[],
  history: History,
  instant: number,
  survivor: Survivor = "flushed",
): string | undefined {
  const problems: string[] = [];
  for (const version of history.versions) {
    if (version.begunAt >= instant || version.endedAt < instant) continue;
    const problem = problemOfVersion(found, version, instant, survivor);
    if (problem === undefined) return undefined;
    problems.push(problem);
  }
  return problems.join("; or ");
}

function problemOfVersion(
  found: readonly FoundVolume[],
  version: Version,
  instant: number,
  survivor: Survivor,
): string | undefined {
  const names = found.map((volume) => volume.name).sort().join(" ");
  const wanted = [...version.volumes.keys()].sort().join(" ");
  if (names !== wanted) return `the volumes are "${names}" and not "${wanted}"`;
  for (const volume of found) {
    const content = version.volumes.get(volume.name)!;
    const problem = problemOfVolume(volume, content, instant, survivor);
    if (problem !== undefined) return `"${volume.name}": ${problem}`;
    const { quotaBytes, reserveBytes } = version.allowances.get(volume.name) ?? noAllowance;
    const { allowances } = volume;
    if (
      allowances === undefined ||
      (allowances.quotaBytes === quotaBytes && allowances.reserveBytes === reserveBytes)
    ) {
      continue;
    }
    return `"${volume.name}": its allowances are ${
      JSON.stringify(allowances)
    }, not ${quotaBytes} and ${reserveBytes}`;
  }
  return undefined;
}

function problemOfVolume(
  volume: FoundVolume,
  content: Content,
  instant: number,
  survivor: Survivor,
): string | undefined {
  if (volume.sizeBytes !== content.sizeBytes) {
    return `it has ${volume.sizeBytes} bytes and not ${content.sizeBytes}`;
  }
  if (volume.readOnly !== content instanceof Cut) return "its kind has changed";
  const sectors = volume.words.length / 128;
  for (let sector = 0; sector < sectors; sector += 1) {
    const value = hashSector(volume.words, sector);
    const isAllowed = content instanceof WritableContent
      ? content.allows(sector, value, instant, survivor)
      : content.allows(sector, value);
    if (!isAllowed) return `sector ${sector} holds ${describeSector(volume.words, sector)}`;
  }
  return undefined;
}
