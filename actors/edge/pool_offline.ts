/** Checking and dumping a pool that is not open, and making a pool around existing metadata and data. */
import { naturalKey } from "../../storage/base/natural_order.ts";
import { nanoid } from "nanoid";
import { type VolumeRecord } from "../../storage/catalogue.ts";
import { catalogueFrom } from "../../storage/catalogue_open.ts";
import { checkMetadata } from "../../storage/check.ts";
import { type DevicePort, readInto } from "../../storage/device/port.ts";
import { dumpMetadata } from "../../storage/dump.ts";
import { UserError } from "../../storage/base/errors.ts";
import { flagNeedsCheck, unpackSuperblock } from "../../storage/format/superblock.ts";
import {
  type MetadataBlock,
  metadataBlockSizeBytes,
  sectorSizeBytes,
  type ThinId,
  thinIdMax,
} from "../../storage/base/ids.ts";
import { withoutNeedsCheck } from "../../storage/superblock_state.ts";
import { MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import type { AdminResult, TextTaken } from "../control/admin_command.ts";
import { adoptedSizeBytes } from "../control/plan_checks.ts";
import { seeDisks } from "./disk_state.ts";
import { deviceKinds } from "./device_kinds.ts";
import { DiskCalm } from "./disk_calm.ts";
import { requireOk } from "./file_errors.ts";
import { intentsBeside } from "./import_intents.ts";
import { recordsBeside } from "./import_names.ts";
import { openLibc } from "./libc.ts";
import { findLeftIntents, intentsOf } from "./intents_left.ts";
import type { Intent } from "../../storage/intent_record.ts";
import { PoolFiles } from "./pool_files.ts";
import { adoptPoolFiles } from "./pool_files_init.ts";
import { openOn, requireSameBlockSize } from "./open_engine.ts";

interface CheckFindings {
  readonly problems: readonly string[];
  readonly notes: readonly string[];
}

/** Checks the metadata of a pool that no process writes, and that the catalogue and the files belong to it. */
export async function checkOffline(directory: string): Promise<AdminResult> {
  using opened = new DisposableStack();
  const files = opened.adopt(PoolFiles.open(directory, { readOnly: true }), (files) => files.close());
  await seeDisks(files.cached, true);
  const { problems, notes } = await checkFiles(files);
  const left = await waitingOf(files);
  return { kind: "checked", problems, notes: [...notes, ...left.notes], waiting: left.waiting };
}

/** What a killed server has left is not in the last commit, which is what is read here. */
async function waitingOf(
  files: PoolFiles,
): Promise<{ readonly notes: readonly string[]; readonly waiting: number }> {
  const notes: string[] = [];
  const left = await findLeftIntents(intentsOf(files), (sentence) => void notes.push(sentence));
  if (typeof left === "string") {
    notes.push(
      `This is the last commit. What waits in the intent journal is not known: it cannot be read (${left}).`,
    );
    return { notes, waiting: 0 };
  }
  const count = left.length;
  if (count > 0) {
    notes.push(`This is the last commit. ${waitingNote(count, "since")}`);
  }
  return { notes, waiting: count };
}

function waitingNote(count: number, which: string): string {
  const changes = count === 1 ? "1 change waits" : `${count} changes wait`;
  return `${changes} in the intent journal ${which}; the next command that changes the pool, or \`serve\`, commits what waits.`;
}

/**
 * Checks as {@linkcode checkOffline} does, and takes needs_check away if all is sound, so that the pool opens for writing
 * again. The pool is locked from before the check until after the write: what was checked is what is on disk. It is read past
 * the host's memory, which after a failed flush may show what the disk does not have (disk_state.ts). If we stop before the
 * superblock is durable, the flag is set or cleared, and the metadata is sound with either.
 */
export async function checkAndClear(directory: string): Promise<AdminResult> {
  using opened = new DisposableStack();
  const files = opened.adopt(PoolFiles.open(directory, { readOnly: false }), (files) => files.close());
  const notes = [...await seeDisks(files.cached, false)];
  const checked = await checkFiles(files);
  const problems = [...checked.problems];
  const bytes = await readMetadataBlock(files.metadata, 0 as MetadataBlock);
  const superblock = bytes === undefined ? "unreadable" : unpackSuperblock(bytes);
  if (bytes === undefined || typeof superblock === "string" || problems.length > 0) {
    const left = await waitingOf(files);
    return {
      kind: "checked",
      problems,
      notes: [...notes, ...checked.notes, ...left.notes],
      waiting: left.waiting,
    };
  }
  if ((superblock.flags & flagNeedsCheck) === 0) {
    notes.push("needs_check is not set, so there was nothing to clear.");
  } else if (superblock.compatRoFlags !== 0) {
    problems.push(
      `needs_check stays set: the metadata uses features to be read only (compat_ro flags ${superblock.compatRoFlags}). ` +
        "Open it read-only.",
    );
  } else {
    const what = `Cannot clear needs_check in "${files.metadata.path}"`;
    const cleared = withoutNeedsCheck(superblock, bytes);
    await requireOk(what, (done) => files.metadata.write(cleared, 0, done));
    await requireOk(what, (done) => files.metadata.flush(done));
    notes.push("needs_check was cleared: the pool can be written again.");
  }
  const left = await waitingOf(files);
  return { kind: "checked", problems, notes: [...notes, ...left.notes], waiting: left.waiting };
}

/** What is wrong with the metadata, the catalogue and the files, and what is worth a note. */
async function checkFiles(files: PoolFiles): Promise<CheckFindings> {
  const device: DevicePort = files.metadata;
  const check = checkMetadata({ deviceBlocks: Math.floor(device.sizeBytes / metadataBlockSizeBytes) });
  let step = check.next();
  while (!step.done) step = check.next(await readMetadataBlock(device, step.value));
  const problems = [...step.value.problems];
  const superblock = await readMetadataBlock(device, 0 as MetadataBlock);
  const unpacked = superblock === undefined ? "unreadable" : unpackSuperblock(superblock);
  // Without a superblock there is nothing that the catalogue and the files could be held against.
  if (typeof unpacked !== "string") {
    const blockSizeBytes = unpacked.dataBlockSizeSectors * sectorSizeBytes;
    const dataBytes = unpacked.dataSpaceMap.blocks * blockSizeBytes;
    problems.push(...problemOf(() => requireSameBlockSize(files, blockSizeBytes)));
    problems.push(...problemOf(() => files.requireSizes(0, dataBytes)));
    // Of a pool that is open for writing this drops an unfinished line, as a start does. It is not done to a damaged one.
    if (files.readOnly || problems.length === 0) {
      problems.push(...problemOf(() => files.settle(unpacked.transactionId)));
    }
  }
  return { problems, notes: step.value.notes };
}

function problemOf(check: () => unknown): string[] {
  try {
    check();
    return [];
  } catch (error) {
    // Its sentence is what `check` is asked for.
    if (error instanceof UserError) return [error.message];
    throw error;
  }
}

/** Takes a piece of a dump. */
export type DumpWriter = (text: string) => Promise<TextTaken>;

/** Dumps the metadata of a pool that no process writes. */
export async function dumpOffline(
  directory: string,
  write: DumpWriter,
  log: (sentence: string) => unknown = () => {},
): Promise<AdminResult> {
  using opened = new DisposableStack();
  const files = opened.adopt(PoolFiles.open(directory, { readOnly: true }), (files) => files.close());
  await seeDisks(files.cached, true);
  for (const note of (await waitingOf(files)).notes) log(note);
  const dump = dumpMetadata();
  let step = dump.next();
  while (!step.done) {
    if (step.value.kind === "read") {
      step = dump.next(await readMetadataBlock(files.metadata, step.value.block));
      continue;
    }
    if (await write(step.value.text) === "gone") return { kind: "refused", reason: "The dump broke off." };
    step = dump.next();
  }
  if (step.value.kind === "whole") return { kind: "done" };
  return {
    kind: "refused",
    reason: `Cannot dump the metadata: ${step.value.sentence} \`check\` names all damage.`,
  };
}

/** What {@linkcode importPool} makes a pool around. */
export interface ImportOptions {
  /** The directory to make. */
  readonly directory: string;
  /** Existing dm-thin metadata: a file or block device, used where it is. */
  readonly metadataPath: string;
  /** The data that it maps: a file or block device, used where it is. */
  readonly dataPath: string;
  /** Hears what the user should know, a sentence at a time. */
  readonly log?: (sentence: string) => unknown;
}

/** What a thin device has become. */
export interface ImportedVolume {
  /** `thin-ID`, or its name in the catalogue. */
  readonly name: string;
  /** Up to the end of its highest mapping, or as the catalogue says. */
  readonly sizeBytes: number;
  /** Whether name and size come from the catalogue of a pool of ours, beside the metadata. */
  readonly isKnown: boolean;
}

/**
 * Makes a pool directory around existing metadata and data, of which no byte is changed. Every thin device becomes a
 * volume `thin-ID`, as large as its highest mapping; where a catalogue of ours lies beside the metadata and belongs to it, names
 * and sizes are the ones in it. What a killed server of that pool has left in the intent journal there waits for the first
 * opening. Throws {@linkcode UserError}; nothing is left behind then.
 */
export async function importPool(options: ImportOptions): Promise<readonly ImportedVolume[]> {
  const libc = openLibc();
  const blockSizeBytes = await blockSizeOf(options.metadataPath);
  const pool = adoptPoolFiles({ ...options, blockSizeBytes, libc });
  try {
    const engine = await openMetadata(pool.metadata);
    const dataBytes = engine.dataBlocks * blockSizeBytes;
    if (pool.data.sizeBytes < dataBytes) {
      throw new UserError(
        `Cannot import "${options.dataPath}": it has ${pool.data.sizeBytes} bytes, and the metadata needs ${dataBytes}. ` +
          "Name the data that belongs to this metadata.",
      );
    }
    const known = recordsBeside(options.metadataPath, engine.transactionId);
    const names = new Set([...known.values()].map(({ name }) => name));
    const beside = await intentsBeside(pool);
    const volumes: VolumeRecord[] = [];
    for (const thin of engine.thinIds()) {
      volumes.push(known.get(thin) ?? await recordOf(engine, pool.metadata, thin, beside.intents, names));
    }
    const waiting = beside.intents.length;
    if (waiting > 0) {
      pool.takeIntents(beside);
      options.log?.(waitingNote(waiting, "beside the metadata"));
    }
    const last = volumes.at(-1)?.thinId ?? 0;
    pool.finish(catalogueFrom({
      transactionId: engine.transactionId,
      settings: pool.settings,
      nextThinId: last === thinIdMax ? 0 : last + 1,
      volumes,
    }));
    const there = volumes.filter(({ deleting }) => !deleting);
    const key = new Map(there.map(({ name }) => [name, naturalKey(name)]));
    there.sort((a, b) => key.get(a.name)! < key.get(b.name)! ? -1 : 1);
    return there.map(({ name, sizeBytes, thinId }) => ({
      name,
      sizeBytes,
      isKnown: known.has(thinId),
    }));
  } catch (error) {
    pool.abandon();
    throw error;
  }
}

async function blockSizeOf(metadataPath: string): Promise<number> {
  using opened = new DisposableStack();
  const use = {
    role: "metadata",
    readOnly: true,
    isMaking: false,
    libc: undefined,
    calm: new DiskCalm(),
  } as const;
  const device = opened.adopt(
    deviceKinds.kindOf(metadataPath).open(metadataPath, use),
    (device) => device.close(),
  );
  const superblock = await readMetadataBlock(device, 0 as MetadataBlock);
  const unpacked = superblock === undefined ? "it cannot be read" : unpackSuperblock(superblock);
  if (typeof unpacked !== "string") return unpacked.dataBlockSizeSectors * sectorSizeBytes;
  throw new UserError(
    `Cannot import "${metadataPath}": its superblock is not that of dm-thin metadata, or damaged: ${unpacked}. ` +
      "Name the metadata device, or repair it with thin_repair first.",
  );
}

async function openMetadata(device: DevicePort): Promise<ThinMetadata> {
  const superblock = new Uint8Array(metadataBlockSizeBytes);
  await requireOk("Cannot read the metadata", (done) => readInto(device, superblock, 0, done));
  const engine = openOn(superblock, device, true);
  await perform(engine, device, () => engine.load());
  return engine;
}

async function recordOf(
  engine: ThinMetadata,
  device: DevicePort,
  thin: ThinId,
  intents: readonly Intent[],
  namesTaken: ReadonlySet<string>,
): Promise<VolumeRecord> {
  let name = `thin-${thin}`;
  for (let more = 2; namesTaken.has(name); more += 1) name = `thin-${thin}-${more}`;
  let highest = await perform(engine, device, () => engine.highestMapped(thin));
  // What waits in the journal may be mapped beyond what the last commit maps.
  for (const intent of intents) {
    if (intent.kind !== "insert" || intent.thin !== thin) continue;
    if (highest === undefined || intent.vblock > highest) highest = intent.vblock;
  }
  return {
    uid: nanoid(),
    name,
    thinId: thin,
    sizeBytes: adoptedSizeBytes(highest, engine.geometry.blockSizeBytes),
    readOnly: false,
    origin: null,
    owner: null,
    created: null,
  };
}

/** Runs an operation of the engine, reading what it misses. Throws {@linkcode UserError} on damage. */
async function perform<T>(engine: ThinMetadata, device: DevicePort, operation: () => T): Promise<T> {
  for (;;) {
    try {
      return operation();
    } catch (error) {
      // A missing block is the engine's way of asking for it.
      if (!(error instanceof MetadataFault)) throw error;
      const { fault } = error;
      if (fault.kind === "damaged") {
        throw new UserError(
          `Metadata block ${fault.block} is damaged: ${fault.reason}. Repair it with thin_repair.`,
        );
      }
      if (fault.kind !== "missing") throw error;
      const bytes = await readMetadataBlock(device, fault.block);
      if (bytes === undefined) throw new UserError(`Metadata block ${fault.block} cannot be read.`);
      engine.supply(fault.block, bytes);
    }
  }
}

async function readMetadataBlock(device: DevicePort, block: MetadataBlock): Promise<Uint8Array | undefined> {
  if ((block + 1) * metadataBlockSizeBytes > device.sizeBytes) return undefined;
  const bytes = new Uint8Array(metadataBlockSizeBytes);
  try {
    await requireOk("reading", (done) => readInto(device, bytes, block * metadataBlockSizeBytes, done));
    return bytes;
  } catch (error) {
    // An unreadable block is a finding of the walk that asked for it.
    if (error instanceof UserError) return undefined;
    throw error;
  }
}
