/**
 * The tasks of a kernel and their turns: a task runs until its next call, and waits in it until it is resumed with the answer.
 *
 * A part of the kernel (kernel/kernel.ts), which has the mailboxes, the timers and the queue of what is ready.
 */
import { assert } from "../../storage/base/assert.ts";
import type { Address, Message, ReplyTo, Request } from "./address.ts";
import type { ActorTable } from "./actor_table.ts";
import type { ReadyQueue } from "./ready_queue.ts";
import type { Call, Steps } from "./task.ts";
import { type Task, taskName, TaskTable } from "./task_table.ts";
import { describe, describeMessage, type TraceEvent, type TraceSink } from "./trace.ts";

/** What tasks need of their kernel besides the actors and the queue of what is ready. */
export interface TaskHost {
  readonly stopped: boolean;
  readonly trace: TraceSink | undefined;
}

/** What the kernel does for the runner: it traces, sets timers, and lets long work rest. */
export interface TaskHostCalls {
  /** Traces what the task or actor that has its turn does. Only while `trace` is set. */
  record(kind: TraceEvent["kind"], to: string, text: string): void;
  /** Calls `fire` after so many milliseconds. */
  later(ms: number, fire: () => void): void;
  /** Resumes the task when nothing else is ready, or at once. */
  rest(task: Task): void;
}

/** See the head of this file. */
export class TaskRunner {
  readonly #host: TaskHost;
  readonly #actors: ActorTable;
  readonly #ready: ReadyQueue;
  readonly #calls: TaskHostCalls;
  readonly #tasks = new TaskTable();
  /** The task that has its turn. */
  #current: Task | undefined;

  constructor(host: TaskHost, actors: ActorTable, ready: ReadyQueue, calls: TaskHostCalls) {
    this.#host = host;
    this.#actors = actors;
    this.#ready = ready;
    this.#calls = calls;
  }

  /** Tasks that have started and not ended. */
  get running(): number {
    return this.#tasks.running;
  }

  inSlot(slot: number): Task {
    return this.#tasks.inSlot(slot);
  }

  /** What each running task waits for, one line each. */
  inFlight(nameOfActor: (address: Address<Message>) => string): string[] {
    return this.#tasks.inFlight(nameOfActor);
  }

  /** Cancels every task but the one that has its turn; returns what their `using` declarations threw. */
  cancelAll(): unknown[] {
    return this.#tasks.cancelAll(this.#current);
  }

  /** Starts a task, which runs when its turn comes. With a parent, its result is an answer to that task's `join`. */
  start(
    name: string,
    ordinal: number | undefined,
    steps: Steps<unknown>,
    parent: Task | undefined,
    parentIndex: number,
  ): void {
    const task = this.#tasks.add(name, ordinal, steps, parent, parentIndex);
    if (this.#host.trace !== undefined) this.#calls.record("start", taskName(task), "start");
    this.resume(task, undefined);
  }

  /** Makes the task ready, with the answer to the call that it waits in. */
  resume(task: Task, answer: unknown): void {
    assert(!task.ready, "a task was answered twice");
    assert(task.steps !== undefined, "a task was answered that has ended");
    task.answer = answer;
    task.ready = true;
    this.#ready.push(-task.slot - 1);
  }

  /** Answers the request if its task still waits for that. */
  reply<R>(request: Request<R>, answer: R): void {
    const task = request.replyTo as Task;
    const call = task.waitsIn;
    if (call?.kind !== "ask" || call.request !== request) return;
    if (this.#host.trace !== undefined) this.#calls.record("reply", taskName(task), describe(answer));
    this.resume(task, answer);
  }

  /** Runs a ready task to its next call, or to its end. */
  turn(task: Task): void {
    assert(task.ready, "a task has a turn that it is not ready for");
    assert(this.#current === undefined, "two tasks have a turn at once");
    task.ready = false;
    const steps = task.steps;
    // The kernel was stopped, and the task cancelled, while its turn was chosen.
    if (steps === undefined) return assert(this.#host.stopped, "a task has a turn that has ended");
    const answer = task.answer;
    task.answer = undefined;
    task.waitsIn = undefined;
    this.#current = task;
    const step = steps.next(answer);
    this.#current = undefined;
    // The task itself has stopped the kernel. It could not be cancelled during its turn, so it is cancelled now.
    if (this.#host.stopped) steps.return(undefined);
    else if (step.done) this.#end(task, step.value);
    else this.#call(task, step.value);
  }

  #call(task: Task, call: Call): void {
    task.waitsIn = call;
    switch (call.kind) {
      case "ask":
        call.request.replyTo = task as ReplyTo;
        if (this.#host.trace !== undefined) {
          this.#calls.record("ask", this.#actors.get(call.to).name, describeMessage(call.request));
        }
        return this.#actors.send(call.to as unknown as Address<Message>, call.request, this.#ready);
      case "join":
        assert(call.children.length > 0, "a task waits for children that it does not have");
        assert(task.childrenRunning === 0, "a task waits for two groups of children");
        task.childrenRunning = call.children.length;
        task.childrenAnswers = new Array(call.children.length);
        for (let index = 0; index < call.children.length; index += 1) {
          this.start(call.name, index, call.children[index]!, task, index);
        }
        return;
      case "sleep":
        return this.#calls.later(call.ms, () => {
          if (task.waitsIn === call) this.resume(task, undefined);
        });
      case "rest":
        return this.#calls.rest(task);
    }
  }

  #end(task: Task, value: unknown): void {
    if (this.#host.trace !== undefined) this.#calls.record("end", taskName(task), "end");
    const parent = task.parent;
    this.#tasks.remove(task);
    if (parent === undefined) return;
    assert(parent.waitsIn?.kind === "join", "a child ended that its parent does not wait for");
    assert(parent.childrenRunning > 0, "more children of a task ended than began");
    parent.childrenAnswers[task.parentIndex] = value;
    parent.childrenRunning -= 1;
    if (parent.childrenRunning === 0) this.resume(parent, parent.childrenAnswers);
  }
}
