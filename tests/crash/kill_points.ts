/**
 * The process of a recorded run dies after every operation, and the host goes on: its page cache has all that was asked.
 * Opened again on the same boot, the pool has everything that was acknowledged before, because the intent journal is replayed.
 */
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { areSameBytes, intentHeaderBytes } from "../../storage/intent_headers.ts";
import { Random } from "../support/world.ts";
import { CrashReplay, pinSnapshots, type Recording } from "./crash_points.ts";
import type { Images } from "./images.ts";
import { problemOfCrash } from "./recovery.ts";

/** How much was tried. */
export interface KillCounts {
  points: number;
  /** Those of them after which the intent journal was replayed. */
  replays: number;
  /** Writes of the intent journal in the midst of which the process died. */
  torn: number;
}

/** Which kills to try. */
export interface KillPlan {
  /** Of how many points one is tried. */
  readonly every?: number;
  readonly seed: number;
  /** Shown the metadata after each replay. Must not change it. */
  readonly look?: (metadata: Uint8Array, what: string) => void;
}

/** Kills the process after every operation. Answers what is wrong with the first kill that loses something. */
export function problemOfKills(run: Recording, plan: KillPlan, counts: KillCounts): string | undefined {
  const pinned = pinSnapshots(run);
  if (pinned !== undefined) return pinned;
  const random = new Random(plan.seed);
  const replay = new CrashReplay(run.images, run.log);
  const problemAt = (what: string, images: Images, instant: number): string | undefined => {
    const superblock = images.metadata.slice(0, metadataBlockSizeBytes);
    const problem = problemOfCrash(images, run.history, instant, "answered");
    if (problem !== undefined) return `${what}: ${problem}`;
    // Only a replay commits: what the pool finds besides is read.
    if (areSameBytes(superblock, images.metadata.subarray(0, metadataBlockSizeBytes))) return undefined;
    counts.replays += 1;
    plan.look?.(images.metadata, what);
    return undefined;
  };
  for (let count = 0; count <= run.log.records.length; count += 1) {
    const last = run.log.records[count - 1];
    const before = replay.intents.slice();
    replay.advance(count);
    if (count % (plan.every ?? 1) !== 0) continue;
    counts.points += 1;
    const what = `killed after operation ${count} (${last?.device} ${last?.kind})`;
    const problem = problemAt(what, replay.killed(), run.history.instantAfter(count));
    if (problem !== undefined) return problem;
    // A header is one page, of which the host takes all or nothing.
    if (last?.device !== "intents" || last.kind !== "write" || last.bytes.length === intentHeaderBytes) {
      continue;
    }
    counts.torn += 1;
    const images = replay.killed();
    const begin = last.offsetBytes + random.below(last.bytes.length);
    const end = last.offsetBytes + last.bytes.length;
    images.intents.set(before.subarray(begin, end), begin);
    // What the write was to come before is not answered yet.
    const torn = problemAt(`${what}, in its midst`, images, run.history.instantAfter(count - 1));
    if (torn !== undefined) return torn;
  }
  return undefined;
}
