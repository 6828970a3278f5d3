/** Going through a recorded run, and crashing it after every operation in many ways. */
import { Random } from "../support/world.ts";
import type { History } from "./history.ts";
import { DeviceReplay, type JournalCut, JournalReplay, type Keeps } from "./power_cut.ts";
import type { Images } from "./images.ts";
import type { RunLog } from "./recording_device.ts";
import { problemOfNextBoot } from "./next_boot.ts";
import { problemOfCrash, readPool, reopen } from "./recovery.ts";
import type { RecordedName } from "./recording_device.ts";

/** How a power cut chooses: for each device, nothing, everything, or some of what is not durable. */
export interface CutStyle {
  readonly name: string;
  readonly metadata: "lost" | "kept" | number;
  readonly data: "lost" | "kept" | number;
  readonly journal: "lost" | "kept" | "torn";
}

/** Mixing the devices' extremes finds what depends on their order; single sectors find what depends on more. */
export const cutStyles: readonly CutStyle[] = [
  { name: "everything unflushed lost", metadata: "lost", data: "lost", journal: "lost" },
  { name: "everything kept", metadata: "kept", data: "kept", journal: "kept" },
  { name: "metadata kept, data lost", metadata: "kept", data: "lost", journal: "torn" },
  { name: "metadata lost, data kept", metadata: "lost", data: "kept", journal: "torn" },
  { name: "half of the sectors", metadata: 0.5, data: 0.5, journal: "torn" },
  { name: "most of the metadata, few of the data", metadata: 0.9, data: 0.1, journal: "kept" },
  { name: "few of the metadata, most of the data", metadata: 0.1, data: 0.9, journal: "lost" },
];

/** The devices on their way through the log. */
export class CrashReplay {
  readonly #log: RunLog;
  readonly #metadata: DeviceReplay;
  readonly #data: DeviceReplay;
  readonly #journal: JournalReplay;
  readonly #intents: DeviceReplay;
  readonly #scratch: Images;

  constructor(images: Images, log: RunLog) {
    this.#log = log;
    this.#metadata = new DeviceReplay("metadata", images.metadata);
    this.#data = new DeviceReplay("data", images.data);
    this.#journal = new JournalReplay(images.journal);
    this.#intents = new DeviceReplay("intents", images.intents);
    this.#scratch = {
      metadata: images.metadata.slice(),
      data: images.data.slice(),
      journal: images.journal,
      intents: images.intents.slice(),
      isSameBoot: true,
    };
  }

  advance(count: number): void {
    this.#metadata.advance(this.#log, count);
    this.#data.advance(this.#log, count);
    this.#journal.advance(this.#log, count);
    this.#intents.advance(this.#log, count);
  }

  /** Whether a power cut now differs from killing the process. */
  canLose(device: RecordedName): boolean {
    return {
      metadata: this.#metadata,
      data: this.#data,
      journal: this.#journal,
      intents: this.#intents,
    }[device]
      .canLose;
  }

  /** What a killed process leaves of the file of its intent journal. Not to be changed. */
  get intents(): Uint8Array {
    return this.#intents.memory;
  }

  /** The metadata that a killed process leaves. Not to be changed. */
  get metadata(): Uint8Array {
    return this.#metadata.memory;
  }

  /** What a killed process leaves. It is yours until the next call. */
  killed(): Images {
    this.#scratch.metadata.set(this.#metadata.memory);
    this.#scratch.data.set(this.#data.memory);
    this.#scratch.intents.set(this.#intents.memory);
    return { ...this.#scratch, journal: this.#journal.memory };
  }

  /** What a power cut leaves. It is yours until the next call. */
  cut(style: CutStyle, random: Random): Images {
    const journal: JournalCut = style.journal === "torn" ? (end) => random.below(end) : style.journal;
    this.#metadata.cut(this.#scratch.metadata, keepsBy(style.metadata, random));
    this.#data.cut(this.#scratch.data, keepsBy(style.data, random));
    // No flush covers it: all of it is there, nothing, or any sectors of any time.
    this.#intents.cut(this.#scratch.intents, keepsBy(style.data, random));
    return { ...this.#scratch, journal: this.#journal.cut(journal), isSameBoot: false };
  }
}

/** What opening the pool on the same host finds: see {@linkcode DeviceReplay.reread}. */
export function rereadAfter(run: Recording, count: number, style: CutStyle, random: Random): Images {
  const replays = {
    metadata: new DeviceReplay("metadata", run.images.metadata),
    data: new DeviceReplay("data", run.images.data),
  };
  const journal = new JournalReplay(run.images.journal);
  // A flush that failed has made it void: nothing of it is replayed over what is lost.
  const intents = new DeviceReplay("intents", run.images.intents);
  for (const replay of [replays.metadata, replays.data, journal, intents]) replay.advance(run.log, count);
  return {
    metadata: replays.metadata.reread(run.images.metadata.slice(), keepsBy(style.metadata, random)),
    data: replays.data.reread(run.images.data.slice(), keepsBy(style.data, random)),
    journal: journal.memory,
    intents: intents.memory,
    isSameBoot: true,
  };
}

function keepsBy(choice: CutStyle["metadata"], random: Random): Keeps {
  if (choice === "lost") return () => false;
  if (choice === "kept") return () => true;
  const below = Math.round(choice * 1024);
  return () => random.below(1024) < below;
}

/** A recorded run: in memory or of a real server. */
export interface Recording {
  readonly images: Images;
  readonly log: RunLog;
  readonly history: History;
}

/**
 * Reads every snapshot once, as it was when its command returned, and compares it with what was being written; from then
 * on no crash may show anything else. Answers what is wrong, or undefined.
 */
export function pinSnapshots(run: Recording): string | undefined {
  const replay = new CrashReplay(run.images, run.log);
  for (const cut of run.history.cuts) {
    replay.advance(run.history.recordsAt(cut.endedAt));
    const version = run.history.versions.find((version) => version.begunAt === cut.begunAt)!;
    const found = readPool(reopen(replay.killed(), { readOnly: true }));
    const problem = run.history.pin(cut, version, found);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** Which crashes to try. */
export interface CrashPlan {
  /** Of how many points one is tried. */
  readonly every?: number;
  /** Of the styles that keep the sectors by chance, so many at each point. */
  readonly chances: number;
  readonly seed: number;
}

export interface CrashCounts {
  points: number;
  crashes: number;
}

/** Crashes the run after every operation. Answers what is wrong with the first crash that is not survived. */
export function problemOfRun(run: Recording, plan: CrashPlan, counts: CrashCounts): string | undefined {
  const pinned = pinSnapshots(run);
  if (pinned !== undefined) return pinned;
  const random = new Random(plan.seed);
  const replay = new CrashReplay(run.images, run.log);
  for (let count = 0; count <= run.log.records.length; count += 1) {
    replay.advance(count);
    // What the file of the intent journal holds matters to no power cut, so the next operation of a device stands for it.
    if (count % (plan.every ?? 1) !== 0 || run.log.records[count - 1]?.device === "intents") continue;
    counts.points += 1;
    const instant = run.history.instantAfter(count);
    for (const style of stylesAt(replay, plan, random)) {
      counts.crashes += 1;
      const images = replay.cut(style, random);
      const hasIntents = images.intents.length > 0;
      const problem = (hasIntents ? problemOfNextBoot(images) : undefined) ??
        problemOfCrash(images, run.history, instant);
      if (problem === undefined) continue;
      const last = run.log.records[count - 1];
      return `power cut after operation ${count} (${last?.device} ${last?.kind}), ${style.name}: ${problem}`;
    }
  }
  return undefined;
}

/** Styles that differ at this point. */
function stylesAt(replay: CrashReplay, plan: CrashPlan, random: Random): CutStyle[] {
  const [lost, kept, ...others] = cutStyles;
  const open = (["metadata", "data", "journal"] as const).filter((device) => replay.canLose(device));
  if (open.length === 0) return [kept!];
  const chosen = [lost!, kept!];
  for (let chance = 0; chance < plan.chances; chance += 1) chosen.push(others[random.below(others.length)]!);
  return chosen;
}
