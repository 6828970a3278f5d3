/** The file of the intent journal: `intent.journal` in the pool's directory. It is written, never flushed. */
import fs from "node:fs";
import { ioOk, type IoResult } from "../../storage/device/port.ts";
import type { IntentPort } from "../../storage/device/intent_port.ts";
import { intentHeaderBytes, unpackFileHeader } from "../../storage/intent_headers.ts";
import { openWithSpare } from "./descriptors.ts";
import { codeOf, failureOf } from "./file_errors.ts";
import type { Libc } from "./libc.ts";

/** See the head of this file. */
export class IntentFile implements IntentPort {
  readonly #path: string;
  readonly #fd: number;
  #isClosed = false;

  private constructor(path: string, fd: number) {
    this.#path = path;
    this.#fd = fd;
  }

  /**
   * Opens the file, and makes it if there is none, for its owner only. The host stores all of it, so that no later write meets
   * a full host. Answers why that is not possible.
   */
  static open(path: string, sizeBytes: number, libc: Libc): IntentFile | string {
    let file: IntentFile;
    try {
      const flags = fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_NOFOLLOW;
      file = new IntentFile(path, openWithSpare(() => fs.openSync(path, flags, 0o600)));
    } catch (error) {
      return `"${path}" cannot be opened: ${reasonOf(error)}`;
    }
    if (fs.fstatSync(file.#fd).size === 0) libc.overwriteInPlace(file.#fd);
    const failure = libc.allocate(file.#fd, 0, sizeBytes);
    if (failure === 0) return file;
    file.close();
    return `the host has no room for the ${sizeBytes} bytes of "${path}" (os error ${failure})`;
  }

  /** Device and inode number. */
  get identity(): string {
    const { dev, ino } = fs.fstatSync(this.#fd);
    return `${dev} ${ino}`;
  }

  write(bytes: Uint8Array, offsetBytes: number): IoResult {
    for (let doneBytes = 0; doneBytes < bytes.length;) {
      try {
        doneBytes += fs.writeSync(
          this.#fd,
          bytes,
          doneBytes,
          bytes.length - doneBytes,
          offsetBytes + doneBytes,
        );
      } catch (error) {
        if (codeOf(error) !== "EINTR") return failureOf(error, "write");
      }
    }
    return ioOk;
  }

  remove(): IoResult {
    return removeIntentFile(this.#path);
  }

  newGeneration(): bigint {
    const [generation] = crypto.getRandomValues(new BigUint64Array(1));
    return generation || 1n;
  }

  /** May be repeated. */
  close(): void {
    if (!this.#isClosed) fs.closeSync(this.#fd);
    this.#isClosed = true;
  }
}

/** Removes the file, if there is one. */
export function removeIntentFile(path: string): IoResult {
  try {
    fs.rmSync(path, { force: true });
    return ioOk;
  } catch (error) {
    return failureOf(error, "remove");
  }
}

/** What an earlier process has left, and its identity. */
export interface LeftIntents {
  /** The whole file, or its header if nothing else is of use; empty if there is none. */
  readonly bytes: Uint8Array;
  readonly identity: string;
}

/** Reads what an earlier process has left; of another boot only the header. Answers why it cannot be read. */
export function readIntentFile(path: string, bootId: string | undefined): LeftIntents | string {
  try {
    const fd = openWithSpare(() => fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW));
    try {
      const { dev, ino, size } = fs.fstatSync(fd);
      const header = readBytes(fd, Math.min(size, intentHeaderBytes));
      const found = unpackFileHeader(header);
      const isOfUse = typeof found === "object" && found.binding.bootId === bootId;
      return { bytes: isOfUse ? readBytes(fd, size) : header, identity: `${dev} ${ino}` };
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    if (codeOf(error) === "ENOENT") return { bytes: new Uint8Array(0), identity: "" };
    return reasonOf(error);
  }
}

function readBytes(fd: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  let doneBytes = 0;
  while (doneBytes < lengthBytes) {
    const count = fs.readSync(fd, bytes, doneBytes, lengthBytes - doneBytes, doneBytes);
    if (count === 0) break;
    doneBytes += count;
  }
  return bytes.subarray(0, doneBytes);
}

function reasonOf(error: unknown): string {
  return codeOf(error) ?? String(error);
}
