/**
 * The process's file descriptors: how many there may be, and some that are kept for the pool's own files. Clients may use all
 * others; the kept ones are enough to rewrite the catalogue's journal.
 */
import { assert } from "../../storage/base/assert.ts";
import { freeDescriptorsMin } from "../limits.ts";
import { codeOf } from "./file_errors.ts";
import { fromLibc, libraryName } from "./libc_symbols.ts";

// Constants of Linux, the same on x86-64 and arm64.
const limitOpenFiles = 7;
const duplicateCloseOnExec = 1030;
const eventCloseOnExec = 0o2000000;
const socketLevel = 1;
const optionCookie = 57;

const library = fromLibc(() =>
  Deno.dlopen(libraryName, {
    getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
    setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
    fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
    eventfd: { parameters: ["u32", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
    poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  }).symbols
);

/** How many descriptors there may be, and about how many there are. */
export interface DescriptorRoom {
  readonly limit: number;
  readonly used: number;
}

/**
 * Raises the limit of open files as far as the process may (Deno has done so at its start), and tells what it is; undefined
 * where that is not known.
 */
export function raisedDescriptorLimit(): DescriptorRoom | undefined {
  if (library === undefined) return undefined;
  const limits = new BigUint64Array(2);
  if (library.getrlimit(limitOpenFiles, limits) !== 0) return undefined;
  if (limits[0]! < limits[1]!) {
    library.setrlimit(limitOpenFiles, BigUint64Array.of(limits[1]!, limits[1]!));
    library.getrlimit(limitOpenFiles, limits);
  }
  // The system gives the lowest number that is free.
  const next = duplicate(0);
  if (next === undefined) return undefined;
  library.close(next);
  return { limit: Number(limits[0]), used: next };
}

/** Another descriptor for the same open file; undefined if no descriptor is free. */
export function duplicate(fd: number): number | undefined {
  const another = library?.fcntl(fd, duplicateCloseOnExec, 3) ?? -1;
  return another < 0 ? undefined : another;
}

/** Closes what `duplicate` gave. */
export function closeDuplicate(fd: number): void {
  library?.close(fd);
}

/** Whether two descriptors are of one socket: Linux gives each socket a cookie of its own. */
export function areSameSocket(fd: number, other: number): boolean {
  return cookieOf(fd) === cookieOf(other);
}

/** Undefined for what is not a socket. */
function cookieOf(fd: number): bigint | undefined {
  const cookie = new BigUint64Array(1);
  const lengthBytes = Uint32Array.of(cookie.byteLength);
  const status = library?.getsockopt(fd, socketLevel, optionCookie, cookie, lengthBytes);
  return status === 0 ? cookie[0] : undefined;
}

/** Whether something can be received from a descriptor, or accepted; false where that is not known. */
export function isReadable(fd: number): boolean {
  if (library === undefined) return false;
  const polled = new Int32Array([fd, 1]);
  return library.poll(polled, 1n, 0) > 0;
}

const spareSets = new Set<SpareDescriptors>();

/** Spare descriptors: kept open so that they can be closed when the pool needs one. */
export class SpareDescriptors implements Disposable {
  readonly #path: string;
  readonly #count: number;
  readonly #held: Deno.FsFile[] = [];

  /** @param path a file or directory that may be opened */
  constructor(path: string, count: number) {
    this.#path = path;
    this.#count = count;
    spareSets.add(this);
    this.fill();
  }

  /**
   * Takes what is missing; false if there is no descriptor to be had. Where the path cannot be opened for another reason (the
   * directory was moved), waiting for descriptors would not help, and the pool goes on with what is kept.
   */
  fill(): boolean {
    assert(spareSets.has(this), "descriptors are kept that nothing gives back");
    try {
      while (this.#held.length < this.#count) this.#held.push(Deno.openSync(this.#path));
      return true;
    } catch (error) {
      return !isOutOfDescriptors(error);
    }
  }

  /** Closes two, because opening a file and flushing its directory takes two; false if none is kept. */
  release(): boolean {
    const released = this.#held.splice(0, 2);
    for (const file of released) file.close();
    assert(this.#held.length < this.#count, "more descriptors are kept than were asked for");
    return released.length > 0;
  }

  [Symbol.dispose](): void {
    spareSets.delete(this);
    while (this.release());
  }
}

/**
 * Whether as many descriptors are free as Deno may need for itself. It opens files where no error can be told: when it looks
 * up where an error comes from, the C library opens /proc/self/maps, and without a descriptor Deno 2.9.6 panics (in `stacker`),
 * which ends the process. So clients get none of the last ones. True where that is not known, without FFI.
 */
export function hasFreeDescriptors(): boolean {
  if (library === undefined) return true;
  const taken: number[] = [];
  while (taken.length < freeDescriptorsMin) {
    const fd = library.eventfd(0, eventCloseOnExec);
    if (fd < 0) break;
    taken.push(fd);
  }
  for (const fd of taken) library.close(fd);
  return taken.length === freeDescriptorsMin;
}

/** Whether all spare descriptors are there again: before that, nothing more is to be accepted. */
export function areSparesComplete(): boolean {
  let isFull = true;
  for (const spares of spareSets) isFull = spares.fill() && isFull;
  return isFull;
}

/** Opens one of the pool's own files, with a spare descriptor if there is no other. Throws what `open` does. */
export function openWithSpare<T>(open: () => T): T {
  for (;;) {
    try {
      return open();
    } catch (error) {
      if (!isOutOfDescriptors(error) || ![...spareSets].some((spares) => spares.release())) throw error;
    }
  }
}

/** Whether the process (EMFILE) or the host (ENFILE) has no descriptor left. */
function isOutOfDescriptors(error: unknown): boolean {
  const code = codeOf(error);
  // Deno's own calls come with the number.
  return code === "EMFILE" || code === "ENFILE" || code === "errno 24" || code === "errno 23";
}
