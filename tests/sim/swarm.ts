/**
 * What a run is like: its sizes, and how often each kind of thing goes wrong in it. Whole kinds are off in most runs, and
 * the others come at very different rates, so that rare combinations get runs of their own.
 */
import { defaultKnobs, type Knobs, lowestKnobs } from "../../actors/knobs.ts";
import type { NoSpacePolicy } from "../../actors/pool/space_messages.ts";
import { Random } from "../support/world.ts";
import type { DeviceName } from "../crash/recording_device.ts";
import { intentHeaderBytes } from "../../storage/intent_headers.ts";
import { intentRecordBytes } from "../../storage/intent_record.ts";

/** What a device may be asked, as far as it may fail. */
export type OperationKind = "read" | "write" | "zero" | "copy" | "discard" | "flush";

/** The devices, and the two files beside them. */
export type SimulatedName = DeviceName | "intents";

/** How often things happen are chances in 100,000. */
export interface Swarm {
  readonly blockSectors: number;
  readonly dataBlocks: number;
  /** Most blocks of a volume: in the smallest, everybody meets everybody. */
  readonly volumeBlocksMax: number;
  readonly metadataBlocks: number;
  /** Blocks that the devices have beyond what the pool begins with: it grows into them. None in half of the runs. */
  readonly growthBlocks: { readonly data: number; readonly metadata: number };
  /** What becomes of writes without space; they wait in two of three runs. */
  readonly noSpace: NoSpacePolicy;
  /** Writes of zeroes to unmapped blocks leave them unmapped. */
  readonly detectsZeroes: boolean;
  /** Of 100 writes, so many are of zeroes, whole or in part. */
  readonly zeroesPercent: number;
  /** Clean metadata blocks that the engine keeps. */
  readonly cacheBlocks: number;
  readonly lives: number;
  readonly actionsPerLife: number;
  /** Every life ends by a crash after so many device operations, or at its end. */
  readonly operationsMax: number;
  readonly clientsMax: number;
  /** Of 100 crashes, so many kill only the process. */
  readonly killsPercent: number;
  /** A sector that is not durable is lost with this chance of 100: some power cuts lose nearly all, some nearly nothing. */
  readonly lossPercent: { readonly metadata: number; readonly data: number };
  /** A device begins later than it is asked; it answers later than it is done. */
  readonly lateStart: number;
  readonly lateAnswer: number;
  /** Something from outside comes between two turns of the kernel. */
  readonly intrusion: number;
  /** The data device maps nothing, knows of no holes and takes no discards. */
  readonly hasRemoteData: boolean;
  /** For long whiles the data device is slow, so that commits overtake writes. */
  readonly hasSlowData: boolean;
  /** An operation of the data device that begins late may begin only after hundreds of other events. */
  readonly stuck: number;
  /** Chances in 100,000 that an operation fails, by device. */
  readonly errors: Readonly<Record<SimulatedName, Readonly<Record<OperationKind, number>>>>;
  readonly noSpacePercent: number;
  /** Of 100 commands, so many set or end a quota or a reserve. */
  readonly allowancesPercent: number;
  /** Undefined: the host always has room. */
  readonly host: HostSwarm | undefined;
  /** Of one segment of the intent journal: often so few that it is full all the time. Undefined: none is kept. */
  readonly intentSegmentBytes: number | undefined;
  /** Most bytes that one read or send of a socket moves; 0 for no bound. */
  readonly pieceBytes: number;
  /** The administrator only takes snapshots and removes them, so that blocks are shared, unshared and used again. */
  readonly isChurning: boolean;
  /** The administrator clones volumes and removes them, so that blocks are left by one volume to another. */
  readonly isForking: boolean;
  /** The knobs of the actors. */
  readonly knobs: Knobs;
  /** A task that rests goes on when nothing else is ready, as in production; otherwise at any time. */
  readonly restsLast: boolean;
  /** How often each kind of action is chosen. */
  readonly weights: Readonly<Record<ActionKind, number>>;
}

/** A host whose file system is full for a while, again and again. */
export interface HostSwarm {
  /** Of 100 pages of a device, so many are not stored when a life begins, whatever they hold. */
  readonly holesPercent: { readonly metadata: number; readonly data: number };
  /** Of 100 writes to these files that need room, it refuses so many while it is full. */
  readonly refusesPercent: { readonly catalogue: number; readonly intents: number };
  /** Chances in 100,000 that a flush fails while it is full. */
  readonly flushErrors: number;
  /** It says how much room it has. */
  readonly tells: boolean;
  /** How often it becomes full, or has room again, as a weight among the actions. */
  readonly weight: number;
}

/** What can be done in a run. */
export const actionKinds = [
  "connect",
  "disconnect",
  "write",
  "read",
  "flush",
  "discard",
  "writeZeroes",
  "admin",
  "wait",
  "drain",
  "host",
] as const;
/** One of them. */
export type ActionKind = typeof actionKinds[number];

const usual: Readonly<Record<ActionKind, number>> = {
  connect: 30,
  disconnect: 4,
  write: 100,
  read: 30,
  flush: 25,
  discard: 15,
  writeZeroes: 15,
  admin: 30,
  wait: 5,
  drain: 3,
  host: 0,
};

/**
 * The knobs of the run with this seed: in some runs all are as in production, in some all are as low as they may be, and in
 * the others each is one or the other, or a little above the lowest. Of a random source of its own, so that the other
 * choices of a seed do not depend on them.
 */
function drawKnobs(seed: number): Pick<Swarm, "knobs" | "restsLast"> {
  const random = new Random(Math.imul(seed, 0x85ebca6b) ^ 0x511c);
  const kind = random.below(6);
  const knobs: Record<keyof Knobs, number> = { ...defaultKnobs };
  for (const name of Object.keys(knobs) as (keyof Knobs)[]) {
    const lowest = lowestKnobs[name];
    const above = [lowest, lowest, 2 * lowest, lowest + (lowest >= 512 ? 512 : 1 + random.below(3))];
    const drawn = above[random.below(above.length)]!;
    const isUsual = kind === 0 || (kind > 1 && random.below(3) === 0);
    if (!isUsual) knobs[name] = Math.min(kind === 1 ? lowest : drawn, defaultKnobs[name]);
  }
  // Volumes are closed and opened again all the time.
  knobs.openVolumesMax = 0;
  // The simulator's clock stands still while messages are delivered, so what pauses would not go on.
  knobs.backgroundMsMax = Math.max(1, knobs.backgroundMsMax);
  knobs.sliceDevicesMax = Math.max(knobs.sliceDevicesMax, knobs.sliceDevices);
  return { knobs, restsLast: random.below(3) === 0 };
}

/** Of a random source of its own. In most runs there is room for few changes, in some for none beside one that runs alone. */
function drawIntents(seed: number): Partial<Swarm> & { readonly intentErrors: number } {
  const random = new Random(Math.imul(seed, 0x7feb352d) ^ 0x1a7e);
  const intentErrors = random.below(8) === 0 ? 3000 : 0;
  const records = [0, 3, 4, 6, 20, 1000][random.below(6)]!;
  if (records === 0) return { intentErrors: 0 };
  return {
    intentErrors,
    intentSegmentBytes: intentHeaderBytes + records * intentRecordBytes,
    // What only the host's memory has after that is what the journal is for.
    killsPercent: [20, 60, 90, 100][random.below(4)]!,
  };
}

/** Of a random source of its own: in half of the runs some writes are of zeroes, which most of these pools detect. */
function drawZeroes(seed: number): Pick<Swarm, "detectsZeroes" | "zeroesPercent"> {
  const random = new Random(Math.imul(seed, 0x2545f491) ^ 0x0e70);
  const zeroesPercent = [0, 0, 50, 95][random.below(4)]!;
  return { detectsZeroes: random.below(4) > 0, zeroesPercent };
}

/** Of a random source of its own: in a third of the runs. */
function drawHost(seed: number): HostSwarm | undefined {
  const random = new Random(Math.imul(seed, 0x632be5ab) ^ 0x4057);
  if (random.below(3) > 0) return undefined;
  const files = new Random(Math.imul(seed, 0x27d4eb2f) ^ 0xf11e);
  return {
    refusesPercent: { catalogue: [0, 30, 100][files.below(3)]!, intents: [0, 0, 5, 100][files.below(4)]! },
    holesPercent: { metadata: [0, 0, 5, 50][random.below(4)]!, data: [20, 60, 100][random.below(3)]! },
    flushErrors: [0, 0, 2000, 20_000][random.below(4)]!,
    tells: random.below(4) > 0,
    weight: [5, 15, 40][random.below(3)]!,
  };
}

/** Of a random source of its own: in a third of the runs. */
function drawAllowances(seed: number): Pick<Swarm, "allowancesPercent"> {
  const random = new Random(Math.imul(seed, 0x1b873593) ^ 0x4007);
  return { allowancesPercent: [0, 0, 0, 0, 25, 60][random.below(6)]! };
}

/** Of a random source of its own: what becomes of writes without space, and how little of it there is. */
function drawLack(seed: number, isPlain: boolean): {
  readonly noSpace: NoSpacePolicy;
  readonly tightBlocks?: number;
  readonly tightMetadata?: number;
} {
  const random = new Random(Math.imul(seed, 0x165667b1) ^ 0xf011);
  const timeoutMs = [0, 2_000, 5_000][random.below(3)]!;
  return {
    noSpace: timeoutMs === 0 ? { kind: "error" } : { kind: "queue", timeoutMs },
    // In a third of the runs the pool is full most of the time.
    ...(random.below(3) === 0 ? { tightBlocks: 2 + random.below(5) } : {}),
    // In a third of the runs the metadata has room for a few volumes.
    ...(!isPlain && random.below(3) === 0 ? { tightMetadata: 28 + random.below(16) } : {}),
  };
}

/** What is off in a plain run, which is as runs were before there was any of it. */
const plain = { detectsZeroes: false, zeroesPercent: 0, host: undefined, allowancesPercent: 0 };

/**
 * The character of the run with this seed.
 * @param isPlain there is no intent journal, and nothing of {@linkcode plain}
 */
export function drawSwarm(seed: number, isPlain = false): Swarm {
  const random = new Random(Math.imul(seed, 0x9e3779b1) ^ 0x51ed);
  const any = <T>(values: readonly T[]): T => values[random.below(values.length)]!;
  const hasErrors = random.below(4) === 0;
  const others = isPlain ? plain : { ...drawZeroes(seed), ...drawAllowances(seed), host: drawHost(seed) };
  const weights = { ...usual, host: others.host?.weight ?? 0 };
  for (const kind of actionKinds) {
    if (kind === "connect" || kind === "host") continue;
    weights[kind] = Math.ceil(weights[kind] * any([0, 0.3, 1, 1, 1, 3]));
  }
  weights.write = Math.max(weights.write, 20);
  const errorsOf = (): Record<OperationKind, number> => {
    const rate = () => hasErrors && random.below(3) === 0 ? any([30, 100, 500, 3000]) : 0;
    return { read: rate(), write: rate(), zero: rate(), copy: rate(), discard: rate(), flush: rate() };
  };
  // Of a seed's own, so that the other choices stay what they were.
  const hasRemoteData = new Random(Math.imul(seed, 0xc2b2ae35) ^ 0x10ca).below(4) === 0;
  const growing = new Random(Math.imul(seed, 0x27d4eb2f) ^ 0x6f0e);
  const canGrow = growing.below(2) === 0;
  const { noSpace, tightBlocks, tightMetadata } = drawLack(seed, isPlain);
  const intents = hasRemoteData || isPlain ? undefined : drawIntents(seed);
  const { intentErrors = 0, ...kept } = intents ?? {};
  const drawn: Swarm = {
    ...drawKnobs(seed),
    ...others,
    hasRemoteData,
    noSpace,
    growthBlocks: {
      data: canGrow ? growing.below(20) : 0,
      metadata: canGrow ? growing.below(40) : 0,
    },
    blockSectors: any([2, 2, 4, 8]),
    dataBlocks: tightBlocks ?? any([10, 14, 20, 32]),
    volumeBlocksMax: any([1, 2, 6, 6]),
    metadataBlocks: any([tightMetadata ?? 64, tightMetadata ?? 96]),
    cacheBlocks: any([8, 256]),
    lives: 1 + random.below(12),
    actionsPerLife: any([10, 20, 40, 120]),
    operationsMax: any([10, 40, 100, 300]),
    clientsMax: any([1, 2, 3, 5]),
    killsPercent: any([0, 0, 20, 60]),
    lossPercent: { metadata: any([0, 10, 50, 90, 100]), data: any([0, 10, 50, 90, 100]) },
    lateStart: any([0, 20_000, 60_000]),
    lateAnswer: any([0, 20_000, 60_000]),
    intrusion: any([0, 1000, 10_000, 40_000]),
    hasSlowData: random.below(2) === 0,
    stuck: any([0, 0, 10_000, 50_000]),
    isChurning: random.below(4) === 0,
    errors: {
      metadata: errorsOf(),
      data: errorsOf(),
      journal: errorsOf(),
      intents: { read: 0, write: intentErrors, zero: 0, copy: 0, discard: 0, flush: 0 },
    },
    intentSegmentBytes: undefined,
    noSpacePercent: any([0, 50, 100]),
    pieceBytes: any([0, 0, 700, 4000]),
    weights,
    isForking: random.below(4) === 0,
  };
  const swarm = { ...drawn, ...kept };
  // What is left to a volume is soon written, by everybody, in the same few blocks.
  if (!swarm.isForking) return swarm;
  const writing = { ...weights, write: 200, admin: 30 };
  const long = { actionsPerLife: 120, operationsMax: 400, clientsMax: 5 };
  return { ...swarm, ...long, volumeBlocksMax: 1 + random.below(2), weights: writing };
}
