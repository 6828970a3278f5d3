/** One run of a scenario, a receipt at a time; what may be received next, and what certainly came before. */
import type { Message } from "../../../actors/kernel/address.ts";
import { assert, present } from "../../../storage/base/assert.ts";
import type { Held, HeldKernel } from "./held_kernel.ts";
import { type Delivery, Independence } from "./independence.ts";

/** A run that the search drives to its end. */
export interface Run {
  readonly kernel: HeldKernel;
  /** Sends what the run begins with. */
  begin(): void;
  /** Which of the requests that the run began with a message is about. */
  requestOf?(message: Message): number | undefined;
  /** Told before each receipt. */
  onEvent?(event: Event): void;
  /** Called when everything has run that the receipt caused. */
  afterEvent?(): void;
}

/** A message that was received. */
export interface Event extends Delivery {
  readonly index: number;
  /** The same in every schedule in which the same receipt causes it. */
  readonly id: number;
  /** The event in whose course it was sent, and those without which it had not been; none for what the run begins with. */
  readonly causes: readonly number[];
  /** The events that certainly come before it, as bits. */
  readonly past: Uint32Array;
  /** See {@linkcode Held.step}. */
  readonly step: number | undefined;
}

/** A message on its way. */
export interface Pending extends Delivery {
  readonly id: number;
  readonly held: Held;
  readonly causes: readonly number[];
  readonly step: number | undefined;
  /** The ids of messages to the same actor that were certainly sent before. */
  readonly after: readonly number[];
}

const pastWords = 24;
const eventsMax = pastWords * 32;

/** True if the event at `index` is in the past. */
export function isIn(past: Uint32Array, index: number): boolean {
  return (past[index >> 5]! & (1 << (index & 31))) !== 0;
}

/** Numbers messages by what sends them, so that the numbers mean the same in every schedule. */
export class Ids {
  readonly #ids = new Map<string, number>();

  of({ origin }: Held): number {
    let id = this.#ids.get(origin);
    if (id === undefined) {
      id = this.#ids.size;
      this.#ids.set(origin, id);
    }
    return id;
  }
}

/** One run on its way. */
export class Execution {
  readonly events: Event[] = [];
  /** Something was sent for which the independence that is claimed does not hold. */
  isSurprised = false;
  readonly #ids: Ids;
  readonly #independence: Independence;
  #pending: Pending[] = [];
  /** The events' indexes by id. */
  readonly #indexes = new Map<number, number>();

  constructor(readonly run: Run, ids: Ids, independence: Independence) {
    this.#ids = ids;
    this.#independence = independence;
    independence.beginRun();
    run.kernel.hold = (held) => this.#hold(held);
    run.begin();
    run.kernel.run();
  }

  enabled(): Pending[] {
    return this.#pending.filter((pending) => pending.after.every((id) => this.#indexes.has(id)));
  }

  receive(pending: Pending): void {
    this.#pending.splice(this.#pending.indexOf(pending), 1);
    const event = this.#eventOf(pending);
    this.events.push(event);
    this.#indexes.set(event.id, event.index);
    assert(this.events.length < eventsMax, "a schedule is too long");
    this.run.onEvent?.(event);
    this.run.kernel.deliver(pending.held, event.index, event.id);
    this.run.afterEvent?.();
  }

  #hold(held: Held): void {
    const { kernel } = this.run;
    const by = this.events[this.events.length - 1];
    const causes = by === undefined ? [] : [by.index, ...kernel.joined].filter((cause) => cause >= 0);
    const after = [...this.events, ...this.#pending]
      .filter((other) => other.address === held.to && this.#isSentBefore(other, causes, held.step))
      .map((other) => other.id);
    const actor = present(kernel.names.get(held.to), "a message to an address without an actor");
    if (this.#independence.isSurprisedBy(actor, held.message)) this.isSurprised = true;
    this.#pending.push({
      actor,
      address: held.to,
      message: held.message,
      request: this.run.requestOf?.(held.message),
      held,
      id: this.#ids.of(held),
      causes,
      step: held.step,
      after,
    });
  }

  /** Whether a message was certainly sent before one with these causes that is sent now. */
  #isSentBefore(
    other: Pick<Event, "causes" | "step">,
    causes: readonly number[],
    step: number | undefined,
  ): boolean {
    const { step: otherStep } = other;
    const isPast = (index: number) =>
      causes.some((cause) => cause === index || isIn(this.events[cause]!.past, index));
    if (otherStep === undefined) return other.causes.some(isPast);
    return otherStep === step || this.events.some((event) => event.step === otherStep && isPast(event.index));
  }

  #eventOf(pending: Pending): Event {
    const { actor, address, message, request, id, causes, step } = pending;
    const past = new Uint32Array(pastWords);
    for (const cause of this.causesOf(pending)) include(past, this.events[cause]!);
    for (const event of this.events) {
      if (!isIn(past, event.index) && this.#independence.areDependent(event, pending)) include(past, event);
    }
    return { actor, address, message, request, id, causes, past, step, index: this.events.length };
  }

  /** What had to be received before in any schedule. */
  causesOf(pending: Pending): number[] {
    return [
      ...pending.causes,
      ...pending.after.map((id) => present(this.#indexes.get(id), "came too early")),
    ];
  }
}

function include(past: Uint32Array, event: Event): void {
  for (let word = 0; word < pastWords; word += 1) past[word]! |= event.past[word]!;
  past[event.index >> 5]! |= 1 << (event.index & 31);
}

/** Runs one schedule that `below` chooses, for comparison with what a search sees. Answers its events. */
export function runAnySchedule(run: Run, below: (count: number) => number): readonly Event[] {
  const execution = new Execution(run, new Ids(), new Independence());
  for (let enabled = execution.enabled(); enabled.length > 0; enabled = execution.enabled()) {
    execution.receive(enabled[below(enabled.length)]!);
  }
  return execution.events;
}
