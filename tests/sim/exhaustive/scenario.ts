/** What a search begins with: a small pool in a known state, and two or three requests that are all under way at once. */
import { stamped } from "../../crash/stamps.ts";
import { testingBlockSizeBytes as blockBytes } from "../../support/pool.ts";
import type { DeviceName } from "./logged_device.ts";
import type { Event } from "./execution.ts";

export const blockSectors = blockBytes / 512;

export const kinds = [
  "read",
  "partial write",
  "covering write",
  "discard",
  "write-zeroes",
  "flush",
  "FUA write",
  "snapshot",
] as const;

/**
 * `rm` removes the snapshot that the state "shared" begins with; the other is the volume that the state "cloned" has. Two
 * snapshots are those of one command, and so are three forks: the third is made when the source may be written to again.
 * A rollback is to that snapshot. A clone is a new volume "b", and its write is that of a client that attaches to it once,
 * at any time: also before the command is answered.
 */
export type Kind =
  | typeof kinds[number]
  | "rm"
  | "grow"
  | "two snapshots"
  | "three forks"
  | "other's FUA write"
  | "other's discard"
  | "rollback"
  | "clone"
  | "clone's write"
  | "clone's FUA write";

/** `apart`: the last request on the second block, the others on the first, which alone is mapped at the beginning. */
export type Layout = "one block" | "two blocks" | "apart";

export const states = ["unmapped", "mapped", "shared"] as const;

/** Blocks that the devices of a scenario with a growth have beyond the pool's; `grow` gives the pool all of them. */
export const growthBlocks = { data: 1, metadata: 2 } as const;

/** Whether the pool grows. */
export function grows({ kinds }: Scenario): boolean {
  return kinds.includes("grow");
}

/** `left`: the block was shared with a snapshot that is gone. `cloned`: another volume shares it, and no snapshot. */
export type State = typeof states[number] | "left" | "cloned";

export interface Scenario {
  readonly state: State;
  readonly layout: Layout;
  readonly kinds: readonly Kind[];
  readonly dataBlocks: number;
  /** Which flush of the run fails: of this device, from 0. */
  readonly failingFlush?: { readonly device: DeviceName; readonly ordinal: number };
  /** Writes without space wait, for ever: so each must find some in every schedule. Absent: they fail at once. */
  readonly waits?: true;
  /** Records for which a segment of the intent journal has room; more than are needed if absent. */
  readonly intentRecords?: number;
  /** What is asked of the volume comes in one message, and so many bios at most go in a batch. Absent: each goes alone. */
  readonly together?: number;
  /** Types of messages that the search receives last where it may choose, so that it sees early what follows from that. */
  readonly last?: readonly string[];
  /** Records and devices in one slice of a command; as many as it has if absent. */
  readonly perSlice?: number;
}

/** For a person. */
export function nameOf(scenario: Scenario): string {
  const { state, layout, dataBlocks, failingFlush, perSlice, intentRecords } = scenario;
  const failing = failingFlush === undefined
    ? ""
    : `, ${failingFlush.device} flush ${failingFlush.ordinal} fails`;
  return `${scenario.kinds.join(" + ")} on ${layout}, ${state}, ${dataBlocks} data blocks${failing}` +
    (perSlice === undefined ? "" : `, slices of ${perSlice}`) + (scenario.waits ? ", writes wait" : "") +
    (scenario.together === undefined ? "" : `, batches of ${scenario.together}`) +
    (intentRecords === undefined ? "" : `, room for ${intentRecords} records`);
}

/** The snapshot of what a volume had before its rollback. */
export const keptName = "a@before-rollback-1";

/** The snapshots or forks that a request makes, all of them or none; a rollback keeps one. */
export function snapshotsOf(op: Op): readonly string[] {
  if (op.kind === "three forks") return [`f${op.number}-1`, `f${op.number}-2`, `f${op.number}-3`];
  if (op.kind === "two snapshots") return [`a@s${op.number}`, `a@t${op.number}`];
  if (op.kind === "rollback") return [keptName];
  return op.kind === "snapshot" ? [`a@s${op.number}`] : [];
}

/** A request of the scenario and how it went. Sectors are half open; a flush and a snapshot write none. */
export interface Op {
  readonly number: number;
  readonly kind: Kind;
  readonly volume: "a" | "b";
  readonly sectorBegin: number;
  readonly sectorEnd: number;
  readonly data: Uint8Array;
  submitted: Event | undefined;
  answered: Event | undefined;
  answers: number;
  status: string;
}

/** The sequence number of what the volume held before. */
export const initialSequence = 100;

/** Of the volume of every scenario. */
export const volumeSectors = 2 * blockSectors;

/** Whether the request must be durable before it is answered. */
export function isFua(kind: Kind): boolean {
  return kind === "FUA write" || kind === "other's FUA write" || kind === "clone's FUA write";
}

/** Whether the request is that of a client that attaches to the clone which the scenario makes. */
export function isOfClone(kind: Kind): boolean {
  return kind === "clone's write" || kind === "clone's FUA write";
}

/** The status of such a request if there was no clone yet: it was not made. */
export const noExport = "noExport";

/** Partial writes of different requests overlap in part, so that each shows what it did and what it kept. */
export function opOf(kind: Kind, number: number, { layout, kinds }: Scenario): Op {
  let [begin, end] = layout === "two blocks" ? [0, volumeSectors] : [0, blockSectors];
  if (kind === "rollback") {
    [begin, end] = [0, volumeSectors];
  } else if (kind === "partial write" || kind === "clone's write" || isFua(kind) || kind === "write-zeroes") {
    const middle = layout === "two blocks" ? blockSectors : 8;
    [begin, end] = [middle - 4 + 2 * number, middle + 2 + 2 * number];
  } else if (
    kind === "flush" || kind.includes("snapshot") || kind === "three forks" || kind === "rm" ||
    kind === "grow" || kind === "clone"
  ) {
    [begin, end] = [0, 0];
  }
  if (layout === "apart" && number === kinds.length - 1 && end > 0 && kind !== "rollback") {
    [begin, end] = [begin + blockSectors, end + blockSectors];
  }
  const writes = kind === "partial write" || kind === "covering write" || kind === "clone's write" ||
    isFua(kind);
  const data = writes
    ? stamped(1, begin, end - begin, number + 1)
    : new Uint8Array(kind === "read" ? (end - begin) * 512 : 0).fill(0xee);
  return {
    number,
    kind,
    volume: kind.startsWith("other's") || isOfClone(kind) ? "b" : "a",
    sectorBegin: begin,
    sectorEnd: end,
    data,
    submitted: undefined,
    answered: undefined,
    answers: 0,
    status: "none",
  };
}
