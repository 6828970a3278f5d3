/**
 * The knobs of the edge and the kernel: numbers that change how fast the server is, and how it shares its thread, and nothing that a client
 * may rely on. Any value keeps the service correct. They were measured on Linux 6.18 (tests/bench/README.md). The bounds are
 * in limits.ts.
 */
const KiB = 1024;

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
/** Of the slices that are wanted while a page window is full, one of as many as a window has, divided by this, replaces another. */
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

// The kernel: how long it delivers before the event loop has its turn.

/** Turns of actors and tasks in one drain, at most. */
export const drainTurnsMax = 4096;
/**
 * Milliseconds of one drain, after which the event loop has its turn. A turn that copies data takes a thousand times as long
 * as one that does not, so turns alone do not bound it.
 */
export const drainMsMax = 2;
/** Turns between two looks at the clock: a look costs as much as a turn. */
export const drainTurnsPerLook = 16;
/** Milliseconds for which background tasks may run; then all pause for `backgroundPauseMs`, so that Deno polls its sockets. */
export const backgroundMsMax = 3;
/** Milliseconds of that pause. */
export const backgroundPauseMs = 1;
