/** Where a benchmark works: one folder for all files, all processes known, and nothing left of either, whatever ends it. */
import { UserError } from "../../storage/base/errors.ts";
import { isRunning } from "./proc.ts";
import { Lines } from "../support/server.ts";

/** The folder and what must be ended with it. `await using` it. */
export class Place implements AsyncDisposable {
  readonly folder: string;
  readonly #owned = new Set<AsyncDisposable>();
  /** Folders elsewhere, removed with it. */
  readonly #others = new Map<string, string>();
  readonly #interrupt = () => void this.#interrupted();
  #disposing: Promise<void> | undefined;

  private constructor(folder: string) {
    this.folder = folder;
    for (const signal of signals) Deno.addSignalListener(signal, this.#interrupt);
  }

  /** Makes the folder in TMPDIR, which then is this folder for everything that is started. */
  static async make(): Promise<Place> {
    const folder = await Deno.makeTempDir({ prefix: "gossamer-bench-" }).catch((error) => {
      throw new UserError(`Cannot make a folder for the benchmark in TMPDIR: ${error.message}`);
    });
    Deno.env.set("TMPDIR", folder);
    return new Place(folder);
  }

  /** A path in the folder. */
  path(name: string): string {
    return `${this.folder}/${name}`;
  }

  /** A folder below another directory, such as one on tmpfs; the same one each time. */
  async folderIn(directory: string): Promise<string> {
    const found = this.#others.get(directory) ??
      await Deno.makeTempDir({ dir: directory, prefix: "gossamer-bench-" });
    this.#others.set(directory, found);
    return found;
  }

  /** Has something ended with the place, unless `end` was called before. */
  own<Owned extends AsyncDisposable>(owned: Owned): Owned {
    this.#owned.add(owned);
    return owned;
  }

  /** Ends something now. Nothing happens the second time. */
  async end(owned: AsyncDisposable): Promise<void> {
    if (this.#owned.delete(owned)) await owned[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#disposing ??= this.#dispose();
    return this.#disposing;
  }

  async #dispose(): Promise<void> {
    const failures: unknown[] = [];
    for (const owned of [...this.#owned].reverse()) {
      // The others end all the same, and the folder goes; then the first failure is told.
      await this.end(owned).catch((error) => failures.push(error));
    }
    for (const folder of [this.folder, ...this.#others.values()]) {
      await Deno.remove(folder, { recursive: true });
    }
    // Not before: a terminal tells the whole group, and who has started us tells us once more.
    for (const signal of signals) Deno.removeSignalListener(signal, this.#interrupt);
    if (failures.length > 0) throw failures[0];
  }

  async #interrupted(): Promise<void> {
    if (this.#disposing === undefined) console.error("\ninterrupted: ending servers, removing files");
    await this[Symbol.asyncDispose]();
    Deno.exit(130);
  }
}

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Where a server listens: a Unix socket, or a TCP port of this host. */
export type Listener = { readonly path: string } | { readonly port: number };

/** A server as a child process, or as the daemon that one has become. */
export class Child implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  /** What it complains about: much of it is that who looks whether it listens says nothing. */
  readonly #stderr: Lines;
  readonly #pidFile: string | undefined;
  #hasEnded = false;

  private constructor(child: Deno.ChildProcess, pidFile: string | undefined) {
    this.#child = child;
    this.#pidFile = pidFile;
    this.#stderr = new Lines(child.stderr);
    child.status.then(() => this.#hasEnded = true);
  }

  /**
   * Starts a program and returns when it takes a connection.
   * @param listener where; a text is a Unix socket's path
   * @param pidFile where a program that goes into the background writes its process
   */
  static async start(
    program: string,
    args: readonly string[],
    listener: Listener | string,
    pidFile?: string,
  ): Promise<Child> {
    const where = typeof listener === "string" ? { path: listener } : listener;
    const command = new Deno.Command(program, {
      args: [...args],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    });
    const child = new Child(command.spawn(), pidFile);
    const begin = performance.now();
    while (!(await answers(where))) {
      if ((child.#hasEnded && pidFile === undefined) || performance.now() - begin > startMsMax) {
        await child[Symbol.asyncDispose]();
        const at = "port" in where ? `port ${where.port}` : where.path;
        throw new Error(`${program} ${args.join(" ")}: does not listen on ${at}: ${child.#stderr.text}`);
      }
      await sleep(Math.max(startPollMs, (performance.now() - begin) * startPollShare));
    }
    return child;
  }

  /** What it has complained about. */
  get said(): string {
    return this.#stderr.text;
  }

  get pid(): number {
    return this.#pidFile === undefined ? this.#child.pid : Number(Deno.readTextFileSync(this.#pidFile));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#pidFile !== undefined) return await this.#endDaemon();
    try {
      this.#child.kill("SIGTERM");
    } catch {
      // It has ended, perhaps by the signal that ends us.
    }
    const cutOff = setTimeout(() => this.#child.kill("SIGKILL"), endMs);
    await Promise.all([this.#child.status, this.#stderr.ended]);
    clearTimeout(cutOff);
  }

  async #endDaemon(): Promise<void> {
    const pid = this.pid;
    Deno.kill(pid, "SIGTERM");
    for (let waitedMs = 0; isRunning(pid); waitedMs += 20) {
      if (waitedMs === endMs) Deno.kill(pid, "SIGKILL");
      await sleep(20);
    }
  }
}

/** Milliseconds that a server has to end when it is asked to. */
const endMs = 5000;

/** Milliseconds between two looks whether a server listens, and their share of the time it took so far if that is more. */
const startPollMs = 1;
const startPollShare = 0.02;
/** Milliseconds that a server has to listen: ours was seen to take 6000 on a machine at load 10. */
const startMsMax = 60_000;

async function answers(listener: Listener): Promise<boolean> {
  try {
    const conn = "port" in listener
      ? await Deno.connect({ hostname: "127.0.0.1", port: listener.port })
      : await Deno.connect({ transport: "unix", path: listener.path });
    conn.close();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.ConnectionRefused) return false;
    throw error;
  }
}

/** Waits. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
