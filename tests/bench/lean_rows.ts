/** What the lean client does with every server, a row each. README.md beside this file says how to read them. */
import { sleep } from "./place.ts";
import { memoryOfFamily } from "./proc.ts";
import type { LeanClient, LeanFigures, LeanJob } from "./lean.ts";
import type { LeanServer, Transport } from "./lean_servers.ts";
import { cpusOfOurs, pinned } from "./pinning.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

/** What comes out of one run; null where a row has no such figure. */
export interface LeanSample {
  /** In the row's unit. */
  readonly value: number;
  /** CPU of the server and of the client for one request. */
  readonly serverCpuUs: number | null;
  readonly clientCpuUs: number | null;
  readonly p50Us: number | null;
  readonly p99Us: number | null;
  readonly p999Us: number | null;
  readonly maxUs: number | null;
  /** The slowest client's requests to those of the fastest. */
  readonly fairness: number | null;
  /** What the heavy clients moved meanwhile, 10^6 bytes a second. */
  readonly besideMBps: number | null;
  /** Share of the files that was cached before: 0 is what a cold row wants, 1 what every other does. */
  readonly cachedShare: number | null;
}

/** A sample without figures of requests. */
export const emptySample: Omit<LeanSample, "value"> = {
  serverCpuUs: null,
  clientCpuUs: null,
  p50Us: null,
  p99Us: null,
  p999Us: null,
  maxUs: null,
  fairness: null,
  besideMBps: null,
  cachedShare: null,
};

/** What servers are started for; rows of one group share them. */
export interface Group {
  readonly name: string;
  readonly volumes: number;
  readonly transport: Transport;
  /** Files are in the benchmark's folder, or in one on tmpfs. */
  readonly medium: "disk" | "tmpfs";
  /** Every run is on a server that has just started, with files of which nothing is cached. */
  readonly isCold?: boolean;
  /** Nothing is filled nor warmed. */
  readonly isBare?: boolean;
}

/** One run's circumstances. */
export interface RunOf {
  readonly client: LeanClient;
  readonly server: LeanServer;
  readonly seconds: number;
  readonly warmSeconds: number;
  /** The same for all servers of a round: all meet the same offsets. */
  readonly seed: number;
}

/** A row of the table. */
export interface LeanRow {
  readonly name: string;
  readonly group: Group;
  readonly unit: "IOPS" | "MB/s" | "ms" | "MiB";
  /** Whether more is better. */
  readonly isMoreBetter: boolean;
  /** What it needs and this machine has not; undefined if all is here. */
  readonly missing?: () => string | undefined;
  readonly run: (run: RunOf) => Promise<LeanSample>;
}

const group = (name: string, more: Partial<Group> = {}): Group => ({
  name,
  volumes: 1,
  transport: "unix",
  medium: "disk",
  ...more,
});

const warmGroup = group("warm");
const fleetGroup = group("fleet", { volumes: 8 });
// The second volume is there to warm the server without touching the first.
const coldGroup = group("cold", { volumes: 2, isCold: true });
const tlsGroup = group("TLS", { transport: "tls" });
const tcpGroup = group("TCP", { transport: "tcp" });
const tmpfsGroup = group("tmpfs", { medium: "tmpfs" });
const startGroup = group("start", { isBare: true });

/** @param clients how many share the figures; one has nothing to be fair to */
function sampleOf(figures: LeanFigures, unit: LeanRow["unit"], clients = 1): LeanSample {
  const { requestsPerSecond, bytesPerSecond, fairness } = figures;
  return {
    ...emptySample,
    value: unit === "MB/s" ? bytesPerSecond / 1e6 : requestsPerSecond,
    serverCpuUs: figures.serverCpuUs,
    clientCpuUs: figures.clientCpuUs,
    p50Us: figures.p50Us,
    p99Us: figures.p99Us,
    p999Us: figures.p999Us,
    maxUs: figures.maxUs,
    fairness: clients > 1 ? fairness : null,
  };
}

/** What is done with a server; where nothing else is said, on its first volume. */
type Task = Omit<LeanJob, "uris"> & { readonly volumes?: number };

function jobOf({ server, seconds, warmSeconds, seed }: RunOf, { volumes = 1, ...task }: Task): LeanJob {
  return { seconds, warmSeconds, seed, pids: server.pids, uris: server.uris.slice(0, volumes), ...task };
}

/** A row of one client program. */
function row(name: string, of: Group, unit: "IOPS" | "MB/s", task: Task): LeanRow {
  return {
    name,
    group: of,
    unit,
    isMoreBetter: true,
    run: async (run) => sampleOf(await run.client.run(jobOf(run, task)), unit, task.volumes),
  };
}

/** One request at a time, the server on one core and the client on the same or on another. */
function onCores(name: string, isSame: boolean): LeanRow {
  return {
    ...row(name, warmGroup, "IOPS", { mode: "read" }),
    missing: () => pinned.missing() ?? (cpusOfOurs().length < 2 && !isSame ? "a second core" : undefined),
    run: async (run) => {
      const cpus = cpusOfOurs();
      await using _pin = await pinned.pin(run.server.pids, cpus[0]!);
      const cpu = isSame ? cpus[0]! : cpus[1]!;
      return sampleOf(await run.client.run(jobOf(run, { mode: "read", cpu })), "IOPS");
    },
  };
}

/** Small reads one at a time in the first half of a volume, beside two clients of 1 MiB in the second half. */
function beside(name: string, mode: "read" | "write"): LeanRow {
  return {
    name,
    group: warmGroup,
    unit: "IOPS",
    isMoreBetter: true,
    run: async (run) => {
      const half = run.server.setup.volumeBytes / 2;
      const heavy = {
        bytes: MiB,
        depth: 4,
        connections: 2,
        hasThreads: true,
        fromBytes: half,
        spanBytes: half,
      };
      const [small, large] = await Promise.all([
        run.client.run(jobOf(run, { mode: "read", spanBytes: half })),
        run.client.run(jobOf(run, { mode, ...heavy })),
      ]);
      // The server's CPU is that of both.
      return { ...sampleOf(small, "IOPS"), serverCpuUs: null, besideMBps: large.bytesPerSecond / 1e6 };
    },
  };
}

/** Reads of a volume of which nothing is cached; each block once, as a second read would be a warm one. */
function cold(depth: number): LeanRow {
  return row(`cold 4k read d${depth}`, coldGroup, "IOPS", {
    mode: "read",
    depth,
    isOnce: true,
    warmSeconds: 0,
  });
}

/** From the start of the process until it takes a connection. */
const startToListening: LeanRow = {
  name: "start to listening",
  group: startGroup,
  unit: "ms",
  isMoreBetter: false,
  run: async ({ server }) => {
    await server.stop();
    return { ...emptySample, value: await server.start() };
  },
};

/** Milliseconds after its start in which a server has come to rest. */
const restMs = 1000;

/** Memory in RAM of a server that has just started and has no client, pages of its program among it. */
const idleMemory: LeanRow = {
  name: "idle memory",
  group: startGroup,
  unit: "MiB",
  isMoreBetter: false,
  run: async ({ server }) => {
    await server.stop();
    await server.start();
    await sleep(restMs);
    const bytes = server.pids.map(memoryOfFamily).reduce(
      (sum, { ownBytes, fileBytes }) => sum + ownBytes + fileBytes,
      0,
    );
    return { ...emptySample, value: bytes / MiB };
  },
};

/** All rows; those of one group stand together. */
export const leanRows: readonly LeanRow[] = [
  row("lean 4k read d32", warmGroup, "IOPS", { mode: "read", depth: 32 }),
  row("lean 4k write d32", warmGroup, "IOPS", { mode: "write", depth: 32 }),
  onCores("4k read d1 same core", true),
  onCores("4k read d1 other core", false),
  row("lean 4k write+flush d1", warmGroup, "IOPS", { mode: "flush" }),
  row("lean 4k write+flush d8", warmGroup, "IOPS", { mode: "flush", depth: 8 }),
  beside("4k read d1 beside 1 MiB readers", "read"),
  beside("4k read d1 beside 1 MiB writers", "write"),
  row("4k write+flush on 4 volumes", fleetGroup, "IOPS", { mode: "flush", volumes: 4, hasThreads: true }),
  row("4k write+flush on 8 volumes", fleetGroup, "IOPS", { mode: "flush", volumes: 8, hasThreads: true }),
  row("4k read d8 on 4 volumes", fleetGroup, "IOPS", { mode: "read", depth: 8, volumes: 4 }),
  row("4k write d8 on 4 volumes", fleetGroup, "IOPS", { mode: "write", depth: 8, volumes: 4 }),
  cold(1),
  cold(32),
  row("TLS 4k read d1", tlsGroup, "IOPS", { mode: "read" }),
  row("TLS 1 MiB read d1", tlsGroup, "MB/s", { mode: "read", bytes: MiB }),
  row("TCP 4k read d1", tcpGroup, "IOPS", { mode: "read" }),
  row("TCP 4k read d32", tcpGroup, "IOPS", { mode: "read", depth: 32 }),
  row("tmpfs 4k read d32", tmpfsGroup, "IOPS", { mode: "read", depth: 32 }),
  row("tmpfs 4k write d32", tmpfsGroup, "IOPS", { mode: "write", depth: 32 }),
  row("tmpfs 4k write+flush d8", tmpfsGroup, "IOPS", { mode: "flush", depth: 8 }),
  startToListening,
  idleMemory,
];
