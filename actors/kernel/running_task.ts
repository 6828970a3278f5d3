/** A task as the kernel that runs it sees it. */
import type { Call, Steps } from "./task.ts";

/** A slot for a task: with `steps` it runs, without it waits to be used again. The kernel's own. */
export interface Task {
  readonly slot: number;
  name: string;
  /** Follows the name, which is then put together only for who reads it. */
  ordinal: number | undefined;
  steps: Steps<unknown> | undefined;
  /** What resumes the task when it is next run. */
  answer: unknown;
  ready: boolean;
  /** The call it waits in: only the answer to this one is for it. */
  waitsIn: Call | undefined;
  parent: Task | undefined;
  parentIndex: number;
  childrenRunning: number;
  childrenAnswers: unknown[];
}

/** A slot without a task. */
export function newTask(slot: number): Task {
  return {
    slot,
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
}

/** For people. */
export function nameOf(task: Task): string {
  return task.ordinal === undefined ? task.name : `${task.name} ${task.ordinal}`;
}
