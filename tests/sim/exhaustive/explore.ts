/** One scenario, all its schedules, and for each the crashes. */
import { describe as describeMessage } from "../../../actors/kernel/trace.ts";
import { Crashes } from "./crashes.ts";
import { checkEnd } from "./oracle.ts";
import { HeldPool } from "./held_pool.ts";
import type { Scenario } from "./scenario.ts";
import type { Event } from "./execution.ts";
import { Search, type SearchCounts } from "./search.ts";
import type { Views } from "./views.ts";

/** What exploring a scenario came to. */
export interface Explored {
  readonly counts: SearchCounts;
  readonly problem: string | undefined;
  /** With a problem: each delivery, a line each. */
  readonly schedule: readonly string[];
}

/** Memory of crashes for {@linkcode explore}. Made by the same modules as the product that is explored. */
export function newCrashes(): Crashes {
  return new Crashes();
}

/** Runs the schedules of a scenario until one shows a problem; with `crashes`, and each of their crashes. `views` gets all. */
export function explore(
  scenario: Scenario,
  schedulesMax: number,
  crashes: Crashes | undefined,
  views?: Views,
): Explored {
  const search = new Search(() => new HeldPool(scenario), scenario.last);
  const problem = search.findProblem(schedulesMax, (run, events) => {
    const pool = run as HeldPool;
    // What is asked of the devices after the end of the schedule is no part of it.
    const operations = pool.log.operations.slice();
    const found = checkEnd(pool);
    if (typeof found === "string") return found;
    views?.noteEnd(pool, found);
    return crashes?.findProblem(pool, operations, events, found, views);
  });
  const schedule = problem === undefined ? [] : search.events.map(lineOf);
  return { counts: search.counts, problem, schedule };
}

function lineOf(event: Event): string {
  return `${event.actor} receives ${describeMessage(event.message)}`;
}
