/** A server that is given little: few descriptors, and a stderr that nothing reads any more. */
import { Lines } from "../support/server.ts";

const cli = new URL("../../cli.ts", import.meta.url).pathname;

/** How it is run. */
export interface PoorServerOptions {
  readonly pool: string;
  /** The Unix socket that it listens on. */
  readonly socket: string;
  /** Descriptors that it may have, both as soft and as hard limit. */
  readonly descriptors: number;
  /** Where stderr goes: to a device that has no room, to a pipe that loses its reader once the server listens, or to be heard. */
  readonly stderr: "full" | "no reader" | ((text: string) => void);
  readonly arguments: readonly string[];
}

/** Dispose of it at the end: it is killed then, if it runs still. */
export class PoorServer implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #stdout: Lines;
  #status: Deno.CommandStatus | undefined;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#stdout = new Lines(child.stdout);
    child.status.then((status) => this.#status = status);
  }

  /** Starts it and returns when it listens. What it says on stderr until then is in the error if it does not. */
  static async start(options: PoorServerOptions): Promise<PoorServer> {
    const listen = ["--listen", `unix:${options.socket}`];
    const serve = [
      "run",
      "--no-prompt",
      "-A",
      cli,
      "--pool",
      options.pool,
      "serve",
      "--error-if-no-space",
      ...listen,
      ...options.arguments,
    ];
    const child = new Deno.Command("sh", {
      args: [
        "-c",
        `ulimit -n ${options.descriptors} && exec "$@"${options.stderr === "full" ? " 2>/dev/full" : ""}`,
        "sh",
        Deno.execPath(),
        ...serve,
      ],
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const server = new PoorServer(child);
    const listens = await server.#stdout.met((text) => text.includes(`?socket=${options.socket}\n`));
    if (!listens) {
      const said = await new Response(child.stderr).text();
      throw new Error(`The server ended before it listened: ${said}`);
    }
    if (typeof options.stderr === "function") server.#pass(child.stderr, options.stderr);
    else await child.stderr.cancel();
    return server;
  }

  async #pass(stream: ReadableStream<Uint8Array>, hears: (text: string) => void): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) hears(text);
  }

  /** Resolves when it has ended. */
  get ended(): Promise<unknown> {
    return this.#child.status;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** How it ended; undefined while it runs. */
  get status(): Deno.CommandStatus | undefined {
    return this.#status;
  }

  /** Asks it to stop and gives its status; undefined if it does not end within `timeoutMs`. */
  async stop(timeoutMs: number): Promise<Deno.CommandStatus | undefined> {
    if (this.#status === undefined) this.#child.kill("SIGTERM");
    const late = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => late.resolve(undefined), timeoutMs);
    const status = await Promise.race([this.#child.status, late.promise]);
    clearTimeout(timer);
    return status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#status === undefined) this.#child.kill("SIGKILL");
    await Promise.all([this.#child.status, this.#stdout.ended]);
  }
}

/** What /proc tells of a running process. */
export interface Usage {
  /** Resident memory, mapped files among it. */
  readonly rssBytes: number;
  /** The part of it that is no file's. */
  readonly ownBytes: number;
  readonly descriptors: number;
}

/** Memory and open descriptors of a process. */
export function usageOf(pid: number): Usage {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const bytesOf = (line: string) =>
    Number(new RegExp(`^${line}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? 0) * 1024;
  const descriptors = [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
  return { rssBytes: bytesOf("VmRSS"), ownBytes: bytesOf("RssAnon"), descriptors };
}
