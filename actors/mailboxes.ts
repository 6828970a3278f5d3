/**
 * The bounds of the mailboxes: for each actor a sum over what may have messages waiting for it (invariant I8 of
 * actors/ARCHITECTURE.md). An actor is made with its sum; the simulator compares the fill of every mailbox with the sum for
 * what it has admitted.
 *
 * A task asks one question at a time, so it has one message waiting, and besides it those that it, or the task before it in
 * its place, has told the same actor without waiting. Messages of one sender to one receiver keep their order, so the next
 * question of a place is behind them. What is told without a question and in no task's place (a timer, a notice of another
 * actor) is counted as `noticesMax`: ready actors have turns in order, and a turn delivers no more than that.
 */
import { assert } from "../storage/base/assert.ts";
import { defaultKnobs, type Knobs } from "./knobs.ts";
import {
  biosMax,
  controlCommandsMax,
  heldVolumesMax,
  maxClientsMost,
  noticesMax,
  requestsMax,
  requestsPerConnectionMax,
  volumesMax,
} from "./limits.ts";

/** What is admitted at once. */
export interface AdmittedAtOnce {
  /** NBD clients; each may use a volume of its own. */
  readonly clients: number;
  /** Requests of all clients. */
  readonly requests: number;
  /** Commands that were given and not answered. */
  readonly commands: number;
  /** What bounds the tasks. */
  readonly knobs: Pick<
    Knobs,
    | "biosPerVolumeMax"
    | "statusPerVolumeMax"
    | "commitWritesMax"
    | "flushesMax"
    | "looksMax"
    | "openVolumesMax"
    | "passdownRunBlocksMax"
  >;
}

/** Messages that may wait for each kind of actor. */
export interface Mailboxes {
  readonly pool: number;
  readonly journal: number;
  readonly metadata: number;
  readonly allocator: number;
  readonly dataDevice: number;
  readonly metadataDevice: number;
  readonly refusals: number;
  readonly spaceWatch: number;
  readonly spaceGauge: number;
  readonly autoGrow: number;
  readonly usageFigures: number;
  readonly volume: number;
  readonly volumeRegion: number;
  readonly tailRegion: number;
  readonly dataRegion: number;
  readonly listener: number;
  readonly connection: number;
  readonly textOut: number;
}

/** What may have a place in mailboxes and in queues at once. */
export interface Holders {
  /** Bios that map, look up or write. */
  readonly bios: number;
  /** The same, and a flush for each request besides: one of its own, or what follows a request with FUA. */
  readonly bioTasks: number;
  /**
   * Commands that are carried out: one that changes something, or the rewrite of the journal; those that look; and the task
   * that deletes devices behind them.
   */
  readonly commandTasks: number;
  /** Operations of metadata; for every one that waits a block may be read. */
  readonly operations: number;
  readonly searchTask: number;
  readonly passdownTask: number;
  readonly commitTask: number;
  readonly gaugeTask: number;
  readonly growTask: number;
  readonly walkTask: number;
}

/** Of these there is one. */
const singleTask = {
  searchTask: 1,
  passdownTask: 1,
  commitTask: 1,
  gaugeTask: 1,
  growTask: 1,
  walkTask: 1,
} as const;

/** The holders for what is admitted. */
export function holdersOf({ clients, requests, knobs }: AdmittedAtOnce): Holders {
  const bios = clients * knobs.biosPerVolumeMax;
  const statuses = clients * knobs.statusPerVolumeMax;
  const bioTasks = bios + requests;
  const commandTasks = 2 + knobs.looksMax;
  const { searchTask, commitTask, gaugeTask, walkTask } = singleTask;
  const operations = bioTasks + statuses + commandTasks + searchTask + commitTask + gaugeTask + walkTask +
    knobs.flushesMax;
  return { bios, bioTasks, commandTasks, operations, ...singleTask };
}

/** The sums for what is admitted. */
export function mailboxSums(admitted: AdmittedAtOnce): Mailboxes {
  const { clients, requests, commands, knobs } = admitted;
  const { bios, bioTasks, commandTasks, operations } = holdersOf(admitted);
  const { searchTask, passdownTask, commitTask, gaugeTask, growTask, walkTask } = singleTask;
  return {
    // Of each client a question of its handshake and a detach. A command is given, asks for its plan and tells its end.
    pool: 2 * clients + commands + growTask + 2 * commandTasks + noticesMax,
    // A line or a piece, and its completion.
    journal: 2 * commandTasks,
    // The question of each operation, the block that was read for it, and what the task told: refused space, the end of a commit,
    // a hold released.
    metadata: 3 * operations + noticesMax,
    // A question, or a lease that ends before the next question of its place. Metadata tells freed, frozen, durable.
    allocator: 2 * (bios + commandTasks) + searchTask + passdownTask + 3 * noticesMax,
    // A task waits for its operation, so the operation is a request or its completion.
    dataDevice: bios + commandTasks + passdownTask + commitTask + knobs.flushesMax,
    // Reads for operations, for looks and for the walk that counts; the writes of a commit beside each other; needs_check.
    metadataDevice: operations + commandTasks + walkTask + knobs.commitWritesMax + 2 * commitTask,
    // Each failure of a bio's device operation or of a command's line is told.
    refusals: bios + commandTasks + noticesMax,
    // A bio's look, or its refusal; parked, and parked for another need no more, as it ends. A lease that ends tells of its
    // block. Of each volume, what it has dropped for each need, and its leaving; of each removal its begin and end.
    spaceWatch: 4 * bioTasks + 4 * clients + 2 * commandTasks + gaugeTask + 3 * noticesMax,
    // Each `status` and each measure of its own; that it is time, that something is short, that a growth has ended.
    spaceGauge: commandTasks + 2 * gaugeTask + growTask + noticesMax,
    // Each measure, and the end of a growth.
    autoGrow: commandTasks + gaugeTask + growTask + noticesMax,
    // Each command that looks asks one question at a time, and has a timer; the walk's question and its end; the stop.
    usageFigures: 2 * knobs.looksMax + 2 + 1,
    // Requests, and the ends of the tasks that serve them. Parked bios: clients that are gone, each time that space came, and
    // those that may not wait.
    volume: 4 * requests + bios + knobs.biosPerVolumeMax + knobs.statusPerVolumeMax + noticesMax,
    // A lock, behind the unlock of the bio before in its place; and the retirement.
    volumeRegion: 2 * knobs.biosPerVolumeMax + 1,
    // Unlocked, locked for the second try and unlocked again, and the retirement.
    tailRegion: 4,
    // A lock, behind the unlocks of the two blocks of a copy.
    dataRegion: 3 * (bios + commandTasks + passdownTask),
    // Of each client: its arrival, attachment, identity, a loan asked for, its leaving; loans given back as requests end, and
    // the begin and end of their waiting for space.
    listener: 5 * clients + 3 * requests + commands + noticesMax,
    // Answers to its requests, that one waits for space, and may not; all else has one message of each type on its way.
    connection: 3 * Math.min(requests, requestsPerConnectionMax) + noticesMax,
    // A text, its completion, and the end, also a second time where its reader goes.
    textOut: 4,
  };
}

/** The most of production. A program that uses the library may give as many commands at once as there can be volumes. */
export const admittedMost: AdmittedAtOnce = {
  clients: maxClientsMost,
  requests: requestsMax,
  commands: controlCommandsMax + heldVolumesMax + volumesMax,
  knobs: defaultKnobs,
};

/** Bounds of production. */
export const mailboxes: Mailboxes = mailboxSums(admittedMost);

assert(mailboxes.metadata >= biosMax, "metadata may be asked by every bio that holds a lock");
assert(mailboxes.allocator >= 2 * biosMax, "every bio may end a lease and ask for the next");
assert(mailboxes.dataDevice >= biosMax, "every bio may wait for the data device");
assert(mailboxes.volume >= requestsMax, "all requests may be for one volume");
assert(mailboxes.pool >= 2 * maxClientsMost, "every client may leave and another may come");

/** The bound of an actor by its name, as `kernel.mailboxHighWater` has it; undefined for an actor of a test. */
export function mailboxOf(name: string, bounds: Mailboxes): number | undefined {
  for (const [begin, kind] of namesOfActors) if (name.startsWith(begin)) return bounds[kind];
  return undefined;
}

const namesOfActors: readonly (readonly [begin: string, kind: keyof Mailboxes])[] = [
  ["pool", "pool"],
  ["catalogue journal", "journal"],
  ["metadata device", "metadataDevice"],
  ["metadata", "metadata"],
  ["allocator", "allocator"],
  ["data device", "dataDevice"],
  ["data region", "dataRegion"],
  ["refusals", "refusals"],
  ["space watch", "spaceWatch"],
  ["space gauge", "spaceGauge"],
  ["auto grow", "autoGrow"],
  ["usage figures", "usageFigures"],
  ["volume ", "volume"],
  ["region of a tail", "tailRegion"],
  ["region ", "volumeRegion"],
  ["nbd listener", "listener"],
  ["nbd conn", "connection"],
  ["dump out", "textOut"],
];
