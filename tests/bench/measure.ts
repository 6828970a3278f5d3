/** Runs workloads on servers in turn and keeps what came out. */
import { runFio } from "./fio.ts";
import type { Place } from "./place.ts";
import { cpuSeconds, isRunning, memoryOfFamily } from "./proc.ts";
import { exercise, fill, type Subject, type SubjectKind, warm, writeBack } from "./subject.ts";
import { median, short, spread, table } from "./table.ts";
import { imageBytesOf, type ImageState, jobOf, type Workload } from "./workloads.ts";

/** One run of fio. */
export interface Sample {
  /** In the workload's unit. */
  readonly value: number;
  readonly cpuSecondsPerMillion: number;
  /** See proc.ts. */
  readonly ownBytes: number;
  readonly fileBytes: number;
  readonly meanUs: number;
  readonly p99Us: number;
  readonly maxUs: number;
}

/** All runs of a workload on a server. */
export interface Outcome {
  readonly server: string;
  readonly isPeer: boolean;
  readonly samples: Sample[];
}

/** A workload with what came out on each server. */
export interface Result {
  readonly workload: string;
  readonly unit: string;
  readonly outcomes: readonly Outcome[];
}

/** How much is measured. */
export interface Effort {
  readonly rounds: number;
  readonly seconds: number;
  readonly imageBytes: number;
}

interface Entry {
  readonly kind: SubjectKind;
  readonly subject: Subject;
}

/** Measures workloads that share an image's state: every server is started once, and they take turns. */
export async function measureState(
  place: Place,
  image: ImageState,
  chosen: readonly Workload[],
  kinds: readonly SubjectKind[],
  effort: Effort,
  report: (result: Result) => void,
): Promise<void> {
  const entries: Entry[] = [];
  const setup = { place, image, imageBytes: imageBytesOf(image, effort.imageBytes) };
  for (const kind of kinds) {
    if (!chosen.some(({ rw }) => kind.does(image, rw))) continue;
    const subject = place.own(await kind.start(setup));
    const entry = { kind, subject };
    if (image.kind === "filled") {
      const mayWrite = kind.does(image, "randwrite");
      await naming(entry, "small requests", () => exercise(subject.uri, setup.imageBytes, mayWrite));
    }
    entries.push(entry);
  }
  for (const workload of chosen) {
    const able = entries.filter(({ kind }) => kind.does(image, workload.rw));
    report(await measure(workload, able, effort));
  }
  for (const { subject } of entries) await place.end(subject);
}

async function measure(workload: Workload, entries: readonly Entry[], effort: Effort): Promise<Result> {
  const outcomes = entries.map(({ kind }): Outcome => ({
    server: kind.name,
    isPeer: kind.isPeer,
    samples: [],
  }));
  // A run on new blocks ends after so many: the first of all is too short to compile what it runs.
  if (workload.blocksShare !== undefined) {
    for (const entry of entries) {
      await naming(entry, workload.name, () => sample(workload, entry.subject, effort));
    }
  }
  for (let round = 0; round < effort.rounds; round++) {
    // Each round begins with another, so that nobody always follows the same one.
    for (let turn = 0; turn < entries.length; turn++) {
      const at = (round + turn) % entries.length;
      const entry = entries[at]!;
      outcomes[at]!.samples.push(
        await naming(entry, workload.name, () => sample(workload, entry.subject, effort)),
      );
    }
  }
  return { workload: workload.name, unit: workload.unit, outcomes };
}

/** Does something with a server; if it fails, throws an error that names the server and what it was to do. */
async function naming<T>({ kind, subject }: Entry, what: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const end = isRunning(subject.pid) ? "" : ` The server has ended. ${subject.said?.() ?? ""}`;
    throw new Error(`${kind.name} failed at "${what}": ${reason}.${end}`.trimEnd(), {
      cause: error,
    });
  }
}

async function sample(workload: Workload, subject: Subject, effort: Effort): Promise<Sample> {
  const imageBytes = imageBytesOf(workload.image, effort.imageBytes);
  await subject.prepare();
  if (workload.image.kind !== "fresh") await warm(subject.uri, imageBytes);
  await writeBack(subject);
  const before = cpuSeconds(subject.pid);
  const result = await runFio(jobOf(workload, subject.uri, imageBytes, effort.seconds));
  const used = cpuSeconds(subject.pid) - before;
  const found = {
    value: workload.unit === "IOPS" ? result.requestsPerSecond : result.bytesPerSecond / 1e6,
    cpuSecondsPerMillion: used / result.requests * 1e6,
    ...memoryOfFamily(subject.pid),
    meanUs: result.meanUs,
    p99Us: result.p99Us,
    maxUs: result.maxUs,
  };
  if (workload.rw === "trim") await fill(subject.uri, imageBytes);
  await writeBack(subject);
  return found;
}

/** A result as a table. */
export function tableOf({ workload, unit, outcomes }: Result): string {
  const valueOf = ({ samples }: Outcome) => median(samples.map(({ value }) => value));
  const best = Math.max(...outcomes.filter(({ isPeer }) => isPeer).map(valueOf));
  const ratio = (outcome: Outcome, to: number) =>
    Number.isFinite(to) ? (valueOf(outcome) / to).toFixed(2) : "-";
  const named = (name: string) => Math.max(...outcomes.filter(({ server }) => server === name).map(valueOf));
  const [qcow2, bare] = [named("qemu-nbd qcow2"), named("bare loop")];
  const rows = outcomes.map((outcome) => {
    const { server, samples } = outcome;
    const of = (field: keyof Sample) => median(samples.map((each) => each[field]));
    return [
      server,
      short(valueOf(outcome)),
      spread(samples.map(({ value }) => value)),
      ratio(outcome, best),
      ratio(outcome, qcow2),
      ratio(outcome, bare),
      of("cpuSecondsPerMillion").toFixed(1),
      String(Math.round(of("ownBytes") / 2 ** 20)),
      String(Math.round(of("fileBytes") / 2 ** 20)),
      short(of("meanUs")),
      short(of("p99Us")),
    ];
  });
  const head = [
    workload,
    unit,
    "spread",
    "/ best peer",
    "/ qcow2",
    "/ bare",
    "CPU s/M",
    "own MiB",
    "files MiB",
    "mean us",
    "p99 us",
  ];
  return table(head, rows);
}
