/**
 * The same requests in batches of one and in larger ones: what clients see with the larger ones, they could have seen with
 * batches of one. Those are served by the seed's functions in actors/volume/remap.ts, which are the specification.
 *
 * All that is asked of the volume comes in one message both times. What is left by crashes is compared too, if they are tried.
 */
import { inBatches } from "./cases.ts";
import type { Crashes } from "./crashes.ts";
import { explore, type Explored } from "./explore.ts";
import type { Scenario } from "./scenario.ts";
import { Views } from "./views.ts";

/** A scenario as it was explored. */
export interface Part {
  readonly scenario: Scenario;
  readonly explored: Explored;
}

/** What comparing a scenario came to. */
export interface Compared {
  /** With batches of one, and with each larger size; none if batches make no difference. */
  readonly parts: readonly Part[];
  /** What clients see with batches of one, and what with larger ones. */
  readonly viewsAlone: number;
  readonly viewsTogether: number;
}

/**
 * Runs the schedules of a scenario with batches of one and with larger ones, and compares. Where not all schedules with
 * batches of one were run, a view that is not among theirs is no problem.
 */
export function compareBatches(
  scenario: Scenario,
  schedulesMax: number,
  crashes: Crashes | undefined,
): Compared {
  const parts: Part[] = [];
  const see = (batched: Scenario): Views => {
    const views = new Views();
    const explored = explore(batched, schedulesMax, crashes, views);
    parts.push({ scenario: batched, explored });
    return views;
  };
  const larger = inBatches(scenario);
  if (larger.length === 0) return { parts, viewsAlone: 0, viewsTogether: 0 };
  const alone = see({ ...scenario, together: 1 });
  const isWhole = parts[0]!.explored.counts.isComplete && parts[0]!.explored.problem === undefined;
  let viewsTogether = 0;
  for (const batched of larger) {
    const views = see(batched);
    viewsTogether += views.count;
    const part = parts.pop()!;
    const other = isWhole ? views.findOther(alone) : undefined;
    const problem = other === undefined ? undefined : `not seen with batches of one: ${other}`;
    parts.push({ ...part, explored: { ...part.explored, problem: part.explored.problem ?? problem } });
  }
  return { parts, viewsAlone: alone.count, viewsTogether };
}
