/**
 * The commit, and the two small tasks beside it, as message sequences of the metadata actor.
 *
 * Order of a commit, and what a crash finds after each step:
 *
 *  1. Freeze. Nothing is on disk: the last commit.
 *  2. Flush the data device, and beside it write the frozen blocks and flush the metadata device. The frozen
 *     blocks lie where the last commit has nothing, so it is still whole: the last commit. A mapping is frozen
 *     only after its data was accepted by the data device (remap.ts), so this data flush makes it durable.
 *  3. Write the superblock. It is one sector of changes, so it is there or not: the last commit or this one,
 *     and this one's blocks and data are durable already. Were it written before the data flush, a crash here
 *     could publish mappings to blocks that still hold somebody's old bytes.
 *  4. Flush the metadata device: this commit.
 *
 * Only then are the waiters answered, and blocks that this commit freed may be used again.
 *
 * Where nothing has changed since the last commit, a commit is a flush of the data device. Such flushes run beside each
 * other, but never beside a commit: one that fails may have lost the data of a mapping that came after it began, and no
 * superblock may publish that.
 */
import type { MetadataBlock } from "../../storage/base/ids.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { ioOk, type IoResult, reasonOfIo } from "../../storage/device/port.ts";
import type { DeviceStub } from "./block_device.ts";
import { join, rest, type Steps } from "../kernel/task.ts";
import { commitWritesMax } from "../limits.ts";
import type { Frozen, MetadataFailure, MetadataStub } from "./metadata_messages.ts";

/** Commits everything done so far and tells the metadata actor how it went. */
export function* commitTask(metadata: MetadataStub, data: DeviceStub, device: DeviceStub): Steps<void> {
  const frozen = yield* metadata.freeze();
  if (frozen.kind === "clean") {
    const failure = failureOf(yield* data.flush(frozen.isAlone), "flushing the data device");
    return metadata.kernel.tell(metadata.address, { type: "flushEnded", flush: frozen.flush, failure });
  }
  metadata.kernel.tell(metadata.address, {
    type: "commitEnded",
    failure: yield* finishCommit(data, device, frozen),
    begun: frozen.kind,
  });
}

function* finishCommit(
  data: DeviceStub,
  device: DeviceStub,
  frozen: Exclude<Frozen, { kind: "clean" }> | MetadataFailure,
): Steps<string | undefined> {
  switch (frozen.kind) {
    case "frozen":
      return yield* writeCommit(data, device, frozen);
    case "readOnly":
    case "damaged":
    case "poolFailed":
      // Damage was met before the commit began: nothing was written, and the last commit is whole.
      return undefined;
    default:
      return `the transaction could not be completed: ${frozen.kind}`;
  }
}

function* writeCommit(
  data: DeviceStub,
  device: DeviceStub,
  frozen: Frozen & { readonly kind: "frozen" },
): Steps<string | undefined> {
  const [dataFlushed, blocksWritten] = yield* join("commit part", [
    data.flush(frozen.isAlone),
    writeBlocks(device, frozen.blocks),
  ]);
  const failure = failureOf(dataFlushed!, "flushing the data device") ??
    failureOf(blocksWritten!, "writing metadata blocks");
  if (failure !== undefined) return failure;
  return failureOf(yield* device.write(frozen.superblock, 0), "writing the superblock") ??
    failureOf(yield* device.flush(), "flushing the superblock");
}

function* writeBlocks(
  device: DeviceStub,
  blocks: readonly { readonly block: MetadataBlock; readonly bytes: Uint8Array }[],
): Steps<IoResult> {
  for (let at = 0; at < blocks.length; at += commitWritesMax) {
    const writes = blocks.slice(at, at + commitWritesMax)
      .map(({ block, bytes }) => device.write(bytes, block * metadataBlockSizeBytes));
    const results = yield* join("write", writes);
    const failed = results.find((result) => result.kind !== "ok");
    if (failed !== undefined) return failed;
    // Thousands of writes with their checksums are long work.
    if (at + commitWritesMax < blocks.length) yield* rest();
  }
  return yield* device.flush();
}

function failureOf(result: IoResult, action: string): string | undefined {
  if (result.kind === "ok") return undefined;
  return `${action}: ${reasonOfIo(result)}`;
}

/** Reads one metadata block into `bytes` for the operations that miss it. */
export function* fetchTask(
  metadata: MetadataStub,
  device: DeviceStub,
  block: MetadataBlock,
  bytes: Uint8Array,
): Steps<void> {
  const result = yield* device.read(bytes, block * metadataBlockSizeBytes);
  metadata.kernel.tell(metadata.address, { type: "fetched", block, bytes, result });
}

/**
 * After a failed commit: mark the last durable superblock. If this fails too, the mark is missing and the pool
 * opens from the last commit, which is sound; nothing was answered that is not in it.
 */
export function* needsCheckTask(device: DeviceStub, superblock: Uint8Array): Steps<IoResult> {
  const written = yield* device.write(superblock, 0);
  if (written.kind !== "ok") return written;
  const flushed = yield* device.flush();
  return flushed.kind === "ok" ? ioOk : flushed;
}
