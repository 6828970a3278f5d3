/** Where a file ends by now: another program may have made it shorter than the device was when it was opened. */
import fs from "node:fs";
import { assert } from "../../storage/base/assert.ts";
import type { IoResult } from "../../storage/device/port.ts";
import { fileSizeCheckMs } from "../limits.ts";
import type { FileCalls } from "./file_calls.ts";
import { codeOf } from "./file_errors.ts";
import type { Handles } from "./file_handles.ts";

/** For a range that was never inside the device. */
export const accessPastEnd: IoResult = { kind: "ioError", reason: "access past the end of the device" };
/** For a range that is not inside the file any more. */
export const shrunk: IoResult = {
  kind: "ioError",
  reason:
    "another program has made the file shorter; stop, bring back what was beyond its end, and start again",
};

/**
 * See the head of this file. Once the file was shorter, its end stays there until the file is opened anew: a write beyond it
 * would make the file longer again, with zeroes in between that were never written.
 */
export class FileEnd {
  readonly #fd: number;
  /** Whether the size may change, and can be asked for without waiting. A block device keeps its size while it is open. */
  readonly #isWatched: boolean;
  #endBytes: number;
  /** Runs while the size that is known is fresh. A look at the clock before each operation would cost more than the rest. */
  #fresh: ReturnType<typeof setTimeout> | undefined;
  /** Where a look at the clock costs nothing: until when the size is fresh. */
  readonly #calls: FileCalls | undefined;
  #freshUntilMs = -Infinity;

  constructor({ fd, sizeBytes, isBlockDevice }: Handles, isLocal: boolean, calls?: FileCalls) {
    this.#calls = calls;
    this.#fd = fd;
    this.#endBytes = sizeBytes;
    this.#isWatched = isLocal && !isBlockDevice;
  }

  /** Whether a range lies in the file. The size that counts is `fileSizeCheckMs` old at most. */
  contains(offsetBytes: number, lengthBytes: number): boolean {
    if (this.#isWatched && !this.#isFresh()) this.check();
    return offsetBytes >= 0 && offsetBytes + lengthBytes <= this.#endBytes;
  }

  #isFresh(): boolean {
    return this.#calls === undefined ? this.#fresh !== undefined : this.#calls.passMs < this.#freshUntilMs;
  }

  /** We have made the file larger, and it was not shorter before than it had been when it was opened. */
  grown(sizeBytes: number): void {
    assert(sizeBytes >= this.#endBytes, "a file that has grown is shorter");
    this.#endBytes = sizeBytes;
  }

  /** Looks at the size now. */
  check(): void {
    if (!this.#isWatched) return;
    try {
      this.#endBytes = Math.min(this.#endBytes, fs.fstatSync(this.#fd).size);
    } catch (error) {
      // The host cannot tell, as for a file on another host. Then the operation itself fails where it must.
      if (codeOf(error) === undefined) throw error;
    }
    this.close();
    if (this.#calls !== undefined) {
      this.#freshUntilMs = this.#calls.passMs + fileSizeCheckMs;
      return;
    }
    this.#fresh = setTimeout(() => this.#fresh = undefined, fileSizeCheckMs);
    Deno.unrefTimer(this.#fresh);
  }

  /** The device is closed, or the size has to be looked at again. */
  close(): void {
    if (this.#fresh !== undefined) clearTimeout(this.#fresh);
    this.#fresh = undefined;
  }
}
