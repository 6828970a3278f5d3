/**
 * Background tasks that rest: each goes on when no actor and no other task is ready.
 *
 * They may run for `backgroundMsMax`; then all pause for `backgroundPauseMs`, with nothing else ready, so that the event loop
 * certainly looks at its sockets.
 */
import { assert } from "../../storage/base/assert.ts";
import type { ClockPort } from "./ports.ts";
import type { Task } from "./task_table.ts";

export class RestingTasks {
  /** Oldest first. */
  readonly #tasks: Task[] = [];
  /** When the pause is due. */
  #endMs = -Infinity;
  #isPaused = false;
  /** No task was resumed since the last pause. One is, also where they may run for no time at all. */
  #isOwed = false;
  readonly #runMsMax: number;

  /** @param runMsMax `backgroundMsMax` of actors/knobs.ts */
  constructor(runMsMax: number) {
    this.#runMsMax = runMsMax;
  }

  push(task: Task): void {
    assert(task.waitsIn?.kind === "rest" && !task.ready, "a task rests that does other work");
    this.#tasks.push(task);
  }

  /** The oldest task, to be resumed; "pause" if the pause begins now; undefined if no task rests or all pause. */
  take(clock: ClockPort): Task | "pause" | undefined {
    if (this.#tasks.length === 0 || this.#isPaused) return undefined;
    const nowMs = clock.now();
    // If no task has been resumed for as long as they may run, the event loop has had its turn since.
    if (nowMs >= this.#endMs + this.#runMsMax) this.#endMs = nowMs + this.#runMsMax;
    if (nowMs < this.#endMs || this.#isOwed) {
      this.#isOwed = false;
      const task = this.#tasks.shift()!;
      assert(task.waitsIn?.kind === "rest" && !task.ready, "a task that rested was resumed already");
      return task;
    }
    this.#isPaused = true;
    return "pause";
  }

  /** Ends the pause. */
  endPause(nowMs: number): void {
    assert(this.#isPaused, "ended a pause that had not begun");
    this.#isPaused = false;
    this.#isOwed = true;
    this.#endMs = nowMs + this.#runMsMax;
  }
}
