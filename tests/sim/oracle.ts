/**
 * The history of the crash tests (tests/crash/history.ts), carried on over any number of crashes.
 *
 * A crash ends what was on its way: a request that was not answered may have happened or not, and happens no more. What
 * is then found is like a write of those bytes over each whole volume: after a power cut a durable one, after a mere end
 * of the process one that a later power cut may still undo. Reads of running volumes are held against the history too.
 */
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import { assert } from "../../storage/base/assert.ts";
import { sectorSizeBytes } from "../../storage/base/ids.ts";
import { type Command, History, type RequestLike, type Submitted, type Version } from "../crash/history.ts";
import { type Content, Cut, type Lineage, type Survivor, WritableContent } from "../crash/content.ts";
import { outcomeOf } from "../crash/recorded_run.ts";
import { RunLog } from "../crash/recording_device.ts";
import { type FoundVolume, problemOfFound } from "../crash/recovery.ts";
import { describeSector, hashSector } from "../crash/stamps.ts";
import { Violation } from "./violation.ts";

const never = Infinity;
const always = -1;

/** A request as the oracle follows it. */
export interface Followed {
  readonly submitted: Submitted;
  readonly kind: RequestLike["kind"];
}

/** What a connection is attached to: it stays so over renames. */
export type Target = Lineage | Cut;

/** See the head of this file. */
export class Oracle {
  /** Nothing is recorded in it: a crash here always comes after everything so far. */
  readonly history: History;
  command: AdminCommand | undefined;
  #begun: Command | undefined;
  readonly #flying = new Set<Followed>();
  /** Connections ended before these were answered; they end when nothing moves any more. */
  readonly #abandoned = new Set<Followed>();
  readonly #numbers = new Map<Lineage, number>();
  /** What snapshots of this life have shown, by sector; NaN where nobody has read. */
  readonly #shown = new Map<Cut, Float64Array>();
  readonly #nobody: Lineage = { unflushed: [] };
  readonly #blockSectors: number;

  constructor(blockSectors: number) {
    this.#blockSectors = blockSectors;
    this.history = new History(new RunLog(), blockSectors * sectorSizeBytes);
  }

  get current(): Version {
    return this.history.current;
  }

  get flying(): ReadonlySet<Followed> {
    return this.#flying;
  }

  targetOf(name: string): Target {
    const content = this.current.volumes.get(name);
    assert(content !== undefined, "a volume of the simulation");
    return content instanceof Cut ? content : content.lineage;
  }

  /** The volume of a writable target as it is now, or undefined if it is removed. */
  contentOf(target: Target): Content | undefined {
    for (const content of this.current.volumes.values()) if (isOf(content, target)) return content;
    return undefined;
  }

  /** What its writes are stamped with. */
  numberOf(lineage: Lineage): number {
    const number = this.#numbers.get(lineage) ?? this.#numbers.size + 1;
    this.#numbers.set(lineage, number);
    return number;
  }

  // Requests.

  submit(target: Target, request: RequestLike): Followed {
    const lineage = target instanceof Cut ? this.#nobody : target;
    const followed = { submitted: this.history.submit(lineage, request), kind: request.kind };
    this.#flying.add(followed);
    return followed;
  }

  answer(followed: Followed, isOk: boolean): void {
    this.#flying.delete(followed);
    this.history.answer(followed.submitted, isOk);
  }

  /** Nobody will hear of it, but it may still happen. */
  abandon(followed: Followed): void {
    this.#abandoned.add(followed);
  }

  /** Nothing moves any more: what was abandoned has happened or will not. */
  endAbandoned(): void {
    for (const followed of this.#abandoned) this.answer(followed, false);
    this.#abandoned.clear();
  }

  /** Whether a read that was submitted and has just been answered may show these bytes. */
  checkRead(
    target: Target,
    followed: Followed,
    offsetBytes: number,
    data: Uint8Array,
    areFaults: boolean,
  ): void {
    const since = followed.submitted.at;
    const words = new Uint32Array(data.slice().buffer);
    const first = offsetBytes / sectorSizeBytes;
    const contents = this.#contentsSince(target, since);
    for (let at = 0; at < data.length / sectorSizeBytes; at += 1) {
      const value = hashSector(words, at);
      if (contents.some((content) => mayShow(content, first + at, value, since))) continue;
      const name = this.#nameOf(target);
      throw new Violation(`"${name}": a read of sector ${first + at} showed ${describeSector(words, at)}`);
    }
    if (target instanceof Cut && !areFaults) this.#checkUnchanged(target, first, words);
  }

  #nameOf(target: Target): string {
    for (const [name, content] of this.current.volumes) if (isOf(content, target)) return name;
    return "a removed volume";
  }

  #contentsSince(target: Target, since: number): Content[] {
    const contents: Content[] = [];
    for (const version of this.history.versions) {
      if (version.endedAt < since) continue;
      for (const content of version.volumes.values()) {
        if (isOf(content, target) && !contents.includes(content)) contents.push(content);
      }
    }
    return contents;
  }

  #checkUnchanged(cut: Cut, first: number, words: Uint32Array): void {
    const shown = this.#shown.get(cut) ?? new Float64Array(cut.sizeBytes / sectorSizeBytes).fill(NaN);
    this.#shown.set(cut, shown);
    for (let at = 0; at < words.length / 128; at += 1) {
      const value = hashSector(words, at);
      const before = shown[first + at]!;
      if (!Number.isNaN(before) && before !== value) {
        throw new Violation(
          `a snapshot has changed: sector ${first + at} shows ${describeSector(words, at)}`,
        );
      }
      shown[first + at] = value;
    }
  }

  // Commands.

  begin(command: AdminCommand): void {
    assert(this.command === undefined, "one command at a time");
    this.command = command;
    this.#begun = this.history.begin(command);
  }

  /** Answers whether it is done. */
  end(result: AdminResult): boolean {
    assert(this.#begun !== undefined, "a command ended that was not begun");
    const outcome = outcomeOf(result);
    this.history.end(this.#begun, outcome);
    this.command = this.#begun = undefined;
    return outcome === "done";
  }

  // Crashes.

  /**
   * What is wrong with what was found after a crash, or undefined; from then on that is what is there.
   * @param isDurable no later crash takes it back
   */
  crashed(found: readonly FoundVolume[], isDurable: boolean, survivor: Survivor): string | undefined {
    const { versions } = this.history;
    const instant = this.history.instantAfter(0);
    const open = versions.filter((version) => version.endedAt === never);
    const problems: string[] = [];
    let chosen: Version | undefined;
    for (const version of open) {
      for (const other of open) other.endedAt = other === version ? never : always;
      const problem = problemOfFound(found, this.history, instant, survivor);
      if (problem === undefined) chosen = version;
      else problems.push(problem);
      if (chosen !== undefined) break;
    }
    if (chosen === undefined) return problems.join("; or ");
    const { volumes, allowances } = chosen;
    versions.splice(0, versions.length, { volumes, allowances, begunAt: always, endedAt: never });
    this.command = this.#begun = undefined;
    for (const followed of [...this.#flying]) this.answer(followed, false);
    this.#abandoned.clear();
    this.#shown.clear();
    return this.#pin(found, instant) ?? this.#goOn(found, isDurable);
  }

  /** Where zeroes map nothing: a block that is mapped now and never got anything else, as a sentence. */
  problemOfMapped(found: readonly FoundVolume[]): string | undefined {
    const step = this.#blockSectors;
    for (const { name, mapped = [] } of found) {
      const content = this.current.volumes.get(name)!;
      for (const [begin, end] of mapped) {
        for (let sector = begin; sector < end; sector += step) {
          if (content.mayMap(sector, sector + step)) continue;
          return `"${name}": the block of sector ${sector} is mapped, and only zeroes were written to it`;
        }
      }
    }
    return undefined;
  }

  #goOn(found: readonly FoundVolume[], isDurable: boolean): undefined {
    for (const { name, words, sizeBytes } of found) {
      const content = this.current.volumes.get(name)!;
      if (!(content instanceof WritableContent)) continue;
      const data = new Uint8Array(words.buffer);
      const whole = { kind: "write", offsetBytes: 0, lengthBytes: sizeBytes, data, fua: isDurable } as const;
      this.history.answer(this.history.submit(content.lineage, whole), true);
      if (!isDurable) continue;
      for (const writes of content.sectors) writes.splice(0, writes.length - 1);
      content.lineage.unflushed = [];
    }
    return undefined;
  }

  /** Snapshots are as they were found from now on. Those of one command must be one instant. */
  #pin(found: readonly FoundVolume[], instant: number): string | undefined {
    const commands = new Map<number, Cut[]>();
    for (const { name, words } of found) {
      const cut = this.current.volumes.get(name)!;
      if (!(cut instanceof Cut)) continue;
      cut.endedAt = Math.min(cut.endedAt, instant);
      if (cut.pinned !== undefined) continue;
      cut.pinned = Float64Array.from({ length: words.length / 128 }, (_, at) => hashSector(words, at));
      commands.set(cut.begunAt, [...commands.get(cut.begunAt) ?? [], cut]);
    }
    for (const cuts of commands.values()) {
      const problem = problemOfInstant(cuts);
      if (problem !== undefined) return problem;
    }
    return undefined;
  }
}

/** Whether this is the content of what a connection is attached to. */
export function isOf(content: Content, target: Target): boolean {
  return content === target || (content instanceof WritableContent && content.lineage === target);
}

function mayShow(content: Content, sector: number, value: number, since: number): boolean {
  if (sector * sectorSizeBytes >= content.sizeBytes) return false;
  if (content instanceof Cut) return content.allows(sector, value);
  return new Cut(content, content.sizeBytes, since).mayHold(sector, value);
}

/**
 * If one of them holds a write, the instant came after its submission; so all of them hold what had been answered before
 * that.
 */
function problemOfInstant(cuts: readonly Cut[]): string | undefined {
  let latest = always;
  for (const { source, pinned } of cuts) {
    if (!(source instanceof WritableContent) || pinned === undefined) continue;
    for (const [sector, value] of pinned.entries()) {
      if (value === 0) continue;
      let first = never;
      for (const write of source.sectors[sector] ?? []) {
        const isSame = write.values?.[sector - write.sectorBegin] === value;
        if (isSame) first = Math.min(first, write.submitted);
      }
      if (first !== never) latest = Math.max(latest, first);
    }
  }
  for (const { source, sizeBytes, pinned, endedAt, begunAt } of cuts) {
    if (!(source instanceof WritableContent) || pinned === undefined || latest <= begunAt) continue;
    const narrowed = new Cut(source, sizeBytes, latest);
    narrowed.endedAt = endedAt;
    for (const [sector, value] of pinned.entries()) {
      if (!narrowed.mayHold(sector, value)) {
        return `snapshots of one command are not one instant: sector ${sector} of one is older than a write in another`;
      }
    }
  }
  return undefined;
}
