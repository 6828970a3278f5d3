/**
 * The task of one bio: remap it; if there was no space, make space once and remap it again; if there is none, park it. And the
 * task of a batch: remap what waits for nothing.
 */
import {
  type BatchDone,
  type Bio,
  type BioDone,
  type BioKind,
  type BioWithoutSpace,
  isWithoutSpace,
  needOf,
  type StatusWithoutSpace,
} from "./bio.ts";
import type { Address } from "../kernel/address.ts";
import { assert } from "../../storage/base/assert.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import type { SpaceLook, SpaceSeen } from "../pool/space_messages.ts";
import { remap, remapBatch, type Thin } from "./remap.ts";

/**
 * Serves the bio and tells its volume. A bio is completed here, or by its volume while it is parked.
 *
 * @param seen for a bio that was parked: what is known of space now
 */
export function* bioTask(
  kernel: Kernel,
  volume: Address<BioDone | BioWithoutSpace>,
  thin: Thin,
  bio: Bio,
  seen?: SpaceSeen,
): Steps<void> {
  let status = yield* remap(thin, bio);
  if (isWithoutSpace(status)) {
    // No lock is held here: a discard that would free space must not wait for a bio that needs it.
    let known = seen;
    if (known === undefined) {
      yield* makeSpace(thin, status);
      // The look comes before the try. Space that comes after the look makes the watch try again, and space that came
      // before it is found by this try.
      const look = yield* thin.space.look();
      status = yield* remap(thin, bio);
      if (isWithoutSpace(status) && mayPark(bio) && (yield* waits(thin, look, status))) known = look;
    }
    if (isWithoutSpace(status)) {
      if (known !== undefined) {
        return kernel.tell(volume, { type: "bioWithoutSpace", bio, status, seen: known });
      }
      kernel.tell(thin.space.address, { type: "spaceRefused", need: needOf(status) });
    }
  }
  kernel.tell(volume, { type: "bioDone", bio, status });
}

/** Serves those of the bios that wait for nothing, and tells the volume. */
export function* batchTask(
  kernel: Kernel,
  volume: Address<BatchDone>,
  thin: Thin,
  bios: readonly Bio[],
): Steps<void> {
  yield* remapBatch(thin, bios);
  kernel.tell(volume, { type: "batchDone", bios });
}

/**
 * Whether a bio is parked that has looked, and then found no space. If bios fail at once, space may have come since the look:
 * the bio fails only if it lacks space after that too.
 */
function* waits(thin: Thin, look: SpaceLook, status: StatusWithoutSpace): Steps<boolean> {
  if (look.parks) return true;
  const need = needOf(status);
  const now = yield* thin.space.look();
  assert(now[need] >= look[need], "space that came is counted down");
  return now.parks || now[need] > look[need];
}

/**
 * Commits and passes down, so that data blocks freed since the last commit can be used. Metadata has made such commits for its
 * own blocks before it refused.
 */
function* makeSpace(thin: Thin, status: StatusWithoutSpace): Steps<void> {
  if (status !== "noMetadataSpace") yield* thin.allocator.reclaim();
}

/** A discard may use the headroom of the metadata and gives space back, so it never waits for some; reads and flushes need none. */
function mayPark({ kind }: Bio): boolean {
  return kind === "write" || kind === "writeZeroes" || kind === "checkSpace";
}

/** The names of the tasks of a volume, made once. */
export function taskNames(volume: string): Readonly<Record<BioKind | "batch", string>> {
  return {
    batch: `${volume} batch`,
    read: `${volume} read`,
    write: `${volume} write`,
    writeZeroes: `${volume} writeZeroes`,
    discard: `${volume} discard`,
    flush: `${volume} flush`,
    checkSpace: `${volume} checkSpace`,
  };
}
