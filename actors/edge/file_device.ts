/**
 * A device in a file or on a block device of the host.
 *
 * Reads, writes and copies within the page cache are synchronous calls, answered at once: that costs less than the way through
 * a thread. What may wait for the disk (a read of an uncached block, a write to a busy disk, a flush, a punch) goes to a thread
 * and answers later: a disk that stops delays only the requests that need it (disk_calm.ts). Without the C library, reads and
 * writes are made on this thread, however long they take.
 */
import fs from "node:fs";
import {
  type IoDone,
  ioOk,
  type IoResult,
  type LocalStorage,
  type ReadDone,
  type ReadResult,
  type ReadTarget,
} from "../../storage/device/port.ts";
import { assert } from "../../storage/base/assert.ts";
import { CachedReads } from "./cached_reads.ts";
import { filePieceBytes } from "../limits.ts";
import type { FileCalls } from "./file_calls.ts";
import { accessPastEnd, FileEnd, shrunk } from "./file_end.ts";
import { KnownHole } from "./known_hole.ts";
import { DiskCalm, isOnLocalFiles } from "./disk_calm.ts";
import { FileFlushes } from "./file_flushes.ts";
import { growLater } from "./file_growth.ts";
import { canPunch, claim, type Handles, openHandles } from "./file_handles.ts";
import { FilePieces, ofSource } from "./file_pieces.ts";
import { FileReads } from "./file_reads.ts";
import { FileUse } from "./file_use.ts";
import { FileWrites } from "./file_writes.ts";
import { errno, type Libc } from "./libc.ts";
import { ShortFlushes } from "./short_flushes.ts";
import { isNotedFlushed, letGo, noteFlushed, readPastCache } from "./page_cache.ts";
import { PageWindow } from "./page_window.ts";
import type { HostCached, OpenDevice } from "./open_device.ts";

/** How {@linkcode FileDevice.open} opens. */
export interface FileDeviceOptions {
  /** Open for reading only; every write is then an ioError. Default false. */
  readonly readOnly?: boolean;
  /** Needed for holes. Without it, zeroes are written, and no space goes back to the host. */
  readonly libc?: Libc | undefined;
  /**
   * Whether this thread may wait for a short flush: see short_flushes.ts. Not for the metadata device: blocks that a commit
   * frees must not be used again before the event loop's next turn, so one of the two flushes answers later. Default false.
   */
  readonly waitsForShortFlushes?: boolean;
  /** Whether blocks that are not in the host's page cache are read on another thread. Default false. */
  readonly readsColdBeside?: boolean;
  /** Whether a write that may wait for the disk is made on another thread, and answers later. Default false. */
  readonly writesBeside?: boolean;
  /** Whether it gives mapped segments. Default false. */
  readonly givesSegments?: boolean;
  /** Shared with the pool's other files; by default, with none. */
  readonly calm?: DiskCalm;
  /** What makes the calls that wait for the disk; by default, threads. */
  readonly calls?: FileCalls | undefined;
}

/** See the head of this file. Offsets and lengths are bytes; no range may pass the end of the device. */
export class FileDevice implements OpenDevice, HostCached, LocalStorage {
  /** As the caller named it. */
  readonly path: string;
  #sizeBytes: number;
  readonly isBlockDevice: boolean;
  readonly #fd: number;
  readonly #libc: Libc | undefined;
  readonly #calls: FileCalls | undefined;
  readonly #claimed: number | undefined;
  readonly #reads: FileReads;
  readonly #calm: DiskCalm;
  readonly #shortFlushes: ShortFlushes;
  readonly #flushes: FileFlushes;
  readonly #writes: FileWrites;
  /** On a local disk: no server has to answer before a call returns. */
  readonly #isLocal: boolean;
  /** Punches under way. */
  #punches = 0;
  readonly #holes: KnownHole;
  readonly #fileEnd: FileEnd;
  #canDiscard: boolean;
  readonly #pieces: FilePieces;
  readonly #use = new FileUse(() => this.#closeHandles());

  private constructor(
    path: string,
    handles: Handles,
    canDiscard: boolean,
    claimed: number | undefined,
    options: FileDeviceOptions,
  ) {
    this.path = path;
    this.#sizeBytes = handles.sizeBytes;
    this.isBlockDevice = handles.isBlockDevice;
    this.#fd = handles.fd;
    this.#libc = options.libc;
    const calls = this.#calls = options.calls;
    this.#canDiscard = canDiscard;
    this.#claimed = claimed;
    this.#isLocal = handles.isBlockDevice || isOnLocalFiles(handles.fd);
    this.#holes = new KnownHole(handles, options.libc);
    this.#fileEnd = new FileEnd(handles, this.#isLocal, calls);
    const cachedReads = options.readsColdBeside
      ? CachedReads.of(handles.fd, this.#isLocal, calls)
      : undefined;
    const window = options.givesSegments ? PageWindow.map(handles.fd, handles.sizeBytes) : undefined;
    this.#reads = new FileReads({ fd: handles.fd, fileEnd: this.#fileEnd, cachedReads, window });
    this.#calm = options.calm ?? new DiskCalm();
    this.#shortFlushes = new ShortFlushes((options.waitsForShortFlushes ?? false) && calls === undefined);
    this.#flushes = new FileFlushes(handles.flushFds, this.#shortFlushes, this.#calm, calls);
    this.#writes = new FileWrites(handles.fd, {
      isHereAlways: !(options.writesBeside ?? false),
      isLocal: this.#isLocal,
      calm: this.#calm,
      cachedReads,
      calls,
    });
    this.#pieces = new FilePieces({
      reads: this.#reads,
      readLater: (buffer, offsetBytes, done) => this.#readLater(buffer, offsetBytes, done),
      write: (buffer, offsetBytes, done, isBorrowed) => this.#write(buffer, offsetBytes, done, isBorrowed),
    });
  }

  /** Opens an existing file or block device. Throws {@linkcode UserError}. */
  static open(path: string, options: FileDeviceOptions = {}): FileDevice {
    const readOnly = options.readOnly ?? false;
    const handles = openHandles(path, readOnly);
    const claimed = handles.isBlockDevice && !readOnly ? claim(path, handles, options.libc) : undefined;
    const canDiscard = !readOnly && options.libc !== undefined && canPunch(options.libc, handles);
    return new FileDevice(path, handles, canDiscard, claimed, options);
  }

  /** What a file can do besides is done by the device itself. */
  get local(): LocalStorage {
    return this;
  }

  get cached(): HostCached {
    return this;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get canDiscard(): boolean {
    return this.#canDiscard;
  }

  readAtOnce(target: ReadTarget, offsetBytes: number): ReadResult | undefined {
    const { lengthBytes } = target;
    if (!this.#isInside(offsetBytes, lengthBytes)) return undefined;
    this.#shortFlushes.disturbed();
    const segment = target.takesMapped ? this.#reads.segment(offsetBytes, lengthBytes) : undefined;
    return segment ?? this.#reads.readCached(target.memory(), offsetBytes);
  }

  writeAtOnce(buffer: Uint8Array, offsetBytes: number): IoResult | undefined {
    if (!this.#isInside(offsetBytes, buffer.length)) return undefined;
    // Before the write: a part of it may be written where it fails.
    this.#changes(offsetBytes, buffer.length);
    const result = this.#writes.writeAtOnce(buffer, offsetBytes);
    if (result?.kind !== "ok") return result;
    this.#shortFlushes.wrote(buffer.length);
    this.#beginWriteBack(offsetBytes, buffer.length);
    return result;
  }

  read(target: ReadTarget, offsetBytes: number, done: ReadDone): ReadResult | "pending" {
    const { lengthBytes } = target;
    if (!this.#isInside(offsetBytes, lengthBytes)) return this.#outside(offsetBytes, lengthBytes);
    const read = this.readAtOnce(target, offsetBytes);
    if (read !== undefined) return read;
    const buffer = target.memory();
    if (this.#isBeforeData(offsetBytes, lengthBytes)) {
      buffer.fill(0);
      return ioOk;
    }
    return this.#readLater(buffer, offsetBytes, (result) => done(result, target));
  }

  /** Whether nothing is stored there, but something after it: a hole, and not the end of a file that was cut. */
  #isBeforeData(offsetBytes: number, lengthBytes: number): boolean {
    return this.#tellsHoles() && this.#holes.isBeforeData(offsetBytes, lengthBytes);
  }

  /** Whether the host can be asked where holes are without waiting: a write or a punch on another thread locks the file. */
  #tellsHoles(): boolean {
    return this.#isLocal && this.#writes.isIdle && this.#punches === 0;
  }

  #readLater(buffer: Uint8Array, offsetBytes: number, done: IoDone): "pending" {
    this.#use.begin();
    this.#reads.readLater(buffer, offsetBytes, (result) => {
      done(result);
      // After `done`, as a copy goes on with a write in it.
      this.#use.end();
    });
    return "pending";
  }

  write(buffer: Uint8Array, offsetBytes: number, done: IoDone = unheard): IoResult | "pending" {
    return this.#isInside(offsetBytes, buffer.length)
      ? this.#write(buffer, offsetBytes, done)
      : this.#outside(offsetBytes, buffer.length);
  }

  /** Bytes are about to change. */
  #changes(offsetBytes: number, lengthBytes: number): void {
    this.#reads.held.beforeChange(offsetBytes, lengthBytes);
    this.#holes.forget(offsetBytes, lengthBytes);
  }

  /** `isBorrowed`: see {@linkcode FileWrites.write}. */
  #write(buffer: Uint8Array, offsetBytes: number, done: IoDone, isBorrowed = false): IoResult | "pending" {
    this.#shortFlushes.wrote(buffer.length);
    this.#changes(offsetBytes, buffer.length);
    const result = this.#writes.write(buffer, offsetBytes, (result) => {
      // Again: the host may have been asked for a hole before this write was made.
      this.#holes.forget(offsetBytes, buffer.length);
      done(result);
      this.#use.end();
    }, isBorrowed);
    if (result === "pending") this.#use.begin();
    else this.#beginWriteBack(offsetBytes, buffer.length);
    return result;
  }

  /** Where a flush of this write is near, the disk begins at once. */
  #beginWriteBack(offsetBytes: number, lengthBytes: number): void {
    if (!this.#shortFlushes.isFlushNear || !this.#calm.isCalm(performance.now())) return;
    this.#libc?.startWriteBack(this.#fd, offsetBytes, lengthBytes);
  }

  /**
   * Up to `filePieceBytes` it writes zeroes into the page cache (10 us for 64 KiB). A punch may first wait until the disk has
   * taken the dirty pages of the range.
   */
  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    if (!this.#isInside(offsetBytes, lengthBytes)) return this.#outside(offsetBytes, lengthBytes);
    if (lengthBytes <= filePieceBytes) return this.#pieces.writeZeroes(offsetBytes, lengthBytes, done);
    return this.discard(offsetBytes, lengthBytes, done);
  }

  /** The ranges may not overlap. */
  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    assert(
      fromBytes + lengthBytes <= toBytes || toBytes + lengthBytes <= fromBytes,
      "a copy's ranges do not overlap",
    );
    if (!this.#isInside(fromBytes, lengthBytes)) return ofSource(this.#outside(fromBytes, lengthBytes));
    if (!this.#isInside(toBytes, lengthBytes)) return this.#outside(toBytes, lengthBytes);
    return this.#pieces.copy(fromBytes, toBytes, lengthBytes, done);
  }

  /** The caller bounds the length (`discardBytesMax`), so that threads are free for flushes. */
  discard(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    if (!this.#isInside(offsetBytes, lengthBytes)) return this.#outside(offsetBytes, lengthBytes);
    if (lengthBytes === 0) return ioOk;
    const libc = this.#libc;
    if (libc === undefined || !this.#canDiscard) {
      return this.#pieces.writeZeroes(offsetBytes, lengthBytes, done);
    }
    this.#use.begin();
    this.#reads.held.beforeChange(offsetBytes, lengthBytes);
    this.#punches += 1;
    this.#shortFlushes.disturbed();
    const punched = (failure: number) => {
      assert(this.#punches > 0, "a punch ended twice");
      this.#punches -= 1;
      if (failure === errno.notSupported) this.#canDiscard = false;
      // If the host cannot punch, zeroes are written: the range must read as zeroes.
      const result = failure === 0 ? ioOk : this.#pieces.writeZeroes(offsetBytes, lengthBytes, done);
      if (result !== "pending") done(result);
      this.#use.end();
    };
    if (this.#calls === undefined) libc.punchHoleLater(this.#fd, offsetBytes, lengthBytes, punched);
    else this.#calls.punch(this.#fd, offsetBytes, lengthBytes, (status) => punched(-status));
    return "pending";
  }

  isHole(offsetBytes: number, lengthBytes: number): boolean {
    // Beyond the end of a file that was cut there is no hole.
    if (!this.#isInside(offsetBytes, lengthBytes)) return false;
    return this.#holes.has(offsetBytes, lengthBytes, this.#tellsHoles());
  }

  flush(done: IoDone, isAlone = false): IoResult | "pending" {
    assert(!this.#use.isClosed, "a closed device is not used");
    const flushed = this.#flushes.flush((result) => {
      this.#use.end();
      done(result);
    }, isAlone);
    if (flushed === "pending") this.#use.begin();
    return flushed;
  }

  grow(sizeBytes: number, isStored: boolean, done: IoDone): IoResult | "pending" {
    this.#fileEnd.check();
    if (!this.#isInside(0, this.#sizeBytes)) return shrunk;
    this.#use.begin();
    const file = { path: this.path, fd: this.#fd, isBlockDevice: this.isBlockDevice, libc: this.#libc };
    this.#calls?.beginTurns();
    growLater(file, sizeBytes, isStored, ({ result, sizeBytes }) => {
      this.#calls?.endTurns();
      if (result.kind === "ok" && sizeBytes > this.#sizeBytes) {
        this.#sizeBytes = sizeBytes;
        // In a turn of its own: no mapped segment is in use.
        for (const part of [this.#fileEnd, this.#holes, this.#reads]) part.grown(sizeBytes);
      }
      done(result);
      this.#use.end();
    });
    return "pending";
  }

  /**
   * Has the host allocate every block of the file, so that no write meets a full host. Answers 0 or the errno (see libc.ts).
   * errno.notSupported also without the library: then the caller may write zeroes instead.
   */
  allocate(): number {
    return this.#libc?.allocate(this.#fd, 0, this.sizeBytes) ?? errno.notSupported;
  }

  /** Has the host drop the clean pages of the file from memory: see page_cache.ts. Nothing may be under way. */
  letGo(): Promise<number | undefined> {
    assert(
      !this.#use.isClosed && !this.#use.isBusy,
      "the page cache is let go of before the device is used",
    );
    return letGo(this.#fd, this.sizeBytes);
  }

  /** The first bytes as the disk has them; undefined where they cannot be read past the page cache. */
  readPastCache(lengthBytes: number): Uint8Array | undefined {
    return lengthBytes <= this.sizeBytes ? readPastCache(this.path, lengthBytes) : undefined;
  }

  /** Whether it was closed with {@linkcode noteFlushed} and has not been written since. */
  get isNotedFlushed(): boolean {
    return isNotedFlushed(this.#fd);
  }

  /** To be called after a flush of all writes: the next start then keeps the page cache. Notes nothing if any flush failed. */
  noteFlushed(): void {
    assert(!this.#use.isClosed && !this.#use.isBusy, "what is noted as flushed is not changed any more");
    if (!this.#flushes.hasFailed) noteFlushed(this.#fd);
  }

  /** Resolves when nothing that was asked of the device is under way. */
  idle(): Promise<void> {
    return this.#use.idle();
  }

  /** Closes the handles once what is pending has answered; nothing may be asked of the device after. */
  close(): void {
    this.#use.close();
  }

  #closeHandles(): void {
    assert(this.#punches === 0 && this.#writes.isIdle, "handles are closed while they are used");
    this.#fileEnd.close();
    this.#reads.close();
    fs.closeSync(this.#fd);
    this.#flushes.close();
    if (this.#claimed !== undefined) this.#libc?.release(this.#claimed);
  }

  #isInside(offsetBytes: number, lengthBytes: number): boolean {
    assert(!this.#use.isClosed, "a closed device is not used");
    return this.#fileEnd.contains(offsetBytes, lengthBytes);
  }

  #outside(offsetBytes: number, lengthBytes: number): IoResult {
    return offsetBytes >= 0 && offsetBytes + lengthBytes <= this.sizeBytes ? shrunk : accessPastEnd;
  }
}

/** For callers of devices that answer writes at once: see {@linkcode FileDeviceOptions.writesBeside}. */
const unheard: IoDone = () => assert(false, "this write was to be answered at once");
