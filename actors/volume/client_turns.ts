/**
 * What clients of one volume wait for, each in its own order, and the clients in turn: one that asks for much at once has its
 * share of what the volume does at a time, and holds up the others by no more than that. What two clients have under way at
 * the same time has no order in NBD.
 */
import { present } from "../../storage/base/assert.ts";

interface Lane<T> {
  readonly client: object;
  readonly items: T[];
}

export class ClientTurns<T> {
  /** One for each client that waits, the one whose turn it is first. None is empty. */
  readonly #lanes: Lane<T>[] = [];

  /** Clients that wait. */
  get clients(): number {
    return this.#lanes.length;
  }

  /** What comes next; undefined if nothing waits. */
  get first(): T | undefined {
    return this.#lanes[0]?.items[0];
  }

  push(client: object, item: T): void {
    for (const lane of this.#lanes) if (lane.client === client) return void lane.items.push(item);
    this.#lanes.push({ client, items: [item] });
  }

  /** Takes `first` out. */
  shift(): void {
    const lane = present(this.#lanes[0], "took a turn that nobody waits for");
    lane.items.shift();
    if (lane.items.length === 0) this.#lanes.shift();
  }

  /** Takes `first` out, and it is another client's turn; undefined if nothing waits. */
  take(): T | undefined {
    const lane = this.#lanes.shift();
    if (lane === undefined) return undefined;
    const item = lane.items.shift();
    if (lane.items.length > 0) this.#lanes.push(lane);
    return item;
  }

  /** It is another client's turn. */
  rotate(): void {
    if (this.#lanes.length > 1) this.#lanes.push(present(this.#lanes.shift(), "no client waits"));
  }

  /** Takes an item out wherever it stands. */
  remove(item: T): void {
    for (const [at, { items }] of this.#lanes.entries()) {
      const index = items.indexOf(item);
      if (index < 0) continue;
      items.splice(index, 1);
      if (items.length === 0) this.#lanes.splice(at, 1);
      return;
    }
  }

  /** Takes everything out, each client's in its order. */
  takeAll(): T[] {
    return this.#lanes.splice(0).flatMap(({ items }) => items);
  }
}
