/** For tests: does what an intent journal has again, as opening a pool does (actors/edge/intents_open.ts). */
import type { DevicePort } from "../../storage/device/port.ts";
import type { IntentBinding } from "../../storage/device/intent_port.ts";
import { readInto } from "../../storage/device/port.ts";
import { findIntents } from "../../storage/intent_read.ts";
import { ThinMetadata } from "../../storage/thin_metadata.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import { BlockDevice } from "../../actors/pool/block_device.ts";
import { DeviceStub } from "../../actors/pool/device_messages.ts";
import { type Replayed, replayTask } from "../../actors/pool/intent_replay.ts";
import { ManualClock } from "./world.ts";

/**
 * Replays and commits on devices that answer at once; undefined if there is nothing to replay.
 *
 * @param file the whole file of the intent journal
 * @param host the binding of the host that opens the pool
 */
export function replayOn(
  devices: { readonly data: DevicePort; readonly metadata: DevicePort },
  file: Uint8Array,
  host: IntentBinding,
): Replayed | undefined {
  const { metadata } = devices;
  const superblock = new Uint8Array(metadataBlockSizeBytes);
  readInto(metadata, superblock, 0, () => {});
  const found = findIntents(file, host, superblock);
  if (found.kind !== "found") return undefined;
  const kernel = new Kernel({ clock: new ManualClock() });
  const stubOf = (name: string, device: DevicePort) =>
    new DeviceStub(
      kernel.spawn(name, 64, (self) => new BlockDevice(kernel, self, device)),
      false,
      kernel.knobs,
    );
  const ended: Replayed[] = [];
  const task = replayTask({
    data: stubOf("data device", devices.data),
    metadata: stubOf("metadata device", metadata),
    openEngine: () =>
      ThinMetadata.open(superblock.slice(), {
        cacheBlocks: 256,
        deviceBlocks: metadata.sizeBytes / metadataBlockSizeBytes,
        readOnly: false,
      }),
    intents: found.intents,
    isWriting: true,
    writesMax: 1,
  });
  kernel.start("replay", collected(task, ended));
  kernel.run();
  const [end] = ended;
  if (end === undefined) throw new Error(`the replay does not end: ${kernel.tasksInFlight().join("; ")}`);
  return end;
}

function* collected<T>(steps: Steps<T>, into: T[]): Steps<void> {
  into.push(yield* steps);
}
