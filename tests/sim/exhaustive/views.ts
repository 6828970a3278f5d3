/**
 * What clients see in the schedules of a scenario, to compare the same requests in batches of one and in larger ones.
 *
 * A view is what is there at the end, or after a crash, with all that clients had been told by then. A client may always hear
 * of something later than it was sent. So a view that tells less than another of the same end or crash is allowed with it.
 * Volumes after a crash are compared for each kind of crash, as each has its own promise.
 */
import type { Crash } from "./cut_images.ts";
import type { HeldPool } from "./held_pool.ts";
import { type Content, contentOf, type Found, ordersOf, precedes } from "./oracle.ts";
import type { Outcome } from "./recovery.ts";
import type { Op } from "./scenario.ts";

/** What clients were told, in parts that can be heard of one without the other; {@linkcode unheard} is not told. */
type Told = readonly string[];

const unheard = "-";

/** See the head of this file. */
export class Views {
  /** By what is there: each of what was told with it, as text. */
  readonly #toldWith = new Map<string, Map<string, Told>>();
  readonly #textOfVolumes = new WeakMap<Found, string>();

  /** How many differ. */
  get count(): number {
    let count = 0;
    for (const told of this.#toldWith.values()) count += told.size;
    return count;
  }

  /** A schedule has ended: all answers, and which request was answered before which was asked, in each of its orders. */
  noteEnd(pool: HeldPool, found: Found): void {
    const answers = pool.ops.map(textOfAnswer).join(", ");
    const end = `at the end ${answers}; ${this.#textOf(found)}`;
    for (const order of ordersOf(pool.ops)) {
      const pairs = pool.ops.flatMap((a) =>
        pool.ops.map((b) => precedes(order, a, b) ? `${a.number + 1} before ${b.number + 1}` : unheard)
      );
      this.#add(end, pairs);
    }
  }

  /** What the recovery from a crash before this event has come to. */
  noteCrash(pool: HeldPool, crash: Crash, before: number, { volumes }: Outcome): void {
    const told = pool.ops.map((op) =>
      op.answered !== undefined && op.answered.index < before ? textOfAnswer(op) : unheard
    );
    this.#add(`after a ${crash} ${this.#textOf(volumes)}`, told);
  }

  /** A view that is not allowed with those of `allowed`. */
  findOther(allowed: Views): string | undefined {
    for (const [what, texts] of this.#toldWith) {
      const others = allowed.#toldWith.get(what) ?? new Map<string, Told>();
      for (const [text, told] of texts) {
        if (others.has(text)) continue;
        const isAllowed = others.values().some((other) =>
          told.every((part, at) => part === unheard || part === other[at])
        );
        if (!isAllowed) return `${what}; told: ${text}`;
      }
    }
    return undefined;
  }

  #add(what: string, told: Told): void {
    let texts = this.#toldWith.get(what);
    if (texts === undefined) this.#toldWith.set(what, texts = new Map());
    texts.set(told.join(", "), told);
  }

  #textOf(volumes: Found): string {
    let text = this.#textOfVolumes.get(volumes);
    if (text === undefined) {
      text = [...volumes].map(([name, content]) => `${name}: ${textOfContent(content)}`).sort().join(", ");
      this.#textOfVolumes.set(volumes, text);
    }
    return text;
  }
}

/** The status of a request, and what it has read. */
function textOfAnswer(op: Op): string {
  if (op.kind !== "read") return op.status;
  const whole = new Uint8Array(op.sectorEnd * 512);
  whole.set(op.data, op.sectorBegin * 512);
  return `${op.status} ${textOfContent(contentOf(whole).slice(op.sectorBegin))}`;
}

/** Sequence numbers with how many sectors in a row show each. */
function textOfContent(content: Content): string {
  const runs: string[] = [];
  for (let begin = 0, end = 0; begin < content.length; begin = end) {
    while (end < content.length && content[end] === content[begin]) end += 1;
    runs.push(`${content[begin]}x${end - begin}`);
  }
  return runs.join(" ");
}
