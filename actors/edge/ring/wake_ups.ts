/**
 * How the other thread wakes this one, which waits in the ring: it posts a message, then adds 1 to an event descriptor
 * (eventfd(2)). Each message that was announced and not heard yet keeps Deno's event loop in turns, which delivers it.
 */
import { assert } from "../../../storage/base/assert.ts";
import { fromLibc, libraryName } from "../libc_symbols.ts";
import type { RingLoop } from "./ring_loop.ts";
import { addressOf } from "../memory_address.ts";
import { operation } from "./uring.ts";

const closeOnExec = 0o2000000;

const library = fromLibc(() =>
  Deno.dlopen(libraryName, {
    eventfd: { parameters: ["u32", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    write: { parameters: ["i32", "buffer", "usize"], result: "i64" },
  }).symbols
);

/** See the head of this file. */
export class WakeUps {
  /** What the other thread adds to, with {@linkcode wake}. */
  readonly fd: number;
  readonly #loop: RingLoop;
  readonly #added = new BigUint64Array(1);
  /** Messages that were announced, less those that were heard: below zero if they came first. */
  #expected = 0;
  #hasTurns = false;

  constructor(loop: RingLoop) {
    const fd = library?.eventfd(0, closeOnExec) ?? -1;
    if (fd < 0) throw new Error("there is no event descriptor to be had");
    this.fd = fd;
    this.#loop = loop;
    this.#wait();
  }

  /** A message has come. */
  heard(): void {
    this.#expected -= 1;
    this.#look();
  }

  #wait(): void {
    const bytes = new Uint8Array(this.#added.buffer);
    const reading = { operation: operation.read, fd: this.fd, address: addressOf(bytes), lengthBytes: 8 };
    this.#loop.ring.push(reading, (count) => {
      assert(count === 8, "an event descriptor has one number");
      this.#expected += Number(this.#added[0]);
      this.#look();
      this.#wait();
    }, bytes);
  }

  #look(): void {
    const wantsTurns = this.#expected > 0;
    if (wantsTurns === this.#hasTurns) return;
    this.#hasTurns = wantsTurns;
    if (wantsTurns) this.#loop.beginTurns();
    else this.#loop.endTurns();
  }
}

/** Wakes the thread that waits for this descriptor, after one message to it. */
export function wake(fd: number): void {
  library?.write(fd, BigUint64Array.of(1n) as unknown as BufferSource, 8n);
}

/** Closes the descriptor, when the thread is gone. */
export function closeEvents(fd: number): void {
  library?.close(fd);
}
