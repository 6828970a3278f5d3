/** Calls on files that answer later, made by something else than this thread: io_uring, where it is used (ring/). */
import type { EventLoopUse } from "./turns.ts";

/** Is called when a call has ended, with what it returned, or its errno negated. */
export type CallDone = (status: number) => void;

/** Calls on one descriptor, which stays open until all have ended. */
export interface LaterCalls {
  /**
   * Writes at an offset. Answers the bytes written, or the errno negated, if that is known within `waitMs` (which a caller
   * need not use); else "pending", and calls `done` later. The buffer stays unchanged until then.
   */
  write(buffer: Uint8Array, offsetBytes: number, waitMs: number, done: CallDone): number | "pending";
  /** As fdatasync, in the same way. */
  flush(waitMs: number, done: CallDone): number | "pending";
}

/** What makes such calls. */
export interface FileCalls extends EventLoopUse {
  of(fd: number): LaterCalls;
  /** Reads at an offset; `done` is called later, with the bytes read or the errno negated. */
  read(fd: number, buffer: Uint8Array, offsetBytes: number, done: CallDone): void;
  /** Punches a hole into a file, keeping its size; `done` is called later, with 0 or the errno negated. */
  punch(fd: number, offsetBytes: number, lengthBytes: number, done: CallDone): void;
  /** Milliseconds, as old as the present pass of the loop at most. Costs next to nothing. */
  readonly passMs: number;
}
