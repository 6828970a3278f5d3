/** Opening what a power cut left the way the product does, noting everything that is read on the way. */
import { settleCatalogue } from "../../../storage/catalogue_open.ts";
import { readJournal } from "../../../storage/catalogue_journal.ts";
import { type DevicePort, ioOk, type IoResult, type ReadTarget } from "../../../storage/device/port.ts";
import { flagNeedsCheck, unpackSuperblock } from "../../../storage/format/superblock.ts";
import { metadataBlockSizeBytes } from "../../../storage/base/ids.ts";
import type { IntentBinding } from "../../../storage/device/intent_port.ts";
import { replayOn } from "../../support/intent_replay.ts";
import { MemoryJournal, TestingPool } from "../../support/pool.ts";
import type { DeviceName } from "./logged_device.ts";
import { type Content, contentOf, problemOfMetadata } from "./oracle.ts";

/** A range of a device that a recovery reads; of the two journals always all. */
export interface RecoveryRead {
  readonly device: DeviceName;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** What a recovery came to. */
export interface Outcome {
  readonly problem: string | undefined;
  readonly volumes: ReadonlyMap<string, Content>;
  /** As the superblock says. */
  readonly dataBlocks: number;
  /** The intent journal had changes, and they were done again. */
  readonly isReplayed: boolean;
  /** What power cuts in the midst of the replay come to. */
  readonly cuts: readonly Outcome[];
}

/** Bytes of each device and of the file of the intent journal. */
export type Sizes = Readonly<Record<"metadata" | "data" | "intents", number>>;

/** What a crash was. */
export interface RecoveryOptions {
  /** The process ended, and the host goes on: the intent journal is believed. */
  readonly keepsIntents: boolean;
  /** After each operation of a replay comes another crash. */
  readonly crashesAgain: boolean;
}

/** One host, one pool. */
export const searchBinding: IntentBinding = { bootId: "boot 1", data: "1 2", metadata: "1 3", file: "1 4" };

type Read = (read: RecoveryRead) => Uint8Array;

/** A device whose content is asked for when it is first read, a block at a time. */
class LazyDevice implements DevicePort {
  readonly local = undefined;
  /** What was asked, in order: a flush has no bytes. */
  readonly operations: { readonly offsetBytes: number; readonly bytes: Uint8Array | undefined }[] = [];
  readonly #bytes: Uint8Array;
  readonly #known: Uint8Array;

  constructor(readonly name: "data" | "metadata", readonly read_: Read, readonly sizeBytes: number) {
    this.#bytes = new Uint8Array(sizeBytes);
    this.#known = new Uint8Array(sizeBytes / metadataBlockSizeBytes);
  }

  range(offsetBytes: number, lengthBytes: number): Uint8Array {
    const end = Math.ceil((offsetBytes + lengthBytes) / metadataBlockSizeBytes);
    for (let block = Math.floor(offsetBytes / metadataBlockSizeBytes); block < end; block += 1) {
      if (this.#known[block] === 1) continue;
      this.#known[block] = 1;
      const at = block * metadataBlockSizeBytes;
      const read = { device: this.name, offsetBytes: at, lengthBytes: metadataBlockSizeBytes };
      this.#bytes.set(this.read_(read), at);
    }
    return this.#bytes.subarray(offsetBytes, offsetBytes + lengthBytes);
  }

  read(target: ReadTarget, offsetBytes: number): IoResult {
    target.memory().set(this.range(offsetBytes, target.lengthBytes));
    return ioOk;
  }

  write(buffer: Uint8Array, offsetBytes: number): IoResult {
    this.range(offsetBytes, buffer.length).set(buffer);
    this.operations.push({ offsetBytes, bytes: buffer.slice() });
    return ioOk;
  }

  zero(offsetBytes: number, lengthBytes: number): IoResult {
    this.range(offsetBytes, lengthBytes).fill(0);
    return ioOk;
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number): IoResult {
    this.range(toBytes, lengthBytes).set(this.range(fromBytes, lengthBytes));
    return ioOk;
  }

  flush(): IoResult {
    this.operations.push({ offsetBytes: 0, bytes: undefined });
    return ioOk;
  }
}

/** Checks the metadata, opens the pool and reads every volume. */
export function recover(
  read: Read,
  sizes: Sizes,
  options: RecoveryOptions,
): { readonly outcome: Outcome; readonly reads: RecoveryRead[] } {
  const reads: RecoveryRead[] = [];
  const noted = (range: RecoveryRead) => {
    reads.push(range);
    return read(range);
  };
  const metadata = new LazyDevice("metadata", noted, sizes.metadata);
  const data = new LazyDevice("data", noted, sizes.data);
  const volumes = new Map<string, Content>();
  const cuts: Outcome[] = [];
  const text = new TextDecoder().decode(noted({ device: "journal", offsetBytes: 0, lengthBytes: 0 }));
  let problem = problemOfMetadata(
    (offsetBytes, length) => metadata.range(offsetBytes, length),
    sizes.metadata,
  );
  let isReplayed = false;
  try {
    if (problem === undefined && options.keepsIntents) {
      const intents = noted({ device: "intents", offsetBytes: 0, lengthBytes: sizes.intents });
      isReplayed = replay(intents, metadata, data);
    }
    const operations = metadata.operations.slice();
    if (problem === undefined) readAll(text, metadata, data, volumes);
    if (isReplayed && options.crashesAgain) {
      const again = crashAgain(noted, sizes, operations);
      problem = again.kills.map((kill) => kill.problem ?? problemOfAnother(volumes, kill.volumes)).find(
        Boolean,
      );
      cuts.push(...again.cuts);
    }
  } catch (error) {
    problem = `the pool does not open: ${error instanceof Error ? error.message : error}`;
  }
  problem ??= problemOfMetadata((offsetBytes, length) => metadata.range(offsetBytes, length), sizes.metadata);
  const superblock = unpackSuperblock(metadata.range(0, metadataBlockSizeBytes));
  const dataBlocks = typeof superblock === "string" ? 0 : superblock.dataSpaceMap.blocks;
  return { outcome: { problem, volumes, dataBlocks, isReplayed, cuts }, reads };
}

/** Does what the intent journal has again, as production does. False if it has nothing. */
function replay(intents: Uint8Array, metadata: LazyDevice, data: LazyDevice): boolean {
  const end = replayOn({ data, metadata }, intents, searchBinding);
  if (end === undefined) return false;
  if (end.kind !== "replayed") throw new Error(`the intent journal is ${end.kind}: ${end.sentence}`);
  return true;
}

/** Another crash after each operation of a replay on the metadata: a kill, and power cuts that keep some of what no flush covers. */
function crashAgain(
  read: Read,
  sizes: Sizes,
  operations: LazyDevice["operations"],
): { readonly kills: readonly Outcome[]; readonly cuts: readonly Outcome[] } {
  const [kills, cuts]: Outcome[][] = [[], []];
  let flushed = 0;
  for (let count = 0; count <= operations.length; count += 1) {
    const done = operations.slice(0, count);
    if (done.at(-1)?.bytes === undefined) flushed = count;
    const outcome = (of: LazyDevice["operations"], keepsIntents: boolean) =>
      recover((range) => overlaid(read(range), range, of), sizes, { keepsIntents, crashesAgain: false })
        .outcome;
    kills!.push(outcome(done, true));
    for (const lost of new Set([flushed, Math.max(flushed, count - 1)])) {
      cuts!.push(outcome(done.filter((_, at) => at < flushed || at >= lost), false));
      cuts!.push(outcome(done.slice(0, lost), false));
    }
  }
  return { kills: kills!, cuts: cuts! };
}

function overlaid(bytes: Uint8Array, range: RecoveryRead, operations: LazyDevice["operations"]): Uint8Array {
  if (range.device !== "metadata") return bytes;
  const changed = bytes.slice();
  for (const { offsetBytes, bytes: written } of operations) {
    // Both are whole blocks.
    const at = offsetBytes - range.offsetBytes;
    if (written !== undefined && at >= 0 && at < changed.length) changed.set(written, at);
  }
  return changed;
}

/** After another kill the same is found. */
function problemOfAnother(
  first: ReadonlyMap<string, Content>,
  second: ReadonlyMap<string, Content>,
): string | undefined {
  const textOf = (volumes: ReadonlyMap<string, Content>) =>
    [...volumes].map(([name, content]) => `${name} ${content.join(" ")}`).join("\n");
  return textOf(first) === textOf(second)
    ? undefined
    : "a kill in the midst of the replay changes what is found";
}

function readAll(text: string, metadata: LazyDevice, data: LazyDevice, volumes: Map<string, Content>): void {
  const superblock = unpackSuperblock(metadata.range(0, metadataBlockSizeBytes));
  if (typeof superblock === "string") throw new Error(superblock);
  const { catalogue } = settleCatalogue(readJournal(text), superblock.transactionId);
  const readOnly = (superblock.flags & flagNeedsCheck) !== 0;
  const journal = new MemoryJournal(catalogue.snapshotLine());
  const pool = new TestingPool({ metadata, data, journal }, { readOnly });
  const listed = pool.admin({ verb: "list" });
  if (listed.kind !== "volumes") throw new Error(`list answered ${listed.kind}`);
  for (const { name, size_bytes } of listed.volumes) {
    volumes.set(name, contentOf(pool.attach(name).read(0, size_bytes)));
  }
}
