/** A plain file behind synchronous positional calls: what the bare loop serves. */
import * as fs from "node:fs";

export class PositionalFile {
  readonly sizeBytes: number;
  readonly #descriptor: number;

  constructor(path: string) {
    this.#descriptor = fs.openSync(path, "r+");
    this.sizeBytes = fs.fstatSync(this.#descriptor).size;
  }

  read(into: Uint8Array, offsetBytes: number): void {
    if (fs.readSync(this.#descriptor, into, 0, into.length, offsetBytes) !== into.length) {
      throw new Error("a read past the end");
    }
  }

  write(from: Uint8Array, offsetBytes: number): void {
    for (let done = 0; done < from.length;) {
      done += fs.writeSync(this.#descriptor, from, done, from.length - done, offsetBytes + done);
    }
  }

  flush(done: () => void): void {
    fs.fdatasync(this.#descriptor, (error) => {
      if (error) throw error;
      done();
    });
  }
}
