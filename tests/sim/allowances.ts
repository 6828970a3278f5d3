/** What must hold of quotas and reserves (docs/space.md), whatever the pool itself counts. */
import type { AdminResult } from "../../actors/control/admin_command.ts";
import { assert } from "../../storage/base/assert.ts";
import { type ThinId, thinId, vblock } from "../../storage/base/ids.ts";
import { MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";
import type { Allowance, History } from "../crash/history.ts";
import { Recount } from "../support/metadata_recount.ts";
import type { Life } from "./life.ts";
import type { PoolParts } from "./life_world.ts";
import { Violation } from "./violation.ts";

const never = Infinity;
/** A walk over all mappings is dear. */
const turnsBetweenWalks = 8;

/** The data blocks that each device maps. */
type Mappings = ReadonlyMap<ThinId, readonly number[]>;

/**
 * What holds between any two turns of the actors: no volume maps more than its quota allows, unless it did so before the
 * quota; what the engine lets a volume map is what its quota leaves; no fewer data blocks are free than are owed; and no less is owed than a walk over all mappings says.
 */
export class AllowanceRules {
  readonly #history: History;
  readonly #areBlocksTaken: boolean;
  /** What each device mapped at the last turn. */
  #mapped = new Map<ThinId, number>();
  #turns = 0;

  /** @param areBlocksTaken another program has mapped blocks, which knows nothing of what is owed */
  constructor(history: History, areBlocksTaken: boolean) {
    this.#history = history;
    this.#areBlocksTaken = areBlocksTaken;
  }

  check({ parts }: Life): void {
    if (parts === undefined) return;
    const { engine, catalogue } = parts;
    this.#checkInForce(parts);
    const { owedBlocks } = engine.allowances;
    if (owedBlocks > engine.dataFree && !this.#areBlocksTaken) {
      throw new Violation(`${owedBlocks} data blocks are owed, and ${engine.dataFree} are free`);
    }
    this.#turns += 1;
    if (this.#turns % turnsBetweenWalks === 0) this.#checkOwn(parts);
    const mapped = new Map<ThinId, number>();
    for (const [name, quotaBytes] of this.#quotas()) {
      const thin = catalogue.byName(name)?.thinId;
      const blocks = thin === undefined ? undefined : engine.device(thin)?.mappedBlocks;
      if (thin === undefined || blocks === undefined) continue;
      mapped.set(thin, blocks);
      const allowed = Math.floor(quotaBytes / engine.geometry.blockSizeBytes);
      if (blocks <= Math.max(allowed, this.#mapped.get(thin) ?? blocks)) continue;
      throw new Violation(`"${name}" maps ${blocks} blocks, and its quota allows ${allowed}`);
    }
    this.#mapped = mapped;
  }

  /** While no command may have half changed it, each volume has its quota, and the others have none. */
  #checkInForce({ engine, catalogue }: PoolParts): void {
    const [version, other] = this.#history.versions.filter(({ endedAt }) => endedAt === never);
    if (version === undefined || other !== undefined) return;
    for (const name of version.volumes.keys()) {
      const thin = catalogue.byName(name)?.thinId;
      const mapped = thin === undefined ? undefined : engine.device(thin)?.mappedBlocks;
      if (thin === undefined || mapped === undefined) continue;
      const quotaBytes = version.allowances.get(name)?.quotaBytes ?? Infinity;
      const left = Math.max(0, Math.floor(quotaBytes / engine.geometry.blockSizeBytes) - mapped);
      const { quotaLeft } = engine.allowances.roomOf(thin, mapped);
      if (quotaLeft === left) continue;
      throw new Violation(`"${name}" may map ${quotaLeft} blocks more, and its quota leaves ${left}`);
    }
  }

  /** No less is owed than a walk over what the engine has in memory says. Not while a command may have half changed that. */
  #checkOwn({ engine, catalogue }: PoolParts): void {
    const [version, other] = this.#history.versions.filter(({ endedAt }) => endedAt === never);
    const reserves = [...version?.allowances ?? []].filter(([, { reserveBytes }]) => reserveBytes !== null);
    if (version === undefined || other !== undefined || reserves.length === 0) return;
    const mappings = mappingsInMemory(engine);
    if (mappings === undefined) return;
    let owedBlocks = 0;
    for (const [name, { reserveBytes }] of reserves) {
      const thin = catalogue.byName(name)?.thinId;
      if (thin === undefined) return;
      const blocks = Math.ceil(reserveBytes! / engine.geometry.blockSizeBytes);
      owedBlocks += Math.max(0, blocks - ownBlocks(mappings, thin));
    }
    const counted = engine.allowances.owedBlocks;
    if (counted < owedBlocks) {
      throw new Violation(`the pool counts ${counted} blocks as owed, and ${owedBlocks} are`);
    }
  }

  /** By name the quota that is in force: while a command is on its way, the larger one of before and after it. */
  #quotas(): Map<string, number> {
    const quotas = new Map<string, number>();
    for (const { volumes, allowances, endedAt } of this.#history.versions) {
      if (endedAt !== never) continue;
      for (const name of volumes.keys()) {
        const quotaBytes = allowances.get(name)?.quotaBytes ?? Infinity;
        quotas.set(name, Math.max(quotas.get(name) ?? 0, quotaBytes));
      }
    }
    return quotas;
  }
}

/**
 * What holds where nothing moves: what a pool counts as owed is what a recount of its metadata says, or more; right after it
 * was opened it is the same, unless a removal goes on that a crash has interrupted.
 */
export function checkOwed(life: Life, allowances: ReadonlyMap<string, Allowance>, isFresh: boolean): void {
  const { engine, catalogue } = life.parts!;
  const { blockSizeBytes } = engine.geometry;
  const reserved = [...allowances].filter(([, { reserveBytes }]) => reserveBytes !== null);
  const results: AdminResult[] = [];
  // It commits, so the metadata device has all that the engine has.
  if (reserved.length > 0) life.admin({ verb: "list", exact: true }, (result) => results.push(result));
  life.drain();
  if (reserved.length > 0 && (life.isOver || results[0]?.kind !== "volumes" || life.faults.faults > 0)) {
    return;
  }
  const mappings = reserved.length === 0 ? new Map() : mappingsOf(new Recount(life.metadata.bytes));
  let owedBlocks = 0;
  for (const [name, { reserveBytes }] of reserved) {
    const record = catalogue.byName(name);
    assert(record !== undefined, "a volume with a reserve is in the catalogue");
    const own = ownBlocks(mappings, record.thinId);
    owedBlocks += Math.max(0, Math.ceil(reserveBytes! / blockSizeBytes) - own);
  }
  const counted = engine.allowances.owedBlocks;
  const isExact = isFresh && ![...catalogue.volumes()].some(({ deleting }) => deleting);
  if (counted < owedBlocks || (isExact && counted > owedBlocks)) {
    throw new Violation(`the pool counts ${counted} blocks as owed, and ${owedBlocks} are`);
  }
}

/** The data blocks that only this device maps. A reference count does not tell, because devices share whole leaves. */
function ownBlocks(mappings: Mappings, thin: ThinId): number {
  const own = new Set(mappings.get(thin) ?? []);
  for (const [other, dblocks] of mappings) {
    if (other !== thin) { for (const dblock of dblocks) own.delete(dblock); }
  }
  return own.size;
}

function mappingsOf({ devices }: Recount): Mappings {
  return new Map([...devices].map(([thin, mapped]) => {
    return [thinId(thin), [...mapped.values()].map(([dblock]) => dblock)];
  }));
}

/** Undefined if a block of the metadata is not in memory. */
function mappingsInMemory(engine: ThinMetadata): Mappings | undefined {
  const mappings = new Map<ThinId, number[]>();
  try {
    for (const thin of engine.thinIds()) {
      const dblocks: number[] = [];
      const end = vblock((engine.highestMapped(thin) ?? -1) + 1);
      for (let next = vblock(0); next < end;) {
        const found = engine.lookupRange(thin, next, end, 1000);
        for (const { dblockBegin, length } of found.runs) {
          for (let at = 0; at < length; at += 1) dblocks.push(dblockBegin + at);
        }
        next = found.next;
      }
      mappings.set(thin, dblocks);
    }
  } catch (error) {
    if (error instanceof MetadataFault) return undefined;
    throw error;
  }
  return mappings;
}
