/** What planning reads, and what it comes to: a draft of a change, or a sentence that refuses it. */
import type { Catalogue, CatalogueChange } from "../../storage/catalogue.ts";
import { done } from "./admin_outcome.ts";
import type { PlannedChange, PlanRefused } from "./pool_messages.ts";

/** What planning reads of the pool. */
export interface PlanContext {
  readonly catalogue: Catalogue;
  /** RFC 3339, UTC. */
  readonly now: string;
  /** The same time `afterMs` later. */
  timeAfter(afterMs: number): string;
  newUid(): string;
  /**
   * Clients attached to the volume of this uid. From now on it takes no other, until the plan is settled or refused: so
   * what this said is still true at the end of a plan that takes several turns.
   */
  claim(uid: string): number;
  /** The clients attached to the volume of this uid, for a sentence. */
  clientsOf(uid: string): readonly string[];
  /** The volume of this uid, which the step makes, is held from now on; if the step is refused, not any more. */
  hold(uid: string): void;
  /** Names that are planned in one slice. */
  readonly perSlice: number;
}

/** What a command changes, in names and uids; the pool makes the plan of it. */
export interface PlanDraft extends PlannedChange {
  readonly kind: "draft";
  readonly changes: readonly CatalogueChange[];
  readonly quiesceUids: ReadonlySet<string>;
}

/** A draft that does only what is given. */
export function draft(
  changes: readonly CatalogueChange[],
  more: Partial<Omit<PlanDraft, "kind" | "changes">> = {},
): PlanDraft {
  return {
    kind: "draft",
    changes,
    create: [],
    snapshots: [],
    tick: false,
    quiesceUids: new Set(),
    quietUntil: "settled",
    evict: [],
    deletions: [],
    trims: [],
    allowances: [],
    result: done,
    ...more,
  };
}

/** A refusal with its sentence. */
export function refusedPlan(reason: string): PlanRefused {
  return { kind: "refused", reason };
}
