/** What one wants to know first: how ours compares, a row for each workload. */
import type { Outcome, Result, Sample } from "./measure.ts";
import { median, short, spread, table } from "./table.ts";

const head = [
  "workload",
  "ours",
  "spread",
  "/ best peer",
  "/ qcow2",
  "/ raw",
  "/ bare",
  "/ plain",
  "CPU s/M",
  "of best peer",
  "p99 us",
  "own MiB",
];

/** The ratios of ours to the others; undefined if ours was not measured. */
export function summaryOf(results: readonly Result[]): string | undefined {
  const rows = results.map(rowOf).filter((row) => row !== undefined);
  return rows.length === 0 ? undefined : table(head, rows);
}

function rowOf({ workload, unit, outcomes }: Result): string[] | undefined {
  const named = (name: string) => outcomes.find(({ server }) => server === name);
  const ours = named("ours");
  if (ours === undefined) return undefined;
  const best = outcomes.filter(({ isPeer }) => isPeer).toSorted((a, b) => valueOf(b) - valueOf(a))[0];
  const ratioTo = (other: Outcome | undefined) =>
    other === undefined ? "-" : (valueOf(ours) / valueOf(other)).toFixed(2);
  return [
    workload,
    `${short(valueOf(ours))} ${unit}`,
    spread(ours.samples.map(({ value }) => value)),
    best === undefined ? "-" : `${ratioTo(best)} ${best.server}`,
    ratioTo(named("qemu-nbd qcow2")),
    ratioTo(named("qemu-nbd raw")),
    ratioTo(named("bare loop")),
    ratioTo(named("ours plain")),
    of(ours, "cpuSecondsPerMillion").toFixed(1),
    best === undefined ? "-" : of(best, "cpuSecondsPerMillion").toFixed(1),
    short(of(ours, "p99Us")),
    String(Math.round(of(ours, "ownBytes") / 2 ** 20)),
  ];
}

function valueOf(outcome: Outcome): number {
  return of(outcome, "value");
}

function of({ samples }: Outcome, field: keyof Sample): number {
  return median(samples.map((each) => each[field]));
}
