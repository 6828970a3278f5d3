/** Opening what a power cut left the way the product does, noting everything that is read on the way. */
import { settleCatalogue } from "../../../storage/catalogue_open.ts";
import { readJournal } from "../../../storage/catalogue_journal.ts";
import { type DevicePort, ioOk, type IoResult, type ReadTarget } from "../../../storage/device/port.ts";
import { flagNeedsCheck, unpackSuperblock } from "../../../storage/format/superblock.ts";
import { metadataBlockSizeBytes } from "../../../storage/base/ids.ts";
import { MemoryJournal, TestingPool } from "../../support/pool.ts";
import type { DeviceName } from "./logged_device.ts";
import { type Content, contentOf, problemOfMetadata } from "./oracle.ts";

/** A range of a device that a recovery reads; of the journal always all. */
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
}

type Read = (read: RecoveryRead) => Uint8Array;

/** A device whose content is asked for when it is first read, a block at a time. */
class LazyDevice implements DevicePort {
  readonly local = undefined;
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
    return ioOk;
  }
}

/** Checks the metadata, opens the pool and reads every volume. */
export function recover(
  read: Read,
  sizes: { readonly metadata: number; readonly data: number },
): { readonly outcome: Outcome; readonly reads: RecoveryRead[] } {
  const reads: RecoveryRead[] = [];
  const noted = (range: RecoveryRead) => {
    reads.push(range);
    return read(range);
  };
  const metadata = new LazyDevice("metadata", noted, sizes.metadata);
  const data = new LazyDevice("data", noted, sizes.data);
  const volumes = new Map<string, Content>();
  const text = new TextDecoder().decode(noted({ device: "journal", offsetBytes: 0, lengthBytes: 0 }));
  let problem = problemOfMetadata(
    (offsetBytes, length) => metadata.range(offsetBytes, length),
    sizes.metadata,
  );
  try {
    if (problem === undefined) readAll(text, metadata, data, volumes);
  } catch (error) {
    problem = `the pool does not open: ${error instanceof Error ? error.message : error}`;
  }
  problem ??= problemOfMetadata((offsetBytes, length) => metadata.range(offsetBytes, length), sizes.metadata);
  const superblock = unpackSuperblock(metadata.range(0, metadataBlockSizeBytes));
  const dataBlocks = typeof superblock === "string" ? 0 : superblock.dataSpaceMap.blocks;
  return { outcome: { problem, volumes, dataBlocks }, reads };
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
