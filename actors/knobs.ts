/**
 * The knobs: numbers that change how fast the server is, and how it shares its thread, and nothing that a client may rely
 * on. Any legal value keeps the service correct. They were measured on Linux 6.18 (tests/bench/README.md). The bounds are in
 * limits.ts.
 *
 * The knobs of the actors are one table, {@linkcode Knobs}. It comes with the options of the kernel, and an actor reads what
 * it uses from `kernel.knobs` once, when it is made. The simulator gives every run a table of its own (tests/sim/swarm.ts).
 * The knobs of the edge, which is not simulated, are constants.
 */
import { assert } from "../storage/base/assert.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

/** The knobs of the actors and the kernel. {@linkcode checkKnobs} says what is legal. */
export interface Knobs {
  // The kernel: how long it delivers before the event loop has its turn.

  /** Turns of actors and tasks in one drain, at most. */
  readonly drainTurnsMax: number;
  /**
   * Milliseconds of one drain, after which the event loop has its turn. Every drain has one turn at least. A turn that copies data takes a thousand times as
   * long as one that does not, so turns alone do not bound it.
   */
  readonly drainMsMax: number;
  /** Turns between two looks at the clock: a look costs as much as a turn. */
  readonly drainTurnsPerLook: number;
  /** Milliseconds for which background tasks may run; then all pause for `backgroundPauseMs`, so that Deno polls its sockets. */
  readonly backgroundMsMax: number;
  /** Milliseconds of that pause. */
  readonly backgroundPauseMs: number;

  // Volumes.

  /** Bios of one volume that have a task; more wait in the volume. */
  readonly biosPerVolumeMax: number;
  /** Bios of one volume that go together; with 1 each goes alone. */
  readonly batchBiosMax: number;
  /** Bytes of a bio that goes in a batch: a larger one gains little there, and 32 of them would take this thread for milliseconds. */
  readonly batchedBytesMax: number;
  /** Questions about block status that one volume works on at once, for a flood of them takes turns of metadata from all. */
  readonly statusPerVolumeMax: number;
  /** Runs of blocks that metadata finds in one turn. */
  readonly statusRunsMax: number;
  /** Runs of blocks in one look-up of the space that a range needs. */
  readonly lookupRunsMax: number;
  /** Turns that a question about block status takes for each of its contexts; then it is answered with what is known. */
  readonly statusTurnsMax: number;
  /** Vblocks in one lock region of a volume, at least: 64 GiB at 64 KiB blocks. */
  readonly regionBlocksMin: number;
  /** Data blocks in one stripe of the data device; its lock regions have one stripe each in turn. */
  readonly dataStripeBlocks: number;
  /** Idle cells that a lock region keeps for the next blocks. */
  readonly spareCellsMax: number;
  /** Lock regions of a volume, busy ones counted too, above which one that becomes idle is retired. */
  readonly idleRegionsMax: number;

  // Metadata, commits and free space.

  /** Milliseconds between commits while something is dirty, as Linux's `COMMIT_PERIOD` (drivers/md/dm-thin.c). */
  readonly commitPeriodMs: number;
  /** Dirty metadata blocks that make the pool commit. */
  readonly dirtyBlocksMax: number;
  /** Metadata blocks written at the same time during a commit. */
  readonly commitWritesMax: number;
  /**
   * Flushes of the data at once where there is nothing to commit. With eight writes and flushes under way two of them made
   * 1.3 times as many a second as one, and three, four and sixteen fewer than two (measured on 2 cores): each further one
   * has less to write, and asks the disk for as much.
   */
  readonly flushesMax: number;
  /** Times that an operation may miss blocks before it runs alone. */
  readonly missesBeforeAlone: number;
  /** Leaves of a device's mappings that one turn deletes. Two have 500 mappings, and each may be in another bitmap. */
  readonly leavesPerDeleteSlice: number;
  /** Free data blocks that the allocator fetches at once. */
  readonly freeBlocksFetched: number;
  /** Data blocks in one discard of the data device, at most; its range is locked meanwhile. */
  readonly passdownRunBlocksMax: number;
  /** Bytes punched out of the data device with one call. */
  readonly discardBytesMax: number;
  /** Bytes zeroed with one call. */
  readonly zeroBytesMax: number;
  /** Bytes copied with one call. Nothing else is served during it. */
  readonly copyBytesMax: number;

  // Commands.

  /**
   * Long work goes in slices, between which others are served. The sizes are such that a slice takes a millisecond or two.
   * Names planned, records tried, written down or listed in one turn.
   */
  readonly sliceRecords: number;
  /** Devices that a snapshot of many makes in one turn, to begin with; see {@linkcode changeMsMax}. */
  readonly sliceDevices: number;
  /** Devices in one turn at most. */
  readonly sliceDevicesMax: number;
  /**
   * Milliseconds that all slices of one change of devices are to take together: no commit may begin between them, and the
   * volumes that are snapshotted are quiet. Where others take so much of the time that this is in danger, slices grow.
   */
  readonly changeMsMax: number;
  /** Admin commands that look at once, each with a view of a commit and a walk's memory. All but one of them may be dumps. */
  readonly looksMax: number;
  /**
   * Mappings up to which a list waits until it can show what is exclusive of now: 200,000 are counted in 20 ms (measured).
   * Above that it waits for `figuresWaitMs`, and shows what was counted last. Trees that are shared take less than their
   * mappings, so a moment is often enough for them.
   */
  readonly waitedMappingsMax: number;
  /** Milliseconds for which a list waits for more work than that. */
  readonly figuresWaitMs: number;
  /** Metadata blocks that the walk which counts reads before it rests. */
  readonly blocksPerRest: number;
  /**
   * Volumes that are open: those without a client are closed above that. One that 32 requests at once were served by keeps
   * 8 KiB of memory (measured), so all that a pool can hold would be half a gigabyte.
   */
  readonly openVolumesMax: number;
}

/** What a server runs with. */
export const defaultKnobs: Knobs = {
  drainTurnsMax: 4096,
  drainMsMax: 2,
  drainTurnsPerLook: 16,
  backgroundMsMax: 3,
  backgroundPauseMs: 1,
  biosPerVolumeMax: 512,
  batchBiosMax: 32,
  batchedBytesMax: 16 * KiB,
  statusPerVolumeMax: 4,
  statusRunsMax: 1024,
  lookupRunsMax: 1024,
  statusTurnsMax: 1024,
  regionBlocksMin: 2 ** 20,
  dataStripeBlocks: 2 ** 14,
  spareCellsMax: 256,
  idleRegionsMax: 16,
  commitPeriodMs: 1000,
  dirtyBlocksMax: 4096,
  commitWritesMax: 16,
  flushesMax: 2,
  missesBeforeAlone: 64,
  leavesPerDeleteSlice: 2,
  freeBlocksFetched: 1024,
  passdownRunBlocksMax: 2 ** 16,
  discardBytesMax: 16 * MiB,
  zeroBytesMax: 4 * MiB,
  copyBytesMax: MiB,
  sliceRecords: 512,
  sliceDevices: 256,
  sliceDevicesMax: 4096,
  changeMsMax: 150,
  looksMax: 4,
  waitedMappingsMax: 200_000,
  figuresWaitMs: 20,
  blocksPerRest: 16,
  openVolumesMax: 1024,
};

/** The lowest legal value of each knob. Where it is not 0, less than that would make no progress. */
export const lowestKnobs: Knobs = {
  drainTurnsMax: 1,
  drainMsMax: 0,
  drainTurnsPerLook: 1,
  backgroundMsMax: 0,
  backgroundPauseMs: 0,
  biosPerVolumeMax: 1,
  batchBiosMax: 1,
  batchedBytesMax: 0,
  statusPerVolumeMax: 1,
  // The first run may extend the last extent of the turn before.
  statusRunsMax: 1,
  lookupRunsMax: 1,
  statusTurnsMax: 1,
  regionBlocksMin: 1,
  dataStripeBlocks: 1,
  spareCellsMax: 0,
  idleRegionsMax: 0,
  // With 0 the timer would be due in every drain, and the thread never idle.
  commitPeriodMs: 1,
  dirtyBlocksMax: 0,
  commitWritesMax: 1,
  flushesMax: 1,
  missesBeforeAlone: 0,
  leavesPerDeleteSlice: 1,
  freeBlocksFetched: 1,
  passdownRunBlocksMax: 1,
  // Devices take whole sectors.
  discardBytesMax: 512,
  zeroBytesMax: 512,
  copyBytesMax: 512,
  sliceRecords: 1,
  sliceDevices: 1,
  sliceDevicesMax: 1,
  changeMsMax: 0,
  // One that is no dump, and one dump.
  looksMax: 2,
  waitedMappingsMax: 0,
  figuresWaitMs: 0,
  blocksPerRest: 1,
  openVolumesMax: 0,
};

/** Knobs that bounds in limits.ts and mailboxes.ts are sums of: lower values than those of {@linkcode defaultKnobs} are legal, higher are not. */
const summed: ReadonlySet<string> = new Set<keyof Knobs>([
  "biosPerVolumeMax",
  "statusPerVolumeMax",
  "dirtyBlocksMax",
  "commitWritesMax",
  "flushesMax",
  "looksMax",
]);

/** True if no bound of limits.ts or mailboxes.ts is broken by the knob's value. */
function isWithinBounds(name: keyof Knobs, value: number): boolean {
  return value >= lowestKnobs[name] && (!summed.has(name) || value <= defaultKnobs[name]);
}

/** The knobs, once it is asserted that each has a legal value. A kernel does it when it is made. */
export function checkKnobs(knobs: Knobs): Knobs {
  for (const name of Object.keys(lowestKnobs) as (keyof Knobs)[]) {
    assert(isWithinBounds(name, knobs[name]), "a knob has no legal value (actors/knobs.ts)");
  }
  assert(knobs.sliceDevices <= knobs.sliceDevicesMax, "a slice begins with no more devices than it may have");
  return knobs;
}

// Budgets: how long the thread of the actors may be used for one thing.

/** Microseconds for which waiting sockets are polled again without a pause, at most: the cost of the wake-up that it may save. */
export const pollSpinUsMax = 50;
/** Microseconds with which such polling begins, and below which it stops: less saves nothing. */
export const pollSpinUsMin = 6;
/** Milliseconds of polling and serving after which all sockets go to epoll at the first pass without a byte. Costs one wake-up. */
export const pollTurnMsMax = 2;
/** The same where every pass finds a byte. Then the event loop gets its turn through the clock, which takes up to 1 ms. */
export const pollBusyTurnMsMax = 3;
/** The same while polled sockets wait in epoll: each of them that is heard is polled again, until all are polled. */
export const pollBriefMsMax = 0.1;
/** Milliseconds for which this thread may wait for the rest of a payload from one socket before the event loop has its turn. */
export const restTurnMsMax = 2;
/**
 * Milliseconds for which the next bytes of a payload are waited for on this thread. The socket of a client holds 200 KiB, and
 * a turn of the event loop for each of these takes as long as receiving them.
 */
export const restPauseMs = 0.2;
/** Milliseconds that one round of sends may take, divided by the sockets that have sent lately. */
export const sendRoundMsMax = 2;
/**
 * Milliseconds for which a send that found no room is tried again at once: a large reply goes out whole, from where it lies,
 * while the client reads it. Not used with one processor, where the client cannot read meanwhile.
 */
export const sendSpinMs = 0.05;
/** Milliseconds of work without a rest of the event loop after which the next turn comes by a timer (edge/deno_clock.ts). */
export const clockBusyMsMax = 4;

/** Milliseconds for which the ring is looked at again and again before the thread sleeps: the cost of the wake-up that it may save. */
export const ringSpinMs = 0.025;
/** Milliseconds that the loop of the ring waits at most while Deno's event loop is needed. */
export const ringTurnWaitMs = 0.2;
/** Milliseconds that the I/O thread waits in the end for operations that the host does not end at once. */
export const ringEndMs = 10_000;
/** While it is needed, Deno's event loop waits for a timer once in so many milliseconds, and looks at its own sockets then. */
export const ringTimerTurnMs = 5;

// Thresholds: from when something counts as slow, small, or worth it.

/** Writes since the last flush up to which a flush is small. */
export const shortFlushWritesMax = 16;
/** Bytes written since the last flush up to which a flush is small. */
export const shortFlushBytesMax = 128 * KiB;
/** Milliseconds up to which a flush is short, with the way to another thread if it took that. */
export const shortFlushMs = 1;
/** Small flushes in a row that have to be short before one is waited for: at the start, and after a long one. */
export const shortFlushesWanted = 8;
/** Flushes in a row after one write each, from which on a flush is expected after the next write. */
export const singleWritesWanted = 8;
/** A long flush that was waited for is followed by this many times its length in which none is waited for. */
export const flushPauseFactor = 50;
/** Milliseconds up to which waiting for another thread is only the way there and back. */
export const threadWayMs = 0.1;
/** After a longer wait none begins for this many times its length: this thread waits for a fifth of the time at most. */
export const threadPauseFactor = 4;
/** Of the sections that are wanted while a page window is full, one of as many as a window has, divided by this, replaces another. */
export const windowReplaceDivisor = 16;

// Periods: how long an observation is believed, and how often something is looked at.

/** Milliseconds for which a socket that was heard, or has sent, is expected to do so again. */
export const recentSocketMs = 10;
/** Milliseconds for which clients that disturbed a series of small flushes are expected again. */
export const flushDisturbedMs = 1000;
/** Milliseconds for which the host's count of dirty pages is believed: a disk of 1 GB/s writes 100 MB in that time. */
export const dirtyPagesMs = 100;
/**
 * Milliseconds for which the host's answer that a page is in memory is believed: the page was used then, and hosts drop
 * pages that were not. If it was dropped all the same, sending from it waits for the disk.
 */
export const residentPageMs = 5_000;
/** Milliseconds for which the host's answer that a page is not in memory is believed: reading it brings it in. */
export const absentPageMs = 50;
/** Milliseconds between two looks whether clients of an inherited socket wait and none is accepted. */
export const acceptLookMs = 1000;
/** How often a server that is silent is asked for a sign of life, within the time after which it is given up. */
export const asksPerSilence = 4;
/** Milliseconds until a call on another thread is looked at again where no thread could be made to wait for it. */
export const callLookMs = 1;
