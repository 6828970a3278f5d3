/** fio as the client of every server. */
import { UserError } from "../../storage/base/errors.ts";
import { programPath, requiredProgram } from "../support/programs.ts";

/** Throws a UserError where there is no fio: nothing can be measured then. */
export function requireFio(): void {
  if (programPath("fio") === undefined) throw new UserError("fio is not installed; apt-get install fio.");
}

/** What fio is to do. */
export interface FioJob {
  readonly uri: string;
  readonly rw: "read" | "write" | "randread" | "randwrite" | "randrw" | "trim";
  readonly blockBytes: number;
  readonly depth: number;
  readonly connections?: number;
  readonly sizeBytes: number;
  /** Runs for so long over and over; else once through, or as far as `requests`. */
  readonly seconds?: number;
  /** Ends after so many. */
  readonly requests?: number;
  readonly options?: readonly string[];
}

/** What came out. */
export interface FioResult {
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  /** Requests answered, flushes not counted. */
  readonly requests: number;
  readonly seconds: number;
  readonly meanUs: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
}

interface Direction {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly total_ios: number;
  readonly runtime: number;
  readonly clat_ns: {
    readonly max: number;
    readonly mean: number;
    readonly percentile?: Readonly<Record<string, number>>;
  };
}

/** Lines of what fio complains about that are told: what went wrong first is in the first. */
const complaintLinesMax = 3;

/** Runs one job to its end. Throws what fio says if it fails. */
export async function runFio(job: FioJob): Promise<FioResult> {
  const { code, stdout, stderr } = await new Deno.Command(requiredProgram("fio"), {
    args: argumentsOf(job),
    stdin: "null",
  }).output();
  if (code !== 0) {
    const complaints = new TextDecoder().decode(stderr).trim().split("\n").slice(0, complaintLinesMax);
    throw new Error(`fio ended with ${code}: ${complaints.join("; ")}`);
  }
  const text = new TextDecoder().decode(stdout);
  // Warnings may stand before the JSON.
  const [found] = JSON.parse(text.slice(text.indexOf("{"))).jobs;
  const directions: Direction[] = [found.read, found.write, found.trim].filter((each) => each.total_ios > 0);
  const sum = (value: (each: Direction) => number) => directions.reduce((all, each) => all + value(each), 0);
  const requests = sum((each) => each.total_ios);
  const us = (value: (each: Direction) => number) => Math.max(0, ...directions.map(value)) / 1000;
  return {
    requestsPerSecond: sum((each) => each.iops),
    bytesPerSecond: sum((each) => each.bw_bytes),
    requests,
    seconds: Math.max(0, ...directions.map((each) => each.runtime)) / 1000,
    meanUs: sum((each) => each.clat_ns.mean * each.total_ios) / Math.max(1, requests) / 1000,
    p99Us: us((each) => each.clat_ns.percentile?.["99.000000"] ?? 0),
    p999Us: us((each) => each.clat_ns.percentile?.["99.900000"] ?? 0),
    maxUs: us((each) => each.clat_ns.max),
  };
}

function argumentsOf(job: FioJob): string[] {
  return [
    "--name=bench",
    "--ioengine=nbd",
    `--uri=${job.uri}`,
    `--rw=${job.rw}`,
    `--bs=${job.blockBytes}`,
    `--iodepth=${job.depth}`,
    `--numjobs=${job.connections ?? 1}`,
    `--size=${job.sizeBytes}`,
    "--thread",
    "--randrepeat=0",
    "--group_reporting",
    "--output-format=json",
    ...(job.seconds === undefined
      ? []
      : [`--runtime=${Math.round(job.seconds * 1000)}ms`, "--time_based", "--norandommap"]),
    ...(job.requests === undefined ? [] : [`--number_ios=${job.requests}`]),
    ...(job.options ?? []),
  ];
}
