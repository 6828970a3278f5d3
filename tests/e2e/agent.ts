/** A libnbd client as a child process: `agent.py`, which answers a line for each command. */
import { PythonChild } from "../support/python_child.ts";

/** Dispose of it at the end of the test. */
export class Agent implements AsyncDisposable {
  readonly #child = new PythonChild(new URL("agent.py", import.meta.url));

  /** Has a command of the Python side carried out. Throws what it raised, as text. */
  async call<Answer = unknown>(
    command: string,
    options: Readonly<Record<string, unknown>> = {},
  ): Promise<Answer> {
    const answer = JSON.parse(await this.#child.ask(JSON.stringify({ command, ...options })));
    if ("error" in answer) throw new Error(`${command}: ${answer.error}\n${this.#child.errors}`);
    return answer.ok;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]();
  }
}
