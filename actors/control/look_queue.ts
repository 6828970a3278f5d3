/**
 * Admin commands that only look, in the order in which they came, and how many of them are carried out.
 *
 * A dump lasts as long as its reader takes. So dumps never take the last place: it is for list, status and check, which end
 * by themselves.
 */
import { assert } from "../../storage/base/assert.ts";
import { queues } from "../queues.ts";
import type { Admin } from "./pool_messages.ts";

export class LookQueue {
  readonly #waiting: Admin[] = [];
  #running = 0;
  #dumpsRunning = 0;
  readonly #looksMax: number;

  constructor(looksMax: number) {
    this.#looksMax = looksMax;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get running(): number {
    return this.#running;
  }

  push(look: Admin): void {
    assert(this.#waiting.length < queues.commands, "more commands that look wait than are taken");
    this.#waiting.push(look);
  }

  /** Takes the oldest that may begin, which then counts as running; undefined if there is none. */
  next(): Admin | undefined {
    if (this.#running >= this.#looksMax) return undefined;
    // A command that is no dump need not wait for the reader of one.
    const dumpsMax = this.#looksMax - 1;
    const at = this.#waiting.findIndex((look) => !isDump(look) || this.#dumpsRunning < dumpsMax);
    if (at < 0) return undefined;
    const look = this.#waiting.splice(at, 1)[0]!;
    this.#running += 1;
    if (isDump(look)) this.#dumpsRunning += 1;
    assert(this.#dumpsRunning < this.#looksMax, "dumps take the place that other commands have");
    return look;
  }

  ended(look: Admin): void {
    this.#running -= 1;
    if (isDump(look)) this.#dumpsRunning -= 1;
    assert(this.#running >= 0 && this.#dumpsRunning >= 0, "more commands ended than were begun");
  }
}

function isDump(look: Admin): boolean {
  return look.command.verb === "dump";
}
