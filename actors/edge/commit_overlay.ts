/** A metadata device as a commit would leave it, without writing that commit: for a pool that is only read. */
import { assert } from "../../storage/base/assert.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import {
  type DevicePort,
  ioOk,
  type IoResult,
  type ReadDone,
  type ReadResult,
  type ReadTarget,
} from "../../storage/device/port.ts";
import type { CommitPlan } from "../../storage/thin_metadata.ts";

/** See the head of this file. */
export class CommitOverlay implements DevicePort {
  readonly local = undefined;
  readonly #device: DevicePort;
  /** By where they are on the device. */
  readonly #blocks: ReadonlyMap<number, Uint8Array>;

  constructor(device: DevicePort, plan: CommitPlan) {
    this.#device = device;
    const blocks: [number, Uint8Array][] = plan.blocks.map((
      { block, bytes },
    ) => [block * metadataBlockSizeBytes, bytes]);
    this.#blocks = new Map([...blocks, [0, plan.superblock]]);
  }

  get sizeBytes(): number {
    return this.#device.sizeBytes;
  }

  read(target: ReadTarget, offsetBytes: number, done: ReadDone): ReadResult | "pending" {
    const planned = this.#blocks.get(offsetBytes);
    if (planned === undefined) return this.#device.read(target, offsetBytes, done);
    assert(target.lengthBytes === planned.length, "metadata is read in whole blocks");
    target.memory().set(planned);
    return ioOk;
  }

  write(): IoResult {
    return neverWritten;
  }

  zero(): IoResult {
    return neverWritten;
  }

  copy(): IoResult {
    return neverWritten;
  }

  flush(): IoResult {
    return neverWritten;
  }
}

const neverWritten: IoResult = { kind: "ioError", reason: "the pool is open to be read only" };
