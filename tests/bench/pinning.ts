/** Which CPUs a server runs on, for rows that want it on one. */
import { programPath, requiredProgram } from "../support/programs.ts";
import { runToEnd } from "../support/server.ts";

/** The list in a process's status: `0-3,6`. */
function allowedList(pid: number | "self"): string {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return /^Cpus_allowed_list:\s+(\S+)$/m.exec(status)?.[1] ?? "0";
}

/** The CPUs that we may run on, in order. */
export function cpusOfOurs(): number[] {
  return allowedList("self").split(",").flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number);
    return Array.from({ length: last! - first! + 1 }, (_, at) => first! + at);
  });
}

function taskset(pid: number, list: string): Promise<string> {
  return runToEnd(requiredProgram("taskset"), ["-a", "-c", "-p", list, String(pid)]);
}

/** Keeping processes to one CPU, all their threads, also those that they start then. */
export const pinned = {
  missing: (): string | undefined => programPath("taskset") === undefined ? "taskset" : undefined,

  /** Pins them until what is returned is disposed of. */
  async pin(pids: readonly number[], cpu: number): Promise<AsyncDisposable> {
    const before = pids.map(allowedList);
    for (const pid of pids) await taskset(pid, String(cpu));
    return {
      [Symbol.asyncDispose]: async () => {
        for (const [at, pid] of pids.entries()) await taskset(pid, before[at]!);
      },
    };
  },
};
