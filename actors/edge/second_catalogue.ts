/**
 * The second file of the catalogue, `catalog.spare`. It is a copy of the journal, byte for byte, so that a lost or damaged
 * `catalog.json` does not lose the pool, and it is the file into which a long journal is written anew.
 *
 * A line is in both files, durably, before the metadata is committed with its id, and it is taken back from both before
 * another line takes its id. So whenever we stop, each file on its own belongs to the superblock: the lines of T hold, and one
 * of T + 1 is dropped. A copy that misses a line of T is not taken for one, because its last line is older than T.
 *
 * Before the file gets another content, all of it is zeroes, durably. If we stop while the content is being written, sectors
 * of zeroes are in its line, which JSON text has not. So a half of a copy is never taken for a whole one, not even if the other
 * half is what the file held before.
 *
 * A copy that cannot be written is dropped, and the log says so: the journal alone is enough. Writing the journal anew, and the
 * next start, make a copy again.
 */
import fs from "node:fs";
import { dirname } from "node:path";
import { assert, present } from "../../storage/base/assert.ts";
import { isZeroes } from "../../storage/base/zeroes.ts";
import { ioOk, type IoResult, reasonOfIo } from "../../storage/device/port.ts";
import { cataloguePieceBytes, catalogueUnflushedBytesMax } from "../limits.ts";
import { flushedDirectory, syncDirectoryOf } from "./durable_names.ts";
import { failureOf } from "./file_errors.ts";
import { StoredFile } from "./stored_file.ts";
import { aTurn, inOneGo, inTurns } from "./turns.ts";

/** See the head of this file. Results that are not ok are those of the host. */
export class SecondCatalogue {
  readonly #path: string;
  readonly #log: (sentence: string) => void;
  /** Undefined if the host had no room for it. */
  #file: StoredFile | undefined;
  /** It holds what the journal holds, and nothing else. */
  #isCopy = false;
  /** How much of a new content is written, and how much of it the host was not asked to flush. */
  #writtenBytes = 0;
  #unflushedBytes = 0;

  constructor(path: string, log: (sentence: string) => void) {
    this.#path = path;
    this.#log = log;
  }

  /** Opens the file if there is one, and it is not the journal under another name. Throws what the system says. */
  open(journal: StoredFile): void {
    if (fs.existsSync(this.#path)) this.#file = StoredFile.open(this.#path);
    if (this.#file?.isSameAs(journal)) this.#remove();
  }

  /** The file; undefined if there is none. */
  get file(): StoredFile | undefined {
    return this.#file;
  }

  /** The file, made if there is none. Throws what the system says. */
  made(): StoredFile {
    return this.#file ??= StoredFile.create(this.#path);
  }

  /**
   * At a start: sets aside `wantedBytes`, and makes the file a copy of the first `endBytes` of the journal. The rest of the
   * journal is zeroes.
   */
  setAside(journal: StoredFile, endBytes: number, wantedBytes: number): IoResult {
    try {
      const file = this.made();
      // A copy of the file may have holes where zeroes were.
      const whole = file.isWhole() ? file.sizeBytes : 0;
      const grown = inOneGo(file.zero(whole, Math.max(wantedBytes, file.sizeBytes)));
      if (grown.kind !== "ok") return grown;
      if (!isSame(journal, file, endBytes)) {
        const cleared = inOneGo(file.zero(0, file.sizeBytes));
        if (cleared.kind !== "ok") return cleared;
        fs.fdatasyncSync(file.fd);
        const copied = inOneGo(copySteps(journal, file, endBytes));
        if (copied.kind !== "ok") return copied;
      }
      // A process before us may have written it without a flush, or made it without one of the directory.
      fs.fdatasyncSync(file.fd);
      syncDirectoryOf(this.#path);
      this.#isCopy = true;
      return ioOk;
    } catch (error) {
      return failureOf(error, "make the second catalogue");
    }
  }

  /** Writes a line behind the others without a flush, if this is a copy. */
  async write(bytes: Uint8Array, offsetBytes: number): Promise<IoResult> {
    if (!this.#isCopy) return ioOk;
    const file = present(this.#file, "a copy is a file");
    const endBytes = offsetBytes + bytes.length;
    const grown = await inTurns(file.zero(file.sizeBytes, endBytes));
    if (grown.kind === "noSpace") {
      // The room that the file has is kept for writing the journal anew. It has no part of this line.
      this.#isCopy = false;
      this.#sayNoCopy(grown);
      return ioOk;
    }
    const written = await inTurns(file.writePieces(bytes, offsetBytes));
    return written.kind === "ok" ? ioOk : await this.#dropCopy(written);
  }

  /** Makes the lines durable, if this is a copy. */
  async flush(): Promise<IoResult> {
    if (!this.#isCopy) return ioOk;
    const durable = await present(this.#file, "a copy is a file").flush();
    return durable.kind === "ok" ? ioOk : await this.#dropCopy(durable);
  }

  /** Takes the last line back, durably, if this is a copy. */
  async zeroLine(beginBytes: number, lengthBytes: number): Promise<IoResult> {
    if (!this.#isCopy) return ioOk;
    const file = present(this.#file, "a copy is a file");
    let zeroed = await inTurns(file.zero(beginBytes, beginBytes + lengthBytes));
    if (zeroed.kind === "ok") zeroed = await file.flush();
    return zeroed.kind === "ok" ? ioOk : await this.#dropCopy(zeroed);
  }

  /** Writes a piece of a new content. */
  async rewrite(bytes: Uint8Array, isFirst: boolean): Promise<IoResult> {
    const file = this.made();
    if (isFirst) {
      const cleared = await this.#clear(file);
      if (cleared.kind !== "ok") return cleared;
    }
    assert(!this.#isCopy, "a copy of the journal is written over");
    const written = file.write(bytes, this.#writtenBytes);
    this.#writtenBytes += bytes.length;
    this.#unflushedBytes += bytes.length;
    assert(this.#unflushedBytes <= this.#writtenBytes, "more bytes wait for a flush than were written");
    if (written.kind !== "ok") return written;
    if (this.#unflushedBytes >= catalogueUnflushedBytesMax) {
      this.#unflushedBytes = 0;
      return await this.#flushed(file);
    }
    await aTurn();
    return ioOk;
  }

  /** Bytes of the new content. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /** Makes the new content durable. */
  flushRewritten(): Promise<IoResult> {
    return this.#flushed(present(this.#file, "the second file was written"));
  }

  /** The file has become the journal, and the old journal this file; undefined if that has no name any more. */
  swap(old: StoredFile | undefined): void {
    assert(!this.#isCopy && old !== this.#file, "the journal and its second file are one file");
    this.#file = old;
    this.#isCopy = false;
  }

  /** Makes the file, of `sizeBytes`, a copy of the journal, whose rest is zeroes. A failure is logged. */
  async copyAnew(journal: StoredFile, endBytes: number, sizeBytes: number): Promise<void> {
    try {
      const file = this.made();
      let result = await this.#clear(file);
      if (result.kind === "ok" && file.sizeBytes < sizeBytes) {
        result = await inTurns(file.zero(file.sizeBytes, sizeBytes));
      }
      if (result.kind === "ok") result = await inTurns(copySteps(journal, file, endBytes));
      if (result.kind === "ok") result = await this.#flushed(file);
      if (result.kind === "ok") result = await flushedDirectory(dirname(this.#path));
      if (result.kind === "ok") {
        assert(this.#file === file, "another file took the place of the copy");
        this.#isCopy = true;
      } else this.#sayNoCopy(result);
    } catch (error) {
      // The journal alone is enough. What is not a refusal of the host is a defect.
      this.#sayNoCopy(failureOf(error, "make the second catalogue"));
    }
  }

  /** Gives its space back to the host. */
  drop(): void {
    if (this.#isCopy) this.#sayNoCopy({ kind: "noSpace" });
    this.#remove();
  }

  /** Closes the file, if there is one. */
  close(): void {
    this.#file?.close();
  }

  /** Zeroes the whole file, durably, before other content is written to it. The head of this file says why. */
  async #clear(file: StoredFile): Promise<IoResult> {
    this.#isCopy = false;
    [this.#writtenBytes, this.#unflushedBytes] = [0, 0];
    const cleared = await inTurns(file.zero(0, file.sizeBytes));
    return cleared.kind === "ok" ? await this.#flushed(file) : cleared;
  }

  async #flushed(file: StoredFile): Promise<IoResult> {
    const durable = await file.flush();
    // The host may have dropped what it could not write, so this file is used no more.
    if (durable.kind !== "ok") this.#remove();
    return durable;
  }

  /**
   * The copy may have the last line, or a part of it. If that line is taken back, the copy must not show it, so its name is gone
   * durably before anything else is answered. Not ok if it is not known whether the name is gone.
   */
  async #dropCopy(why: IoResult): Promise<IoResult> {
    this.#sayNoCopy(why);
    this.#remove();
    return await flushedDirectory(dirname(this.#path));
  }

  #sayNoCopy(why: IoResult): void {
    const reason = why.kind === "noSpace" || why.kind === "ok" ? "the host is full" : reasonOfIo(why);
    this.#log(
      `The second copy of the catalogue cannot be kept: ${reason}. Until it is written anew, "catalog.json" is the only one.`,
    );
  }

  #remove(): void {
    const file = this.#file;
    this.#file = undefined;
    this.#isCopy = false;
    isDone(() => file?.close());
    isDone(() => fs.rmSync(this.#path, { force: true }));
  }
}

/** Whether the host did it. */
export function isDone(call: () => void): boolean {
  try {
    call();
    return true;
  } catch (error) {
    // Any refusal of the host means that it is not done; what is not one is a defect.
    return failureOf(error, "link of the catalogue").kind === "ok";
  }
}

/** Copies the first `endBytes`, a piece at each step, which others may come between. */
function* copySteps(from: StoredFile, to: StoredFile, endBytes: number): Generator<void, IoResult> {
  for (let at = 0; at < endBytes; at += cataloguePieceBytes) {
    if (at > 0) yield;
    const written = to.write(from.read(at, Math.min(cataloguePieceBytes, endBytes - at)), at);
    if (written.kind !== "ok") return written;
  }
  return ioOk;
}

/** Whether a file begins with the first `endBytes` of the journal, and goes on with zeroes only. */
function isSame(journal: StoredFile, file: StoredFile, endBytes: number): boolean {
  if (file.sizeBytes < endBytes) return false;
  for (let at = 0; at < file.sizeBytes; at += cataloguePieceBytes) {
    const bytes = file.read(at, Math.min(cataloguePieceBytes, file.sizeBytes - at));
    const heldBytes = Math.max(0, Math.min(bytes.length, endBytes - at));
    const held = heldBytes === 0 ? new Uint8Array(0) : journal.read(at, heldBytes);
    if (!held.every((byte, index) => byte === bytes[index])) return false;
    if (!isZeroes(bytes.subarray(heldBytes))) return false;
  }
  return true;
}
