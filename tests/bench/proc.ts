/** What /proc tells of a server and of the machine. */

const tickSeconds = 0.01;

interface Stat {
  readonly pid: number;
  readonly state: string;
  readonly parent: number;
  readonly cpuSeconds: number;
}

function statOf(path: string): Stat | undefined {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    // A process may end while we look.
    if (error instanceof Deno.errors.NotFound || String(error).includes("No such process")) return undefined;
    throw error;
  }
  // The name in parentheses may hold spaces; fields are counted from behind it.
  const [state = "", ...fields] = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [utime = 0, stime = 0, childrenUtime = 0, childrenStime = 0] = fields.slice(10, 14).map(Number);
  const cpuSeconds = (utime + stime + childrenUtime + childrenStime) * tickSeconds;
  return { pid: Number.parseInt(text), state, parent: Number(fields[0]), cpuSeconds };
}

/** A process and all that descend from it, for a server may fork for each client. */
function family(pid: number): Stat[] {
  const all: Stat[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const stat = statOf(`/proc/${name}/stat`);
    if (stat !== undefined) all.push(stat);
  }
  const found = all.filter((stat) => stat.pid === pid);
  for (const member of found) found.push(...all.filter((stat) => stat.parent === member.pid));
  return found;
}

/** CPU seconds that a server has used: user and system, with its children, also those that have ended. */
export function cpuSeconds(pid: number): number {
  return family(pid).reduce((sum, stat) => sum + stat.cpuSeconds, 0);
}

/** Whether there is such a process, one that nobody has waited for not counted. */
export function isRunning(pid: number): boolean {
  const status = statOf(`/proc/${pid}/stat`);
  return status !== undefined && status.state !== "Z";
}

/** What a process's first thread has done so far, microseconds. */
export interface ThreadTimes {
  /** On a CPU. */
  readonly cpuUs: number;
  /** Ready, with no CPU to be had. */
  readonly waitUs: number;
}

/** Times of a process's first thread. */
export function mainThreadTimes(pid: number): ThreadTimes {
  const [cpu = 0, wait = 0] = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/schedstat`).split(" ").map(
    Number,
  );
  return { cpuUs: cpu / 1000, waitUs: wait / 1000 };
}

/** Bytes of memory in RAM, by whose they are. */
export interface Memory {
  /** Its own: heap, buffers, stacks. Nobody else could use this memory. */
  readonly ownBytes: number;
  /** Pages of files that it has mapped, its program among them. The host takes them back when it needs memory. */
  readonly fileBytes: number;
}

/** Memory of one process. */
export function memoryOf(pid: number): Memory {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const bytesOf = (line: string) =>
    Number(new RegExp(`^${line}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? 0) * 1024;
  return { ownBytes: bytesOf("RssAnon"), fileBytes: bytesOf("RssFile") };
}

/** Memory of a server and its children. Pages that they share count for each. */
export function memoryOfFamily(pid: number): Memory {
  let [ownBytes, fileBytes] = [0, 0];
  for (const member of family(pid)) {
    const memory = memoryOf(member.pid);
    ownBytes += memory.ownBytes;
    fileBytes += memory.fileBytes;
  }
  return { ownBytes, fileBytes };
}

/** Milliseconds between two looks at a process's memory. */
const watchMs = 50;

/** Looks at a process's own memory again and again, as the system keeps no high-water mark of it. `using` it. */
export class MemoryWatch implements Disposable {
  readonly #pid: number;
  readonly #timer: ReturnType<typeof setInterval>;
  #ownBytesMax = 0;

  constructor(pid: number) {
    this.#pid = pid;
    this.#timer = setInterval(() => this.#look(), watchMs);
  }

  /** The most that was seen, now included. */
  get ownBytesMax(): number {
    this.#look();
    return this.#ownBytesMax;
  }

  #look(): void {
    if (isRunning(this.#pid)) this.#ownBytesMax = Math.max(this.#ownBytesMax, memoryOf(this.#pid).ownBytes);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** The machine in a line. */
export function machine(folder: string): string {
  const cpu = /^model name\s*:\s*(.*)$/m.exec(Deno.readTextFileSync("/proc/cpuinfo"))?.[1] ?? "unknown CPU";
  const gib = Math.round(Deno.systemMemoryInfo().total / 2 ** 30);
  const load = Deno.loadavg().map((each) => each.toFixed(1)).join(" ");
  return `${navigator.hardwareConcurrency} cores of ${cpu}, ${gib} GiB, Linux ${Deno.osRelease()}, files on ` +
    `${fileSystemOf(folder)}, load ${load}`;
}

function fileSystemOf(folder: string): string {
  let best = ["", "unknown"];
  for (const line of Deno.readTextFileSync("/proc/self/mounts").split("\n")) {
    const [, at = "", kind = ""] = line.split(" ");
    const isAbove = folder === at || folder.startsWith(at === "/" ? "/" : `${at}/`);
    if (at !== "" && isAbove && at.length >= best[0]!.length) best = [at, kind];
  }
  return best[1]!;
}
