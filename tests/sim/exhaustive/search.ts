/**
 * A stateless search over all schedules that differ: dynamic partial order reduction with sleep sets and wakeup trees
 * (Abdulla, Aronsson, Jonsson, Sagonas: Optimal Dynamic Partial Order Reduction, 2014), a message's receipt being one step.
 *
 * A schedule is run from the start each time. Of every two dependent messages that were received one after the other and
 * could have been received the other way round, the search sees to it that they once are. Two schedules that differ only
 * in the order of independent messages count as one, and one of them is run.
 *
 * What may be received next: any message, but not before another to the same actor whose sending came certainly before
 * its own. That is what the kernel promises and a little more: its mailboxes have one order for all senders. The search
 * may thus try what the kernel cannot do, and never leaves out what it can.
 */
import { present } from "../../../storage/base/assert.ts";
import { type Event, Execution, Ids, isIn, type Pending, type Run } from "./execution.ts";
import { type Delivery, Independence } from "./independence.ts";

/** A receipt to try, and what to try after it; after a last one, anything. */
interface Branch {
  readonly id: number;
  readonly delivery: Delivery;
  readonly children: Branch[];
}

/** A state on the path of the current schedule, and what has been and will be tried there. */
interface Node {
  chosen: number;
  /** What to try after the chosen one. */
  next: Branch[];
  /** What is to be tried instead of it, in this order: the wakeup tree. */
  readonly wanted: Branch[];
  /** What need not be received here next: a schedule that was run covers it. */
  readonly asleep: Map<number, Delivery>;
}

/** How many schedules a search has run. */
export interface SearchCounts {
  schedules: number;
  /** Given up because everything that could be received next was covered; wakeup trees are there to have none. */
  cutShort: number;
  /** There were more than was allowed. */
  isComplete: boolean;
}

/**
 * Devices and commits last: answers then come as early as they can, which is the worst for durability. After them the types in
 * `last`, in this order.
 */
function lateness(delivery: Delivery, last: readonly string[]): number {
  const place = last.indexOf(delivery.message.type);
  if (place >= 0) return 3 + place;
  if (delivery.actor.endsWith(" device")) return 2;
  return delivery.message.type === "freeze" ? 1 : 0;
}

/** Runs every schedule that differs until `onComplete` answers a problem. See the head of this file. */
export class Search {
  readonly counts: SearchCounts = { schedules: 0, cutShort: 0, isComplete: true };
  readonly #makeRun: () => Run;
  readonly #last: readonly string[];
  readonly #ids = new Ids();
  readonly #independence = new Independence();
  #nodes: Node[] = [];
  /** The events of the last schedule. */
  events: readonly Event[] = [];

  /** @param last types of messages to receive last where any may come next: only the order of the schedules depends on it */
  constructor(makeRun: () => Run, last: readonly string[] = []) {
    this.#last = last;
    this.#makeRun = makeRun;
  }

  /** Answers the first problem, or undefined when all schedules were run or so many of them. */
  findProblem(
    schedulesMax: number,
    onComplete: (run: Run, events: readonly Event[]) => string | undefined,
  ): string | undefined {
    let prefix = 0;
    do {
      if (this.counts.schedules + this.counts.cutShort >= schedulesMax) {
        this.counts.isComplete = false;
        return undefined;
      }
      const problem = this.#runOne(prefix, onComplete);
      if (problem !== undefined) return problem;
      prefix = this.#backtrack();
    } while (prefix > 0 || this.#isFromStart());
    return undefined;
  }

  #runOne(
    prefix: number,
    onComplete: (run: Run, events: readonly Event[]) => string | undefined,
  ): string | undefined {
    const run = this.#makeRun();
    const execution = new Execution(run, this.#ids, this.#independence);
    this.events = execution.events;
    for (;;) {
      if (execution.isSurprised) return this.#startAgain(run);
      const enabled = execution.enabled();
      if (enabled.length === 0) break;
      const depth = execution.events.length;
      const chosen = depth < prefix
        ? this.#find(this.#nodes[depth]!.chosen, enabled)
        : this.#choose(depth, enabled, execution);
      if (chosen === undefined) {
        this.counts.cutShort += 1;
        run.kernel.stop();
        return undefined;
      }
      const causes = execution.causesOf(chosen);
      try {
        execution.receive(chosen);
      } catch (defect) {
        return `a defect: ${defect instanceof Error ? defect.message : defect}`;
      }
      if (depth >= prefix - 1) this.#reverseRaces(execution.events, causes);
    }
    this.counts.schedules += 1;
    return onComplete(run, execution.events);
  }

  /** What was left out may have mattered: all is searched again, with less taken for independent. */
  #startAgain(run: Run): undefined {
    run.kernel.stop();
    this.#nodes = [];
    this.counts.schedules = 0;
    this.counts.cutShort = 0;
  }

  #isFromStart(): boolean {
    return this.#nodes.length === 0 && this.counts.schedules === 0;
  }

  #find(id: number, enabled: readonly Pending[]): Pending {
    return present(enabled.find((pending) => pending.id === id), "a schedule does not repeat");
  }

  /** Opens a node. Asleep there is what was asleep before and what the last event does not matter to. */
  #choose(depth: number, enabled: readonly Pending[], execution: Execution): Pending | undefined {
    const parent = this.#nodes[depth - 1];
    const asleep = new Map<number, Delivery>();
    const last = execution.events[depth - 1];
    if (last !== undefined) {
      for (const [id, delivery] of parent!.asleep) {
        if (!this.#independence.areDependent(delivery, last)) asleep.set(id, delivery);
      }
    }
    const wanted = parent?.next ?? [];
    const first = wanted.shift();
    const chosen = first === undefined
      ? freeChoice(enabled, asleep, this.#last)
      : this.#find(first.id, enabled);
    if (chosen === undefined) return undefined;
    this.#nodes.push({ chosen: chosen.id, next: first?.children ?? [], wanted, asleep });
    return chosen;
  }

  /** For each race of the last event with an earlier one: wants a schedule in which it comes first. */
  #reverseRaces(events: readonly Event[], causes: readonly number[]): void {
    const last = events[events.length - 1]!;
    const rivals = events.filter((event) => event !== last && this.#independence.areDependent(event, last));
    const before = [...causes.map((index) => events[index]!), ...rivals];
    for (const rival of rivals) {
      if (causes.includes(rival.index)) continue;
      if (before.some((event) => event !== rival && isIn(event.past, rival.index))) continue;
      this.#wantReversed(events, rival, last);
    }
  }

  #wantReversed(events: readonly Event[], rival: Event, last: Event): void {
    const rest = events.filter((event) => event.index > rival.index && !isIn(event.past, rival.index));
    rest.push(last);
    const { asleep, wanted } = this.#nodes[rival.index]!;
    for (const [id, delivery] of asleep) {
      if (this.#mayBeginWith(id, delivery, rest)) return;
    }
    this.#insert(wanted, rest);
  }

  /** Whether some schedule that goes on as `rest` does, and perhaps further, begins with this receipt or might as well. */
  #mayBeginWith(id: number, delivery: Delivery, rest: readonly Event[]): boolean {
    const own = rest.findIndex((event) => event.id === id);
    if (own < 0) return !rest.some((event) => this.#independence.areDependent(event, delivery));
    return !rest.slice(0, own).some((event) => isIn(rest[own]!.past, event.index));
  }

  /** Adds `rest` to a wakeup tree, behind what it shares with a branch there; a branch that may end so covers it. */
  #insert(tree: Branch[], rest: readonly Event[]): void {
    let [branches, left] = [tree, rest];
    for (;;) {
      const shared = branches.find(({ id, delivery }) => this.#mayBeginWith(id, delivery, left));
      if (shared === undefined) break;
      left = left.filter((event) => event.id !== shared.id);
      if (shared.children.length === 0 || left.length === 0) return;
      branches = shared.children;
    }
    for (const event of left) {
      const branch: Branch = { id: event.id, delivery: event, children: [] };
      branches.push(branch);
      branches = branch.children;
    }
  }

  /** Back to the last state where something is left to try; its depth plus one, or 0 when nothing is left. */
  #backtrack(): number {
    for (let depth = this.#nodes.length - 1; depth >= 0; depth -= 1) {
      const node = this.#nodes[depth]!;
      node.asleep.set(node.chosen, present(this.events[depth], "a node has an event"));
      const branch = node.wanted.shift();
      if (branch === undefined) continue;
      node.chosen = branch.id;
      node.next = branch.children;
      this.#nodes.length = depth + 1;
      return depth + 1;
    }
    return 0;
  }
}

/** Devices and commits last, see {@linkcode lateness}. */
function freeChoice(
  enabled: readonly Pending[],
  asleep: ReadonlyMap<number, Delivery>,
  last: readonly string[],
): Pending | undefined {
  let chosen: Pending | undefined;
  for (const pending of enabled) {
    if (asleep.has(pending.id)) continue;
    if (chosen === undefined || lateness(pending, last) < lateness(chosen, last)) chosen = pending;
  }
  return chosen;
}
