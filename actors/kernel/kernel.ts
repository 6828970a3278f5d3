/**
 * The actor kernel: one synchronous delivery loop for all actors and tasks of a pool.
 *
 * `tell` appends to the receiver's mailbox and never runs the receiver. `run` delivers until nobody is ready;
 * it is not re-entrant: called from inside, or from a port while it runs, it only notes that there is work.
 * Per sender and receiver the order of messages is kept; nothing else about order is promised.
 *
 * Supervision (invariant I10 of actors/ARCHITECTURE.md): an uncaught error in an actor or task is a defect. Delivery stops before another
 * message is processed, every task gets `return()` so that its `using` declarations run (their messages go
 * nowhere), and `onDefect` hears of it once. Nothing is restarted; restart is crash recovery.
 */
import { assert, Defect, present } from "../../storage/base/assert.ts";
import { type Actor, type Address, type Message, type ReplyTo, type Request, unasked } from "./address.ts";
import { Mailbox } from "./mailbox.ts";
import { type ClockPort, fifo, type SchedulerPolicy } from "./ports.ts";
import { ReadyQueue } from "./ready_queue.ts";
import { nameOf, newTask, type Task } from "./running_task.ts";
import type { Call, Steps } from "./task.ts";
import { type Timer, Timers } from "./timers.ts";
import { describe, describeMessage, type TraceEvent, type TraceSink } from "./trace.ts";

/** A slot is reused; the generation above it, which just fits into a number with it, tells a stale address. */
const slotsMax = 2 ** 20;
const generationsMax = 2 ** 33;

/**
 * Turns, and milliseconds, before the loop lets the event loop have its turn, so that completions and sockets are heard.
 * A turn that copies data takes a thousand times as long as one that does not; looking at the clock each turn would cost
 * as much as the turn.
 */
const turnsPerRunMax = 4096;
const runMsMax = 2;
const turnsPerLook = 16;
/** Milliseconds for which tasks that rest go on before all of them wait for one: only then the sockets are looked at for sure. */
const restsMsMax = 3;
const restsPauseMs = 1;

interface ActorCell {
  readonly name: string;
  readonly actor: Actor<Message>;
  readonly mailbox: Mailbox;
  /** It stands in the ready queue, or has its turn now. */
  ready: boolean;
}

/** What a kernel is made with: its time, who has the next turn, and who hears of its defect. */
export interface KernelOptions {
  readonly clock: ClockPort;
  readonly policy?: SchedulerPolicy;
  /** Hears of the one defect; without it `run` throws the defect. */
  readonly onDefect?: (defect: unknown) => void;
}

export class Kernel {
  readonly clock: ClockPort;
  /** Every message goes here while it is set. */
  trace: TraceSink | undefined;
  /** Messages from outside that came after their actor had ended. */
  postsDropped = 0;
  readonly #policy: SchedulerPolicy;
  readonly #onDefect: ((defect: unknown) => void) | undefined;
  readonly #cells: (ActorCell | undefined)[] = [undefined];
  readonly #cellGenerations: number[] = [1];
  readonly #cellsFree: number[] = [];
  readonly #tasks: Task[] = [];
  readonly #tasksFree: Task[] = [];
  /** Cells as their slot, tasks as minus their slot less one. */
  readonly #ready = new ReadyQueue();
  readonly #timers = new Timers();
  /** Tasks that let everybody else go first, oldest first. */
  readonly #resting: Task[] = [];
  /** When they pause, and whether they do. */
  #restsEndMs = -Infinity;
  #restsPause = false;
  #idleNotices: { readonly to: Address<Message>; readonly message: Message }[] = [];
  #running = false;
  #stopped = false;
  /** The clock has been asked to let the event loop have its turn, and has not called back. */
  #yielded = false;
  /** What the clock's alarm is set to. */
  #alarmMs: number | undefined;
  #current: ActorCell | Task | undefined;
  #currentTask: Task | undefined;
  #deliveries = 0;
  #drains = 0;

  constructor(options: KernelOptions) {
    this.clock = options.clock;
    this.#policy = options.policy ?? fifo;
    this.#onDefect = options.onDefect;
  }

  /** True after {@linkcode stop} or a defect: nothing is delivered any more. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** True while the event loop has the turn that a long run has asked for. */
  get hasYielded(): boolean {
    return this.#yielded;
  }

  /** Runs begun so far. Between one and the next, the event loop may have had its turn. */
  get drains(): number {
    return this.#drains;
  }

  /** Messages and answers delivered so far. */
  get deliveries(): number {
    return this.#deliveries;
  }

  /** Tasks that have started and not ended. */
  get tasksRunning(): number {
    return this.#stopped ? 0 : this.#tasks.length - this.#tasksFree.length;
  }

  /** Makes an actor. `messagesMax` bounds its mailbox and comes from limits.ts. */
  spawn<M extends Message>(
    name: string,
    messagesMax: number,
    make: (self: Address<M>) => Actor<M>,
  ): Address<M> {
    // The slot is taken before `make` runs, which may spawn other actors.
    const slot = this.#cellsFree.pop() ?? this.#cells.push(undefined) - 1;
    assert(slot < slotsMax, "more actors than addresses");
    const generation = (this.#cellGenerations[slot] ?? 0) + 1;
    assert(generation < generationsMax, "a slot was used too often");
    this.#cellGenerations[slot] = generation;
    const address = (generation * slotsMax + slot) as Address<M>;
    this.#cells[slot] = {
      name,
      actor: make(address) as Actor<Message>,
      mailbox: new Mailbox(messagesMax),
      ready: false,
    };
    return address;
  }

  /** Ends an actor. Nobody may send to it any more, and nothing may wait in its mailbox. */
  retire<M extends Message>(address: Address<M>): void {
    const slot = address % slotsMax;
    const cell = this.#cellOf(address);
    assert(cell.mailbox.length === 0, "retired an actor with messages waiting");
    this.#cells[slot] = undefined;
    this.#cellsFree.push(slot);
  }

  /** Sends a message that is not answered. After a stop it goes nowhere. */
  tell<M extends Message>(to: Address<M>, message: M): void {
    if (this.#stopped) return;
    if (this.trace !== undefined) this.#record("tell", this.#cellOf(to).name, describeMessage(message));
    this.#enqueue(to as unknown as Address<Message>, message);
  }

  /** Answers a request, once. An answer to a task that has ended meanwhile is dropped. */
  reply<R>(request: Request<R>, answer: R): void {
    if (this.#stopped) return;
    assert(request.replyTo !== unasked, "answered a request that was never asked");
    const task = request.replyTo as Task;
    const call = task.waitsIn;
    if (call?.kind !== "ask" || call.request !== request) return;
    if (this.trace !== undefined) this.#record("reply", nameOf(task), describe(answer));
    this.#resumeWith(task, answer);
  }

  /** Starts a task; it runs when its turn comes. Its name is for people, with an ordinal where there are many. */
  start(name: string, steps: Steps<unknown>, ordinal?: number): void {
    if (this.#stopped) return;
    this.#startTask(name, ordinal, steps, undefined, 0);
  }

  /** Sends the message once nobody is ready, or when the kernel lets the event loop have its turn. */
  whenIdle<M extends Message>(to: Address<M>, message: M): void {
    this.#idleNotices.push({ to: to as unknown as Address<Message>, message });
  }

  /** Sends the message after `ms` milliseconds. */
  tellLater<M extends Message>(ms: number, to: Address<M>, message: M): Timer {
    return this.#addTimer(ms, () => this.tell(to, message));
  }

  cancelTimer(timer: Timer): void {
    this.#timers.cancel(timer);
  }

  /**
   * Sends a message from outside (an edge adapter) and delivers everything that follows from it. While the event loop has
   * its turn that is left to the next run: else each of its completions would bring a whole run with it.
   * What is outside may be late: a message for an actor that has ended is dropped.
   */
  post<M extends Message>(to: Address<M>, message: M): void {
    const isOld = this.#cellGenerations[to % slotsMax] !== Math.floor(to / slotsMax);
    if (isOld || this.#cells[to % slotsMax] === undefined) return void (this.postsDropped += 1);
    if (this.#running) return this.tell(to, message);
    try {
      this.tell(to, message);
    } catch (defect) {
      // Not even sending it was right: a defect like any other, though nobody has his turn.
      return this.#fail(defect);
    }
    if (!this.#yielded) this.run();
  }

  /** For a simulator whose event loop has its turn in the midst of a run: what a long run does before it yields. */
  pause(): void {
    this.#deliverIdle();
    this.#drains += 1;
  }

  /** Delivers until nobody is ready, or the turns of one run are used up. */
  run(): void {
    if (this.#running || this.#stopped) return;
    this.#running = true;
    this.#drains += 1;
    try {
      this.#deliver();
    } catch (defect) {
      // This does not go on: it stops everything and tells `onDefect`, or throws the defect on.
      this.#fail(defect);
    } finally {
      this.#running = false;
      this.#current = undefined;
    }
    this.#setAlarm();
  }

  /** Stops delivery for ever and cancels every task. Throws the first error of a `using` declaration, at the end. */
  stop(): void {
    const failures = this.#halt();
    if (failures.length > 0) throw failures[0];
  }

  /** What each running task waits for, for a person to read. */
  tasksInFlight(): string[] {
    return this.#tasks.filter((task) => task.steps !== undefined).map((task) => {
      const call = task.waitsIn;
      if (call === undefined || task.ready) return `${nameOf(task)}: ready`;
      if (call.kind !== "ask") return `${nameOf(task)}: ${call.kind}`;
      return `${nameOf(task)}: ${describeMessage(call.request)} -> ${this.#cellOf(call.to).name}`;
    });
  }

  /** The highest fill of every mailbox by actor name, for the checks of bounds. */
  mailboxHighWater(): Map<string, number> {
    const marks = new Map<string, number>();
    for (const cell of this.#cells) if (cell !== undefined) marks.set(cell.name, cell.mailbox.highWater);
    return marks;
  }

  #deliver(): void {
    this.#fireTimers();
    const endMs = this.clock.now() + runMsMax;
    for (let turns = 1; !this.#stopped; turns += 1) {
      if (this.#ready.length === 0) {
        if (this.#deliverIdle()) continue;
        if (!this.#resumeResting()) return;
        if (this.clock.now() >= endMs) return this.#yield();
      }
      const isLong = turns % turnsPerLook === 0 && this.clock.now() >= endMs;
      if (isLong || turns > turnsPerRunMax) {
        // Replies need not wait for the end of a long work, and one step of what rests is made however busy others are.
        this.#deliverIdle();
        this.#resumeResting();
        return this.#yield();
      }
      const who = this.#ready.take(this.#policy.choose(this.#ready.length));
      if (who >= 0) this.#turnOfActor(who);
      else this.#turnOfTask(present(this.#tasks[-who - 1], "no such task"));
    }
  }

  #yield(): void {
    if (this.#yielded) return;
    this.#yielded = true;
    this.clock.yield(() => {
      this.#yielded = false;
      this.run();
    });
  }

  /** Resumes the oldest of those who rest; false if there is none, or they all pause. */
  #resumeResting(): boolean {
    if (this.#resting.length === 0 || this.#restsPause) return false;
    const nowMs = this.clock.now();
    // Where nobody has rested for as long, the event loop has had its turn.
    if (nowMs >= this.#restsEndMs + restsMsMax) this.#restsEndMs = nowMs + restsMsMax;
    if (nowMs < this.#restsEndMs) {
      this.#resumeWith(this.#resting.shift()!, undefined);
      return true;
    }
    this.#restsPause = true;
    this.#addTimer(restsPauseMs, () => {
      this.#restsPause = false;
      this.#restsEndMs = this.clock.now() + restsMsMax;
    });
    return false;
  }

  /** False if there was none. At once, not by way of mailboxes: what replies have a view of is good for this run alone. */
  #deliverIdle(): boolean {
    const notices = this.#idleNotices;
    if (notices.length === 0) return false;
    this.#idleNotices = [];
    for (const { to, message } of notices) {
      const cell = this.#cellOf(to);
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
    const cell = present(this.#cells[slot], "a retired actor was ready");
    const { actor, mailbox } = cell;
    this.#current = cell;
    let count = Math.min(mailbox.length, this.#policy.messagesPerTurnMax);
    while (count > 0) {
      count -= 1;
      this.#deliveries += 1;
      actor.receive(mailbox.shift());
      if (this.#stopped || this.#cells[slot] !== cell) return;
    }
    cell.ready = mailbox.length > 0;
    if (cell.ready) this.#ready.push(slot);
  }

  #turnOfTask(task: Task): void {
    task.ready = false;
    const steps = task.steps;
    if (steps === undefined) return;
    this.#current = task;
    this.#deliveries += 1;
    const answer = task.answer;
    task.answer = undefined;
    task.waitsIn = undefined;
    this.#currentTask = task;
    const step = steps.next(answer);
    this.#currentTask = undefined;
    // It has itself stopped the kernel, and is cancelled like the others now that it can be.
    if (this.#stopped) steps.return(undefined);
    else if (step.done) this.#endTask(task, step.value);
    else this.#call(task, step.value);
  }

  #call(task: Task, call: Call): void {
    task.waitsIn = call;
    switch (call.kind) {
      case "ask":
        call.request.replyTo = task as ReplyTo;
        if (this.trace !== undefined) {
          this.#record("ask", this.#cellOf(call.to).name, describeMessage(call.request));
        }
        this.#enqueue(call.to as unknown as Address<Message>, call.request);
        return;
      case "join":
        task.childrenRunning = call.children.length;
        task.childrenAnswers = new Array(call.children.length);
        for (let index = 0; index < call.children.length; index += 1) {
          this.#startTask(call.name, index, call.children[index]!, task, index);
        }
        return;
      case "sleep": {
        this.#addTimer(call.ms, () => {
          if (task.waitsIn === call) this.#resumeWith(task, undefined);
        });
        return;
      }
      case "rest":
        if (this.#policy.restsLast === true) this.#resting.push(task);
        else this.#resumeWith(task, undefined);
        return;
    }
  }

  #startTask(
    name: string,
    ordinal: number | undefined,
    steps: Steps<unknown>,
    parent: Task | undefined,
    parentIndex: number,
  ): void {
    const task = this.#tasksFree.pop() ?? this.#newTask();
    task.name = name;
    task.ordinal = ordinal;
    task.steps = steps;
    task.parent = parent;
    task.parentIndex = parentIndex;
    if (this.trace !== undefined) this.#record("start", nameOf(task), "start");
    this.#resumeWith(task, undefined);
  }

  #newTask(): Task {
    const task = newTask(this.#tasks.length);
    assert(task.slot < slotsMax, "more tasks than slots");
    this.#tasks.push(task);
    return task;
  }

  #endTask(task: Task, value: unknown): void {
    if (this.trace !== undefined) this.#record("end", nameOf(task), "end");
    const parent = task.parent;
    task.steps = undefined;
    task.parent = undefined;
    this.#tasksFree.push(task);
    if (parent === undefined) return;
    parent.childrenAnswers[task.parentIndex] = value;
    parent.childrenRunning -= 1;
    if (parent.childrenRunning === 0) this.#resumeWith(parent, parent.childrenAnswers);
  }

  #resumeWith(task: Task, answer: unknown): void {
    assert(!task.ready, "a task was answered twice");
    task.answer = answer;
    task.ready = true;
    this.#ready.push(-task.slot - 1);
  }

  #enqueue(to: Address<Message>, message: Message): void {
    const cell = this.#cellOf(to);
    cell.mailbox.push(message);
    if (cell.ready) return;
    cell.ready = true;
    this.#ready.push(to % slotsMax);
  }

  #cellOf<M extends Message>(address: Address<M>): ActorCell {
    const slot = address % slotsMax;
    assert(this.#cellGenerations[slot] === Math.floor(address / slotsMax), "sent to a stale address");
    return present(this.#cells[slot], "sent to a retired actor");
  }

  #addTimer(ms: number, fire: () => void): Timer {
    const timer = { atMs: this.clock.now() + ms, fire };
    this.#timers.add(timer);
    if (!this.#running) this.#setAlarm();
    return timer;
  }

  #fireTimers(): void {
    if (this.#timers.length === 0) return;
    const nowMs = this.clock.now();
    for (let timer = this.#timers.takeDue(nowMs); timer !== undefined; timer = this.#timers.takeDue(nowMs)) {
      timer.fire();
    }
  }

  #setAlarm(): void {
    const nextMs = this.#stopped ? undefined : this.#timers.nextMs;
    if (nextMs === this.#alarmMs) return;
    this.#alarmMs = nextMs;
    if (nextMs === undefined) return this.clock.clearAlarm();
    this.clock.setAlarm(nextMs, () => {
      this.#alarmMs = undefined;
      this.run();
    });
  }

  /** Stops delivery and cancels every task; returns what their `using` declarations threw. */
  #halt(): unknown[] {
    const failures: unknown[] = [];
    if (this.#stopped) return failures;
    this.#stopped = true;
    this.#setAlarm();
    for (const task of this.#tasks) {
      const steps = task.steps;
      task.steps = undefined;
      task.waitsIn = undefined;
      // The task whose turn it is cannot be cancelled: one that failed runs its own `using` declarations as its
      // error passes through them, one that called stop() is cancelled at the end of its turn.
      if (steps === undefined || task === this.#currentTask) continue;
      try {
        steps.return(undefined);
      } catch (error) {
        // The other tasks are cancelled all the same; then stop() throws it, unless a defect came first.
        failures.push(error);
      }
    }
    return failures;
  }

  /** What goes wrong while the tasks are cancelled is a consequence of the defect, which is what is told. */
  #fail(defect: unknown): void {
    this.#halt();
    const error = defect instanceof Error ? defect : new Defect(String(defect));
    if (this.#onDefect === undefined) throw error;
    this.#onDefect(error);
  }

  #record(kind: TraceEvent["kind"], to: string, text: string): void {
    const current = this.#current;
    const from = current === undefined ? "outside" : "actor" in current ? current.name : nameOf(current);
    this.trace?.record({ kind, from, to, text });
  }
}
