/** Calls on files through the ring (uring.ts). The host may take a thread of its own for each. */
import { punchesHole } from "../libc.ts";
import type { CallDone, FileCalls, LaterCalls } from "../file_calls.ts";
import { addressOf } from "../memory_address.ts";
import { operation, syncData } from "./uring.ts";
import type { RingLoop } from "./ring_loop.ts";

/** See the head of this file. */
export class RingFiles implements FileCalls {
  readonly #loop: RingLoop;

  constructor(loop: RingLoop) {
    this.#loop = loop;
  }

  get passMs(): number {
    return this.#loop.passMs;
  }

  of(fd: number): LaterCalls {
    const { ring } = this.#loop;
    return {
      write: (buffer, offsetBytes, _waitMs, done) => {
        const { length: lengthBytes } = buffer;
        const address = addressOf(buffer);
        ring.push(
          { operation: operation.write, fd, address, lengthBytes, offset: offsetBytes },
          done,
          buffer,
        );
        return "pending";
      },
      flush: (_waitMs, done) => {
        ring.push({ operation: operation.fsync, fd, flags: syncData }, done);
        return "pending";
      },
    };
  }

  read(fd: number, buffer: Uint8Array, offsetBytes: number, done: CallDone): void {
    const { length: lengthBytes } = buffer;
    const address = addressOf(buffer);
    this.#loop.ring.push(
      { operation: operation.read, fd, address, lengthBytes, offset: offsetBytes },
      done,
      buffer,
    );
  }

  punch(fd: number, offsetBytes: number, lengthBytes: number, done: CallDone): void {
    // In an entry for fallocate the length is where other operations have the address, and the mode where they have the length.
    const { ring } = this.#loop;
    ring.push(
      {
        operation: operation.fallocate,
        fd,
        address: lengthBytes,
        lengthBytes: punchesHole,
        offset: offsetBytes,
      },
      done,
    );
  }

  beginTurns(): void {
    this.#loop.beginTurns();
  }

  endTurns(): void {
    this.#loop.endTurns();
  }
}
