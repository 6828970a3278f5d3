/**
 * One life of the server: from opening the pool to the crash. The actors are the real ones, wired as in production; what
 * comes from outside (answers of devices, bytes of clients, alarms) waits in one list and comes in any order.
 */
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import { assemblePool } from "../../actors/assemble.ts";
import type { RequestDone, VolumeRequest } from "../../actors/volume/bio.ts";
import type {
  AskStatus,
  Extent,
  StatusDone,
  StatusRequest,
  StatusSource,
} from "../../actors/volume/block_status.ts";
import type { Actor, Address } from "../../actors/kernel/address.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { SchedulerPolicy } from "../../actors/kernel/ports.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import { TraceRecorder } from "../../actors/kernel/trace.ts";
import { mailboxes } from "../../actors/mailboxes.ts";
import { NbdListener } from "../../actors/nbd/listener.ts";
import type { NbdListenerMessage } from "../../actors/nbd/messages.ts";
import type { PoolStub } from "../../actors/control/pool_messages.ts";
import type { PoolNotice } from "../../actors/control/export_messages.ts";
import { settleCatalogue } from "../../storage/catalogue_open.ts";
import { readJournal } from "../../storage/catalogue_journal.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { ThinMetadata } from "../../storage/thin_metadata.ts";
import { RecordingDevice, type RunLog } from "../crash/recording_device.ts";
import type { FoundVolume } from "../crash/recovery.ts";
import { type Later, SimulatedDevice, SlowAnswers } from "../crash/simulated_device.ts";
import { ManualClock, type Random } from "../support/world.ts";
import { problemOfStatus, type ToldContext } from "./block_status.ts";
import { type ClientEars, SimClient } from "./client.ts";
import { DelayedDevice, Fuse, LifeJournal, SwarmFaults } from "./devices.ts";
import type { Swarm } from "./swarm.ts";
import { Violation } from "./violation.ts";

/** What a life begins with. The bytes are its own from then on. */
export interface Beginning {
  readonly metadata: Uint8Array;
  readonly data: Uint8Array;
  readonly journal: string;
  /** Where what its devices do is recorded. */
  readonly log: RunLog;
}

/** What lives of one run share. */
export interface LifeWorld {
  readonly swarm: Swarm;
  /** Decides the schedule, and nothing else; another one from action to action. */
  readonly random: Random;
  /** Takes a number for everything that happens. */
  mix(value: number): void;
  newUid(): string;
  /** Keeps messages for a person, if the run is shown. */
  readonly trace: TraceRecorder | undefined;
}

/** What one hears who looks at volumes. */
type Heard = RequestDone | StatusDone | PoolNotice;

/** See the head of this file. */
export class Life {
  readonly kernel: Kernel;
  readonly clock = new ManualClock();
  readonly fuse: Fuse;
  readonly faults: SwarmFaults;
  readonly journal: LifeJournal;
  readonly pool: PoolStub;
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
  readonly #world: LifeWorld;
  readonly #listener: Address<NbdListenerMessage>;
  readonly #slow = new SlowAnswers();
  #isDataSlow = false;
  /** Until how many events have happened these are left waiting, if there is anything else to do. */
  readonly #stuck = new Map<() => void, number>();
  #events = 0;
  readonly #received: (Heard)[] = [];
  readonly #looker: Address<Heard>;
  readonly #clients: SimClient[] = [];

  constructor(beginning: Beginning, world: LifeWorld) {
    this.#world = world;
    const { swarm } = world;
    this.faults = new SwarmFaults(world);
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
      const port = new DelayedDevice(new RecordingDevice(simulated, beginning.log, name), name, devices);
      return { simulated, port };
    };
    const [metadata, data] = [device("metadata"), device("data")];
    this.metadata = metadata.simulated;
    this.data = data.simulated;
    const deviceBlocks = beginning.metadata.length / metadataBlockSizeBytes;
    const engine = ThinMetadata.open(beginning.metadata.slice(0, metadataBlockSizeBytes), {
      cacheBlocks: swarm.cacheBlocks,
      deviceBlocks,
      readOnly: false,
      takesSmallBlocks: true,
    });
    const { catalogue } = settleCatalogue(readJournal(beginning.journal), engine.transactionId);
    const log = (sentence: string) => void this.logged.push(sentence);
    this.pool = assemblePool(this.kernel, {
      metadata: metadata.port,
      data: data.port,
      journal: this.journal,
      catalogue,
      engine,
      readOnly: false,
      noSpace: swarm.noSpace,
      newUid: () => world.newUid(),
      log,
    });
    const peers = { pool: this.pool.address, accepts: [], log };
    this.#listener = this.kernel.spawn(
      "nbd listener",
      mailboxes.listener,
      (self) => new NbdListener(this.kernel, self, peers),
    );
    this.#looker = this.kernel.spawn("looker", mailboxes.connection, () => new Looker(this.#received));
  }

  /** Starts the pool; the answer comes as soon as it may. */
  start(answered: (result: AdminResult) => void): void {
    this.kernel.start("start of the pool", told(this.pool.start(), answered));
  }

  /** Gives a command; the answer comes as soon as it may. */
  admin(command: AdminCommand, answered: (result: AdminResult) => void): void {
    this.admitted.commands += 1;
    this.kernel.start("administrator", told(this.pool.admin(command), answered));
  }

  connect(name: string, isStructured: boolean, ears: ClientEars): SimClient {
    const socketWorld = {
      kernel: this.kernel,
      world: this.#world,
      schedule: (event: () => void) => void this.later.push(event),
      isAlive: () => !this.fuse.isBlown,
    };
    this.admitted.clients += 1;
    const client = new SimClient(socketWorld, ears, name, isStructured);
    this.#clients.push(client);
    this.later.push(() => this.kernel.post(this.#listener, { type: "connected", socket: client.socket }));
    return client;
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
    this.isRough = false;
    const listed: AdminResult[] = [];
    this.admin({ verb: "list" }, (result) => listed.push(result));
    this.drain();
    const list = listed[0];
    if (list?.kind !== "volumes") throw new Violation(`the volumes could not be listed: ${list?.kind}`);
    const contexts: ToldContext[] = [];
    const found = list.volumes.map(({ name, size_bytes: sizeBytes, read_only: readOnly }) => {
      const bytes = this.#readWhole(name, sizeBytes, contexts);
      return { name, sizeBytes, readOnly, words: new Uint32Array(bytes.buffer) };
    });
    const problem = problemOfStatus(found, contexts);
    if (problem !== undefined) throw new Violation(problem);
    this.isRough = true;
    return found;
  }

  #readWhole(name: string, sizeBytes: number, contexts: ToldContext[]): Uint8Array {
    this.kernel.tell(this.pool.address, { type: "attach", name, client: this.#looker });
    this.drain();
    const notice = this.#received.pop();
    if (notice?.type !== "attached") throw new Violation(`"${name}" is listed and cannot be attached`);
    const request: VolumeRequest = {
      kind: "read",
      offsetBytes: 0,
      lengthBytes: sizeBytes,
      data: new Uint8Array(sizeBytes).fill(0xee),
      fua: false,
      noHole: false,
      fastZero: false,
      client: this.#looker,
      status: "ok",
      holes: new Uint8Array(0),
    };
    this.kernel.tell(notice.volume, { type: "submit", request });
    this.drain();
    const answer = this.#received.pop();
    if (answer?.type !== "requestDone" || request.status !== "ok") {
      throw new Violation(`"${name}" cannot be read: ${answer?.type} ${request.status}`);
    }
    contexts.push(...this.#statusOf(name, notice.volume, sizeBytes));
    this.kernel.tell(this.pool.address, { type: "detach", uid: notice.info.uid, client: this.#looker });
    this.drain();
    this.#received.pop();
    return request.data;
  }

  #statusOf(name: string, volume: Address<AskStatus>, sizeBytes: number): ToldContext[] {
    this.kernel.tell(this.pool.address, { type: "describeContexts", name, client: this.#looker });
    this.drain();
    const notice = this.#received.pop();
    if (notice?.type !== "contexts") throw new Violation(`"${name}" is attached and has no contexts`);
    return notice.contexts.map((context) => ({
      volume: name,
      context: context.name,
      extents: this.#extentsOf(name, volume, context.source, sizeBytes),
    }));
  }

  /** An answer may end before the range does: then it is asked again from there. */
  #extentsOf(name: string, volume: Address<AskStatus>, source: StatusSource, sizeBytes: number): Extent[] {
    const extents: Extent[] = [];
    for (let offsetBytes = 0; offsetBytes < sizeBytes;) {
      const request: StatusRequest = {
        sources: [source],
        offsetBytes,
        lengthBytes: sizeBytes - offsetBytes,
        extentsMax: sizeBytes,
        client: this.#looker,
        status: "ok",
        extents: [],
      };
      this.kernel.tell(volume, { type: "askStatus", request });
      this.drain();
      const answer = this.#received.pop();
      const told = request.extents[0] ?? [];
      if (answer?.type !== "statusDone" || request.status !== "ok" || told.length === 0) {
        throw new Violation(`block status of "${name}" is not told: ${answer?.type} ${request.status}`);
      }
      extents.push(...told);
      for (const { lengthBytes } of told) offsetBytes += lengthBytes;
    }
    return extents;
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

class Looker implements Actor<Heard> {
  readonly #received: (Heard)[];

  constructor(received: (Heard)[]) {
    this.#received = received;
  }

  receive(message: Heard): void {
    this.#received.push(message);
  }
}

function* told<T>(steps: Steps<T>, tell: (answer: T) => void): Steps<void> {
  tell(yield* steps);
}
