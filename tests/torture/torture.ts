/**
 * A real server on a host that is bad in every way at once, under mixed load: few descriptors, a stderr without a reader, a
 * tmpfs that is full now and then, a data device that stalls now and then, and clients that mean no good.
 *
 * Every client's data are verified. Allowed is only what the host explains: ENOSPC and a refused snapshot while it is full,
 * waiting while the device stalls, a connection that finds no descriptor or place at once.
 */
import { hasThinTools, runThinTool } from "../support/thin_tools.ts";
import { runToEnd } from "../support/server.ts";
import { HostileClients } from "./hostile_clients.ts";
import { SmallHost } from "./host.ts";
import { Load, type LoadReport } from "./load.ts";
import { PoorServer, type Usage, usageOf } from "./poor_server.ts";
import { SlowDevice } from "./slow_device.ts";
import { attachedPath, fillWithFio, fioBytes, runVerifiedFio } from "./verified_fio.ts";

const MiB = 2 ** 20;
const cli = new URL("../../cli.ts", import.meta.url).pathname;

/** What is bad about the host. */
export type Part = "descriptors" | "stderr" | "full" | "stall" | "hostile";

/** How long and how hard. */
export interface TortureOptions {
  readonly seconds: number;
  readonly seed: number;
  /** How long the data device stands still at a time. */
  readonly stallMs: number;
  /** Parts that are left out, to find which one a problem comes from. */
  readonly without?: readonly Part[];
  /** Ends it early, by an error, with everything taken down. */
  readonly interrupt?: Promise<never>;
  /** Hears what happens, a line at a time. */
  readonly say: (line: string) => void;
}

/** What came of it. */
export interface TortureReport {
  /** Sentences; none if all is well. */
  readonly problems: readonly string[];
  /** Parts of the hostile host that this machine does not allow. */
  readonly missing: readonly string[];
}

/** The clients' volumes. */
const volumes = ["a", "b", "c"];
const volumeBytes = 8 * MiB;
/** A little more than the pool takes, so that ballast makes it full before the pool is. */
const hostBytes = 140 * MiB;
const dataBytes = 128 * MiB;
const metadataBytes = 4 * MiB;
const descriptors = 128;
const crowd = { unreadDumps: 4, idleControls: 60, halfOpen: 12, unreadReads: 4 };
const none = { unreadDumps: 0, idleControls: 0, halfOpen: 0, unreadReads: 0 };
/** The longest that clients of a kind may wait for an answer, besides the time that the device stands still if that concerns them. */
const waitMax: Readonly<Record<string, { readonly ms: number; readonly isStalled: boolean }>> = {
  // Reads what was never written: no fault concerns it.
  untouched: { ms: 2_000, isStalled: false },
  // These need a descriptor and a place, which idle connections may not keep from them.
  status: { ms: 5_000, isStalled: false },
  connect: { ms: 5_000, isStalled: true },
  command: { ms: 10_000, isStalled: true },
  load: { ms: 5_000, isStalled: true },
  // Needs a loan, which others hold without taking what they asked for: they are closed after a while.
  "large reads": { ms: 30_000, isStalled: true },
};
/** After this a server that is asked to stop has not stopped. */
const stopMs = 60_000;

/** Runs it once. Everything is taken down again, whatever happens. */
export async function torture(options: TortureOptions): Promise<TortureReport> {
  await using stack = new AsyncDisposableStack();
  const folder = await Deno.makeTempDir({ prefix: "gossamer-torture-" });
  stack.defer(() => Deno.remove(folder, { recursive: true }));
  const has = (part: Part) => !(options.without ?? []).includes(part);
  const place = await preparePlace(folder, stack);
  const { pool, dataPath, host, device, missing } = place;
  const init = ["init", `--data=${dataPath}`, `--metadata-size=${metadataBytes}`];
  await runToEnd(Deno.execPath(), ["run", "-A", cli, "--pool", pool, ...init]);
  const socket = `${folder}/nbd.sock`;
  const server = stack.use(await startServer(options, pool, socket));
  const before = usageOf(server.pid);
  const ending = new AbortController();
  const fioRun = { folder, stopped: ending.signal };
  const uri = `nbd+unix:///fio?socket=${socket}`;
  // Whole before the load begins and before the host is full: this judge takes ENOSPC for a failure.
  const unfilled = await fillWithFio(uri, fioRun);
  if (unfilled !== undefined) return { problems: [unfilled], missing };
  const fio = runVerifiedFio(uri, options.seconds, fioRun);
  stack.defer(async () => {
    ending.abort();
    await fio;
  });
  const { seed, seconds } = options;
  const control = `${pool}/control.sock`;
  const load = stack.use(
    new Load({
      socket,
      control,
      names: volumes,
      untouched: "untouched",
      beside: attachedPath(folder),
      size: volumeBytes,
      seed,
      seconds,
    }),
  );
  // Every client is attached before the faults begin, however slow this machine is. A load that failed has its say below.
  await Promise.race([load.attached(), server.ended, options.interrupt ?? load.attached()]);
  if (has("full")) host?.fillNowAndThen(3_000, 5_000);
  if (has("stall")) device?.stallNowAndThen(options.stallMs, 7_000);
  const hostile = new HostileClients(control, socket, "bait", has("hostile") ? crowd : none);
  stack.defer(() => hostile.stop());
  await Promise.race([load.loaded(), server.ended, options.interrupt ?? load.loaded()]);
  await hostile.stop();
  await host?.leaveRoom();
  await device?.goOn();
  options.say(
    `the host was full ${host?.timesFull ?? 0} times, the device stalled ${
      device?.timesStalled ?? 0
    } times; ` +
      `hostile clients connected ${hostile.connected} times and were refused or closed ${hostile.refused} times`,
  );
  if (server.status !== undefined) {
    return { problems: [`the server ended by itself: ${JSON.stringify(server.status)}`], missing };
  }
  const after = usageOf(server.pid);
  const report = await load.report();
  sayReport(options, report, before, after);
  const problems = [...report.problems, ...problemsOfWaits(report, options.stallMs)];
  const wrongInFio = await fio;
  if (wrongInFio !== undefined) problems.push(wrongInFio);
  problems.push(...await problemsAtTheEnd(server, pool));
  return { problems, missing };
}

function startServer(options: TortureOptions, pool: string, socket: string): Promise<PoorServer> {
  const without = options.without ?? [];
  const dead = options.seed % 2 === 0 ? "full" : "no reader";
  return PoorServer.start({
    pool,
    socket,
    descriptors: without.includes("descriptors") ? 1024 : descriptors,
    stderr: without.includes("stderr") ? (text) => options.say(`server: ${text}`) : dead,
    arguments: createArguments(),
  });
}

interface HostilePlace {
  readonly pool: string;
  readonly dataPath: string;
  readonly host: SmallHost | undefined;
  readonly device: SlowDevice | undefined;
  readonly missing: readonly string[];
}

/** The pool's files, on a tmpfs where one may be mounted, the data behind a device that can stall where that is possible. */
async function preparePlace(folder: string, stack: AsyncDisposableStack): Promise<HostilePlace> {
  const missing: string[] = [];
  const hostFolder = `${folder}/host`;
  await Deno.mkdir(hostFolder);
  const host = SmallHost.isPossible() ? stack.use(await SmallHost.mount(hostFolder, hostBytes)) : undefined;
  if (host === undefined) missing.push("a full tmpfs: this process may not mount one");
  const backing = `${hostFolder}/backing.img`;
  await Deno.writeFile(backing, new Uint8Array(0));
  await Deno.truncate(backing, dataBytes);
  const deviceFolder = `${folder}/device`;
  await Deno.mkdir(deviceFolder);
  const device = SlowDevice.isPossible()
    ? stack.use(await SlowDevice.over(backing, deviceFolder))
    : undefined;
  if (device === undefined) {
    missing.push("a stalled device: nbdkit, nbdfuse or the right to mount is missing");
  }
  return { pool: `${hostFolder}/pool`, dataPath: device?.path ?? backing, host, device, missing };
}

function createArguments(): string[] {
  const created = [...volumes, "untouched"].map((name) => `${name}=${volumeBytes}`);
  return [...created, `bait=${64 * MiB}`, `fio=${fioBytes}`].flatMap((each) => ["--create", each]);
}

function sayReport(
  { say }: TortureOptions,
  report: LoadReport,
  before: Usage,
  after: Usage,
): void {
  say(`answered: ${JSON.stringify(report.counts)}`);
  say(`longest waits in seconds: ${JSON.stringify(report.waits)}`);
  const MiBs = (usage: Usage) => `${Math.round(usage.ownBytes / MiB)} MiB`;
  say(
    `the server: ${before.descriptors} descriptors and ${MiBs(before)} before, ` +
      `${after.descriptors} and ${MiBs(after)} after`,
  );
}

function problemsOfWaits(report: LoadReport, stallMs: number): string[] {
  return Object.entries(waitMax).flatMap(([kind, { ms, isStalled }]) => {
    const boundMs = ms + (isStalled ? 2 * stallMs : 0);
    const waitedMs = (report.waits[kind] ?? 0) * 1000;
    return waitedMs <= boundMs ? [] : [`${kind}: an answer took ${waitedMs} ms, the bound is ${boundMs} ms`];
  });
}

/** The server stops as it should, and leaves sound metadata. */
async function problemsAtTheEnd(server: PoorServer, pool: string): Promise<string[]> {
  const problems: string[] = [];
  const status = await server.stop(stopMs);
  if (status === undefined) return [`the server did not stop within ${stopMs} ms`];
  if (status.code !== 0) problems.push(`the server stopped with status ${status.code}`);
  const check = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", cli, "--pool", pool, "check"],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  if (check.code !== 0) problems.push(`check: ${new TextDecoder().decode(check.stdout)}`);
  for (const version of ["0.9", "1.x"] as const) {
    if (!hasThinTools(version)) continue;
    const result = runThinTool("thin_check", version, [`${pool}/metadata.img`]);
    if (result.status !== 0) problems.push(`thin_check ${version}: ${result.stdout}${result.stderr}`);
  }
  return problems;
}
