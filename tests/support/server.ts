/**
 * For tests with outside programs: a pool in a folder of its own, the command line run on it, and its server as a child
 * process that can be stopped, killed and measured. Everything is gone when the pool is disposed of.
 */
import { assert, assertEquals } from "@std/assert";
import type { PoolStatus, VolumeListing } from "../../mod.ts";
import { runThinTool, type ToolResult } from "./thin_tools.ts";

const root = new URL("../..", import.meta.url).pathname;
const decoder = new TextDecoder();

/** What `cli.ts` is run with. */
export interface CliOptions {
  /** Permissions for Deno; all by default. */
  readonly permissions?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** A command that runs the one behind it, as `ip netns exec NAME` does. */
  readonly under?: readonly string[];
}

function cliCommand(
  args: readonly string[],
  options: CliOptions,
): Deno.Command {
  const permissions = options.permissions ?? ["-A"];
  const [program, ...before] = [...options.under ?? [], Deno.execPath()];
  return new Deno.Command(program!, {
    args: [...before, "run", "--no-prompt", ...permissions, `${root}cli.ts`, ...args],
    env: { NO_COLOR: "1", ...options.env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** A pool for one test. Dispose of it at the end: servers are killed and the folder is removed. */
export class PoolOnDisk implements AsyncDisposable {
  /** A folder for whatever the test needs, the pool among it. */
  readonly folder: string;
  /** Where the metadata are; to be set where they are not in the directory. */
  metadataPath: string;
  readonly #servers = new Set<ServerProcess>();

  private constructor(folder: string) {
    this.folder = folder;
    this.metadataPath = `${folder}/pool/metadata.img`;
  }

  /** A folder without a pool yet: `init`, `import` and `serve` make it. */
  static async folder(): Promise<PoolOnDisk> {
    return new PoolOnDisk(await Deno.makeTempDir({ prefix: "gossamer-e2e-" }));
  }

  /** A new pool; `init` are the options of that verb. */
  static async make(...init: string[]): Promise<PoolOnDisk> {
    const pool = await PoolOnDisk.folder();
    try {
      await pool.verb("init", ...init);
      return pool;
    } catch (error) {
      await pool[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The pool's directory. */
  get directory(): string {
    return `${this.folder}/pool`;
  }

  get dataPath(): string {
    return `${this.directory}/data.img`;
  }

  /** The path of a file of the test's own. */
  path(name: string): string {
    return `${this.folder}/${name}`;
  }

  /** Runs `cli.ts` on the pool to its end. */
  async cli(args: readonly string[], options: CliOptions = {}): Promise<ToolResult> {
    const output = await cliCommand(["--pool", this.directory, ...args], options).output();
    return {
      status: output.code,
      stdout: decoder.decode(output.stdout),
      stderr: decoder.decode(output.stderr),
    };
  }

  /** Starts `cli.ts` on the pool. */
  start(args: readonly string[], options: CliOptions = {}): RunningCli {
    return new RunningCli(cliCommand(["--pool", this.directory, ...args], options).spawn());
  }

  /** Runs a command that has to succeed and gives what it printed. */
  async verb(...args: string[]): Promise<string> {
    const result = await this.cli(args);
    assertEquals(result.status, 0, `${args.join(" ")}: ${result.stderr}`);
    return result.stdout;
  }

  async list(): Promise<readonly VolumeListing[]> {
    return JSON.parse(await this.verb("list", "--json")).volumes;
  }

  async status(): Promise<PoolStatus> {
    return JSON.parse(await this.verb("status", "--json"));
  }

  /** Data bytes in use. */
  async used(): Promise<number> {
    return (await this.status()).data_used_bytes;
  }

  /** Serves the pool on a Unix socket, by default one of the test's own, and returns when it listens. */
  serve(
    args: readonly string[] = [],
    options: CliOptions = {},
    socket = this.path("nbd.sock"),
  ): Promise<ServerProcess> {
    return this.serveAt(["--listen", `unix:${socket}`, ...args], options, socket);
  }

  /** Serves the pool where the arguments say, which name at least one address. */
  async serveAt(args: readonly string[], options: CliOptions = {}, socket = ""): Promise<ServerProcess> {
    const io = Deno.env.get("GOSSAMER_TEST_IO");
    const withIo = io === undefined || options.permissions !== undefined ? args : ["--io", io, ...args];
    const server = await ServerProcess.start(["--pool", this.directory, "serve", ...withIo], socket, options);
    this.#servers.add(server);
    return server;
  }

  /**
   * What has to hold whenever no server has the pool: both generations of thin_check accept the metadata as they are, our
   * own check agrees, and our dump is the one that thin_dump prints, byte for byte.
   */
  async requireSound(): Promise<void> {
    for (const version of ["0.9", "1.x"] as const) {
      const result = runThinTool("thin_check", version, [this.metadataPath]);
      assertEquals(result.status, 0, `thin_check ${version}: ${result.stdout}${result.stderr}`);
    }
    await this.verb("check");
    const theirs = runThinTool("thin_dump", "0.9", [this.metadataPath]);
    assertEquals(theirs.status, 0, theirs.stderr);
    const ours = await this.verb("dump");
    // Compared outside assertEquals, which would take minutes to show how two large texts differ.
    assert(ours === theirs.stdout, `dump differs from thin_dump: ${firstDifference(ours, theirs.stdout)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) await server.kill();
    await Deno.remove(this.folder, { recursive: true });
  }
}

function firstDifference(ours: string, theirs: string): string {
  const ourLines = ours.split("\n");
  const theirLines = theirs.split("\n");
  const line = ourLines.findIndex((text, at) => text !== theirLines[at]);
  return `line ${line + 1} is ${ourLines[line]} in ours, ${theirLines[line]} in theirs`;
}

/** A running `serve`. */
export class ServerProcess {
  /** The Unix socket that it serves; empty if there is none. */
  readonly socket: string;
  readonly #child: Deno.ChildProcess;
  readonly #stdout: Lines;
  readonly #stderr: Lines;
  #hasEnded = false;

  private constructor(child: Deno.ChildProcess, socket: string) {
    this.#child = child;
    this.socket = socket;
    this.#stdout = new Lines(child.stdout);
    this.#stderr = new Lines(child.stderr);
    child.status.then(() => this.#hasEnded = true);
  }

  /** Starts `cli.ts` with these arguments and returns when it has printed a `listening` line for each address of theirs; `nbd.sock` in the pool may follow. */
  static async start(args: readonly string[], socket: string, options: CliOptions): Promise<ServerProcess> {
    const server = new ServerProcess(cliCommand(args, options).spawn(), socket);
    const addresses = args.filter((arg) => arg === "--listen").length;
    const listens = await server.#stdout.met((text) =>
      (text.match(/^listening .*\n/gm) ?? []).length >= addresses
    );
    if (!listens) {
      const status = await server.#wait();
      throw new Error(`The server ended with status ${status.code} before it listened: ${server.stderr}`);
    }
    return server;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** What it has printed so far. */
  get stdout(): string {
    return this.#stdout.text;
  }

  /** What it has complained about so far. */
  get stderr(): string {
    return this.#stderr.text;
  }

  /** The URL of an export. */
  url(name: string): string {
    return `nbd+unix:///${name}?socket=${this.socket}`;
  }

  /** A line of /proc/PID/status in bytes. VmRSS and VmHWM count mapped files too, RssAnon the process's own memory alone. */
  memoryBytes(line: "VmRSS" | "VmHWM" | "RssAnon"): number {
    const status = Deno.readTextFileSync(`/proc/${this.pid}/status`);
    const found = new RegExp(`^${line}:\\s+(\\d+) kB$`, "m").exec(status);
    if (found === null) throw new Error(`/proc says nothing of ${line}`);
    return Number(found[1]) * 1024;
  }

  /** Sends it a signal. */
  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Waits until it has complained as wanted; false if it ends otherwise. */
  complained(wanted: (stderr: string) => boolean): Promise<boolean> {
    return this.#stderr.met(wanted);
  }

  /** Asks it to stop, as an operator does, and requires that it ends well. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<void> {
    this.#child.kill(signal);
    const status = await this.#wait();
    assertEquals(status.code, 0, `the server ended with status ${status.code}: ${this.stderr}`);
  }

  /** Ends it at once, as a crash would. Nothing happens if it has ended. */
  async kill(): Promise<void> {
    if (!this.#hasEnded) this.#child.kill("SIGKILL");
    await this.#wait();
  }

  async #wait(): Promise<Deno.CommandStatus> {
    const [status] = await Promise.all([this.#child.status, this.#stdout.ended, this.#stderr.ended]);
    return status;
  }
}

/** `cli.ts` while it runs. Dispose of it at the end: it is killed. */
export class RunningCli implements AsyncDisposable {
  /** Its exit status. */
  readonly status: Promise<number>;
  readonly #child: Deno.ChildProcess;
  readonly #stdout: Lines;
  readonly #stderr: Lines;
  /** Whether it has ended. */
  hasEnded = false;

  constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#stdout = new Lines(child.stdout);
    this.#stderr = new Lines(child.stderr);
    this.status = child.status.then(({ code }) => {
      this.hasEnded = true;
      return code;
    });
  }

  /** What it has printed so far. */
  get stdout(): string {
    return this.#stdout.text;
  }

  /** What it has complained about so far. */
  get stderr(): string {
    return this.#stderr.text;
  }

  /** Waits until it has printed what matches. */
  printed(wanted: RegExp): Promise<RegExpExecArray> {
    return this.#matched(this.#stdout, wanted);
  }

  /** Waits until it has complained as wanted. */
  complained(wanted: RegExp): Promise<RegExpExecArray> {
    return this.#matched(this.#stderr, wanted);
  }

  async #matched(lines: Lines, wanted: RegExp): Promise<RegExpExecArray> {
    await lines.met((text) => wanted.test(text));
    const match = wanted.exec(lines.text);
    if (match === null) throw new Error(`It ended without ${wanted}: ${this.stdout}${this.stderr}`);
    return match;
  }

  /** Sends it a signal. */
  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.hasEnded) this.#child.kill("SIGKILL");
    await Promise.all([this.status, this.#stdout.ended, this.#stderr.ended]);
  }
}

/** The text that a child prints, collected as it comes. */
export class Lines {
  text = "";
  /** When the child has closed it. */
  readonly ended: Promise<void>;
  #arrived = Promise.withResolvers<void>();
  #over = false;

  constructor(stream: ReadableStream<Uint8Array>) {
    this.ended = this.#collect(stream);
  }

  /** Waits until the text is as wanted; false if it ends otherwise. */
  async met(wanted: (text: string) => boolean): Promise<boolean> {
    while (!wanted(this.text)) {
      if (this.#over) return false;
      await this.#arrived.promise;
    }
    return true;
  }

  async #collect(stream: ReadableStream<Uint8Array>): Promise<void> {
    const pieces = new TextDecoder();
    for await (const piece of stream) {
      this.text += pieces.decode(piece, { stream: true });
      this.#wake();
    }
    this.#over = true;
    this.#wake();
  }

  #wake(): void {
    this.#arrived.resolve();
    this.#arrived = Promise.withResolvers<void>();
  }
}

/** Runs an outside program that has to succeed, without delaying other children, and gives what it printed. */
export async function runToEnd(path: string, args: readonly string[]): Promise<string> {
  const output = await new Deno.Command(path, {
    args: [...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const said = `${decoder.decode(output.stdout)}${decoder.decode(output.stderr)}`;
  assertEquals(output.code, 0, `${path} ${args.join(" ")}: ${said}`);
  return decoder.decode(output.stdout);
}

/** True where the long sizes are wanted: GOSSAMER_SOAK=1. */
export const soak: boolean = (Deno.env.get("GOSSAMER_SOAK") ?? "") !== "";

/** A test that takes long: there is none without GOSSAMER_SOAK=1, so that what CI skips is what a program was missing for. */
export function soakTest(definition: Deno.TestDefinition): void {
  if (soak) Deno.test(definition);
}
