/** For tests: a Python program as a child process, that answers one line to each line that it is sent. */
import { assert } from "@std/assert";
import { python } from "./programs.ts";
import { Lines } from "./server.ts";

const encoder = new TextEncoder();

/** Dispose of it at the end of the test. */
export class PythonChild implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #answers: Lines;
  readonly #errors: Lines;
  #answered = 0;
  #hasEnded = false;

  /** `script` is the program's file. */
  constructor(script: URL, args: readonly string[] = []) {
    this.#child = new Deno.Command(python, {
      args: [script.pathname, ...args],
      env: { PYTHONDONTWRITEBYTECODE: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#answers = new Lines(this.#child.stdout);
    this.#errors = new Lines(this.#child.stderr);
    this.#child.status.then(() => this.#hasEnded = true);
  }

  /** What it wrote to stderr. */
  get errors(): string {
    return this.#errors.text;
  }

  /** Sends a line and waits for the line that answers it. */
  async ask(line: string): Promise<string> {
    await this.#input.write(encoder.encode(`${line}\n`));
    return await this.nextLine();
  }

  /** The next line that it writes. */
  async nextLine(): Promise<string> {
    const begin = this.#answered;
    const isThere = await this.#answers.met((text) => text.indexOf("\n", begin) >= 0);
    assert(isThere, `The Python program ended: ${this.errors}`);
    const end = this.#answers.text.indexOf("\n", begin);
    this.#answered = end + 1;
    return this.#answers.text.slice(begin, end);
  }

  /** Ends its input, after which a program that listens to it ends in its own way. */
  async close(): Promise<void> {
    await this.#input.close().catch(() => {});
    await this.#ended();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#hasEnded) this.#child.kill("SIGKILL");
    await this.#input.abort().catch(() => {});
    await this.#ended();
  }

  async #ended(): Promise<void> {
    await Promise.all([this.#child.status, this.#answers.ended, this.#errors.ended]);
  }
}
