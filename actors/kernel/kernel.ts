/**
 * The actor kernel: one synchronous delivery loop for all actors and tasks of a pool.
 *
 * A turn is the delivery of one message, or one step of a task. A drain is one call of `run`: turns until no actor and no
 * task is ready, or until the event loop must have its turn.
 *
 * `tell` appends to the receiver's mailbox and never runs the receiver. `run` is not re-entrant: during a drain it does
 * nothing, because the drain delivers what was sent. The messages of one sender to one receiver keep their order; no other
 * order is promised.
 *
 * Supervision (invariant I10 of actors/ARCHITECTURE.md): an uncaught error in an actor or task is a defect. Delivery stops
 * before another message is processed, every task gets `return()` so that its `using` declarations run (their messages are
 * dropped), and `onDefect` is called once. Nothing is restarted; a restart of the process is crash recovery.
 */
import { assert, Defect, present } from "../../storage/base/assert.ts";
import { type Actor, type Address, type Message, type Request, unasked } from "./address.ts";
import { type ActorCell, ActorTable } from "./actor_table.ts";
import type { CounterName } from "../counters.ts";
import { checkKnobs, defaultKnobs, type Knobs } from "../knobs.ts";
import { type ClockPort, type CounterPort, fifo, type SchedulerPolicy } from "./ports.ts";
import { ReadyQueue } from "./ready_queue.ts";
import { RestingTasks } from "./resting_tasks.ts";
import { type Task, taskName } from "./task_table.ts";
import { TaskRunner } from "./task_runner.ts";
import type { Steps } from "./task.ts";
import { Alarm, type Timer, Timers } from "./timers.ts";
import { describeMessage, type TraceEvent, type TraceSink } from "./trace.ts";

/** What a kernel is made with: its clock, what has the next turn, and what is called after a defect. */
export interface KernelOptions {
  readonly clock: ClockPort;
  readonly policy?: SchedulerPolicy;
  /** Of the kernel and every actor in it. */
  readonly knobs?: Knobs;
  /** Without it nothing is counted. */
  readonly counters?: CounterPort;
  /** Called once, with the defect. Without it `run` throws the defect. */
  readonly onDefect?: (defect: unknown) => void;
}

export class Kernel {
  readonly clock: ClockPort;
  /** Actors read what they use of these once, when they are made. */
  readonly knobs: Knobs;
  /** Is given every message while it is set. */
  trace: TraceSink | undefined;
  readonly #counters: CounterPort | undefined;
  readonly #policy: SchedulerPolicy;
  readonly #onDefect: ((defect: unknown) => void) | undefined;
  readonly #actors = new ActorTable();
  readonly #tasks: TaskRunner;
  /** An actor as its slot, a task as minus its slot less one. */
  readonly #ready = new ReadyQueue();
  readonly #timers = new Timers();
  readonly #alarm: Alarm;
  readonly #resting: RestingTasks;
  #idleNotices: { readonly to: Address<Message>; readonly message: Message }[] = [];
  #running = false;
  #stopped = false;
  /** What is posted is delivered by the run that follows (`together`). */
  #gathering = false;
  /** The event loop has its turn: the clock was asked for it and has not called back. */
  #yielded = false;
  #current: ActorCell | Task | undefined;
  #deliveries = 0;
  #drains = 0;

  constructor(options: KernelOptions) {
    this.clock = options.clock;
    this.#counters = options.counters;
    this.knobs = checkKnobs(options.knobs ?? defaultKnobs);
    this.#resting = new RestingTasks(this.knobs.backgroundMsMax);
    this.#policy = options.policy ?? fifo;
    this.#alarm = new Alarm(options.clock, () => this.run());
    this.#tasks = new TaskRunner(this, this.#actors, this.#ready, {
      record: (kind, to, text) => this.#record(kind, to, text),
      later: (ms, fire) => void this.#addTimer(ms, fire),
      rest: (task) => {
        if (this.#policy.restsLast === true) this.#resting.push(task);
        else this.#tasks.resume(task, undefined);
      },
    });
    this.#onDefect = options.onDefect;
  }

  /** True after {@linkcode stop} or a defect: nothing more is delivered. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** True while the event loop has the turn that a long drain asked for. */
  get hasYielded(): boolean {
    return this.#yielded;
  }

  /** Drains begun so far. Between two of them the event loop may have had its turn. */
  get drains(): number {
    return this.#drains;
  }

  /** Messages and answers delivered so far. */
  get deliveries(): number {
    return this.#deliveries;
  }

  /** Tasks that have started and not ended. */
  get tasksRunning(): number {
    return this.#stopped ? 0 : this.#tasks.running;
  }

  /** Makes an actor. `messagesMax` bounds its mailbox and comes from mailboxes.ts. */
  spawn<M extends Message>(
    name: string,
    messagesMax: number,
    make: (self: Address<M>) => Actor<M>,
  ): Address<M> {
    return this.#actors.add(name, messagesMax, make);
  }

  /** Ends an actor. Its mailbox must be empty, and no actor or task may send to it any more. */
  retire<M extends Message>(address: Address<M>): void {
    const cell = this.#actors.get(address);
    this.#actors.remove(address);
    assert(!cell.ready || cell === this.#current, "retired an actor that is to have a turn");
  }

  /** Sends a message that is not answered. After a stop it is dropped. */
  tell<M extends Message>(to: Address<M>, message: M): void {
    if (this.#stopped) return;
    if (this.trace !== undefined) this.#record("tell", this.#actors.get(to).name, describeMessage(message));
    this.#actors.send(to as unknown as Address<Message>, message, this.#ready);
  }

  /** Answers a request, once. The answer is dropped if the task has ended since. */
  reply<R>(request: Request<R>, answer: R): void {
    if (this.#stopped) return;
    assert(request.replyTo !== unasked, "answered a request that was never asked");
    this.#tasks.reply(request, answer);
  }

  /** Starts a task; it runs when its turn comes. Its name, with an ordinal where there are many, is for traces and messages. */
  start(name: string, steps: Steps<unknown>, ordinal?: number): void {
    if (this.#stopped) return;
    this.#tasks.start(name, ordinal, steps, undefined, 0);
  }

  /** Delivers the message when no actor and no task is ready, or before the event loop has its turn. */
  whenIdle<M extends Message>(to: Address<M>, message: M): void {
    assert(this.#stopped || this.#actors.has(to), "a notice is for an actor that has ended");
    this.#idleNotices.push({ to: to as unknown as Address<Message>, message });
  }

  /** Sends the message after `ms` milliseconds. If the actor has ended by then, it is dropped and counted. */
  tellLater<M extends Message>(ms: number, to: Address<M>, message: M): Timer {
    return this.#addTimer(ms, () => {
      if (this.#actors.has(to)) this.tell(to, message);
      else this.count("postsDropped");
    });
  }

  /** Adds to a counter. Costs one branch where nothing is counted. */
  count(name: CounterName, amount = 1): void {
    if (this.#counters !== undefined) this.#counters.add(name, amount);
  }

  cancelTimer(timer: Timer): void {
    this.#timers.cancel(timer);
  }

  /**
   * Sends a message from outside (an edge adapter) and delivers all that follows from it. While the event loop has its turn,
   * the next drain does that: otherwise each completion would start a drain of its own.
   * An adapter may be late, so a message for an actor that has ended is dropped.
   */
  post<M extends Message>(to: Address<M>, message: M): void {
    if (!this.#actors.has(to)) return this.count("postsDropped");
    if (this.#running) return this.tell(to, message);
    try {
      this.tell(to, message);
    } catch (defect) {
      // Sending failed, as with a full mailbox: a defect like one in a turn.
      return this.#fail(defect);
    }
    if (!this.#yielded && !this.#gathering) this.run();
  }

  /** Delivers in one run all that `fill` posts: completions that came at once. */
  together(fill: () => void): void {
    assert(!this.#gathering, "posts are gathered by two at once");
    this.#gathering = true;
    try {
      fill();
    } finally {
      this.#gathering = false;
    }
    if (!this.#yielded) this.run();
  }

  /** For a simulator: does what a long drain does before the event loop has its turn. */
  pause(): void {
    this.#deliverIdle();
    this.#drains += 1;
  }

  /** Delivers until no actor and no task is ready, or until the turns of one drain are used up. */
  run(): void {
    if (this.#running || this.#stopped) return;
    this.#running = true;
    this.#drains += 1;
    try {
      this.#deliver();
    } catch (defect) {
      // A defect is not handled here: it stops the kernel, and goes to `onDefect` or is thrown.
      this.#fail(defect);
    } finally {
      this.#running = false;
      this.#current = undefined;
    }
    this.#setAlarm();
  }

  /** Stops delivery and cancels every task. Then throws the first error of their `using` declarations, if there is one. */
  stop(): void {
    const failures = this.#halt();
    if (failures.length > 0) throw failures[0];
  }

  /** What each running task waits for, one line each, for error messages. */
  tasksInFlight(): string[] {
    return this.#tasks.inFlight((address) => this.#actors.get(address).name);
  }

  /** The highest fill of every mailbox by actor name, for the checks of bounds. */
  mailboxHighWater(): Map<string, number> {
    return this.#actors.highWater();
  }

  #deliver(): void {
    const nowMs = this.clock.now();
    if (this.#timers.length > 0) this.#timers.fireDue(nowMs);
    const { drainMsMax, drainTurnsMax, drainTurnsPerLook } = this.knobs;
    const endMs = nowMs + drainMsMax;
    for (let turns = 0; !this.#stopped; turns += 1) {
      if (this.#ready.length === 0) {
        if (this.#deliverIdle()) continue;
        if (!this.#resumeResting()) return;
        if (this.clock.now() >= endMs) return this.#yield();
      }
      const isLong = turns % drainTurnsPerLook === 0 && turns > 0 && this.clock.now() >= endMs;
      if (isLong || turns >= drainTurnsMax) {
        // Idle notices, which send replies, do not wait for the end of long work. One resting task goes on in each drain.
        this.#deliverIdle();
        // A notice may have stopped the kernel, and its tasks are cancelled then.
        if (this.#stopped) return;
        this.#resumeResting();
        return this.#yield();
      }
      const next = this.#ready.take(this.#policy.choose(this.#ready.length));
      if (next >= 0) this.#turnOfActor(next);
      else this.#turnOfTask(this.#tasks.inSlot(-next - 1));
    }
  }

  #yield(): void {
    if (this.#yielded) return;
    this.#yielded = true;
    this.clock.yield(() => {
      assert(this.#yielded, "the event loop gave back a turn that it did not have");
      this.#yielded = false;
      this.run();
    });
  }

  /** Resumes the oldest of the resting tasks; false if there is none, or they all pause. */
  #resumeResting(): boolean {
    const task = this.#resting.take(this.clock);
    const isTask = task !== undefined && task !== "pause";
    if (isTask) this.#tasks.resume(task, undefined);
    else if (task === "pause") {
      this.#addTimer(this.knobs.backgroundPauseMs, () => this.#resting.endPause(this.clock.now()));
    }
    return isTask;
  }

  /**
   * Delivers the idle notices; false if there was none. They are not put into mailboxes: replies refer to mapped segments,
   * which may be used in this drain only.
   */
  #deliverIdle(): boolean {
    const notices = this.#idleNotices;
    if (notices.length === 0) return false;
    this.#idleNotices = [];
    for (const { to, message } of notices) {
      const cell = this.#actors.get(to);
      this.#current = undefined;
      if (this.trace !== undefined) this.#record("tell", cell.name, describeMessage(message));
      this.#current = cell;
      this.#deliveries += 1;
      cell.actor.receive(message);
      if (this.#stopped) break;
    }
    return true;
  }

  #turnOfActor(slot: number): void {
    const cell = present(this.#actors.inSlot(slot), "a retired actor was ready");
    const { actor, mailbox } = cell;
    assert(cell.ready && mailbox.length > 0, "an actor has a turn without a message");
    this.#current = cell;
    let count = Math.min(mailbox.length, this.#policy.messagesPerTurnMax);
    while (count > 0) {
      count -= 1;
      this.#deliveries += 1;
      actor.receive(mailbox.shift());
      if (this.#stopped || this.#actors.inSlot(slot) !== cell) return;
    }
    cell.ready = mailbox.length > 0;
    if (cell.ready) this.#ready.push(slot);
  }

  #turnOfTask(task: Task): void {
    this.#current = task;
    this.#deliveries += 1;
    this.#tasks.turn(task);
  }

  #addTimer(ms: number, fire: () => void): Timer {
    const timer = { atMs: this.clock.now() + ms, fire };
    this.#timers.add(timer);
    if (!this.#running) this.#setAlarm();
    return timer;
  }

  #setAlarm(): void {
    this.#alarm.set(this.#stopped ? undefined : this.#timers.nextMs);
  }

  /** Stops delivery and cancels every task; returns what their `using` declarations threw. */
  #halt(): unknown[] {
    if (this.#stopped) return [];
    this.#stopped = true;
    this.#setAlarm();
    return this.#tasks.cancelAll();
  }

  /** Stops, and reports the defect. Errors while tasks are cancelled follow from the defect and are not reported. */
  #fail(defect: unknown): void {
    this.#halt();
    const error = defect instanceof Error ? defect : new Defect(String(defect));
    if (this.#onDefect === undefined) throw error;
    this.#onDefect(error);
  }

  #record(kind: TraceEvent["kind"], to: string, text: string): void {
    const current = this.#current;
    const from = current === undefined ? "outside" : "actor" in current ? current.name : taskName(current);
    this.trace?.record({ kind, from, to, text });
  }
}
