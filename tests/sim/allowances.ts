/** What must hold of quotas and reserves (docs/space.md), whatever the pool itself counts. */
import type { AdminResult } from "../../actors/control/admin_command.ts";
import { assert } from "../../storage/base/assert.ts";
import type { ThinId } from "../../storage/base/ids.ts";
import type { Allowance, History } from "../crash/history.ts";
import { Recount } from "../support/metadata_recount.ts";
import type { Life } from "./life.ts";
import { Violation } from "./violation.ts";

const never = Infinity;

/**
 * What holds between any two turns of the actors: no volume maps more than its quota allows, unless it did so before the
 * quota; and no fewer data blocks are free than are owed.
 */
export class AllowanceRules {
  readonly #history: History;
  /** What each device mapped at the last turn. */
  #mapped = new Map<ThinId, number>();

  constructor(history: History) {
    this.#history = history;
  }

  check({ parts }: Life): void {
    if (parts === undefined) return;
    const { engine, catalogue } = parts;
    const { owedBlocks } = engine.allowances;
    if (owedBlocks > engine.dataFree) {
      throw new Violation(`${owedBlocks} data blocks are owed, and ${engine.dataFree} are free`);
    }
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
  const recount = reserved.length === 0 ? undefined : new Recount(life.metadata.bytes);
  let owedBlocks = 0;
  for (const [name, { reserveBytes }] of reserved) {
    const record = catalogue.byName(name);
    assert(record !== undefined, "a volume with a reserve is in the catalogue");
    const own = recount === undefined ? 0 : ownBlocks(recount, record.thinId);
    owedBlocks += Math.max(0, Math.ceil(reserveBytes! / blockSizeBytes) - own);
  }
  const counted = engine.allowances.owedBlocks;
  const isExact = isFresh && ![...catalogue.volumes()].some(({ deleting }) => deleting);
  if (counted < owedBlocks || (isExact && counted > owedBlocks)) {
    throw new Violation(`the pool counts ${counted} blocks as owed, and ${owedBlocks} are`);
  }
}

/** The data blocks that only this device maps. A reference count does not tell, because devices share whole leaves. */
function ownBlocks({ devices }: Recount, thin: ThinId): number {
  const own = new Set([...devices.get(thin)?.values() ?? []].map(([dblock]) => dblock));
  for (const [other, mappings] of devices) {
    if (other === thin) continue;
    for (const [dblock] of mappings.values()) own.delete(dblock);
  }
  return own.size;
}
