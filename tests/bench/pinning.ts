/** Which CPUs a server runs on, for rows that want it on one. */
import { programPath, requiredProgram } from "../support/programs.ts";

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

/** A thread that ends while taskset goes through all of them fails it; the next attempt does not see that thread. */
const attemptsMax = 10;

/** Has a process with all its threads run on these CPUs. */
async function setCpus(pid: number, list: string): Promise<void> {
  const args = ["-a", "-c", "-p", list, String(pid)];
  for (let attempt = 1;; attempt++) {
    const { success, stderr } = await new Deno.Command(requiredProgram("taskset"), { args }).output();
    if (success) return;
    if (attempt === attemptsMax) {
      throw new Error(`taskset ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
    }
  }
}

/** Keeping processes to one CPU, all their threads, also those that they start then. */
export const pinned = {
  missing: (): string | undefined => programPath("taskset") === undefined ? "taskset" : undefined,

  /** Pins them until what is returned is disposed of. */
  async pin(pids: readonly number[], cpu: number): Promise<AsyncDisposable> {
    const before = pids.map(allowedList);
    for (const pid of pids) await setCpus(pid, String(cpu));
    return {
      [Symbol.asyncDispose]: async () => {
        for (const [at, pid] of pids.entries()) await setCpus(pid, before[at]!);
      },
    };
  },
};
