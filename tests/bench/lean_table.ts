/** The lean client's rows as tables. */
import type { LeanOutcome, LeanResult } from "./lean_measure.ts";
import type { LeanSample } from "./lean_rows.ts";
import { median, short, spread, table } from "./table.ts";

/** Columns of a row's table, each shown where at least one server has such a figure. */
const columns: readonly (readonly [title: string, field: keyof LeanSample])[] = [
  ["server CPU us", "serverCpuUs"],
  ["client CPU us", "clientCpuUs"],
  ["p50 us", "p50Us"],
  ["p99 us", "p99Us"],
  ["p99.9 us", "p999Us"],
  ["max us", "maxUs"],
  ["min/max", "fairness"],
  ["beside MB/s", "besideMBps"],
  ["cached before", "cachedShare"],
];

/** A field's median over the rounds; undefined where there is none. */
export function medianOf({ samples }: LeanOutcome, field: keyof LeanSample): number | undefined {
  const values = samples.map((each) => each[field]).filter((value) => value !== null);
  return values.length === 0 ? undefined : median(values);
}

/** The peer that does best; undefined if none was measured. */
export function bestPeer({ outcomes, isMoreBetter }: LeanResult): LeanOutcome | undefined {
  const sign = isMoreBetter ? -1 : 1;
  const peers = outcomes.filter((each) => each.isPeer && medianOf(each, "value") !== undefined);
  return peers.toSorted((a, b) => sign * (medianOf(a, "value")! - medianOf(b, "value")!))[0];
}

/** How a server does beside the best peer: above 1 is better than it, also where less is better. */
export function ratioToBest(result: LeanResult, outcome: LeanOutcome): number | undefined {
  const best = bestPeer(result);
  const value = medianOf(outcome, "value");
  if (best === undefined || value === undefined) return undefined;
  const ofBest = medianOf(best, "value")!;
  return result.isMoreBetter ? value / ofBest : ofBest / value;
}

/** Ours from another checkout. */
export const beforeName = "ours before";

const ratioText = (ratio: number | undefined) => ratio === undefined ? "-" : ratio.toFixed(2);
const figure = (value: number | undefined) => value === undefined ? "-" : short(value);

/** A row as a table of servers. */
export function leanTableOf(result: LeanResult): string {
  const { row, unit, outcomes } = result;
  const shown = columns.filter(([, field]) =>
    outcomes.some((outcome) => medianOf(outcome, field) !== undefined)
  );
  const rows = outcomes.map((outcome) => [
    outcome.isPeer || outcome.server.startsWith("ours") ? outcome.server : `${outcome.server} (no peer)`,
    figure(medianOf(outcome, "value")),
    spread(outcome.samples.map(({ value }) => value)),
    ratioText(ratioToBest(result, outcome)),
    ...shown.map(([, field]) => figure(medianOf(outcome, field))),
  ]);
  return table([row, unit, "spread", "/ best peer", ...shown.map(([title]) => title)], rows);
}

/** Each form of ours beside the best peer, a row for each result; undefined if none was measured. */
export function leanSummaryOf(results: readonly LeanResult[]): string | undefined {
  const servers = results.flatMap(({ outcomes }) => outcomes.map(({ server }) => server));
  const forms = [...new Set(servers)].filter((name) => name.startsWith("ours") && name !== beforeName);
  if (forms.length === 0) return undefined;
  return forms.map((form) => summaryOfForm(results, form)).join("\n\n");
}

function summaryOfForm(results: readonly LeanResult[], form: string): string {
  const rows = results.map((result) => summaryRow(result, form)).filter((row) => row !== undefined);
  const head = [
    "row",
    form,
    "spread",
    "/ best peer",
    "/ before",
    "CPU us",
    "of best peer",
    "p50 us",
    "p99 us",
  ];
  return table([...head, "p99.9 us", "min/max", "beside MB/s", "of best peer"], rows);
}

function summaryRow(result: LeanResult, form: string): string[] | undefined {
  const { row, unit, outcomes, isMoreBetter } = result;
  const named = (name: string) => outcomes.find(({ server }) => server === name);
  const [ours, before, best] = [named(form), named(beforeName), bestPeer(result)];
  if (ours === undefined) return undefined;
  const value = medianOf(ours, "value")!;
  const old = before === undefined ? undefined : medianOf(before, "value")!;
  const toOld = old === undefined ? undefined : isMoreBetter ? value / old : old / value;
  const ofBest = (field: keyof LeanSample) => best === undefined ? undefined : medianOf(best, field);
  return [
    row,
    `${short(value)} ${unit}`,
    spread(ours.samples.map((each) => each.value)),
    best === undefined ? "-" : `${ratioText(ratioToBest(result, ours))} ${best.server}`,
    ratioText(toOld),
    figure(medianOf(ours, "serverCpuUs")),
    figure(ofBest("serverCpuUs")),
    figure(medianOf(ours, "p50Us")),
    figure(medianOf(ours, "p99Us")),
    figure(medianOf(ours, "p999Us")),
    figure(medianOf(ours, "fairness")),
    figure(medianOf(ours, "besideMBps")),
    figure(ofBest("besideMBps")),
  ];
}
