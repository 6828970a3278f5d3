/**
 * Writes and flushes of a file on another thread, for which this one may wait a bounded time.
 *
 * A call that Deno makes on another thread is answered in the next turn of the event loop, which is long after it has ended.
 * The C library's asynchronous I/O (aio(7), one thread for each file) can be waited for with a timeout. Most calls end
 * before it: they cost 15 us for the way to the thread and back (measured), and no turn. The answer of a longer call
 * comes in a later turn, and this thread does other work meanwhile.
 *
 * Calls of one descriptor are carried out in the order in which they were made.
 */
import { assert, present } from "../../storage/base/assert.ts";
import type { CallDone, LaterCalls } from "./file_calls.ts";
import { errno } from "./libc.ts";
import { callOutside } from "./outside.ts";
import { errnoAt, fromLibc, libraryName } from "./libc_symbols.ts";
import { callLookMs } from "../knobs.ts";
import { addressOf } from "./memory_address.ts";
import { queues } from "../queues.ts";

interface AioCalls {
  aio_write(control: Uint8Array): number;
  aio_fsync(how: number, control: Uint8Array): number;
  aio_error(control: Uint8Array): number;
  aio_return(control: Uint8Array): bigint;
  aio_suspend(list: BigUint64Array, count: number, time: BigInt64Array | null): number;
  suspendLater(list: BigUint64Array, count: number, time: null): Promise<number>;
}

// struct aiocb of glibc on 64-bit machines: where things are in it.
const controlBytes = 168;
const bufferAt = 16;
const lengthAt = 24;
const notifyAt = 44;
const offsetAt = 128;
const notifyNone = 1;
const dataSync = 0o10000;

const library = fromLibc(() => {
  const { symbols } = Deno.dlopen(libraryName, {
    __errno_location: { parameters: [], result: "pointer" },
    aio_write: { parameters: ["buffer"], result: "i32" },
    aio_fsync: { parameters: ["i32", "buffer"], result: "i32" },
    aio_error: { parameters: ["buffer"], result: "i32" },
    aio_return: { parameters: ["buffer"], result: "i64" },
    aio_suspend: { parameters: ["buffer", "i32", "buffer"], result: "i32" },
    suspendLater: {
      name: "aio_suspend",
      parameters: ["buffer", "i32", "buffer"],
      result: "i32",
      nonblocking: true,
    },
  });
  return { calls: symbols as unknown as AioCalls, errno: errnoAt(symbols.__errno_location()) };
});
const calls = library?.calls;

interface BoundedCall {
  /** One struct aiocb, and its address for aio_suspend. */
  readonly control: DataView<ArrayBuffer>;
  readonly list: BigUint64Array<ArrayBuffer>;
  /** Kept for as long as the other thread reads it. */
  buffer: Uint8Array | undefined;
  done: CallDone;
}

/** See the head of this file. One descriptor, which stays open until all calls have ended. */
export class BoundedCalls implements LaterCalls {
  readonly #fd: number;
  /** Calls that have not ended, in order. Only the first has begun: the library does not promise to keep the order. */
  readonly #queue: BoundedCall[] = [];
  readonly #spare: BoundedCall[] = [];
  /** Calls that were made: each is in the queue, or spare. */
  #made = 0;
  /** A thread of Deno waits for the oldest call. */
  #isListening = false;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Undefined where the C library cannot be called. */
  static of(fd: number): BoundedCalls | undefined {
    return calls === undefined ? undefined : new BoundedCalls(fd);
  }

  /** Whether no call is under way. */
  get isIdle(): boolean {
    return this.#queue.length === 0;
  }

  /** Writes at an offset. Answers the bytes written, or the errno negated; "pending" if it takes longer than `waitMs`. */
  write(buffer: Uint8Array, offsetBytes: number, waitMs: number, done: CallDone): number | "pending" {
    const call = this.#take(done);
    // The bytes of a short array may lie in the heap, where the garbage collector can move them. Reading `.buffer` moves them
    // to memory of their own, which stays where it is.
    assert(buffer.buffer.byteLength >= buffer.length, "a view lies in its buffer");
    call.buffer = buffer;
    call.control.setBigUint64(bufferAt, BigInt(addressOf(buffer)), true);
    call.control.setBigUint64(lengthAt, BigInt(buffer.length), true);
    call.control.setBigInt64(offsetAt, BigInt(offsetBytes), true);
    return this.#add(call, waitMs);
  }

  /** As fdatasync. Answers 0 or the errno negated; "pending" if it takes longer than `waitMs`. */
  flush(waitMs: number, done: CallDone): number | "pending" {
    return this.#add(this.#take(done), waitMs);
  }

  #take(done: CallDone): BoundedCall {
    const call = this.#spare.pop() ?? this.#newCall();
    assert(call.buffer === undefined, "a call is used again that has not ended");
    call.done = done;
    call.control.setInt32(0, this.#fd, true);
    call.control.setInt32(notifyAt, notifyNone, true);
    return call;
  }

  #newCall(): BoundedCall {
    this.#made += 1;
    return newCall();
  }

  #add(call: BoundedCall, waitMs: number): number | "pending" {
    assert(this.#queue.length < queues.deviceOperations, "more calls for a file wait than operations");
    this.#queue.push(call);
    this.#requireCounted();
    if (this.#queue.length > 1) return "pending";
    const status = this.#begin(call, waitMs);
    if (status === undefined) {
      this.#listen(call);
      return "pending";
    }
    this.#queue.pop();
    this.#giveBack(call);
    return status;
  }

  /** Waits for the call. Answers its result, undefined if it has not ended within the time. */
  #begin(call: BoundedCall, waitMs: number): number | undefined {
    const control = bytesOf(call);
    const begun = call.buffer === undefined ? calls!.aio_fsync(dataSync, control) : calls!.aio_write(control);
    if (begun !== 0) return -(library!.errno[0] ?? 0);
    if (waitMs > 0) calls!.aio_suspend(call.list, 1, timeOf(waitMs));
    return statusOf(call);
  }

  /** Lets a thread of Deno wait for the oldest call, which is the only one that has begun. */
  #listen(call: BoundedCall): void {
    assert(!this.#isListening, "two threads wait for one call");
    this.#isListening = true;
    callOutside(
      () => calls!.suspendLater(call.list, 1, null),
      () => this.#endFirst(),
      () => setTimeout(() => this.#endFirst(), callLookMs),
    );
  }

  #endFirst(): void {
    assert(this.#isListening, "a call ended that no thread waited for");
    this.#isListening = false;
    // Remove the calls that have ended before their callbacks run, because a callback may make new calls.
    const ended: { done: CallDone; status: number }[] = [];
    let status = statusOf(present(this.#queue[0], "a call has begun"));
    while (status !== undefined) {
      const call = present(this.#queue.shift(), "it is the oldest");
      ended.push({ done: call.done, status });
      this.#giveBack(call);
      const next = this.#queue[0];
      if (next === undefined) break;
      status = this.#begin(next, 0);
    }
    const oldest = this.#queue[0];
    if (oldest !== undefined) this.#listen(oldest);
    for (const { done, status } of ended) done(status);
  }

  #giveBack(call: BoundedCall): void {
    call.buffer = undefined;
    this.#spare.push(call);
    this.#requireCounted();
  }

  #requireCounted(): void {
    assert(this.#queue.length + this.#spare.length === this.#made, "a call is lost, or is there twice");
  }
}

/** One struct timespec: seconds and nanoseconds, of which the C library asserts that they are less than a second. */
function timeOf(ms: number): BigInt64Array {
  return BigInt64Array.of(BigInt(Math.floor(ms / 1000)), BigInt(Math.floor((ms % 1000) * 1e6)));
}

function newCall(): BoundedCall {
  const control = new Uint8Array(controlBytes);
  return {
    control: new DataView(control.buffer),
    list: BigUint64Array.of(BigInt(addressOf(control))),
    buffer: undefined,
    done: () => {},
  };
}

/** The result of a call; undefined if it has not ended. */
function statusOf(call: BoundedCall): number | undefined {
  const bytes = bytesOf(call);
  const failure = calls!.aio_error(bytes);
  if (failure === errno.inProgress) return undefined;
  const returned = Number(calls!.aio_return(bytes));
  return failure === 0 ? returned : -failure;
}

function bytesOf(call: BoundedCall): Uint8Array {
  return new Uint8Array(call.control.buffer);
}
