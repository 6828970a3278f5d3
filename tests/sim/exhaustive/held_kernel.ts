/**
 * The production kernel with every message to an actor held until the search picks it.
 *
 * The search needs to see which messages could be received next, and to receive any of them. So `tell` and the requests
 * of tasks are put aside here, and one picked message is delivered by the real kernel to the real actor, with everything
 * that it causes up to the next messages. Answers and the steps of tasks are not held: a task touches no state but
 * its own (invariants I1 and I3 of actors/ARCHITECTURE.md), so when it takes its step can be seen only by when its next messages are received, and
 * those are held.
 */
import type { Actor, Address, Message, Request } from "../../../actors/kernel/address.ts";
import { Kernel } from "../../../actors/kernel/kernel.ts";
import type { Call, Steps } from "../../../actors/kernel/task.ts";
import { present } from "../../../storage/base/assert.ts";

/** A message on its way. */
export interface Held {
  readonly to: Address<Message>;
  readonly message: Message;
  /**
   * Of a task: in which of its steps it was sent. A task may take its step long after the answer that it waited for, so
   * such a message is certainly sent before another only if that follows from the same step.
   */
  readonly step: number | undefined;
  /**
   * What sent it and as which of its messages. The same in every schedule in which the same is sent, whichever receipt has
   * let it: a task that waited for two answers sends the same after either of them.
   */
  readonly origin: string;
}

/** A task, and how many of its messages, children and tasks were counted. */
interface Line {
  readonly origin: string;
  counted: number;
}

/** See the head of this file. */
export class HeldKernel extends Kernel {
  /** Is called with every message sent while it is set; without it messages pass at once. */
  hold: ((held: Held) => void) | undefined;
  readonly names = new Map<number, string>();
  /** The receipt in progress, as the search counts them. */
  receipt = -1;
  /** Earlier receipts in which other children of a task ended that goes on in this one. */
  readonly joined = new Set<number>();
  /** The step that a task takes now, and how many were taken. */
  step: number | undefined;
  steps = 0;
  /** What sends now: the task that takes a step, or the receipt in progress. */
  line: Line = { origin: "begin", counted: 0 };
  readonly #asked = new Map<Message, Omit<Held, "message">>();
  #holder: Address<Message> | undefined;
  /** Those whose messages pass at once: the clients, which only keep them. */
  readonly #open = new Set<number>();

  override spawn<M extends Message>(
    name: string,
    messagesMax: number,
    make: (self: Address<M>) => Actor<M>,
  ): Address<M> {
    const address = super.spawn(name, messagesMax, make);
    this.names.set(address, name);
    if (name === "client") this.#open.add(address);
    return address;
  }

  override tell<M extends Message>(to: Address<M>, message: M): void {
    if (this.hold === undefined || this.#open.has(to)) return super.tell(to, message);
    this.hold({ to: to as unknown as Address<Message>, message, step: this.step, origin: this.nextOrigin() });
  }

  override start(name: string, steps: Steps<unknown>, ordinal?: number): void {
    const line = { origin: `${this.nextOrigin()} ${name}`, counted: 0 };
    super.start(name, heldSteps(this, steps, line), ordinal);
  }

  nextOrigin(): string {
    this.line.counted += 1;
    return `${this.line.origin}.${this.line.counted}`;
  }

  /** Delivers one message that was held, of this number in every schedule, and runs all that needs no other one. */
  deliver(held: Held, receipt: number, id: number): void {
    this.receipt = receipt;
    this.line = { origin: `${id}`, counted: 0 };
    this.joined.clear();
    super.tell(held.to, held.message);
    this.run();
  }

  /** What a task yields to the real kernel instead of its call. */
  held(call: Call): Call {
    if (call.kind === "join") {
      const ends: number[] = [];
      const children = call.children.map((child) => {
        return heldSteps(this, child, { origin: this.nextOrigin(), counted: 0 }, ends);
      });
      return { ...call, children };
    }
    if (call.kind !== "ask" || this.hold === undefined) return call;
    const to = call.to as unknown as Address<Message>;
    this.#asked.set(call.request, { to, step: this.steps, origin: this.nextOrigin() });
    this.#holder ??= super.spawn("holder", 4096, () => ({ receive: (request) => this.#receive(request) }));
    return { ...call, to: this.#holder as unknown as Address<Request<unknown>> };
  }

  #receive(request: Message): void {
    const asked = present(this.#asked.get(request), "an answer to what was not asked");
    this.#asked.delete(request);
    present(this.hold, "a request was on its way when the holding ended")({ ...asked, message: request });
  }
}

/** A task whose requests go to the holder. With the children of the same join it notes the receipts in which they end. */
function* heldSteps(
  kernel: HeldKernel,
  steps: Steps<unknown>,
  line: Line,
  ends: number[] = [],
): Steps<unknown> {
  try {
    let next = takeStep(kernel, steps, line, undefined);
    while (!next.done) next = takeStep(kernel, steps, line, yield next.call);
    ends.push(kernel.receipt);
    // The child that ends last resumes the parent, which all of them have caused.
    for (const end of ends) kernel.joined.add(end);
    return next.value;
  } finally {
    // A cancelled task runs its `using` declarations.
    steps.return(undefined);
  }
}

function takeStep(
  kernel: HeldKernel,
  steps: Steps<unknown>,
  line: Line,
  answer: unknown,
): { readonly done: false; readonly call: Call } | { readonly done: true; readonly value: unknown } {
  const outer = kernel.line;
  kernel.steps += 1;
  kernel.step = kernel.steps;
  kernel.line = line;
  try {
    const { done, value } = steps.next(answer);
    return done ? { done: true, value } : { done: false, call: kernel.held(value as Call) };
  } finally {
    kernel.step = undefined;
    kernel.line = outer;
  }
}
