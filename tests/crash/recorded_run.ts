/**
 * A pool in memory on recording devices, with clients and an administrator who act at random and at the same time, and
 * the history of what they asked and were answered.
 */
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import type { VolumeRequest } from "../../actors/volume/bio.ts";
import type { LineRoom } from "../../actors/control/catalogue_room.ts";
import type { Actor, Address } from "../../actors/kernel/address.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import type { PoolNotice } from "../../actors/control/export_messages.ts";
import type { ThinVolumeMessage } from "../../actors/volume/volume_messages.ts";
import { present } from "../../storage/base/assert.ts";
import type { IoDone } from "../../storage/device/port.ts";
import { sectorSizeBytes } from "../../storage/base/ids.ts";
import type { IntentJournal } from "../../actors/pool/intent_journal.ts";
import { type ClientMessage, testingBlockSizeBytes, TestingPool } from "../support/pool.ts";
import { Random, RandomPolicy } from "../support/world.ts";
import { type Command, History, type Submitted } from "./history.ts";
import { type Lineage, type Survivor, WritableContent } from "./content.ts";
import { type Images, recordedIntents } from "./images.ts";
import { RecordingDevice, RecordingJournal, RunLog } from "./recording_device.ts";
import { type FaultPlan, SimulatedDevice, SimulatedJournal, SlowAnswers } from "./simulated_device.ts";
import { stamped } from "./stamps.ts";

class JournalOfRun extends SimulatedJournal {
  readonly #recording: RecordingJournal;

  constructor(images: Images, log: RunLog, faults: FaultPlan | undefined) {
    super(new TextDecoder().decode(images.journal), faults);
    // So that it is written anew after a few commands.
    this.changesCharsMax = 0;
    const refuses = () => super.refuses;
    const port = {
      get refuses() {
        return refuses();
      },
      append: (line: string, room: LineRoom, done: IoDone) => super.append(line, room, done),
      isLong: (contentBytes: number) => super.isLong(contentBytes),
      rewrite: (piece: string, isFirst: boolean, done: IoDone) => super.rewrite(piece, isFirst, done),
      finishRewrite: (contentBytes: number, done: IoDone) => super.finishRewrite(contentBytes, done),
      retract: (done: IoDone) => super.retract(done),
    };
    this.#recording = new RecordingJournal(port, log, images.journal.length);
  }

  override rewrite(piece: string, isFirst: boolean, done: IoDone): void {
    this.#recording.rewrite(piece, isFirst, done);
  }

  override finishRewrite(contentBytes: number, done: IoDone): void {
    this.#recording.finishRewrite(contentBytes, done);
  }

  override append(line: string, room: LineRoom, done: IoDone): void {
    this.#recording.append(line, room, done);
  }

  override retract(done: IoDone): void {
    this.#recording.retract(done);
  }
}

/** A volume that the run is attached to. */
interface OpenVolume {
  readonly address: Address<ThinVolumeMessage>;
  readonly uid: string;
  readonly lineage: Lineage;
  readonly number: number;
  /** Requests without an answer. */
  unanswered: number;
  /** The pool wants the client to leave, which it does when all is answered. */
  isLeaving: boolean;
}

interface Asked {
  readonly volume: OpenVolume;
  readonly submitted: Submitted;
}

/** See the head of this file. */
export class RecordedRun {
  readonly log = new RunLog();
  readonly images: Images;
  readonly history: History;
  readonly pool: TestingPool;
  readonly random: Random;
  /** Answers of everything that was asked, by status. */
  readonly statuses = new Map<string, number>();
  readonly refusals: string[] = [];
  unanswered = 0;
  /** The command in progress. */
  command: AdminCommand | undefined;
  #begun: Command | undefined;
  readonly #journal: JournalOfRun;
  readonly #volumes = new Map<string, OpenVolume>();
  readonly #client: Address<ClientMessage>;
  readonly #asked = new Map<VolumeRequest, Asked>();
  #attached: Extract<PoolNotice, { readonly type: "attached" }> | undefined;
  /** Undefined if the run keeps none. */
  readonly #intents: IntentJournal | undefined;
  /** What clients are told when the kernel has run. */
  #unsent: (() => void)[] = [];
  readonly #slow = new SlowAnswers();
  #isDataSlow = false;
  #sequence = 0;
  #volumesMade = 0;

  constructor(
    seed: number,
    images: Images,
    options: {
      readonly faults?: FaultPlan;
      readonly isOrdered?: boolean;
      /** Records for which a segment of the intent journal has room; without it none is kept. */
      readonly intentRecords?: number;
    } = {},
  ) {
    const { faults, isOrdered = false, intentRecords } = options;
    const intents = intentRecords === undefined ? undefined : recordedIntents(this.log, intentRecords);
    this.#intents = intents;
    this.images = { ...images, intents: new Uint8Array(intents?.fileBytes ?? 0) };
    this.random = new Random(seed);
    this.history = new History(this.log, testingBlockSizeBytes);
    this.#journal = new JournalOfRun(images, this.log, faults);
    const later = this.#journal.pending;
    const isLate = () => this.random.below(2) === 0;
    const device = (name: "metadata" | "data") => {
      const simulated = new SimulatedDevice(images[name].slice(), {
        name,
        later,
        isLate,
        faults,
        ...(name === "data" ? { slow: this.#slow } : {}),
      });
      return new RecordingDevice(simulated, this.log, name);
    };
    this.pool = new TestingPool(
      { metadata: device("metadata"), data: device("data"), journal: this.#journal },
      {
        ...(isOrdered ? {} : { policy: new RandomPolicy(seed) }),
        ...(intents === undefined ? {} : { intents }),
      },
    );
    this.#client = this.pool.kernel.spawn(
      "clients",
      65536,
      () => new Clients((message) => this.#received(message)),
    );
  }

  /** What is certain if the process is killed now: all that was answered as long as the intent journal is kept. */
  get survivor(): Survivor {
    return this.#intents?.state.kind === "kept" ? "answered" : "flushed";
  }

  /** Names of volumes that can be written now: those that the command in progress neither makes, renames nor removes. */
  writable(): string[] {
    const names: string[] = [];
    const { before, after } = this.#begun ?? { before: this.history.current, after: this.history.current };
    for (const [name, content] of after.volumes) {
      const isSame = before.volumes.get(name)?.sizeBytes === content.sizeBytes || this.#volumes.has(name);
      if (content instanceof WritableContent && before.volumes.has(name) && isSame) names.push(name);
    }
    return names;
  }

  sizeOf(name: string): number {
    return present(this.history.current.volumes.get(name), "a volume of the test").sizeBytes;
  }

  /** Submits a request; nothing runs yet. */
  submit(
    name: string,
    kind: VolumeRequest["kind"],
    sectorBegin = 0,
    sectors = 0,
    more: { readonly fua?: boolean; readonly noHole?: boolean } = {},
  ): void {
    const volume = this.#open(name);
    this.#sequence += 1;
    const data = kind === "write"
      ? stamped(volume.number, sectorBegin, sectors, this.#sequence)
      : new Uint8Array(kind === "read" ? sectors * sectorSizeBytes : 0);
    const request: VolumeRequest = {
      kind,
      offsetBytes: sectorBegin * sectorSizeBytes,
      lengthBytes: sectors * sectorSizeBytes,
      data,
      fua: more.fua ?? false,
      noHole: more.noHole ?? false,
      fastZero: false,
      client: this.#client,
      status: "ok",
      holes: new Uint8Array(0),
    };
    this.#asked.set(request, { volume, submitted: this.history.submit(volume.lineage, request) });
    volume.unanswered += 1;
    this.unanswered += 1;
    this.pool.kernel.tell(volume.address, { type: "submit", requests: [request] });
  }

  /** Gives a command; nothing runs yet. One at a time. */
  admin(command: AdminCommand): void {
    if (this.command !== undefined) throw new Error("one command at a time");
    this.command = command;
    const begun = this.history.begin(command);
    this.#begun = begun;
    this.unanswered += 1;
    this.pool.kernel.start(
      "administrator",
      told(this.pool.pool.admin(command), (result) => {
        this.#send();
        this.unanswered -= 1;
        this.command = undefined;
        this.#begun = undefined;
        this.#count(`${command.verb} ${result.kind}`);
        if (result.kind === "refused") this.refusals.push(result.reason);
        this.history.end(begun, outcomeOf(result));
        if (command.verb === "rename") this.#renamed(command.from, command.to);
        if (command.verb === "rm") { for (const name of command.names) this.#volumes.delete(name); }
      }),
    );
  }

  /** Delivers messages, then gives some of the answers that devices owe, in any order. */
  step(answers: number): void {
    this.#runKernel();
    for (let given = 0; given < answers; given += 1) {
      const [answer] = this.#journal.pending.splice(this.#choose(), 1);
      if (answer === undefined) return;
      answer();
      this.#runKernel();
    }
  }

  /** Where in the list the next answer is. For long whiles the data device is slow: commits then overtake writes. */
  #choose(): number {
    const { pending } = this.#journal;
    if (this.random.below(30) === 0) this.#isDataSlow = !this.#isDataSlow;
    const any = this.random.below(pending.length);
    if (!this.#isDataSlow || this.random.below(10) === 0) return any;
    const quick = pending.flatMap((answer, index) => this.#slow.has(answer) ? [] : [index]);
    return quick[this.random.below(quick.length)] ?? any;
  }

  /** Until nothing happens any more. */
  drain(): void {
    do this.step(1); while (this.#journal.pending.length > 0);
  }

  /** The commit timer rings. */
  tick(): void {
    this.pool.clock.advance(1000);
  }

  #runKernel(): void {
    do {
      this.pool.kernel.run();
      this.#send();
    } while (this.pool.clock.runYields());
  }

  /** Tells clients what is to be told, with one write of the intent journal before it, as the edge does. */
  #send(): void {
    this.#intents?.writeOut();
    for (const tell of this.#unsent.splice(0)) tell();
  }

  #open(name: string): OpenVolume {
    const open = this.#volumes.get(name);
    if (open !== undefined) return open;
    this.pool.kernel.tell(this.pool.pool.address, { type: "attach", name, client: this.#client });
    this.pool.drain();
    const attached = present(this.#attached, "a volume of the test is attached to");
    this.#attached = undefined;
    const content = this.history.current.volumes.get(name);
    const lineage = content instanceof WritableContent ? content.lineage : { unflushed: [] };
    this.#volumesMade += 1;
    const volume: OpenVolume = {
      address: attached.volume,
      uid: attached.info.uid,
      lineage,
      number: this.#volumesMade,
      unanswered: 0,
      isLeaving: false,
    };
    this.#volumes.set(name, volume);
    return volume;
  }

  #received(message: ClientMessage): void {
    if (message.type === "requestsDone") { for (const request of message.requests) this.#done(request); }
    if (message.type === "attached") this.#attached = message;
    if (message.type === "exportGone") this.#leave(message.uid);
  }

  #leave(uid: string): void {
    for (const [name, volume] of [...this.#volumes]) {
      if (volume.uid !== uid) continue;
      this.#volumes.delete(name);
      volume.isLeaving = true;
      this.#detachIfDone(volume);
    }
  }

  #detachIfDone(volume: OpenVolume): void {
    if (!volume.isLeaving || volume.unanswered > 0) return;
    this.pool.kernel.tell(this.pool.pool.address, {
      type: "detach",
      uid: volume.uid,
      client: this.#client,
    });
  }

  #renamed(from: string, to: string): void {
    for (const [name, volume] of [...this.#volumes]) {
      if (name !== from && !name.startsWith(`${from}@`)) continue;
      this.#volumes.delete(name);
      this.#volumes.set(to + name.slice(from.length), volume);
    }
  }

  #done(request: VolumeRequest): void {
    const { volume, submitted } = present(this.#asked.get(request), "a request is answered once");
    this.#asked.delete(request);
    this.unanswered -= 1;
    volume.unanswered -= 1;
    this.#count(`${request.kind} ${request.status}`);
    this.#unsent.push(() => this.history.answer(submitted, request.status === "ok"));
    this.#detachIfDone(volume);
  }

  #count(what: string): void {
    this.statuses.set(what, (this.statuses.get(what) ?? 0) + 1);
  }
}

/** What a command has done: a refusal that says so has changed nothing. */
export function outcomeOf(result: AdminResult): "done" | "refused" | "unknown" {
  if (["done", "grown", "forked", "rolledBack"].includes(result.kind)) return "done";
  if (result.kind === "refused" && /^The (change is made|volume is smaller)/.test(result.reason)) {
    return "done";
  }
  if (result.kind !== "refused") throw new Error("a command of another kind");
  return /^(The pool was not (changed|grown)|Cannot |The pool takes no changes)/.test(result.reason)
    ? "refused"
    : "unknown";
}

class Clients implements Actor<ClientMessage> {
  readonly #received: (message: ClientMessage) => void;

  constructor(received: (message: ClientMessage) => void) {
    this.#received = received;
  }

  receive(message: ClientMessage): void {
    this.#received(message);
  }
}

function* told<T>(steps: Steps<T>, tell: (answer: T) => void): Steps<void> {
  tell(yield* steps);
}
