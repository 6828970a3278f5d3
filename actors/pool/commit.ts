/**
 * The commit and two smaller tasks, as message sequences between the metadata actor and the devices.
 *
 * The steps of a commit, and what a restart finds if we stop after each:
 *
 *  1. Freeze: fix the transaction in memory. If we stop after it, the last commit.
 *  2. Flush the data device; at the same time write the frozen blocks and flush the metadata device. If we stop after it, the
 *     last commit: the frozen blocks use no block of it, so it is whole. A mapping is frozen only after the data device has
 *     accepted its data (remap.ts), so this flush makes the data durable.
 *  3. Write the superblock. Its changes are in one sector, so it is written whole or not. If we stop after it, the last
 *     commit or this one, and the blocks and data of this one are durable. If it were written before the data flush, this
 *     commit could map blocks that still have the old bytes of another volume.
 *  4. Flush the metadata device. If we stop after it, this commit.
 *
 * Only after step 4 are the requests answered, and only then may blocks that this commit freed be used again.
 *
 * Where nothing has changed since the last commit, a commit is only a flush of the data device. Such flushes run beside each
 * other, but never beside a commit. A flush that fails may lose data written after it began. If a commit ran beside it, its
 * superblock could map a block with lost data.
 */
import type { MetadataBlock } from "../../storage/base/ids.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { filled, into, ioOk, type IoResult, reasonOfIo } from "../../storage/device/port.ts";
import type { DeviceStub } from "./device_messages.ts";
import { join, rest, type Steps } from "../kernel/task.ts";
import type { Frozen } from "./commit_messages.ts";
import type { MetadataStub } from "./metadata_messages.ts";
import type { MetadataFailure } from "./metadata_results.ts";

/** Commits all changes so far and tells the metadata actor the result. */
export function* commitTask(metadata: MetadataStub, data: DeviceStub, device: DeviceStub): Steps<void> {
  const frozen = yield* metadata.freeze();
  if (frozen.kind === "clean") {
    const failure = stepFailure(yield* data.flush(frozen.isAlone), "flushing the data device");
    return metadata.kernel.tell(metadata.address, { type: "flushEnded", flush: frozen.flush, failure });
  }
  metadata.kernel.tell(metadata.address, {
    type: "commitEnded",
    failure: yield* finishCommit(data, device, frozen, metadata.kernel.knobs.commitWritesMax),
    begun: frozen.kind,
  });
}

function* finishCommit(
  data: DeviceStub,
  device: DeviceStub,
  frozen: Exclude<Frozen, { kind: "clean" }> | MetadataFailure,
  writesMax: number,
): Steps<string | undefined> {
  switch (frozen.kind) {
    case "frozen":
      return yield* writeCommit(data, device, frozen, writesMax);
    case "readOnly":
    case "damaged":
    case "poolFailed":
      // The pool stopped writing before the commit began: nothing was written, and the last commit is whole.
      return undefined;
    default:
      return `the transaction could not be completed: ${frozen.kind}`;
  }
}

/** Writes a transaction and makes it durable: steps 2 to 4. Answers why it failed. */
export function* writeCommit(
  data: DeviceStub,
  device: DeviceStub,
  frozen: Frozen & { readonly kind: "frozen" },
  writesMax: number,
): Steps<string | undefined> {
  const [dataFlushed, blocksWritten] = yield* join("commit part", [
    data.flush(frozen.isAlone),
    writeBlocks(device, frozen.blocks, writesMax),
  ]);
  const failure = stepFailure(dataFlushed!, "flushing the data device") ??
    stepFailure(blocksWritten!, "writing metadata blocks");
  if (failure !== undefined) return failure;
  return stepFailure(yield* device.write(frozen.superblock, 0), "writing the superblock") ??
    stepFailure(yield* device.flush(), "flushing the superblock");
}

function* writeBlocks(
  device: DeviceStub,
  blocks: readonly { readonly block: MetadataBlock; readonly bytes: Uint8Array }[],
  writesMax: number,
): Steps<IoResult> {
  for (let at = 0; at < blocks.length; at += writesMax) {
    const writes = blocks.slice(at, at + writesMax)
      .map(({ block, bytes }) => device.write(bytes, block * metadataBlockSizeBytes));
    const results = yield* join("write", writes);
    const failed = results.find((result) => result.kind !== "ok");
    if (failed !== undefined) return failed;
    // A commit may write thousands of blocks, and each write computes a checksum.
    if (at + writesMax < blocks.length) yield* rest();
  }
  return yield* device.flush();
}

function stepFailure(result: IoResult, action: string): string | undefined {
  if (result.kind === "ok") return undefined;
  return `${action}: ${reasonOfIo(result)}`;
}

/** Reads one metadata block into `bytes`, for the operations that wait for it. */
export function* fetchTask(
  metadata: MetadataStub,
  device: DeviceStub,
  block: MetadataBlock,
  bytes: Uint8Array,
): Steps<void> {
  const result = filled(yield* device.read(into(bytes), block * metadataBlockSizeBytes));
  metadata.kernel.tell(metadata.address, { type: "fetched", block, bytes, result });
}

/**
 * After a failed commit: sets needs_check in the last durable superblock. If this fails too, the flag is missing and the pool
 * opens from the last commit, which is sound and contains every change that was answered as durable.
 */
export function* needsCheckTask(device: DeviceStub, superblock: Uint8Array): Steps<IoResult> {
  const written = yield* device.write(superblock, 0);
  if (written.kind !== "ok") return written;
  const flushed = yield* device.flush();
  return flushed.kind === "ok" ? ioOk : flushed;
}
