/**
 * Long work in slices: a generator that yields where other work may run, and returns its result. Its driver decides
 * when the next slice runs. Other work runs between two slices, so the generator must allow for whatever that changes.
 */

/** Work in slices. */
export type Slices<Result> = Generator<undefined, Result, undefined>;

/** Tells where a slice ends: every `perSlice`-th call of `isDue` returns true. */
export class SliceEnd {
  readonly #perSlice: number;
  #left: number;

  constructor(perSlice: number) {
    this.#perSlice = perSlice;
    this.#left = perSlice;
  }

  isDue(): boolean {
    this.#left -= 1;
    if (this.#left > 0) return false;
    this.#left = this.#perSlice;
    return true;
  }
}

/** Runs all slices, and returns the result. */
export function wholeOf<Result>(slices: Slices<Result>): Result {
  let slice = slices.next();
  while (!slice.done) slice = slices.next();
  return slice.value;
}

/**
 * Sorts items by a text of each; items with equal texts keep their order. A merge sort, `perSlice` items in one slice.
 */
export function* sortedSlices<Item>(
  items: readonly Item[],
  textOf: (item: Item) => string,
  perSlice: number,
): Slices<Item[]> {
  const compare = (a: Item, b: Item) => textOf(a) < textOf(b) ? -1 : textOf(a) > textOf(b) ? 1 : 0;
  if (items.length <= perSlice) return items.toSorted(compare);
  let runs: Item[][] = [];
  for (let at = 0; at < items.length; at += perSlice) {
    runs.push(items.slice(at, at + perSlice).sort(compare));
    yield;
  }
  const end = new SliceEnd(perSlice);
  while (runs.length > 1) {
    const merged: Item[][] = [];
    for (let at = 0; at < runs.length; at += 2) {
      merged.push(yield* mergedSlices(runs[at]!, runs[at + 1] ?? [], compare, end));
    }
    runs = merged;
  }
  return runs[0]!;
}

function* mergedSlices<Item>(
  left: readonly Item[],
  right: readonly Item[],
  compare: (a: Item, b: Item) => number,
  end: SliceEnd,
): Slices<Item[]> {
  const merged: Item[] = [];
  let [leftAt, rightAt] = [0, 0];
  while (leftAt < left.length || rightAt < right.length) {
    const isLeft = rightAt === right.length ||
      (leftAt < left.length && compare(left[leftAt]!, right[rightAt]!) <= 0);
    merged.push(isLeft ? left[leftAt++]! : right[rightAt++]!);
    if (end.isDue()) yield;
  }
  return merged;
}
