/** The tasks of a kernel. A slot is used again after its task has ended. */
import { assert, present } from "../../storage/base/assert.ts";
import { type Address, type Message, slotsMax } from "./address.ts";
import type { Call, Steps } from "./task.ts";
import { describeMessage } from "./trace.ts";

/** A slot for a task. It runs while it has `steps`; otherwise the slot is free. Only the kernel uses it. */
export interface Task {
  readonly slot: number;
  name: string;
  /** A number after the name. The text of both is made only when it is read. */
  ordinal: number | undefined;
  steps: Steps<unknown> | undefined;
  /** What the task is resumed with when it next has a turn. */
  answer: unknown;
  ready: boolean;
  /** The call that the task waits in. An answer to any other call is dropped. */
  waitsIn: Call | undefined;
  parent: Task | undefined;
  parentIndex: number;
  childrenRunning: number;
  childrenAnswers: unknown[];
}

export class TaskTable {
  readonly #tasks: Task[] = [];
  readonly #free: Task[] = [];

  /** Tasks that have started and not ended. */
  get running(): number {
    return this.#tasks.length - this.#free.length;
  }

  /** A task with these steps, which has not run yet. */
  add(
    name: string,
    ordinal: number | undefined,
    steps: Steps<unknown>,
    parent: Task | undefined,
    parentIndex: number,
  ): Task {
    const task = this.#free.pop() ?? this.#newSlot();
    assert(task.steps === undefined, "two tasks have one slot");
    assert(!task.ready && task.waitsIn === undefined, "a task begins that waits");
    task.name = name;
    task.ordinal = ordinal;
    task.steps = steps;
    task.parent = parent;
    task.parentIndex = parentIndex;
    return task;
  }

  /** The task has ended. */
  remove(task: Task): void {
    assert(task.steps !== undefined, "a task ended twice");
    assert(!task.ready && task.waitsIn === undefined, "a task ended that waits");
    assert(task.childrenRunning === 0, "a task ended before its children");
    task.steps = undefined;
    task.parent = undefined;
    this.#free.push(task);
    assert(this.#free.length <= this.#tasks.length, "more tasks ended than began");
  }

  inSlot(slot: number): Task {
    return present(this.#tasks[slot], "no such task");
  }

  /** What each running task waits for, one line each. */
  inFlight(nameOfActor: (address: Address<Message>) => string): string[] {
    return this.#tasks.filter((task) => task.steps !== undefined).map((task) => {
      const call = task.waitsIn;
      if (call === undefined || task.ready) return `${taskName(task)}: ready`;
      if (call.kind !== "ask") return `${taskName(task)}: ${call.kind}`;
      const to = nameOfActor(call.to as unknown as Address<Message>);
      return `${taskName(task)}: ${describeMessage(call.request)} -> ${to}`;
    });
  }

  /**
   * Cancels every task; returns what their `using` declarations threw. The task that has its turn cannot be cancelled: if it
   * failed, its own error runs its `using` declarations; if it stopped the kernel, the kernel cancels it after its turn.
   */
  cancelAll(current: Task | undefined): unknown[] {
    const failures: unknown[] = [];
    for (const task of this.#tasks) {
      const steps = task.steps;
      task.steps = undefined;
      task.waitsIn = undefined;
      if (steps === undefined || task === current) continue;
      try {
        steps.return(undefined);
      } catch (error) {
        // The other tasks are cancelled first. Then the caller throws it, unless it stops for another defect.
        failures.push(error);
      }
    }
    return failures;
  }

  #newSlot(): Task {
    const task: Task = {
      slot: this.#tasks.length,
      name: "",
      ordinal: undefined,
      steps: undefined,
      answer: undefined,
      ready: false,
      waitsIn: undefined,
      parent: undefined,
      parentIndex: 0,
      childrenRunning: 0,
      childrenAnswers: [],
    };
    assert(task.slot < slotsMax, "more tasks than slots");
    this.#tasks.push(task);
    return task;
  }
}

/** The name in traces and error messages. */
export function taskName(task: Task): string {
  return task.ordinal === undefined ? task.name : `${task.name} ${task.ordinal}`;
}
