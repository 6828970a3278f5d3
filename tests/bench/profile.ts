/**
 * `deno task profile [WORKLOAD]`: our server under V8's CPU profiler while fio runs one workload, and where the time of
 * one request goes.
 */
import { UsageError, UserError } from "../../storage/base/errors.ts";
import { type Grammar, type Options, runProgram } from "../support/command_options.ts";
import { parseSize } from "../../mod.ts";
import { type CpuProfile, type ProfileSums, type SelfTime, sumProfile } from "./cpu_profile.ts";
import { type FioResult, requireFio, runFio } from "./fio.ts";
import { OurSubject } from "./ours.ts";
import { Place } from "./place.ts";
import { machine, mainThreadTimes, type ThreadTimes } from "./proc.ts";
import { shares } from "./shares.ts";
import { writeBack } from "./subject.ts";
import { short, table } from "./table.ts";
import { jobOf, type Workload, workloads } from "./workloads.ts";

const functionsShown = 25;
const samplingUs = 250;
const root = new URL("../../", import.meta.url).pathname;

/** A profiled run. Times are of the clock that V8 uses, microseconds since the machine started. */
interface Run {
  readonly result: FioResult;
  readonly beginUs: number;
  readonly endUs: number;
  /** Of the thread that runs JavaScript. */
  readonly times: ThreadTimes;
  readonly profile: CpuProfile;
}

function uptimeUs(): number {
  return Number(Deno.readTextFileSync("/proc/uptime").split(" ")[0]) * 1e6;
}

async function profiled(place: Place, workload: Workload, imageBytes: number, seconds: number): Promise<Run> {
  const folder = place.path("profile");
  const options = ["--cpu-prof", `--cpu-prof-dir=${folder}`, `--cpu-prof-interval=${samplingUs}`];
  const subject = place.own(await OurSubject.start({ place, image: workload.image, imageBytes }, options));
  await subject.prepare();
  await writeBack(subject);
  const [before, beginUs] = [mainThreadTimes(subject.pid), uptimeUs()];
  const result = await runFio(jobOf(workload, subject.uri, imageBytes, seconds));
  const [after, endUs] = [mainThreadTimes(subject.pid), uptimeUs()];
  const times = { cpuUs: after.cpuUs - before.cpuUs, waitUs: after.waitUs - before.waitUs };
  await subject.server.stop();
  const [file] = [...Deno.readDirSync(folder)];
  const profile = JSON.parse(await Deno.readTextFile(`${folder}/${file!.name}`));
  return { result, beginUs, endUs, times, profile };
}

/** Share of the time for which the thread may wait for a CPU before that is said aloud. */
const waitShareMax = 0.15;
const waitWarning = "The machine was busy: the time without a CPU counts as the event loop's, " +
  "so these shares and microseconds are not to be compared with others.\n";

function report({ result, beginUs, endUs, times, profile }: Run): string {
  const sums = sumProfile(profile, root, beginUs, endUs);
  // What the thread did while no JavaScript was on its stack: epoll, receiving, finishing operations. Samples count by
  // the clock, with the time that the thread waited for a CPU, so that belongs to either.
  const loopUs = Math.max(0, times.cpuUs + times.waitUs - sums.busyUs);
  const wallUs = endUs - beginUs;
  const { requests } = result;
  return [
    `${short(result.requestsPerSecond)} requests a second, ${short(result.bytesPerSecond / 1e6)} MB/s, ` +
    `mean ${short(result.meanUs)} us, p99 ${short(result.p99Us)} us`,
    `JavaScript's thread, of ${(wallUs / 1e6).toFixed(2)} s: ${percent(sums.busyUs, wallUs)} in JavaScript ` +
    `and what it calls, ${percent(loopUs, wallUs)} in the event loop, ` +
    `${percent(wallUs - sums.busyUs - loopUs, wallUs)} idle; ` +
    `on a CPU ${percent(times.cpuUs, wallUs)}, ready without one ${percent(times.waitUs, wallUs)}\n`,
    ...(times.waitUs <= waitShareMax * wallUs ? [] : [waitWarning]),
    shareTable(sums, loopUs, requests),
    "",
    selfTable("file", sums.byFile, sums.busyUs + loopUs, requests, functionsShown),
    "",
    selfTable("function, self time", sums.byFunction, sums.busyUs + loopUs, requests, functionsShown),
  ].join("\n");
}

function percent(part: number, whole: number): string {
  return `${(part / whole * 100).toFixed(1)}%`;
}

function shareTable({ byShare, busyUs }: ProfileSums, loopUs: number, requests: number): string {
  const rows = shares.map((share) => {
    const { us, nativeUs } = byShare.get(share) ?? { us: 0, nativeUs: 0 };
    const extraUs = share === "event loop" ? loopUs : 0;
    return row(share, { us: us + extraUs, nativeUs: nativeUs + extraUs }, busyUs + loopUs, requests);
  });
  const all = { us: busyUs + loopUs, nativeUs: 0 };
  const nativeUs = loopUs + [...byShare.values()].reduce((sum, each) => sum + each.nativeUs, 0);
  return table(headOf("share"), [...rows, row("all", { ...all, nativeUs }, all.us, requests)]);
}

function selfTable(
  title: string,
  times: ReadonlyMap<string, SelfTime>,
  wholeUs: number,
  requests: number,
  rowsMax: number,
): string {
  const sorted = [...times].toSorted(([, a], [, b]) => b.us - a.us).slice(0, rowsMax);
  return table(headOf(title), sorted.map(([name, time]) => row(name, time, wholeUs, requests)));
}

const headOf = (title: string) => [title, "of busy", "us/request", "outside JavaScript"];

function row(name: string, { us, nativeUs }: SelfTime, wholeUs: number, requests: number): string[] {
  return [name, percent(us, wholeUs), (us / requests).toFixed(2), (nativeUs / requests).toFixed(2)];
}

const grammar: Grammar = {
  usage: `usage: deno task profile [WORKLOAD] [OPTION...]

Runs our server under V8's profiler while fio runs one workload, and prints where the time of a request goes.
WORKLOAD is a part of a name that deno task bench --list prints (4k random read d32 c1).

  --seconds S        how long (5)
  --size S           bytes of the image (512M)
  --keep PATH        keeps the profile, for a browser's developer tools`,
  flags: [],
  values: ["seconds", "size", "keep"],
  takesWords: true,
};

async function main(options: Options): Promise<void> {
  const wanted = options.words.join(" ") || "4k random read d32 c1";
  const workload = workloads.find(({ name }) => name.includes(wanted));
  if (workload === undefined) {
    throw new UsageError(
      `No workload is called "${wanted}"; deno task bench --list names them (snapshots and clones beside have no profile).`,
    );
  }
  const imageBytes = parseSize(options.text("size") ?? "512M");
  const seconds = options.positive("seconds", 5, 3600);
  const kept = options.text("keep");
  // It would be a pity to find out after the run.
  if (kept !== undefined) await writeKept(kept, "");
  requireFio();
  await using place = await Place.make();
  console.log(`${machine(place.folder)}\nDeno ${Deno.version.deno}; workload: ${workload.name}`);
  const run = await profiled(place, workload, imageBytes, seconds);
  if (kept !== undefined) await writeKept(kept, JSON.stringify(run.profile));
  console.log(report(run));
}

async function writeKept(path: string, text: string): Promise<void> {
  await Deno.writeTextFile(path, text).catch((error) => {
    throw new UserError(`Cannot keep the profile in "${path}": ${error.message}`);
  });
}

await runProgram(grammar, main);
