/** For tests: a pool served over TCP to the kernel's own NBD client, in a VM that says when something is to happen. */
import { assert, present } from "../../storage/base/assert.ts";
import { hasProgram } from "../support/programs.ts";
import { PoolOnDisk, type ServerProcess } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { hasVm, runGuest } from "../vm/vm.ts";
import { hangSeconds, volumeNamed } from "./guest_pool.ts";

/** Programs that every script of these tests uses. */
const programs = ["nbd-client", "mkfs.ext4", "fsck.ext4"] as const;

/** Whether these tests run, which take more programs of the host into the guest: `ignore: !hasKernelClient()`. */
export function hasKernelClient(...more: readonly string[]): boolean {
  return hasVm(...programs, ...more) && hasProgram("thin_dump") && hasThinTools("0.9") && hasThinTools("1.x");
}

/** A script of this folder and what it needs. */
export interface AttachTask {
  readonly script: "attach.sh" | "xfs.sh" | "killed.sh" | "cut_power.sh" | "after_cut.sh" | "full.sh";
  readonly args?: readonly (string | number)[];
  readonly modules?: readonly string[];
  readonly programs?: readonly string[];
}

/** A pool with a volume `disk`, served on a port of the loopback, again on the same one after a kill. */
export class AttachedPool implements AsyncDisposable {
  readonly pool: PoolOnDisk;
  #server: ServerProcess;
  readonly #port: number;

  private constructor(pool: PoolOnDisk, server: ServerProcess) {
    this.pool = pool;
    this.#server = server;
    const [, port] = present(/:(\d+)$/m.exec(server.stdout), "the server printed no port");
    this.#port = Number(port);
  }

  /** Makes the pool and serves it, with more options of `serve` if there are any. */
  static async make(diskSize: string, dataSize = "1G", ...options: string[]): Promise<AttachedPool> {
    const pool = await PoolOnDisk.make("--data-size", dataSize, "--metadata-size", "4M");
    try {
      const address = ["--listen", "tcp:127.0.0.1:0"];
      const server = await pool.serveAt([...address, "--create", `disk=${diskSize}`, ...options]);
      return new AttachedPool(pool, server);
    } catch (error) {
      await pool[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What the server that runs now has said of its clients. */
  get log(): string {
    return this.#server.stderr;
  }

  /** How often the server that runs now has said that a client attached to each of these. */
  attachments(...names: readonly string[]): number[] {
    return names.map((name) => this.log.split(`attached to "${name}"`).length - 1);
  }

  /** Runs the script, whose first argument is the port, and gives the lines it printed. */
  async run(task: AttachTask): Promise<string[]> {
    const told = await runGuest({
      script: new URL(task.script, import.meta.url),
      args: [this.#port, ...(task.args ?? [])].map(String),
      modules: ["nbd", ...(task.modules ?? [])],
      programs: [...programs, ...(task.programs ?? [])],
      files: new URL(".", import.meta.url),
      network: true,
      cpus: 2,
      memoryMib: 512,
      limitSeconds: hangSeconds,
      answer: (question) => this.#answer(question),
    });
    return told.trimEnd().split("\n");
  }

  /** Stops the server and requires what must hold then. */
  async end(): Promise<void> {
    await this.#server.stop();
    await this.pool.requireSound();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool[Symbol.asyncDispose]();
  }

  async #answer(question: string): Promise<string> {
    switch (question) {
      case "mapped":
        return String(volumeNamed(await this.pool.list(), "disk").mapped_bytes);
      case "snapshot":
        await this.pool.verb("snapshot", "disk@live");
        return "done";
      case "clone":
        await this.pool.verb("clone", "disk@live", "fork");
        return "done";
      case "free": {
        const { data_total_bytes, data_used_bytes } = await this.pool.status();
        return String(data_total_bytes - data_used_bytes);
      }
      case "parked":
        return await this.#parked();
      case "grow":
        await this.pool.verb("grow", "+64M");
        return "done";
      case "remove":
        await this.pool.verb("rm", "disk@live");
        return "done";
      case "kill":
        await this.#server.kill();
        return "done";
      case "serve":
        this.#server = await this.pool.serveAt(["--listen", `tcp:127.0.0.1:${this.#port}`]);
        return "done";
      default:
        throw new Error(`The guest asks what nobody knows: ${question}`);
    }
  }

  /** Waits until writes wait for space, and answers with the pool's mode. */
  async #parked(): Promise<string> {
    const deadlineMs = performance.now() + 300_000;
    while (performance.now() < deadlineMs) {
      const { mode, parked } = await this.pool.status();
      if (parked > 0) return mode;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    throw new Error("The guest never wrote what the pool has no space for");
  }
}

/** The number in the line that begins with these words. */
export function toldNumber(lines: readonly string[], words: string): number {
  const line = present(lines.find((each) => each.startsWith(`${words} `)), "the guest did not tell a number");
  const number = Number(line.slice(words.length));
  assert(Number.isInteger(number), "the guest told something else than a number");
  return number;
}
