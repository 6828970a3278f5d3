/** A libnbd client as a child process: `agent.py`, which answers a line for each command. */
import { assert } from "@std/assert";
import { python } from "../support/programs.ts";
import { Lines } from "../support/server.ts";

const encoder = new TextEncoder();

/** Dispose of it at the end of the test. */
export class Agent implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #answers: Lines;
  readonly #errors: Lines;
  #answered = 0;
  #hasEnded = false;

  constructor() {
    this.#child = new Deno.Command(python, {
      args: [new URL("agent.py", import.meta.url).pathname],
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

  /** Has a command of the Python side carried out. Throws what it raised, as text. */
  async call<Answer = unknown>(
    command: string,
    options: Readonly<Record<string, unknown>> = {},
  ): Promise<Answer> {
    await this.#input.write(encoder.encode(`${JSON.stringify({ command, ...options })}\n`));
    const begin = this.#answered;
    const isThere = await this.#answers.met((text) => text.indexOf("\n", begin) >= 0);
    assert(isThere, `The agent ended: ${this.#errors.text}`);
    const end = this.#answers.text.indexOf("\n", begin);
    this.#answered = end + 1;
    const answer = JSON.parse(this.#answers.text.slice(begin, end));
    if ("error" in answer) throw new Error(`${command}: ${answer.error}\n${this.#errors.text}`);
    return answer.ok;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#hasEnded) this.#child.kill("SIGKILL");
    await this.#input.abort().catch(() => {});
    await Promise.all([this.#child.status, this.#answers.ended, this.#errors.ended]);
  }
}
