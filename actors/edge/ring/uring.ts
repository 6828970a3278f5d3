/**
 * io_uring of one thread: system calls that are handed to the kernel of the host in a queue, and answered in another one
 * (io_uring(7)). Both queues are memory that is shared with the host. One call, io_uring_enter(2), hands over what was pushed
 * and waits for completions.
 *
 * What an operation names (a descriptor, memory) has to stay until it is over: {@linkcode Uring.push} keeps the memory, and
 * the caller keeps the descriptor at least until the next {@linkcode Uring.enter}, after which the host holds the file itself.
 */
import { assert, present } from "../../../storage/base/assert.ts";
import { ringEntries } from "../../limits.ts";
import { queues } from "../../queues.ts";
import { errno } from "../libc.ts";
import { addressOf } from "../memory_address.ts";
import { errnoAt, fromLibc, libraryName } from "../libc_symbols.ts";

// From asm-generic/unistd.h, linux/io_uring.h and asm-generic/mman-common.h: the same on x86-64 and arm64.
const callSetup = 425n;
const callEnter = 426n;
const callRegister = 427n;
const setupSubmitAll = 1 << 7;
const setupCooperative = 1 << 8;
const setupSingleIssuer = 1 << 12;
const setupDeferred = 1 << 13;
const enterGetEvents = 1;
const enterExtendedArgument = 8;
const featureSingleMapping = 1;
const featureNoDrop = 2;
const featureExtendedArgument = 1 << 8;
const registerFiles = 2;
const unregisterFiles = 3;
const registerProbe = 8;
const waitArgumentLength = 24n;
const queuesAt = 0n;
const entriesAt = 0x1000_0000n;
const protectReadWrite = 3;
const mapSharedPopulated = 0x8001;

/** Operations, by their numbers in enum io_uring_op (linux/io_uring.h). */
export const operation = {
  fsync: 3,
  pollAdd: 6,
  timeout: 11,
  accept: 13,
  cancel: 14,
  fallocate: 17,
  read: 22,
  write: 23,
  recv: 27,
} as const;

const cancelAll = 1;
const cancelAny = 4;

/** IORING_FSYNC_DATASYNC: as fdatasync. */
export const syncData = 1;
/** One submission: its meaning by field is that of struct io_uring_sqe for the operation. */
export interface Submission {
  readonly operation: number;
  readonly fd: number;
  readonly address?: number;
  readonly lengthBytes?: number;
  readonly offset?: number;
  /** The flags of the operation itself, as for recv(2). */
  readonly flags?: number;
  /** IOSQE_... */
  readonly entryFlags?: number;
}

/** Is called with what the system call returned, or with its errno negated. */
export type Completed = (result: number) => void;

type Calls = ReturnType<typeof load>;

function load() {
  const { symbols } = Deno.dlopen(libraryName, {
    __errno_location: { parameters: [], result: "pointer" },
    setup: { name: "syscall", parameters: ["i64", "u32", "buffer"], result: "i32" },
    enter: { name: "syscall", parameters: ["i64", "i32", "u32", "u32", "u32", "u64", "u64"], result: "i32" },
    register: { name: "syscall", parameters: ["i64", "i32", "u32", "buffer", "u32"], result: "i32" },
    mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
    close: { parameters: ["i32"], result: "i32" },
  });
  return { symbols, errno: errnoAt(symbols.__errno_location()) };
}

const library = fromLibc(load);

/** The submission and the completion queue, as the host has laid them out (struct io_uring_params). */
class RingMemory {
  readonly submissions: number;
  readonly entries: Uint32Array;
  readonly submissionHead: Uint32Array;
  readonly submissionTail: Uint32Array;
  readonly submissionMask: number;
  readonly completionHead: Uint32Array;
  readonly completionTail: Uint32Array;
  readonly completionMask: number;
  readonly completions: Int32Array;

  constructor(calls: Calls, fd: number, parameters: DataView) {
    const at = (offset: number, index: number) => parameters.getUint32(offset + 4 * index, true);
    // sq_off: head, tail, ring_mask, ring_entries, flags, dropped, array. cq_off: head, tail, ring_mask, ring_entries, overflow, cqes.
    const submission = (index: number) => at(40, index);
    const completion = (index: number) => at(80, index);
    this.submissions = at(0, 0);
    const completions = at(4, 0);
    const bytes = Math.max(submission(6) + 4 * this.submissions, completion(5) + 16 * completions);
    const memory = mapped(calls, fd, bytes, queuesAt);
    this.entries = new Uint32Array(mapped(calls, fd, 64 * this.submissions, entriesAt));
    this.submissionHead = new Uint32Array(memory, submission(0), 1);
    this.submissionTail = new Uint32Array(memory, submission(1), 1);
    this.submissionMask = new Uint32Array(memory, submission(2), 1)[0]!;
    this.completionHead = new Uint32Array(memory, completion(0), 1);
    this.completionTail = new Uint32Array(memory, completion(1), 1);
    this.completionMask = new Uint32Array(memory, completion(2), 1)[0]!;
    this.completions = new Int32Array(memory, completion(5), 4 * completions);
    const order = new Uint32Array(memory, submission(6), this.submissions);
    for (let index = 0; index < order.length; index += 1) order[index] = index;
  }
}

function mapped({ symbols }: Calls, fd: number, bytes: number, at: bigint): ArrayBuffer {
  const memory = symbols.mmap(0n, BigInt(bytes), protectReadWrite, mapSharedPopulated, fd, at);
  return Deno.UnsafePointerView.getArrayBuffer(present(memory, "a queue of the ring has no memory"), bytes);
}

/** See the head of this file. */
export class Uring {
  readonly #calls: Calls;
  readonly #fd: number;
  readonly #queues: RingMemory;
  #tail = 0;
  #head = 0;
  /** By slot: what is told of the operation, and what has to stay until then. */
  readonly #completed: (Completed | undefined)[] = [];
  readonly #kept: unknown[] = [];
  readonly #freeSlots: number[] = [];
  #underWay = 0;
  /** struct __kernel_timespec, and struct io_uring_getevents_arg with its address. */
  readonly #time = new BigInt64Array(2);
  readonly #waitArgument = new BigUint64Array(3);
  readonly #waitAddress: bigint;

  private constructor(calls: Calls, fd: number, parameters: DataView) {
    this.#calls = calls;
    this.#fd = fd;
    this.#queues = new RingMemory(calls, fd, parameters);
    this.#waitArgument[2] = BigInt(addressOf(new Uint8Array(this.#time.buffer)));
    this.#waitAddress = BigInt(addressOf(new Uint8Array(this.#waitArgument.buffer)));
  }

  /** The ring of this thread, or one clause on why this host gives none. */
  static open(): Uring | string {
    if (library === undefined) {
      return "the C library cannot be called (it takes Linux, glibc and --allow-ffi)";
    }
    const parameters = new Uint8Array(120);
    const view = new DataView(parameters.buffer);
    view.setUint32(8, setupSubmitAll | setupCooperative | setupSingleIssuer | setupDeferred, true);
    const fd = library.symbols.setup(callSetup, ringEntries, parameters);
    if (fd < 0) return `the host refuses io_uring (os error ${library.errno[0]})`;
    const wanted = featureSingleMapping | featureNoDrop | featureExtendedArgument;
    const lacks = (view.getUint32(20, true) & wanted) !== wanted || !offersAll(library, fd);
    if (!lacks) return new Uring(library, fd, view);
    library.symbols.close(fd);
    return "io_uring of this host lacks operations (it takes Linux 6.1)";
  }

  /**
   * Queues an operation; answers its number, for {@linkcode cancel}. `completed` is called once, in {@linkcode reap}.
   * @param kept memory that the operation uses: it is referenced until then
   */
  push(submission: Submission, completed: Completed, kept?: unknown): number {
    const slot = this.#freeSlots.pop() ?? this.#completed.length;
    this.#completed[slot] = completed;
    this.#kept[slot] = kept;
    this.#underWay += 1;
    assert(this.#underWay <= queues.ringOperations, "more operations are under way than there can be");
    this.#add(submission, slot);
    return slot;
  }

  /** Has the host end an operation that is under way: it then completes with -ECANCELED, or as it would have. */
  cancel(slot: number): void {
    assert(this.#completed[slot] !== undefined, "an operation is cancelled that is not under way");
    this.push({ operation: operation.cancel, fd: -1, address: slot }, () => {});
  }

  /**
   * Hands over what was pushed. Waits up to `waitMs` for a completion, where that is given and not 0; for ever if Infinity.
   * Also without a wait the host gets its turn to complete operations.
   */
  enter(waitMs = 0): void {
    const { symbols, errno: failure } = this.#calls;
    const queues = this.#queues;
    Atomics.store(queues.submissionTail, 0, this.#tail);
    const submitted = (this.#tail - queues.submissionHead[0]!) >>> 0;
    const isTimed = waitMs > 0 && waitMs < Infinity;
    if (isTimed) this.#setTime(waitMs);
    const count = symbols.enter(
      callEnter,
      this.#fd,
      submitted,
      waitMs > 0 ? 1 : 0,
      isTimed ? enterGetEvents | enterExtendedArgument : enterGetEvents,
      isTimed ? this.#waitAddress : 0n,
      isTimed ? waitArgumentLength : 0n,
    );
    if (count >= 0 || passing.has(failure[0]!)) return;
    throw new Error(`io_uring_enter failed (os error ${failure[0]})`);
  }

  /** Whether there are completions to reap. */
  get hasCompletions(): boolean {
    return this.#head !== Atomics.load(this.#queues.completionTail, 0);
  }

  /** Tells of the completions that are there, up to those that came before this call. */
  reap(): void {
    const { completions, completionMask, completionTail, completionHead } = this.#queues;
    const tail = Atomics.load(completionTail, 0);
    while (this.#head !== tail) {
      const at = 4 * (this.#head & completionMask);
      const slot = completions[at]!;
      const result = completions[at + 2]!;
      this.#head = (this.#head + 1) >>> 0;
      Atomics.store(completionHead, 0, this.#head);
      const completed = present(this.#completed[slot], "an operation completed twice");
      this.#completed[slot] = undefined;
      this.#kept[slot] = undefined;
      this.#freeSlots.push(slot);
      this.#underWay -= 1;
      completed(result);
    }
  }

  /**
   * Has the ring hold the open files of these descriptors until what this answers is disposed of, or for as long as the ring
   * lives, which after a kill is until the last operation under way is over. One such set at a time.
   */
  holdFiles(fds: readonly number[]): Disposable {
    if (fds.length > 0) this.#register(registerFiles, Int32Array.from(fds));
    return {
      [Symbol.dispose]: () => {
        if (fds.length > 0) this.#register(unregisterFiles);
      },
    };
  }

  #register(what: number, fds?: Int32Array<ArrayBuffer>): void {
    const { symbols, errno } = this.#calls;
    const status = symbols.register(callRegister, this.#fd, what, fds ?? null, fds?.length ?? 0);
    if (status < 0) throw new Error(`io_uring_register failed (os error ${errno[0]})`);
  }

  /**
   * Has the host end what is under way, tells of none of it any more, and closes the ring when all is over. False, with the
   * ring open, if that takes longer than `waitMs`: a disk may hang, and then uses the memory that it was given.
   */
  finish(waitMs: number): boolean {
    const endMs = performance.now() + waitMs;
    this.#completed.forEach((completed, slot) => {
      if (completed !== undefined) this.#completed[slot] = () => {};
    });
    this.push({ operation: operation.cancel, fd: -1, flags: cancelAll | cancelAny }, () => {});
    while (this.#underWay > 0) {
      const leftMs = endMs - performance.now();
      if (leftMs <= 0) return false;
      this.enter(leftMs);
      this.reap();
    }
    this.close();
    return true;
  }

  /** Nothing may be under way. The mapped queues are kept until the process ends: views of them may be referenced. */
  close(): void {
    assert(this.#underWay === 0, "a ring is closed with operations under way");
    this.#calls.symbols.close(this.#fd);
  }

  #setTime(ms: number): void {
    const seconds = Math.floor(ms / 1000);
    this.#time[0] = BigInt(seconds);
    this.#time[1] = BigInt(Math.floor((ms - 1000 * seconds) * 1e6));
  }

  #add(submission: Submission, slot: number): void {
    const { operation, fd, address = 0, lengthBytes = 0, offset = 0, flags = 0, entryFlags = 0 } = submission;
    const { entries, submissionMask, submissionHead, submissions } = this.#queues;
    while (((this.#tail - Atomics.load(submissionHead, 0)) >>> 0) >= submissions) this.enter();
    const at = 16 * (this.#tail & submissionMask);
    entries[at] = operation | (entryFlags << 8);
    entries[at + 1] = fd;
    entries[at + 2] = offset;
    entries[at + 3] = Math.floor(offset / 0x1_0000_0000);
    entries[at + 4] = address;
    entries[at + 5] = Math.floor(address / 0x1_0000_0000);
    entries[at + 6] = lengthBytes;
    entries[at + 7] = flags;
    entries[at + 8] = slot;
    for (let word = 9; word < 14; word += 1) entries[at + word] = 0;
    this.#tail = (this.#tail + 1) >>> 0;
  }
}

/**
 * Of io_uring_enter: a signal came; the time is over; memory is short, or completions wait to be reaped (both: reap, then enter
 * again). What was not submitted stays in the queue.
 */
const passing: ReadonlySet<number> = new Set([errno.interrupted, 62, 11, errno.busy]);

/** Whether the host offers every operation that is used. */
function offersAll({ symbols }: Calls, fd: number): boolean {
  const operationsMax = 64;
  const probe = new Uint8Array(16 + 8 * operationsMax);
  if (symbols.register(callRegister, fd, registerProbe, probe, operationsMax) < 0) return false;
  return Object.values(operation).every((number) => (probe[16 + 8 * number + 2]! & 1) !== 0);
}
