/**
 * The host's file system under the two devices and the two files beside them. It stores some pages of the devices and not
 * others; while it is full, what would store another one is answered with ENOSPC, of which the stored pages before it may
 * have been written, and flushes may fail.
 *
 * Catalogue and intent journal have room that is set aside. So a full host refuses of the catalogue what adds something, and
 * never a removal (control/catalogue_room.ts); of the intent journal it refuses to make a new file, and where it copies what
 * is overwritten (btrfs, zfs) also what is written to it.
 */
import {
  type DevicePort,
  type IoDone,
  type IoResult,
  type LocalStorage,
  type ReadDone,
  type ReadResult,
  type ReadTarget,
} from "../../storage/device/port.ts";
import type { HostSpace } from "../../actors/pool/gauge_messages.ts";
import { Random } from "../support/world.ts";
import type { HostSwarm } from "./swarm.ts";

const pageBytes = 4096;
const totalBytes = 1 << 30;
const full: IoResult = { kind: "noSpace" };

/** The host during one life. */
export class SimHost {
  isFull = false;
  /** Operations of each device that it had no room for. */
  readonly refused = { metadata: 0, data: 0, catalogue: 0, intents: 0 };
  readonly #swarm: HostSwarm | undefined;
  readonly #random: Random;
  /** Of its own, so that the pages are what they were before there was any room for files. */
  readonly #fileRandom: Random;

  /** @param seed decides which pages are stored, and what of a refused write is done */
  constructor(swarm: HostSwarm | undefined, seed: number) {
    this.#swarm = swarm;
    this.#random = new Random(Math.imul(seed, 0x9e3779b1) ^ 0x4057);
    this.#fileRandom = new Random(Math.imul(seed, 0x85ebca6b) ^ 0xf11e);
    this.isFull = swarm !== undefined && this.#random.below(4) === 0;
  }

  /** Whether it has no room just now for what would be written to this file. */
  refuses(file: "catalogue" | "intents"): boolean {
    const percent = this.#swarm?.refusesPercent[file] ?? 0;
    if (!this.isFull || this.#fileRandom.below(100) >= percent) return false;
    this.refused[file] += 1;
    return true;
  }

  /** What `statfs` says; undefined in runs whose host does not tell. */
  space(): HostSpace | undefined {
    if (this.#swarm?.tells !== true) return undefined;
    return { freeBytes: this.isFull ? 0 : totalBytes / 2, totalBytes };
  }

  /** Whether a flush fails that is asked now. */
  failsFlush(): boolean {
    return this.isFull && this.#random.below(100_000) < (this.#swarm?.flushErrors ?? 0);
  }

  /** A device whose pages this host stores. */
  under(inner: DevicePort, name: "metadata" | "data"): DevicePort {
    return this.#swarm === undefined ? inner : new HostedDevice(this, inner, name, this.#pages(inner, name));
  }

  #pages({ sizeBytes }: DevicePort, name: "metadata" | "data"): Uint8Array {
    const percent = this.#swarm!.holesPercent[name];
    return Uint8Array.from(
      { length: Math.ceil(sizeBytes / pageBytes) },
      () => this.#random.below(100) < percent ? 0 : 1,
    );
  }

  /** Of a write that finds no room behind so many bytes, how many are written. */
  partOf(storedBytes: number): number {
    return this.#random.below(2) === 0 ? 0 : storedBytes;
  }
}

/** See the head of this file. */
class HostedDevice implements DevicePort, LocalStorage {
  readonly #host: SimHost;
  readonly #inner: DevicePort;
  readonly #name: "metadata" | "data";
  /** By page: 1 where the host stores it, so that writing needs no room. */
  readonly #stored: Uint8Array;

  constructor(host: SimHost, inner: DevicePort, name: "metadata" | "data", stored: Uint8Array) {
    this.#host = host;
    this.#inner = inner;
    this.#name = name;
    this.#stored = stored;
  }

  get sizeBytes(): number {
    return this.#inner.sizeBytes;
  }

  get local(): LocalStorage | undefined {
    return this.#inner.local === undefined ? undefined : this;
  }

  get canDiscard(): boolean {
    return this.#inner.local?.canDiscard === true;
  }

  read(target: ReadTarget, offsetBytes: number, done: ReadDone): ReadResult | "pending" {
    return this.#inner.read(target, offsetBytes, done);
  }

  readAtOnce(target: ReadTarget, offsetBytes: number): ReadResult | undefined {
    return this.#inner.readAtOnce?.(target, offsetBytes);
  }

  /** Where a full host has no room for it, it is asked for alone. */
  writeAtOnce(buffer: Uint8Array, offsetBytes: number): IoResult | undefined {
    const { length } = buffer;
    if (this.#host.isFull && this.#storedBytes(offsetBytes, length) < length) return undefined;
    const result = this.#inner.writeAtOnce?.(buffer, offsetBytes);
    if (result !== undefined) this.#noteStored(offsetBytes, length);
    return result;
  }

  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): IoResult | "pending" {
    return this.#store(offsetBytes, buffer.length, done, (lengthBytes, ended) => {
      return this.#inner.write(buffer.subarray(0, lengthBytes), offsetBytes, ended);
    });
  }

  zero(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.#store(
      offsetBytes,
      lengthBytes,
      done,
      (partBytes, ended) => this.#inner.zero(offsetBytes, partBytes, ended),
    );
  }

  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return this.#store(
      toBytes,
      lengthBytes,
      done,
      (partBytes, ended) => this.#inner.copy(fromBytes, toBytes, partBytes, ended),
    );
  }

  /** Pages that are all in the range are stored no more. */
  discard(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    const begin = Math.ceil(offsetBytes / pageBytes);
    this.#stored.fill(0, begin, Math.max(begin, Math.floor((offsetBytes + lengthBytes) / pageBytes)));
    return this.#inner.local!.discard(offsetBytes, lengthBytes, done);
  }

  isHole(offsetBytes: number, lengthBytes: number): boolean {
    return this.#inner.local!.isHole(offsetBytes, lengthBytes);
  }

  flush(done: IoDone): IoResult | "pending" {
    return this.#inner.flush(done);
  }

  /** Does all of it, or on a full host a part and answers that there is no space. */
  #store(
    offsetBytes: number,
    lengthBytes: number,
    done: IoDone,
    begin: (lengthBytes: number, done: IoDone) => IoResult | "pending",
  ): IoResult | "pending" {
    const roomBytes = this.#host.isFull ? this.#storedBytes(offsetBytes, lengthBytes) : lengthBytes;
    if (roomBytes === lengthBytes) {
      this.#noteStored(offsetBytes, lengthBytes);
      return begin(lengthBytes, done);
    }
    this.#host.refused[this.#name] += 1;
    const partBytes = this.#host.partOf(roomBytes);
    if (partBytes === 0) return full;
    const result = begin(partBytes, (result) => done(result.kind === "ok" ? full : result));
    return result === "pending" || result.kind !== "ok" ? result : full;
  }

  #noteStored(offsetBytes: number, lengthBytes: number): void {
    const end = Math.ceil((offsetBytes + lengthBytes) / pageBytes);
    this.#stored.fill(1, Math.floor(offsetBytes / pageBytes), end);
  }

  /** How many bytes from there on lie in stored pages. */
  #storedBytes(offsetBytes: number, lengthBytes: number): number {
    const endBytes = offsetBytes + lengthBytes;
    let page = Math.floor(offsetBytes / pageBytes);
    while (page * pageBytes < endBytes && this.#stored[page] === 1) page += 1;
    return Math.max(0, Math.min(page * pageBytes, endBytes) - offsetBytes);
  }
}
