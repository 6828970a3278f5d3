/**
 * The actors of a kernel by address. A slot is used again after its actor has ended; the generation in the address tells an
 * address of the earlier actor from one of the later.
 */
import { assert, present } from "../../storage/base/assert.ts";
import { type Actor, type Address, type Message, slotsMax } from "./address.ts";
import { Mailbox } from "./mailbox.ts";
import type { ReadyQueue } from "./ready_queue.ts";

const generationsMax = 2 ** 33;

/** An actor and its messages. */
export interface ActorCell {
  readonly name: string;
  readonly actor: Actor<Message>;
  readonly mailbox: Mailbox;
  /** True while it is in the ready queue or has its turn. */
  ready: boolean;
}

export class ActorTable {
  readonly #cells: (ActorCell | undefined)[] = [undefined];
  readonly #generations: number[] = [1];
  readonly #free: number[] = [];

  /** Adds the actor that `make` returns for its address. Its mailbox holds at most `messagesMax` messages. */
  add<M extends Message>(
    name: string,
    messagesMax: number,
    make: (self: Address<M>) => Actor<M>,
  ): Address<M> {
    // The slot is taken before `make` runs, because `make` may spawn other actors.
    const slot = this.#free.pop() ?? this.#cells.push(undefined) - 1;
    assert(slot < slotsMax, "more actors than addresses");
    const generation = (this.#generations[slot] ?? 0) + 1;
    assert(generation < generationsMax, "a slot was used too often");
    this.#generations[slot] = generation;
    const address = (generation * slotsMax + slot) as Address<M>;
    const actor = make(address) as Actor<Message>;
    assert(this.#cells[slot] === undefined, "two actors have one slot");
    this.#cells[slot] = { name, actor, mailbox: new Mailbox(messagesMax), ready: false };
    return address;
  }

  /** Removes an actor without messages. Its address is stale from now on. */
  remove<M extends Message>(address: Address<M>): void {
    assert(this.get(address).mailbox.length === 0, "retired an actor with messages waiting");
    const slot = address % slotsMax;
    this.#cells[slot] = undefined;
    this.#free.push(slot);
    // Slot 0 is never used.
    assert(this.#free.length < this.#cells.length, "more actors ended than began");
  }

  /** The actor at an address that must be valid. */
  get<M extends Message>(address: Address<M>): ActorCell {
    const slot = address % slotsMax;
    assert(this.#generations[slot] === Math.floor(address / slotsMax), "sent to a stale address");
    return present(this.#cells[slot], "sent to a retired actor");
  }

  /** Puts a message into the actor's mailbox, and the actor into `ready` if it is not there. */
  send(to: Address<Message>, message: Message, ready: ReadyQueue): void {
    const cell = this.get(to);
    cell.mailbox.push(message);
    if (cell.ready) return;
    assert(cell.mailbox.length === 1, "messages waited for an actor that was not ready");
    cell.ready = true;
    ready.push(to % slotsMax);
  }

  /** True if the actor at this address has not ended. */
  has<M extends Message>(address: Address<M>): boolean {
    const slot = address % slotsMax;
    return this.#generations[slot] === Math.floor(address / slotsMax) && this.#cells[slot] !== undefined;
  }

  /** The actor in a slot; undefined if there is none. */
  inSlot(slot: number): ActorCell | undefined {
    return this.#cells[slot];
  }

  /** The most messages that ever waited at once in each mailbox, by actor name. */
  highWater(): Map<string, number> {
    const marks = new Map<string, number>();
    for (const cell of this.#cells) if (cell !== undefined) marks.set(cell.name, cell.mailbox.highWater);
    return marks;
  }
}
