/** `load.py` as a child: the mixed load, and at its end what was wrong. */
import { python } from "../support/programs.ts";
import { Lines } from "../support/server.ts";

/** What the load is put on. */
export interface LoadOptions {
  readonly socket: string;
  readonly control: string;
  /** Volumes of `size` bytes that are written and snapshotted. */
  readonly names: readonly string[];
  /** A volume of `size` bytes that is only read, and never was written. */
  readonly untouched: string;
  /** A file that another client makes once it has attached; it is waited for before the time begins. */
  readonly beside: string;
  readonly size: number;
  readonly seed: number;
  readonly seconds: number;
}

/** What came of it. */
export interface LoadReport {
  readonly problems: readonly string[];
  readonly counts: Readonly<Record<string, number>>;
  /** The longest wait of each kind of client, seconds. */
  readonly waits: Readonly<Record<string, number>>;
}

/** Dispose of it at the end: it is killed then, if it runs still. */
export class Load implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #said: Lines;
  readonly #complaints: Lines;
  #hasEnded = false;

  constructor(options: LoadOptions) {
    this.#child = new Deno.Command(python, {
      args: [new URL("load.py", import.meta.url).pathname],
      env: { PYTHONDONTWRITEBYTECODE: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#child.status.then(() => this.#hasEnded = true);
    this.#said = new Lines(this.#child.stdout);
    this.#complaints = new Lines(this.#child.stderr);
    this.#input = this.#child.stdin.getWriter();
    this.#say(JSON.stringify(options));
  }

  /** Resolves when its clients have attached, the file `beside` is there and the time begins; false if the load itself failed. */
  attached(): Promise<boolean> {
    return this.#said.met((text) => text.startsWith("attached\n"));
  }

  /** Resolves when the time is over and every request answered; false if the load itself failed. */
  loaded(): Promise<boolean> {
    return this.#said.met((text) => text.startsWith("attached\nloaded\n"));
  }

  /** Has it verify everything. */
  async report(): Promise<LoadReport> {
    this.#say("verify");
    await this.#said.ended;
    const line = this.#said.text.split("\n")[2] ?? "";
    await this.#complaints.ended;
    if (line === "") throw new Error(`The load failed: ${this.#complaints.text}`);
    return JSON.parse(line);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#hasEnded) this.#child.kill("SIGKILL");
    await this.#input.abort().catch(() => {});
    await Promise.all([this.#child.status, this.#said.ended, this.#complaints.ended]);
  }

  /** A load that has ended takes nothing; its report says so. */
  #say(line: string): void {
    this.#input.write(new TextEncoder().encode(`${line}\n`)).catch(() => {});
  }
}
