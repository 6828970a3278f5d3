/** What is measured along a long run, and whether its last tenth is like its first. */

/** One look at a server. */
export interface Sample {
  /** Cycles done until then. */
  readonly cycle: number;
  readonly values: Readonly<Record<string, number>>;
}

/** A quantity that may not grow with the length of the run. */
export interface Quantity {
  readonly key: string;
  readonly unit: string;
  /** How many of `unit` make one line's number: 2 ** 20 for MiB. */
  readonly perUnit: number;
  /** How much more than the first tenth the last may be: a factor, and an amount that is noise. */
  readonly factorMax: number;
  readonly slack: number;
  /**
   * What stands for a tenth of the run: the largest value (memory, files), the median, or what a tenth of the values are below:
   * a latency that other programs on the machine have little to do with.
   */
  readonly by: "largest" | "median" | "quickest tenth";
}

/** A line of the table. */
export interface TenthsLine {
  readonly quantity: Quantity;
  readonly first: number;
  readonly last: number;
  readonly isFlat: boolean;
}

/** Compares the first and the last tenth of `cycles`. What a server does in its first hundredth counts for nothing: it warms up. */
export function compareTenths(
  samples: readonly Sample[],
  cycles: number,
  quantities: readonly Quantity[],
): TenthsLine[] {
  const first = samples.filter(({ cycle }) => cycle > cycles / 100 && cycle <= cycles / 10);
  const last = samples.filter(({ cycle }) => cycle > cycles * 0.9);
  return quantities.map((quantity) => {
    const [before, after] = [valueOf(first, quantity), valueOf(last, quantity)];
    const isFlat = after <= before * quantity.factorMax + quantity.slack;
    return { quantity, first: before, last: after, isFlat };
  });
}

/** One value for samples; NaN, which is never flat, for none. */
function valueOf(samples: readonly Sample[], { key, by }: Quantity): number {
  const values = samples.map((sample) => sample.values[key] ?? NaN).sort((a, b) => a - b);
  const at =
    { largest: values.length - 1, median: values.length / 2, "quickest tenth": values.length / 10 }[by];
  return values[Math.floor(at)] ?? NaN;
}

/** The lines as text. */
export function tenthsTable(lines: readonly TenthsLine[]): string {
  const rows = lines.map(({ quantity, first, last, isFlat }) => {
    const show = (value: number) => (value / quantity.perUnit).toFixed(1).padStart(12);
    const name = `${quantity.key} (${quantity.unit}, ${quantity.by})`.padEnd(36);
    return `${name}${show(first)}${show(last)}  ${isFlat ? "flat" : "GROWS"}`;
  });
  return [`${"".padEnd(36)}${"first tenth".padStart(12)}${"last tenth".padStart(12)}`, ...rows].join("\n");
}
