/** The volumes that are open, and the closing of those that nothing uses. */
import { assert } from "../../storage/base/assert.ts";
import type { Address } from "../kernel/address.ts";
import { join, type Steps } from "../kernel/task.ts";
import type { PoolNotice } from "./export_messages.ts";
import type { VolumeStub } from "../volume/volume_messages.ts";

/** An open volume and the clients attached to it. */
export interface OpenVolume {
  readonly stub: VolumeStub;
  /** With how a sentence names each. */
  readonly clients: Map<Address<PoolNotice>, string>;
}

/**
 * Takes volumes without clients out of `open`, those opened first, until `openMax` are left. Nothing is in flight in them: a
 * client detaches when all that it submitted is done. So the next client may have the volume opened anew at once.
 */
export function takeIdle(open: Map<string, OpenVolume>, openMax: number): VolumeStub[] {
  const idle: VolumeStub[] = [];
  if (open.size <= openMax) return idle;
  for (const [uid, volume] of open) {
    if (volume.clients.size > 0) continue;
    assert(open.delete(uid), "an idle volume is not open");
    idle.push(volume.stub);
    if (open.size <= openMax) break;
  }
  return idle;
}

/** Closes volumes, and then tells. */
export function* closeTask(volumes: readonly VolumeStub[], closed: () => void): Steps<void> {
  yield* join("close", volumes.map((volume) => volume.close()));
  closed();
}
