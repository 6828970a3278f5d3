/** A bounded ring of messages. It grows by doubling up to its bound and never shrinks. */
import { assert, present } from "../../storage/base/assert.ts";
import type { Message } from "./address.ts";

const capacityFirst = 8;

export class Mailbox {
  readonly #messagesMax: number;
  #ring: (Message | undefined)[] = new Array(capacityFirst).fill(undefined);
  #head = 0;
  #length = 0;
  /** The most messages that ever waited at once. Tests compare it with the bound. */
  highWater = 0;

  constructor(messagesMax: number) {
    assert(messagesMax > 0, "a mailbox holds at least one message");
    this.#messagesMax = messagesMax;
  }

  get length(): number {
    return this.#length;
  }

  /** Appends a message. Overflow is a defect: every bound is derived in mailboxes.ts from what is admitted. */
  push(message: Message): void {
    assert(this.#length < this.#messagesMax, "a mailbox overflowed its bound");
    if (this.#length === this.#ring.length) this.#grow();
    const end = (this.#head + this.#length) & (this.#ring.length - 1);
    assert(this.#ring[end] === undefined, "a message is written over another one");
    this.#ring[end] = message;
    this.#length += 1;
    if (this.#length > this.highWater) this.highWater = this.#length;
  }

  /** Takes the oldest message; there must be one. */
  shift(): Message {
    const message = present(this.#ring[this.#head], "took a message from an empty mailbox");
    assert(this.#length > 0, "a message lies outside of those that wait");
    this.#ring[this.#head] = undefined;
    this.#head = (this.#head + 1) & (this.#ring.length - 1);
    this.#length -= 1;
    return message;
  }

  #grow(): void {
    const ring: (Message | undefined)[] = new Array(this.#ring.length * 2).fill(undefined);
    for (let index = 0; index < this.#length; index += 1) {
      ring[index] = this.#ring[(this.#head + index) & (this.#ring.length - 1)];
    }
    this.#ring = ring;
    this.#head = 0;
  }
}
