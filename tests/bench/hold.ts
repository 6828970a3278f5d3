/** How long other I/O is delayed while snapshots and clones are taken. Only ours: peers stop their server for one. */
import { runFio } from "./fio.ts";
import { OurSubject } from "./ours.ts";
import { type Place, sleep } from "./place.ts";
import { median, short, table } from "./table.ts";

/** Milliseconds between one command's end and the next. */
const pauseMs = 50;

type Disturbance =
  | "nothing"
  | "snapshot of the same volume"
  | "clone of the same volume"
  | "snapshot of another";

/** What clients saw beside one kind of command. */
export interface HoldResult {
  readonly beside: Disturbance;
  readonly commands: number;
  /** Of the commands themselves; they wait for their commit. */
  readonly commandMs: number;
  readonly commandMaxMs: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
  readonly requestsPerSecond: number;
}

/** Random reads and writes of 4 KiB at depth 4 beside commands that follow each other. */
export async function measureHold(place: Place, imageBytes: number, seconds: number): Promise<HoldResult[]> {
  const image = { kind: "filled" } as const;
  const subject = place.own(await OurSubject.start({ place, image, imageBytes }));
  await subject.command({ verb: "create", name: "other", sizeBytes: imageBytes });
  const results: HoldResult[] = [];
  const all = [
    "nothing",
    "snapshot of the same volume",
    "clone of the same volume",
    "snapshot of another",
  ] as const;
  for (const beside of all) results.push(await holdBeside(subject, beside, imageBytes, seconds));
  await place.end(subject);
  return results;
}

async function holdBeside(
  subject: OurSubject,
  beside: Disturbance,
  imageBytes: number,
  seconds: number,
): Promise<HoldResult> {
  let running = true;
  const uri = subject.uri;
  const job = { uri, rw: "randrw", blockBytes: 4096, depth: 4, sizeBytes: imageBytes, seconds } as const;
  const fio = runFio(job).finally(() => running = false);
  const tookMs: number[] = [];
  const made: string[] = [];
  // fio connects and starts its clock first.
  await sleep(500);
  while (running && beside !== "nothing") {
    const begin = performance.now();
    made.push(await disturb(subject, beside, made.length));
    tookMs.push(performance.now() - begin);
    await sleep(pauseMs);
  }
  const { p99Us, p999Us, maxUs, requestsPerSecond } = await fio;
  if (made.length > 0) await subject.command({ verb: "rm", names: made, dryRun: false, force: true });
  return {
    beside,
    commands: tookMs.length,
    commandMs: tookMs.length === 0 ? 0 : median(tookMs),
    commandMaxMs: Math.max(0, ...tookMs),
    p99Us,
    p999Us,
    maxUs,
    requestsPerSecond,
  };
}

async function disturb(subject: OurSubject, beside: Disturbance, at: number): Promise<string> {
  if (beside === "clone of the same volume") {
    await subject.command({ verb: "clone", source: "disk0", name: `clone${at}` });
    return `clone${at}`;
  }
  const name = beside === "snapshot of another" ? `other@h${at}` : `disk0@h${at}`;
  await subject.command({ verb: "snapshot", names: [name] });
  return name;
}

/** The results as a table. */
export function holdTable(results: readonly HoldResult[]): string {
  const head = [
    "4k 70/30 d4, beside",
    "IOPS",
    "p99 us",
    "p99.9 us",
    "max us",
    "commands",
    "command ms",
    "max ms",
  ];
  const rows = results.map((each) => [
    each.beside,
    short(each.requestsPerSecond),
    short(each.p99Us),
    short(each.p999Us),
    short(each.maxUs),
    String(each.commands),
    short(each.commandMs),
    short(each.commandMaxMs),
  ]);
  return table(head, rows);
}
