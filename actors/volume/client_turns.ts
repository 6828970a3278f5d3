/**
 * A round robin over the clients of one volume. Each client's items keep their order; the clients take turns. So a client
 * with many requests delays another one's next item by one turn only. NBD gives requests of two clients that are in flight
 * at the same time no order.
 */
import { assert, present } from "../../storage/base/assert.ts";

interface Lane<T> {
  readonly client: object;
  readonly items: T[];
}

export class ClientTurns<T> {
  /** One lane for each client with waiting items, in the order of their turns. No lane is empty. */
  readonly #lanes: Lane<T>[] = [];
  readonly #itemsMax: number;
  #items = 0;

  /** @param itemsMax the most that may wait, of all clients together */
  constructor(itemsMax: number) {
    this.#itemsMax = itemsMax;
  }

  /** The number of clients with waiting items. */
  get clients(): number {
    return this.#lanes.length;
  }

  /** The next item; undefined if none waits. */
  get first(): T | undefined {
    return this.#lanes[0]?.items[0];
  }

  push(client: object, item: T): void {
    assert(this.#items < this.#itemsMax, "more waits for a turn than there can be");
    this.#items += 1;
    for (const lane of this.#lanes) if (lane.client === client) return void lane.items.push(item);
    this.#lanes.push({ client, items: [item] });
  }

  /** Removes `first`. */
  shift(): void {
    const lane = present(this.#lanes[0], "took a turn, and no client waits");
    lane.items.shift();
    this.#left();
    if (lane.items.length === 0) this.#lanes.shift();
  }

  /** Removes and returns `first`, then ends its client's turn; undefined if none waits. */
  take(): T | undefined {
    const lane = this.#lanes.shift();
    if (lane === undefined) return undefined;
    const item = lane.items.shift();
    this.#left();
    if (lane.items.length > 0) this.#lanes.push(lane);
    return item;
  }

  /** Ends the turn of the first client. */
  rotate(): void {
    if (this.#lanes.length > 1) this.#lanes.push(present(this.#lanes.shift(), "no client waits"));
  }

  /** Removes an item, wherever it stands in its client's lane. */
  remove(item: T): void {
    for (const [at, { items }] of this.#lanes.entries()) {
      const index = items.indexOf(item);
      if (index < 0) continue;
      items.splice(index, 1);
      this.#left();
      if (items.length === 0) this.#lanes.splice(at, 1);
      return;
    }
  }

  /** Removes and returns all items; each client's are in their order. */
  takeAll(): T[] {
    const taken = this.#lanes.splice(0).flatMap(({ items }) => items);
    assert(taken.length === this.#items, "items that wait for a turn are counted wrongly");
    this.#items = 0;
    return taken;
  }

  #left(): void {
    assert(this.#items > 0, "more items left than have come");
    this.#items -= 1;
  }
}
