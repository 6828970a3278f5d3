/**
 * What must hold of a request that is answered with ENOSPC, and of a command that is refused for what is reserved: there was
 * a reason for it, by what the model knows of quotas, reserves and requests, and by the counts of metadata alone (docs/space.md).
 *
 *  - the volume has all that its quota allows, or too little for what the request still needs;
 *  - or the pool has too few free blocks for that, those left out that are owed to other volumes, that other requests may have
 *    leased, that a growth adds whose commit is not durable, or that became free after the request came, and may be in
 *    quarantine;
 *  - or the metadata is full, also after a commit, which gives freed blocks back; or the host was;
 *  - where requests wait for space, the second and the third for a timeout at least;
 *  - or the request ends behind the end of the volume.
 *
 * A host without room refuses the commands that add something, for its own sake or for the catalogue's, and never a removal.
 */
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import { parseName } from "../../storage/base/names.ts";
import { type VBlock, vblock } from "../../storage/base/ids.ts";
import type { VolumeRecord } from "../../storage/catalogue.ts";
import { MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import type { Version } from "../crash/history.ts";
import type { Asked } from "./client.ts";
import type { Life } from "./life.ts";
import { type Followed, isOf, type Oracle, type Target } from "./oracle.ts";
import type { Swarm } from "./swarm.ts";
import { Violation } from "./violation.ts";

const never = Infinity;
/** Metadata blocks that one insert or one new device may need, above the headroom: copies of one path of each tree. */
const changeBlocksMax = 8;

/** A request on its way. */
interface Waiting {
  readonly target: Target;
  readonly followed: Followed;
  /** What it touches. */
  readonly begin: VBlock;
  readonly end: VBlock;
  readonly endBytes: number;
  readonly mayMap: boolean;
  /** Data blocks that became free since it came. */
  freedBlocks: number;
  /** It may have been refused at once. */
  isExcused: boolean;
  /** It may have found no space. */
  isShort: boolean;
}

/** See the head of this file. For one life, in which no device fails. */
export class RefusalRule {
  readonly #life: Life;
  readonly #oracle: Oracle;
  readonly #swarm: Swarm;
  readonly #waiting = new Map<Followed, Waiting>();
  /** Uids of volumes that share blocks, or did in this life. */
  readonly #related = new Set<string>();
  /** Names of volumes whose reserve is as it was when the pool was opened, which counted them. */
  readonly #counted: ReadonlySet<string>;
  #freeBefore: number;
  /** When a request first found no space. */
  #shortSinceMs = Infinity;
  /** The command on its way may be refused. */
  #isCommandShort = false;
  /** It may be refused for want of metadata blocks. */
  #isMetadataShort = false;

  constructor(life: Life, oracle: Oracle, swarm: Swarm) {
    this.#life = life;
    this.#oracle = oracle;
    this.#swarm = swarm;
    const { engine, catalogue } = life.parts!;
    this.#freeBefore = engine.dataFree;
    // By family: a volume may share with a snapshot of a clone of it that is removed.
    const families = Map.groupBy(catalogue.volumes(), ({ thinId }) => catalogue.families.byThin.get(thinId));
    for (const family of families.values()) {
      if (family.length > 1) { for (const { uid } of family) this.#related.add(uid); }
    }
    this.#counted = new Set(oracle.current.allowances.keys());
  }

  asked(target: Target, followed: Followed, { kind, offsetBytes, lengthBytes }: Asked): void {
    if (kind === "read" || kind === "flush") return;
    const { blockSizeBytes } = this.#life.parts!.engine.geometry;
    const endBytes = offsetBytes + lengthBytes;
    this.#waiting.set(followed, {
      target,
      followed,
      begin: vblock(Math.floor(offsetBytes / blockSizeBytes)),
      end: vblock(Math.ceil(endBytes / blockSizeBytes)),
      endBytes,
      mayMap: kind !== "discard",
      freedBlocks: 0,
      isExcused: false,
      isShort: false,
    });
  }

  begun(command: AdminCommand): void {
    this.#isCommandShort = false;
    this.#isMetadataShort = false;
    for (const name of sharedBy(command)) {
      const uid = this.#life.parts!.catalogue.byName(parseName(name).volume)?.uid;
      if (uid !== undefined) this.#related.add(uid);
    }
    this.turned();
  }

  ended(command: AdminCommand, result: AdminResult): void {
    this.turned();
    if (result.kind !== "refused" || this.#life.faults.faults > 0) return;
    if (result.reason.includes("what is reserved for volumes") && !this.#isCommandShort) {
      throw new Violation(`${command.verb} was refused for what is reserved, and that much is free`);
    }
    if (result.reason.includes("the metadata is full") && isOfOneDevice(command) && !this.#isMetadataShort) {
      throw new Violation(`${command.verb} was refused for full metadata, and it was not full`);
    }
    const isOfCatalogue = result.reason.includes("what room there is in the catalogue");
    if (isOfCatalogue && (command.verb === "rm" || this.#life.host.refused.catalogue === 0)) {
      throw new Violation(`${command.verb} was refused for a full host: ${result.reason}`);
    }
  }

  /** Throws a {@linkcode Violation} if the request was refused for want of space without a reason. */
  answered(followed: Followed, isRefused: boolean): void {
    const waiting = this.#waiting.get(followed);
    if (waiting === undefined) return;
    if (isRefused) this.turned();
    this.#waiting.delete(followed);
    if (!isRefused || this.#life.faults.faults > 0 || waiting.isExcused) return;
    const waitedMs = this.#life.clock.nowMs - this.#shortSinceMs;
    const { noSpace } = this.#swarm;
    const mayFail = noSpace.kind === "error" || waitedMs >= noSpace.timeoutMs;
    if (waiting.isShort && mayFail) return;
    const blocks = `${waiting.begin} to ${waiting.end}`;
    throw new Violation(
      waiting.isShort
        ? `a write to blocks ${blocks} found no space and failed before the timeout`
        : `a write to blocks ${blocks} was refused for want of space, and nothing was full`,
    );
  }

  /** Called between any two turns of the actors. */
  turned(): void {
    const { engine } = this.#life.parts!;
    const free = engine.dataFree;
    const freedBlocks = Math.max(0, free - this.#freeBefore);
    this.#freeBefore = free;
    const { command } = this.#oracle;
    if (command !== undefined && !this.#isCommandShort) {
      this.#isCommandShort = this.#owed(undefined, true) > free;
    }
    this.#isMetadataShort ||= engine.metadataAvailableAfterCommit < changeBlocksMax;
    if (this.#waiting.size === 0) return;
    const open = this.#oracle.history.versions.filter(({ endedAt }) => endedAt === never);
    let leasedMost = command === undefined ? 0 : 1;
    for (const waiting of this.#waiting.values()) leasedMost += blocksOf(waiting);
    for (const waiting of this.#waiting.values()) {
      waiting.freedBlocks += freedBlocks;
      if (!waiting.isExcused) this.#judge(waiting, open, leasedMost - blocksOf(waiting));
    }
  }

  /** @param leasedMost data blocks that others may have */
  #judge(waiting: Waiting, open: readonly Version[], leasedMost: number): void {
    const { engine, catalogue } = this.#life.parts!;
    const { isFull } = this.#life.host;
    if (isFull || engine.metadataAvailableAfterCommit < changeBlocksMax) this.#findShort(waiting);
    for (const { volumes, allowances } of open) {
      for (const [name, content] of volumes) {
        if (!isOf(content, waiting.target)) continue;
        if (content.sizeBytes < waiting.endBytes) waiting.isExcused = true;
        const record = catalogue.byName(name);
        if (record === undefined || !waiting.mayMap) continue;
        const { quotaBytes = null } = allowances.get(name) ?? {};
        const mapped = engine.device(record.thinId)?.mappedBlocks ?? 0;
        const quotaBlocks = quotaBytes === null
          ? Infinity
          : Math.floor(quotaBytes / engine.geometry.blockSizeBytes);
        if (mapped + leasedMost + blocksOf(waiting) > quotaBlocks) {
          const needed = neededBlocks(engine, record, waiting, false);
          if (needed > 0 && mapped + leasedMost + needed > quotaBlocks) waiting.isExcused = true;
        }
        if (waiting.isShort) continue;
        // What a growth adds is of use once its commit is durable.
        const added = engine.dataBlocks - engine.geometry.dataBlocks;
        const room = engine.dataFree - added - waiting.freedBlocks - leasedMost - this.#owed(name, false);
        if (room >= blocksOf(waiting)) continue;
        const needed = neededBlocks(engine, record, waiting, this.#isRelated(record));
        if (needed > 0 && room < needed) this.#findShort(waiting);
      }
    }
  }

  #findShort(waiting: Waiting): void {
    waiting.isShort = true;
    this.#shortSinceMs = Math.min(this.#shortSinceMs, this.#life.clock.nowMs);
  }

  /** Most data blocks that may be owed to all volumes but this one; where a command is on its way, before or after it. */
  #owed(but: string | undefined, isAfterOnly: boolean): number {
    const { engine, catalogue } = this.#life.parts!;
    const { blockSizeBytes } = engine.geometry;
    let most = 0;
    for (const { allowances, endedAt, begunAt } of this.#oracle.history.versions) {
      if (endedAt !== never || (isAfterOnly && begunAt < this.#oracle.current.begunAt)) continue;
      let owedBlocks = 0;
      for (const [name, { reserveBytes }] of allowances) {
        if (name === but || reserveBytes === null) continue;
        const record = catalogue.byName(name);
        const isExact = record !== undefined && this.#counted.has(name) && !this.#isRelated(record);
        const own = isExact ? engine.device(record.thinId)?.mappedBlocks ?? 0 : 0;
        owedBlocks += Math.max(0, Math.ceil(reserveBytes / blockSizeBytes) - own);
      }
      most = Math.max(most, owedBlocks);
    }
    return most;
  }

  #isRelated({ uid, origin }: VolumeRecord): boolean {
    return origin !== null || this.#related.has(uid);
  }
}

function blocksOf({ begin, end, mayMap }: Waiting): number {
  return mayMap ? end - begin : 0;
}

/** One device is made in one slice, so it waits for commits; a slice behind the first does not. */
function isOfOneDevice(command: AdminCommand): boolean {
  return command.verb === "create" || command.verb === "clone" ||
    (command.verb === "snapshot" && command.names.length === 1);
}

/** The volumes of which a command makes others that share their blocks. */
function sharedBy(command: AdminCommand): readonly string[] {
  switch (command.verb) {
    case "snapshot":
      return command.names;
    case "clone":
    case "fork":
      return [command.source];
    case "rollback":
      return [command.snapshot];
    default:
      return [];
  }
}

/** Data blocks that the request needs as things are: for what is unmapped, and, where that may be shared, for what is mapped. */
function neededBlocks(
  engine: ThinMetadata,
  { thinId }: VolumeRecord,
  waiting: Waiting,
  mayShare: boolean,
): number {
  const blocks = blocksOf(waiting);
  // The catalogue may be a part of a command ahead.
  if (mayShare || engine.device(thinId) === undefined) return blocks;
  try {
    let mapped = 0;
    for (let next = waiting.begin; next < waiting.end;) {
      const found = engine.lookupRange(thinId, next, waiting.end, blocks);
      for (const { length } of found.runs) mapped += length;
      next = found.next;
    }
    return blocks - mapped;
  } catch (error) {
    // A block of the metadata is not in memory.
    if (error instanceof MetadataFault) return blocks;
    throw error;
  }
}
