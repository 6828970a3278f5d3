/**
 * One life of the server: from opening the pool to the crash. The actors are the real ones, wired as in production; what
 * comes from outside (answers of devices, bytes of clients, alarms) waits in one list and comes in any order.
 */
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import { assemblePool } from "../../actors/assemble.ts";
import type { Address } from "../../actors/kernel/address.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { SchedulerPolicy } from "../../actors/kernel/ports.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import { mailboxes } from "../../actors/mailboxes.ts";
import { NbdListener } from "../../actors/nbd/listener.ts";
import type { NbdListenerMessage } from "../../actors/nbd/messages.ts";
import type { PoolStub } from "../../actors/control/pool_messages.ts";
import { settleCatalogue } from "../../storage/catalogue_open.ts";
import { readJournal } from "../../storage/catalogue_journal.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { BlockDevice } from "../../actors/pool/block_device.ts";
import { DeviceStub } from "../../actors/pool/device_messages.ts";
import { IntentJournal } from "../../actors/pool/intent_journal.ts";
import { type Replayed, replayTask } from "../../actors/pool/intent_replay.ts";
import { present } from "../../storage/base/assert.ts";
import { findIntents } from "../../storage/intent_read.ts";
import { ThinMetadata } from "../../storage/thin_metadata.ts";
import { RecordingDevice } from "../crash/recording_device.ts";
import type { FoundVolume } from "../crash/recovery.ts";
import { type Later, SimulatedDevice, SlowAnswers } from "../crash/simulated_device.ts";
import { ManualClock } from "../support/world.ts";
import { type ClientEars, SimClient } from "./client.ts";
import { DelayedDevice, Fuse, LifeJournal, SwarmFaults } from "./devices.ts";
import { SimHost } from "./host.ts";
import { bindingOf, IntentFile } from "./intent_file.ts";
import type { Beginning, LifeWorld, PoolParts } from "./life_world.ts";
import { Looks } from "./looks.ts";

/** See the head of this file. */
export class Life {
  readonly kernel: Kernel;
  readonly clock = new ManualClock();
  readonly fuse: Fuse;
  readonly faults: SwarmFaults;
  readonly host: SimHost;
  /** Of the pool, once it is assembled. */
  parts: PoolParts | undefined;
  readonly journal: LifeJournal;
  /** What became of the changes that the intent journal had, if it had some. */
  replayed: Replayed["kind"] | undefined;
  /** The intent journal had changes for the superblock that was read. */
  hasIntents = false;
  /** Why changes that the intent journal has were not replayed, for the operator. */
  readonly notReplayed: string[] = [];
  readonly logged: string[] = [];
  /** Everything from outside that waits for its turn. */
  readonly later: Later = [];
  /** Things come late, and between turns: switched off while a test looks. */
  isRough = true;
  /** What was admitted so far; nothing else may cause messages. */
  readonly admitted = { clients: 1, requests: 1, commands: 1 };
  /** The first error that nobody expected. */
  defect: unknown;
  readonly metadata: SimulatedDevice;
  readonly data: SimulatedDevice;
  /** Undefined if this run keeps no intent journal, or the host had no room for one. */
  readonly intentFile: IntentFile | undefined;
  readonly #world: LifeWorld;
  readonly #beginning: Beginning;
  readonly #ports: Readonly<Record<"metadata" | "data", DelayedDevice>>;
  readonly #intents: IntentJournal;
  #pool: PoolStub | undefined;
  #listener: Address<NbdListenerMessage> | undefined;
  readonly #slow = new SlowAnswers();
  #isDataSlow = false;
  /** Until how many events have happened these are left waiting, if there is anything else to do. */
  readonly #stuck = new Map<() => void, number>();
  #events = 0;
  readonly #looks: Looks;
  readonly #clients: SimClient[] = [];

  constructor(beginning: Beginning, world: LifeWorld) {
    this.#world = world;
    this.#beginning = beginning;
    const { swarm } = world;
    this.host = new SimHost(swarm.host, swarm.host === undefined ? 0 : world.random.below(2 ** 31));
    this.faults = new SwarmFaults(world, this.host);
    this.fuse = new Fuse(() => this.kernel.stop());
    const policy: SchedulerPolicy = {
      messagesPerTurnMax: 1,
      choose: (count) => this.#choose(count),
      restsLast: swarm.restsLast,
    };
    this.kernel = new Kernel({
      clock: this.clock,
      policy,
      knobs: swarm.knobs,
      onDefect: (defect) => this.defect ??= defect,
    });
    this.kernel.trace = world.trace;
    const devices = {
      later: this.later,
      fuse: this.fuse,
      faults: this.faults,
      host: this.host,
      delay: (event: () => void) => this.#delay(event),
      isLateToStart: () => this.#chance(swarm.lateStart),
      runs: () => this.kernel.drains,
      note: (device: string, kind: string) => world.mix(device.length * 31 + kind.length),
    };
    this.journal = new LifeJournal(beginning.journal, devices);
    const device = (name: "metadata" | "data") => {
      const simulated = new SimulatedDevice(beginning[name], {
        name,
        later: this.later,
        isLate: () => this.#chance(swarm.lateAnswer),
        faults: this.faults,
        isRemote: name === "data" && swarm.hasRemoteData,
        ...(name === "data" ? { slow: this.#slow } : {}),
      });
      const recording = new RecordingDevice(simulated, beginning.log, name);
      const port = new DelayedDevice(this.host.under(recording, name), name, devices);
      return { simulated, port };
    };
    const [metadata, data] = [device("metadata"), device("data")];
    this.metadata = metadata.simulated;
    this.data = data.simulated;
    this.#ports = { metadata: metadata.port, data: data.port };
    const { intentSegmentBytes } = swarm;
    const isNew = beginning.intents.bytes.length === 0;
    this.intentFile = intentSegmentBytes === undefined || (isNew && this.host.refuses("intents"))
      ? undefined
      : new IntentFile(beginning.intents, intentSegmentBytes, devices, world);
    this.#intents = new IntentJournal(
      this.intentFile === undefined ? "this life keeps none" : {
        port: this.intentFile,
        binding: bindingOf(beginning.intents.bootId),
        segmentBytes: intentSegmentBytes!,
        log: (sentence) => void this.logged.push(sentence),
      },
    );
    this.#looks = new Looks(this);
  }

  /** What is answered is in an intent journal. */
  get keepsIntents(): boolean {
    return this.#intents.state.kind === "kept";
  }

  get pool(): PoolStub {
    return present(this.#pool, "the pool is not assembled yet");
  }

  /** Opens the pool as production does; the answer comes as soon as it may. */
  start(answered: (result: AdminResult) => void): void {
    this.kernel.start("start of the pool", told(this.#start(), answered));
  }

  *#start(): Steps<AdminResult> {
    const { metadata, intents, believed } = this.#beginning;
    const superblock = metadata.slice(0, metadataBlockSizeBytes);
    const found = findIntents(intents.bytes, bindingOf(intents.bootId), believed ?? superblock);
    if (found.kind === "none" && found.why !== undefined) this.notReplayed.push(found.why);
    if (this.intentFile === undefined || found.kind !== "found") {
      return yield* this.#assemble(superblock).start();
    }
    this.hasIntents = true;
    const replayed = yield* replayTask({
      data: this.#deviceOf("data"),
      metadata: this.#deviceOf("metadata"),
      openEngine: () => this.#openEngine(superblock),
      intents: found.intents,
      isWriting: true,
      writesMax: this.kernel.knobs.commitWritesMax,
    });
    this.replayed = replayed.kind;
    if (replayed.kind === "replayed") return yield* this.#assemble(replayed.plan.superblock).start();
    const { sentence: reason } = replayed;
    if (replayed.kind === "unfit") {
      this.notReplayed.push(reason);
      return yield* this.#assemble(superblock).start();
    }
    return { kind: "refused", reason: `the intent journal is ${replayed.kind}: ${reason}` };
  }

  /** An actor for the time before the pool has its own. */
  #deviceOf(name: "metadata" | "data"): DeviceStub {
    const port = this.#ports[name];
    const address = this.kernel.spawn(
      `replay's ${name} device`,
      mailboxes[`${name}Device`],
      (self) => new BlockDevice(this.kernel, self, port, undefined, this.#intents),
    );
    return new DeviceStub(address, port.canDiscard, this.kernel.knobs);
  }

  #openEngine(superblock: Uint8Array): ThinMetadata {
    return ThinMetadata.open(superblock.slice(), {
      cacheBlocks: this.#world.swarm.cacheBlocks,
      deviceBlocks: this.#beginning.metadata.length / metadataBlockSizeBytes,
      readOnly: false,
      takesSmallBlocks: true,
    });
  }

  #assemble(superblock: Uint8Array): PoolStub {
    const engine = this.#openEngine(superblock);
    const { catalogue } = settleCatalogue(readJournal(this.#beginning.journal), engine.transactionId);
    this.parts = { engine, catalogue };
    this.#world.breaks?.(this.parts);
    const log = (sentence: string) => void this.logged.push(sentence);
    this.#pool = assemblePool(this.kernel, {
      ...this.#ports,
      journal: this.journal,
      catalogue,
      engine,
      intents: this.#intents,
      readOnly: false,
      noSpace: this.#world.swarm.noSpace,
      hostSpace: () => this.host.space(),
      detectsZeroes: this.#world.swarm.detectsZeroes,
      newUid: () => this.#world.newUid(),
      log,
    });
    const peers = { pool: this.#pool.address, accepts: [], log };
    this.#listener = this.kernel.spawn(
      "nbd listener",
      mailboxes.listener,
      (self) => new NbdListener(this.kernel, self, peers),
    );
    return this.#pool;
  }

  /** Gives a command; the answer comes as soon as it may. */
  admin(command: AdminCommand, answered: (result: AdminResult) => void): void {
    this.admitted.commands += 1;
    const sent = (result: AdminResult) => {
      this.#beforeSend();
      if (!this.fuse.isBlown) answered(result);
    };
    this.kernel.start("administrator", told(this.pool.admin(command), sent));
  }

  connect(name: string, isStructured: boolean, ears: ClientEars): SimClient {
    const socketWorld = {
      kernel: this.kernel,
      world: this.#world,
      schedule: (event: () => void) => void this.later.push(event),
      isAlive: () => !this.fuse.isBlown,
      beforeSend: () => this.#beforeSend(),
    };
    this.admitted.clients += 1;
    const client = new SimClient(socketWorld, ears, name, isStructured);
    this.#clients.push(client);
    this.later.push(() => this.kernel.post(this.#listener!, { type: "connected", socket: client.socket }));
    return client;
  }

  /** What the edge does before any byte goes to a client. */
  #beforeSend(): void {
    if (!this.#world.forgetsIntents) this.#intents.writeOut();
  }

  /** Delivers all messages, then so many of the things that wait outside. */
  step(events: number): void {
    this.#run();
    for (let given = 0; given < events && this.#intrude(); given += 1) this.#run();
  }

  /** Until nothing moves any more. Time stands still. */
  drain(): void {
    // Nothing is stuck for ever.
    do {
      this.#run();
      this.#events += 50;
    } while (this.#intrude());
  }

  /** Jumps to where something is due, or a little. */
  jump(ms: number): void {
    const alarm = this.clock.alarmMs;
    if (!this.isOver) this.clock.advance(Math.max(ms, alarm === undefined ? 0 : alarm - this.clock.nowMs));
  }

  /** The process has ended, and its host goes on: clients hear what was sent to them. */
  deliverSent(): void {
    for (const { socket } of this.#clients) socket.deliverRest();
  }

  /** Crashed, or stopped by a defect. */
  get isOver(): boolean {
    return this.fuse.isBlown || this.kernel.stopped;
  }

  /** Reads everything there is, straight from the volumes, and every block status. Nothing may be on its way. */
  look(): FoundVolume[] {
    const { isFull } = this.host;
    this.isRough = this.host.isFull = false;
    const found = this.#looks.all();
    this.isRough = true;
    this.host.isFull = isFull;
    return found;
  }

  #chance(per100000: number): boolean {
    return this.isRough && per100000 > 0 && this.#world.random.below(100_000) < per100000;
  }

  #run(): void {
    if (this.isOver) return;
    do this.kernel.run(); while (!this.isOver && this.clock.runYields());
  }

  /** Whose turn it is in the kernel; sometimes something from outside comes first. */
  #choose(count: number): number {
    this.#world.turned(this);
    if (this.#chance(this.#world.swarm.intrusion)) this.#intrude();
    const chosen = this.#world.random.below(count);
    this.#world.mix(count * 64 + chosen);
    return chosen;
  }

  /** One of the things that wait outside; false if there is none. */
  #intrude(): boolean {
    if (this.isOver || this.later.length === 0) return false;
    this.#events += 1;
    let index = this.#chooseEvent();
    for (let again = 0; again < 6 && this.#isStuck(this.later[index]!); again += 1) {
      index = this.#chooseEvent();
    }
    if (this.#isStuck(this.later[index]!)) return true;
    const [event] = this.later.splice(index, 1);
    this.#stuck.delete(event!);
    this.kernel.pause();
    event!();
    return true;
  }

  #delay(event: () => void): void {
    this.#slow.add(event);
    if (!this.#chance(this.#world.swarm.stuck)) return;
    this.#stuck.set(event, this.#events + this.#world.random.below(400));
  }

  #isStuck(event: () => void): boolean {
    return this.isRough && this.#events < (this.#stuck.get(event) ?? 0);
  }

  #chooseEvent(): number {
    const { random, swarm } = this.#world;
    const { later } = this;
    if (swarm.hasSlowData && random.below(30) === 0) this.#isDataSlow = !this.#isDataSlow;
    const any = random.below(later.length);
    if (!this.#isDataSlow || !this.isRough || random.below(10) === 0) return any;
    const quick = later.flatMap((event, index) => this.#slow.has(event) ? [] : [index]);
    return quick[random.below(quick.length)] ?? any;
  }
}

function* told<T>(steps: Steps<T>, tell: (answer: T) => void): Steps<void> {
  tell(yield* steps);
}
