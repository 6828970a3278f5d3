/**
 * A data device that stalls: a file by nbdfuse over nbdkit, which is stopped (SIGSTOP) for some seconds at a time. Every read,
 * write and flush of the file then takes until nbdkit goes on; none fails.
 */
import { Daemon, hasFuse, isThere } from "../e2e/clients.ts";
import { programPath } from "../support/programs.ts";
import { runToEnd } from "../support/server.ts";
import { Repeated, sleep } from "./repeated.ts";

/** Dispose of it after the server that uses it. */
export class SlowDevice implements AsyncDisposable {
  /** The file. */
  readonly path: string;
  readonly #kit: Daemon;
  readonly #fuse: Daemon;
  #stalls: Repeated | undefined;
  /** How often it stood still. */
  timesStalled = 0;

  private constructor(path: string, kit: Daemon, fuse: Daemon) {
    this.path = path;
    this.#kit = kit;
    this.#fuse = fuse;
  }

  /** Whether the programs are here and a file system in user space can be mounted. */
  static isPossible(): boolean {
    return hasFuse() && programPath("nbdkit") !== undefined && programPath("nbdfuse") !== undefined;
  }

  /** Serves the file `backing` as another; `folder` is an empty one for what that needs. */
  static async over(backing: string, folder: string): Promise<SlowDevice> {
    const [socket, mount] = [`${folder}/nbdkit.sock`, `${folder}/mount`];
    await Deno.mkdir(mount);
    const kit = await Daemon.start(
      "nbdkit",
      ["--foreground", "--unix", socket, "file", backing],
      () => isThere(socket),
    );
    try {
      const path = `${mount}/data`;
      const fuse = await Daemon.start("nbdfuse", [path, "--unix", socket], () => isThere(path, 1));
      return new SlowDevice(path, kit, fuse);
    } catch (error) {
      await kit[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** From now on it goes for `goingMs`, then stands still for `stalledMs`, and so on. */
  stallNowAndThen(stalledMs: number, goingMs: number): void {
    this.#stalls = new Repeated(async (stopped) => {
      await sleep(goingMs, stopped);
      Deno.kill(this.#kit.pid, "SIGSTOP");
      try {
        await sleep(stalledMs, stopped);
      } finally {
        Deno.kill(this.#kit.pid, "SIGCONT");
      }
      this.timesStalled += 1;
    });
  }

  /** It goes on, and does not stall again. */
  async goOn(): Promise<void> {
    await this.#stalls?.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.goOn();
    // A mount that is still in use ends with its program.
    await runToEnd("umount", ["--lazy", this.path.replace(/\/data$/, "")]).catch(() => {});
    await this.#fuse[Symbol.asyncDispose]();
    await this.#kit[Symbol.asyncDispose]();
  }
}
