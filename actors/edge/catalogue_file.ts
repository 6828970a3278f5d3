/**
 * The files of the catalogue's journal (storage/catalogue_journal.ts): `catalog.json`, read once at start and appended to, one
 * line at a time, and `catalog.spare`, its copy, into which the journal is written anew when it has become long
 * (second_catalogue.ts). Why both have room that is set aside is in control/catalogue_room.ts.
 *
 * A line is written where zeroes were, and a line that is taken back becomes zeroes again; each is flushed before it is
 * answered. So at most the last line is in doubt after a power cut, and no part of an earlier one is ever behind it.
 *
 * A long journal is written anew in six steps: the second file is written, the journal gets a second name, the second file takes the
 * journal's name, the old journal becomes the second file, the directory is flushed, and the second file becomes a copy again. What a crash
 * finds after each is argued in storage/FORMAT.md, "How the catalogue survives a crash", by the same numbers.
 */
import fs from "node:fs";
import { dirname } from "node:path";
import { assert } from "../../storage/base/assert.ts";
import { type IoDone, ioOk, type IoResult, reasonOfIo } from "../../storage/device/port.ts";
import { UserError } from "../../storage/base/errors.ts";
import type { JournalPort } from "../control/catalogue_journal.ts";
import {
  changesBytesMax,
  fileBytesFor,
  headroomBytes,
  type LineRoom,
  roundUpToFileUnit,
} from "../control/catalogue_room.ts";
import { cataloguePieceBytes } from "../limits.ts";
import { isDone, SecondCatalogue } from "./second_catalogue.ts";
import { failureOf } from "./file_errors.ts";
import { flushedDirectory, syncDirectoryOf } from "./durable_names.ts";
import { StoredFile } from "./stored_file.ts";
import { aTurn, inOneGo, inTurns } from "./turns.ts";

const newline = "\n".charCodeAt(0);

/** Names in the pool directory beside the journal's own. */
export interface CataloguePaths {
  readonly catalogue: string;
  readonly secondCatalogue: string;
  readonly catalogueMoved: string;
}

/** See the head of this file. */
export class CatalogueFile implements JournalPort {
  readonly #paths: CataloguePaths;
  #journal: StoredFile;
  readonly #second: SecondCatalogue;
  /** Where the next line goes. */
  #endBytes: number;
  #lastLineBytes = 0;
  /** Lengths of the journal below which it is not called long again: writing it anew has failed. */
  #longFromBytes = 0;
  #isBusy = false;
  #isClosed = false;
  /** Set when the disk did not take what it was told to keep: what it holds is not known, and nothing more is written. */
  #failure: IoResult | undefined;

  /**
   * Opens the files for writing. Throws what the system says.
   *
   * @param log hears when there is no second copy any more
   */
  constructor(paths: CataloguePaths, log: (sentence: string) => void = () => {}) {
    this.#paths = paths;
    this.#second = new SecondCatalogue(paths.secondCatalogue, log);
    // What an interrupted `init` has left, and the second name of step 2.
    fs.rmSync(`${paths.catalogue}.new`, { force: true });
    fs.rmSync(paths.catalogueMoved, { force: true });
    // A process that stopped between steps 3 and 5 has left names that the disk may not have.
    syncDirectoryOf(paths.catalogue);
    this.#journal = StoredFile.open(paths.catalogue);
    this.#endBytes = this.#journal.sizeBytes;
    try {
      this.#second.open(this.#journal);
    } catch (error) {
      this.#closeFiles();
      throw error;
    }
  }

  /**
   * Begins to append after the lines that hold; what follows them becomes zeroes. If we stop before that is durable, what
   * did not hold is found again and dropped again. Throws {@linkcode UserError}.
   */
  startAt(keptBytes: number, isDropping: boolean): void {
    let endBytes = keptBytes;
    let result: IoResult = ioOk;
    if (isDropping) result = inOneGo(this.#journal.zero(keptBytes, this.#journal.sizeBytes));
    const last = new Uint8Array(1);
    fs.readSync(this.#journal.fd, last, 0, 1, keptBytes - 1);
    if (result.kind === "ok" && last[0] !== newline) {
      // Another program has taken the end of the last line away.
      result = this.#journal.write(Uint8Array.of(newline), keptBytes);
      endBytes += 1;
    }
    if (result.kind !== "ok") {
      throw new UserError(`Cannot write the catalogue: ${reasonOfIo(result)}. Make room.`);
    }
    if (isDropping) fs.fdatasyncSync(this.#journal.fd);
    this.#endBytes = endBytes;
  }

  /** Sets aside what is missing of the room for lines to come, and sees to the copy. False if the host has not so much. */
  setAside(contentBytes: number): boolean {
    const journalBytes = Math.max(
      fileBytesFor(contentBytes),
      roundUpToFileUnit(this.#endBytes + headroomBytes(contentBytes)),
    );
    // A copy of the file may have holes where zeroes were.
    const from = this.#journal.isWhole() ? this.#journal.sizeBytes : this.#endBytes;
    const grown = inOneGo(this.#journal.zero(from, Math.max(journalBytes, this.#journal.sizeBytes)));
    return grown.kind === "ok" &&
      this.#second.setAside(this.#journal, this.#endBytes, journalBytes).kind === "ok";
  }

  isLong(contentBytes: number): boolean {
    const { sizeBytes } = this.#journal;
    const longBytes = contentBytes + changesBytesMax(contentBytes);
    assert(this.#endBytes <= sizeBytes, "lines are within the file");
    return this.#endBytes > Math.max(longBytes, this.#longFromBytes);
  }

  append(line: string, room: LineRoom, done: IoDone): void {
    this.#run(done, async () => await this.#append(await inTurns(encoded(line)), room));
  }

  retract(done: IoDone): void {
    const lineBytes = this.#lastLineBytes;
    assert(lineBytes > 0 && lineBytes <= this.#endBytes, "there is a line to take back");
    this.#run(done, async () => {
      // If we stop between the two, one file has the line and the other has not: the start drops it.
      const taken = await this.#second.zeroLine(this.#endBytes - lineBytes, lineBytes);
      if (taken.kind !== "ok") return this.#failed(taken);
      const zeroed = await this.#zeroFrom(this.#endBytes - lineBytes, lineBytes);
      if (zeroed.kind !== "ok") return zeroed;
      this.#endBytes -= lineBytes;
      this.#lastLineBytes = 0;
      return ioOk;
    });
  }

  rewrite(piece: string, isFirst: boolean, done: IoDone): void {
    const bytes = new TextEncoder().encode(piece);
    this.#run(done, () => this.#rewrite(bytes, isFirst));
  }

  finishRewrite(contentBytes: number, done: IoDone): void {
    this.#run(done, () => this.#finishRewrite(contentBytes));
  }

  /** Closes the files once what is pending has answered. */
  close(): void {
    assert(!this.#isClosed, "a catalogue is closed once");
    this.#isClosed = true;
    if (!this.#isBusy) this.#closeFiles();
  }

  #closeFiles(): void {
    this.#journal.close();
    this.#second.close();
  }

  #run(done: IoDone, operation: () => Promise<IoResult>): void {
    assert(!this.#isBusy, "one change of the catalogue at a time");
    assert(!this.#isClosed, "a closed catalogue is not changed");
    this.#isBusy = true;
    const failure = this.#failure;
    const ended = failure === undefined ? operation() : later(failure);
    ended.catch((error) => failureOf(error, "write of the catalogue")).then((result) => {
      assert(this.#isBusy, "a change of the catalogue ended twice");
      this.#isBusy = false;
      if (this.#isClosed) this.#closeFiles();
      done(result);
    });
  }

  async #append(bytes: Uint8Array, room: LineRoom): Promise<IoResult> {
    const endBytes = this.#endBytes + bytes.length;
    const roomy = room.usesHeadroom
      ? await this.#grow(this.#journal, endBytes)
      : await this.#roomBeside(endBytes, room.contentBytes);
    if (roomy.kind !== "ok") return roomy;
    let written = await inTurns(this.#journal.writePieces(bytes, this.#endBytes));
    if (written.kind === "noSpace" && room.usesHeadroom && this.#second.file !== undefined) {
      // The host copies what is overwritten (btrfs, zfs), so it needs space all the same: the second file's.
      this.#second.drop();
      written = await inTurns(this.#journal.writePieces(bytes, this.#endBytes));
    }
    if (written.kind !== "ok") {
      // The next line may not follow half of this one, nor have half of this one behind it.
      const zeroed = await this.#zeroFrom(this.#endBytes, bytes.length);
      return zeroed.kind === "ok" ? written : zeroed;
    }
    const copied = await this.#second.write(bytes, this.#endBytes);
    // Both at once. In whichever order they end, the metadata is committed after both.
    const [durable, copyDurable] = await Promise.all([this.#journal.flush(), this.#second.flush()]);
    for (const result of [copied, durable, copyDurable]) {
      if (result.kind !== "ok") return this.#failed(result);
    }
    assert(endBytes <= this.#journal.sizeBytes, "lines are within the file");
    this.#endBytes = endBytes;
    this.#lastLineBytes = bytes.length;
    return ioOk;
  }

  /** A change that adds something leaves what removing and writing anew need, in both files. */
  async #roomBeside(endBytes: number, contentBytes: number): Promise<IoResult> {
    const journalBytes = endBytes + headroomBytes(contentBytes);
    const grown = await this.#grow(this.#journal, journalBytes, fileBytesFor(contentBytes));
    if (grown.kind !== "ok") return grown;
    return await this.#grow(this.#second.made(), journalBytes, fileBytesFor(contentBytes));
  }

  /** Has a file store so much, and if it must grow for that, so much more that it need not grow soon again. */
  async #grow(file: StoredFile, neededBytes: number, wantedBytes = 0): Promise<IoResult> {
    if (file.sizeBytes >= neededBytes) return ioOk;
    return await inTurns(file.zero(file.sizeBytes, Math.max(roundUpToFileUnit(neededBytes), wantedBytes)));
  }

  async #zeroFrom(beginBytes: number, lengthBytes: number): Promise<IoResult> {
    // Of a line that could not be written the file may not have all.
    const endBytes = Math.min(beginBytes + lengthBytes, this.#journal.sizeBytes);
    let zeroed = await inTurns(this.#journal.zero(beginBytes, endBytes));
    if (zeroed.kind === "noSpace") zeroed = this.#journal.truncate(beginBytes);
    if (zeroed.kind === "ok") zeroed = await this.#journal.flush();
    return zeroed.kind === "ok" ? ioOk : this.#failed(zeroed);
  }

  #failed(result: IoResult): IoResult {
    // Remembered: every later change is refused with it.
    this.#failure = result;
    return result;
  }

  async #rewrite(bytes: Uint8Array, isFirst: boolean): Promise<IoResult> {
    this.#longFromBytes = this.#endBytes + changesBytesMax(0);
    return await this.#second.rewrite(bytes, isFirst);
  }

  async #finishRewrite(contentBytes: number): Promise<IoResult> {
    const second = this.#second.made();
    const endBytes = this.#second.writtenBytes;
    const wantedBytes = fileBytesFor(contentBytes);
    const grown = await this.#grow(second, wantedBytes);
    // With less room than before nothing would be won.
    if (grown.kind !== "ok" && second.sizeBytes - endBytes <= this.#journal.sizeBytes - this.#endBytes) {
      return grown;
    }
    if (second.sizeBytes > wantedBytes) second.truncate(wantedBytes);
    const durable = await this.#second.flushRewritten();
    if (durable.kind !== "ok") return durable;
    const swapped = await this.#swap(second, endBytes);
    if (swapped.kind !== "ok") return swapped;
    this.#longFromBytes = 0;
    // Content that has gone needs no room any more.
    const old = this.#second.file;
    if (old !== undefined && old.sizeBytes > wantedBytes) old.truncate(wantedBytes);
    await this.#second.copyAnew(this.#journal, this.#endBytes, this.#journal.sizeBytes);
    return ioOk;
  }

  /** Steps 2 to 5. */
  async #swap(second: StoredFile, endBytes: number): Promise<IoResult> {
    const { catalogue, secondCatalogue, catalogueMoved } = this.#paths;
    const old = this.#journal;
    const isKept = isDone(() => fs.linkSync(catalogue, catalogueMoved));
    try {
      fs.renameSync(secondCatalogue, catalogue);
    } catch (error) {
      fs.rmSync(catalogueMoved, { force: true });
      return failureOf(error, "rename of the catalogue");
    }
    [this.#journal, this.#endBytes, this.#lastLineBytes] = [second, endBytes, 0];
    if (isKept && isDone(() => fs.renameSync(catalogueMoved, secondCatalogue))) this.#second.swap(old);
    else {
      // A file system without second names: its space goes back, and is asked for again.
      this.#second.swap(undefined);
      isDone(() => fs.rmSync(catalogueMoved, { force: true }));
      isDone(() => old.close());
    }
    // From the rename on, lines go into the new file: where its name may not be durable, none may be answered for.
    const durable = await flushedDirectory(dirname(catalogue));
    return durable.kind === "ok" ? ioOk : this.#failed(durable);
  }
}

/** The bytes of a line. It is ASCII, as names are, so it can be cut anywhere. */
function* encoded(line: string): Generator<void, Uint8Array> {
  const encoder = new TextEncoder();
  if (line.length <= cataloguePieceBytes) return encoder.encode(line);
  let bytes = new Uint8Array(line.length);
  let lengthBytes = 0;
  for (let at = 0; at < line.length; at += cataloguePieceBytes) {
    const piece = encoder.encode(line.slice(at, at + cataloguePieceBytes));
    if (lengthBytes + piece.length > bytes.length) {
      const larger = new Uint8Array(2 * bytes.length + piece.length);
      larger.set(bytes);
      bytes = larger;
    }
    bytes.set(piece, lengthBytes);
    lengthBytes += piece.length;
    yield;
  }
  return bytes.subarray(0, lengthBytes);
}

async function later(result: IoResult): Promise<IoResult> {
  await aTurn();
  return result;
}
