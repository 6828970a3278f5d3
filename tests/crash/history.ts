/**
 * What the volumes of a pool may hold after a crash: the oracle of the crash tests, written from the contract of
 * durability and from nothing else.
 *
 * - What was written and then flushed, or written with FUA, is there.
 * - A sector that was not flushed holds any value submitted since its last flush, or its flushed one.
 * - A snapshot is one instant: requests answered before it are in it, requests submitted after it are not. It never
 *   changes. Clones and rollbacks begin with its content.
 * - A command that returned is there, one that did not is there whole or not at all.
 *
 * Time is a serial number of events; which of them a crash comes after is known by the length of the log.
 */
import { nameOfPattern } from "../../storage/base/name_pattern.ts";
import { keptSnapshotName } from "../../storage/base/names.ts";
import { assert } from "../../storage/base/assert.ts";
import { sectorSizeBytes } from "../../storage/base/ids.ts";
import type { BioKind } from "../../actors/volume/bio.ts";
import type { AdminCommand } from "../../actors/control/admin_command.ts";
import type { RunLog } from "./recording_device.ts";
import { describeSector, hashSector } from "./stamps.ts";
import { always, type Content, Cut, type Lineage, never, WritableContent, type Write } from "./content.ts";

/** What a volume may map, and what is kept for it, in bytes; null: no bound, nothing. */
export interface Allowance {
  readonly quotaBytes: number | null;
  readonly reserveBytes: number | null;
}

export const noAllowance: Allowance = { quotaBytes: null, reserveBytes: null };

/** The volumes between two commands. */
export interface Version {
  readonly volumes: ReadonlyMap<string, Content>;
  /** Of those volumes that have some. */
  readonly allowances: ReadonlyMap<string, Allowance>;
  readonly begunAt: number;
  /** It may be found by a crash that comes after `begunAt` and not after `endedAt`. */
  endedAt: number;
}

/** A command on its way. */
export interface Command {
  readonly before: Version;
  readonly after: Version;
  readonly cuts: readonly Cut[];
}

/** A request on its way. */
export interface Submitted {
  readonly lineage: Lineage;
  readonly kind: "write" | "flush";
  readonly at: number;
  readonly fua: boolean;
  readonly write: Write | undefined;
}

export interface RequestLike {
  readonly kind: BioKind;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly data: Uint8Array;
  readonly fua: boolean;
  readonly noHole?: boolean;
}

/** See the head of this file. */
export class History {
  readonly versions: Version[] = [{
    volumes: new Map(),
    allowances: new Map(),
    begunAt: always,
    endedAt: never,
  }];
  readonly cuts: Cut[] = [];
  readonly #log: RunLog;
  readonly #blockSizeBytes: number;
  /** Records in the log at each event. */
  readonly #recordsAt: number[] = [];
  readonly #zeroLineage: Lineage = { unflushed: [] };

  constructor(log: RunLog, blockSizeBytes: number) {
    this.#log = log;
    this.#blockSizeBytes = blockSizeBytes;
  }

  get current(): Version {
    return this.versions.findLast((version) => version.endedAt === never)!;
  }

  /** The serial of a crash just after the first `count` records. */
  instantAfter(count: number): number {
    let events = this.#recordsAt.length;
    while (events > 0 && this.#recordsAt[events - 1]! > count) events -= 1;
    return events;
  }

  /** How many records there were at the event. */
  recordsAt(serial: number): number {
    return this.#recordsAt[serial] ?? this.#log.records.length;
  }

  #tick(): number {
    return this.#recordsAt.push(this.#log.records.length) - 1;
  }

  // Requests.

  submit(lineage: Lineage, request: RequestLike): Submitted {
    const at = this.#tick();
    if (request.kind === "flush") return { lineage, kind: "flush", at, fua: false, write: undefined };
    if (request.kind === "read") return { lineage, kind: "write", at, fua: false, write: undefined };
    assert(request.kind !== "checkSpace", "no client asks for space");
    const write = this.#writeOf(lineage, request, at);
    if (write !== undefined) { for (const content of this.#contentsOf(lineage)) content.add(write); }
    return { lineage, kind: "write", at, fua: request.fua, write };
  }

  answer(submitted: Submitted, isOk: boolean): void {
    const at = this.#tick();
    const { lineage, write } = submitted;
    if (submitted.kind === "flush") {
      if (!isOk) return;
      const covered = lineage.unflushed.filter((other) => other.answered < submitted.at);
      for (const other of covered) other.durable = at;
      lineage.unflushed = lineage.unflushed.filter((other) => other.durable === never);
      return;
    }
    if (write === undefined) return;
    write.answered = at;
    if (!isOk) return;
    write.isDone = true;
    if (submitted.fua) write.durable = at;
    else lineage.unflushed.push(write);
  }

  #writeOf(lineage: Lineage, request: RequestLike, at: number): Write | undefined {
    let begin = request.offsetBytes;
    let end = begin + request.lengthBytes;
    if (request.kind === "discard") {
      // The blocks partly covered at its ends keep their bytes; the end of the volume is the end of its last block.
      const size = this.#contentsOf(lineage).at(-1)!.sizeBytes;
      begin = Math.ceil(begin / this.#blockSizeBytes) * this.#blockSizeBytes;
      if (end !== size) end = Math.floor(end / this.#blockSizeBytes) * this.#blockSizeBytes;
    }
    assert(begin % sectorSizeBytes === 0 && end % sectorSizeBytes === 0, "requests are whole sectors");
    if (begin >= end) return undefined;
    return {
      sectorBegin: begin / sectorSizeBytes,
      sectorEnd: end / sectorSizeBytes,
      values: request.kind === "write" ? hashSectors(request.data) : undefined,
      from: undefined,
      allocates: request.kind === "writeZeroes" && request.noHole === true,
      submitted: at,
      answered: never,
      isDone: false,
      durable: never,
    };
  }

  #contentsOf(lineage: Lineage): WritableContent[] {
    const found: WritableContent[] = [];
    for (const version of this.versions) {
      if (version.endedAt !== never) continue;
      for (const content of version.volumes.values()) {
        if (!(content instanceof WritableContent) || content.lineage !== lineage) continue;
        if (!found.includes(content)) found.push(content);
      }
    }
    return found;
  }

  /**
   * Notes what a snapshot holds, from what was found right after its command returned. Answers what is wrong with it, or
   * undefined.
   */
  pin(cut: Cut, version: Version, found: readonly { readonly name: string; readonly words: Uint32Array }[]) {
    for (const [name, content] of version.volumes) {
      const isFirst = content === cut || (content instanceof WritableContent && content.beginsWith(cut));
      if (!isFirst) continue;
      const words = found.find((volume) => volume.name === name)?.words;
      if (words === undefined) return `"${name}" is not there though its command returned`;
      const values = hashSectors(new Uint8Array(words.buffer));
      for (const [sector, value] of values.entries()) {
        if (cut.mayHold(sector, value)) continue;
        return `"${name}" does not hold what was there when it was taken: sector ${sector} holds ${
          describeSector(words, sector)
        }`;
      }
      cut.pinned = values;
      return undefined;
    }
    return "nothing holds what the snapshot took";
  }

  // Commands.

  begin(command: AdminCommand): Command {
    const begunAt = this.#tick();
    const before = this.current;
    const cuts: Cut[] = [];
    const volumes = new Map(before.volumes);
    this.#apply(volumes, command, begunAt, cuts);
    const allowances = allowancesAfter(before.allowances, command);
    const after: Version = { volumes, allowances, begunAt, endedAt: never };
    this.versions.push(after);
    return { before, after, cuts };
  }

  /** `unknown`: it failed and may be found there or not. */
  end(command: Command, result: "done" | "refused" | "unknown"): void {
    const at = this.#tick();
    if (result === "unknown") return;
    if (result === "refused") {
      command.after.endedAt = always;
      return;
    }
    command.before.endedAt = at;
    for (const content of command.after.volumes.values()) {
      if (content instanceof WritableContent) this.#endBases(content, at);
    }
    for (const cut of command.cuts) {
      cut.endedAt = at;
      this.cuts.push(cut);
    }
  }

  /** What is submitted from now on comes after the content that a clone or a rollback began with. */
  #endBases(content: WritableContent, at: number): void {
    for (const writes of content.sectors) {
      const base = writes[0]!;
      if (base.from !== undefined && base.answered === never) base.answered = at;
    }
  }

  #apply(volumes: Map<string, Content>, command: AdminCommand, at: number, cuts: Cut[]): void {
    switch (command.verb) {
      case "create":
        volumes.set(command.name, this.#writable({ unflushed: [] }, command.sizeBytes, undefined));
        return;
      case "snapshot":
        for (const name of command.names) {
          const source = volumes.get(name.slice(0, name.indexOf("@")))!;
          const cut = new Cut(source, source.sizeBytes, at);
          cuts.push(cut);
          volumes.set(name, cut);
        }
        return;
      case "clone":
        return this.#clone(volumes, command.source, [command.name], at, cuts);
      case "fork":
        return this.#clone(volumes, command.source, forksOf(command), at, cuts);
      case "rollback":
        return this.#rollback(volumes, command.snapshot, at, cuts);
      case "resize":
        return this.#resize(volumes, command.name, command.sizeBytes);
      case "rename":
        return rename(volumes, command.from, command.to);
      case "rm":
        for (const name of command.names) volumes.delete(name);
        return;
      case "grow":
      case "rescan":
      case "quota":
      case "reserve":
        return;
      default:
        assert(false, "a command that changes nothing");
    }
  }

  /** All of one instant. */
  #clone(
    volumes: Map<string, Content>,
    from: string,
    names: readonly string[],
    at: number,
    cuts: Cut[],
  ): void {
    const source = volumes.get(from)!;
    const cut = source instanceof Cut ? source : new Cut(source, source.sizeBytes, at);
    if (cut !== source) cuts.push(cut);
    for (const name of names) {
      volumes.set(name, this.#writable({ unflushed: [] }, source.sizeBytes, cut));
    }
  }

  #writable(lineage: Lineage, sizeBytes: number, from: Cut | undefined): WritableContent {
    const content = new WritableContent(lineage, sizeBytes);
    content.add({
      sectorBegin: 0,
      sectorEnd: content.sectors.length,
      values: undefined,
      from,
      allocates: false,
      submitted: always,
      answered: from === undefined ? always : never,
      isDone: true,
      durable: always,
    });
    return content;
  }

  /** What has not been answered may still come after it. */
  #rollback(volumes: Map<string, Content>, snapshot: string, at: number, cuts: Cut[]): void {
    const name = snapshot.slice(0, snapshot.indexOf("@"));
    const old = volumes.get(name)!;
    const cut = volumes.get(snapshot)!;
    assert(old instanceof WritableContent && cut instanceof Cut, "a volume is rolled back to a snapshot");
    const content = this.#writable(old.lineage, cut.sizeBytes, cut);
    const flying = new Set(
      old.sectors.flat().filter((write) => write.answered === never && write.submitted >= 0),
    );
    for (const write of flying) content.add(write);
    volumes.set(name, content);
    const kept = new Cut(old, old.sizeBytes, at);
    cuts.push(kept);
    volumes.set(keptSnapshotName(name, (taken) => volumes.has(taken)), kept);
  }

  #resize(volumes: Map<string, Content>, name: string, sizeBytes: number): void {
    const old = volumes.get(name)!;
    assert(old instanceof WritableContent, "a volume is resized");
    const content = this.#writable(old.lineage, sizeBytes, undefined);
    const common = Math.min(old.sectors.length, content.sectors.length);
    for (let sector = 0; sector < common; sector += 1) content.sectors[sector] = [...old.sectors[sector]!];
    content.inherit(old);
    volumes.set(name, content);
  }
}

/** Allowances follow a rename, stay through a rollback and end with their volume; clones have none. */
function allowancesAfter(
  before: ReadonlyMap<string, Allowance>,
  command: AdminCommand,
): ReadonlyMap<string, Allowance> {
  const allowances = new Map(before);
  const change = (name: string, changed: Partial<Allowance>) =>
    allowances.set(name, { ...allowances.get(name) ?? noAllowance, ...changed });
  switch (command.verb) {
    case "quota":
      change(command.name, { quotaBytes: command.quotaBytes });
      break;
    case "reserve":
      change(command.name, { reserveBytes: command.reserveBytes });
      break;
    case "rename":
      if (allowances.has(command.from)) change(command.to, allowances.get(command.from)!);
      allowances.delete(command.from);
      break;
    case "rm":
      for (const name of command.names) allowances.delete(name);
      break;
  }
  return allowances;
}

/** The names that a fork makes. */
function forksOf({ name, count }: AdminCommand & { readonly verb: "fork" }): string[] {
  assert(name !== null, "a fork of a test names its forks");
  return Array.from({ length: count }, (_, at) => nameOfPattern(name, at + 1));
}

function rename(volumes: Map<string, Content>, from: string, to: string): void {
  for (const [name, content] of [...volumes]) {
    if (name !== from && !name.startsWith(`${from}@`)) continue;
    volumes.delete(name);
    volumes.set(to + name.slice(from.length), content);
  }
}

function hashSectors(data: Uint8Array): Float64Array {
  // A payload may lie anywhere in its buffer.
  const bytes = data.byteOffset % 4 === 0 ? data : data.slice();
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const values = new Float64Array(data.length / sectorSizeBytes);
  for (let sector = 0; sector < values.length; sector += 1) values[sector] = hashSector(words, sector);
  return values;
}
