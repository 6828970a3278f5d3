/** A plain file behind synchronous positional calls: what the bare loop and `ours plain` serve. */
import * as fs from "node:fs";
import { Buffer } from "node:buffer";

export class PositionalFile {
  readonly sizeBytes: number;
  readonly #descriptor: number;

  constructor(path: string) {
    this.#descriptor = fs.openSync(path, "r+");
    this.sizeBytes = fs.fstatSync(this.#descriptor).size;
  }

  read(into: Uint8Array, offsetBytes: number): void {
    const bytes = Buffer.from(into.buffer, into.byteOffset, into.length);
    if (fs.readSync(this.#descriptor, bytes, 0, bytes.length, offsetBytes) !== bytes.length) {
      throw new Error("a read past the end");
    }
  }

  write(from: Uint8Array, offsetBytes: number): void {
    const bytes = Buffer.from(from.buffer, from.byteOffset, from.length);
    for (let done = 0; done < bytes.length;) {
      done += fs.writeSync(this.#descriptor, bytes, done, bytes.length - done, offsetBytes + done);
    }
  }

  flush(done: () => void): void {
    fs.fdatasync(this.#descriptor, (error) => {
      if (error) throw error;
      done();
    });
  }
}
