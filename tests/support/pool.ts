/** For tests: a whole pool in memory, driven from outside one drain at a time. No file, no socket, no real time. */
import { geometryOf } from "../../storage/base/geometry.ts";
import { assemblePool, type SpaceGuard } from "../../actors/assemble.ts";
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import type { BioKind, RequestsDone, VolumeRequest } from "../../actors/volume/bio.ts";
import type { StatusDone, StatusRequest, StatusSource } from "../../actors/volume/block_status.ts";
import type { JournalPort } from "../../actors/control/catalogue_journal.ts";
import type { LineRoom } from "../../actors/control/catalogue_room.ts";
import type { Actor, Address } from "../../actors/kernel/address.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { CounterPort, SchedulerPolicy } from "../../actors/kernel/ports.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import { defaultKnobs, type Knobs } from "../../actors/knobs.ts";
import type { LifetimeCommand, PoolStub } from "../../actors/control/pool_messages.ts";
import type { ExportContext, PoolNotice } from "../../actors/control/export_messages.ts";
import type { IntentJournal } from "../../actors/pool/intent_journal.ts";
import type { HostSpace } from "../../actors/pool/gauge_messages.ts";
import type { NoSpacePolicy } from "../../actors/pool/space_messages.ts";
import type { ThinVolumeMessage } from "../../actors/volume/volume_messages.ts";
import { settleCatalogue } from "../../storage/catalogue_open.ts";
import { lineOfSnapshot, readJournal } from "../../storage/catalogue_journal.ts";
import { DiscardingDevice, MemoryDevice } from "./memory_device.ts";
import { type DevicePort, type IoDone, ioOk, readInto } from "../../storage/device/port.ts";
import { metadataBlockSizeBytes, type ThinId } from "../../storage/base/ids.ts";
import { ThinMetadata } from "../../storage/thin_metadata.ts";
import { ManualClock } from "./world.ts";

/** What a client hears of pool and volumes. */
export type ClientMessage = RequestsDone | StatusDone | PoolNotice;

/** A journal in memory, whose operations end when the drain that asked for them is over. */
export class MemoryJournal implements JournalPort {
  text: string;
  /** What is to take the place of `text`. */
  rewritten = "";
  /** Characters of changes with which it is long. */
  changesCharsMax = Infinity;
  #lineLengthLast = 0;
  readonly pending: (() => void)[] = [];

  constructor(text: string) {
    this.text = text;
  }

  append(line: string, _room: LineRoom, done: IoDone): void {
    this.text += line;
    this.#lineLengthLast = line.length;
    this.pending.push(() => done(ioOk));
  }

  isLong(contentBytes: number): boolean {
    return this.text.length > contentBytes + this.changesCharsMax;
  }

  rewrite(piece: string, isFirst: boolean, done: IoDone): void {
    this.rewritten = isFirst ? piece : this.rewritten + piece;
    this.pending.push(() => done(ioOk));
  }

  finishRewrite(_contentBytes: number, done: IoDone): void {
    this.text = this.rewritten;
    this.#lineLengthLast = 0;
    this.pending.push(() => done(ioOk));
  }

  retract(done: IoDone): void {
    this.text = this.text.slice(0, this.text.length - this.#lineLengthLast);
    this.pending.push(() => done(ioOk));
  }
}

/** What a pool in memory is made of; kept across a restart. */
export interface TestingFiles {
  readonly data: DevicePort;
  readonly metadata: DevicePort;
  readonly journal: MemoryJournal;
}

export const testingBlockSizeBytes = 65536;

/** The files of a new pool. */
export function makeTestingFiles(dataBlocks = 64, metadataBlocks = 512): TestingFiles {
  const metadata = new MemoryDevice(metadataBlocks * metadataBlockSizeBytes);
  const geometry = geometryOf({ metadataBlocks, dataBlocks, blockSizeBytes: testingBlockSizeBytes });
  for (const { block, bytes } of ThinMetadata.format(geometry)) {
    metadata.write(bytes, block * metadataBlockSizeBytes);
  }
  const settings = { blockSizeBytes: testingBlockSizeBytes, metadataPath: "m", dataPath: "d" };
  const journal = new MemoryJournal(
    lineOfSnapshot({ transactionId: 0n, settings, nextThinId: 1, volumes: [] }),
  );
  return { data: new DiscardingDevice(dataBlocks * testingBlockSizeBytes), metadata, journal };
}

/** The pool was not opened, and says why. */
export class StartRefused extends Error {}

/** An open pool in memory. */
export class TestingPool {
  readonly clock = new ManualClock();
  readonly kernel: Kernel;
  readonly pool: PoolStub;
  /** The engine of the metadata actor. */
  readonly engine: ThinMetadata;
  readonly files: TestingFiles;
  readonly logged: string[] = [];
  readonly #client: Address<ClientMessage>;
  readonly #received: (ClientMessage)[] = [];
  #uidLast = 0;

  constructor(
    files: TestingFiles,
    options: {
      readonly policy?: SchedulerPolicy;
      readonly readOnly?: boolean;
      /** To be given where a pool is opened again and then changed: uids may not be used twice. */
      readonly newUid?: () => string;
      readonly knobs?: Partial<Knobs>;
      readonly counters?: CounterPort;
      /** Called when the actors are made and the pool has not been started. */
      readonly beforeStart?: (pool: TestingPool) => void;
      readonly noSpace?: NoSpacePolicy;
      readonly hostSpace?: () => HostSpace | undefined;
      readonly guard?: SpaceGuard;
      readonly detectsZeroes?: boolean;
      readonly countsByWalk?: boolean;
      readonly intents?: IntentJournal;
      readonly writtenThins?: ReadonlySet<ThinId>;
    } = {},
  ) {
    this.files = files;
    const { policy, readOnly = false } = options;
    const knobs = { ...defaultKnobs, ...options.knobs };
    this.kernel = new Kernel({
      clock: this.clock,
      knobs,
      ...(policy === undefined ? {} : { policy }),
      ...(options.counters === undefined ? {} : { counters: options.counters }),
    });
    const superblock = new Uint8Array(metadataBlockSizeBytes);
    readInto(files.metadata, superblock, 0, () => {});
    const deviceBlocks = files.metadata.sizeBytes / metadataBlockSizeBytes;
    this.engine = ThinMetadata.open(superblock, { cacheBlocks: 256, deviceBlocks, readOnly });
    const { catalogue } = settleCatalogue(readJournal(files.journal.text), this.engine.transactionId);
    this.pool = assemblePool(this.kernel, {
      ...files,
      catalogue,
      engine: this.engine,
      readOnly,
      ...(options.noSpace === undefined ? {} : { noSpace: options.noSpace }),
      ...(options.guard === undefined ? {} : { guard: options.guard }),
      ...(options.intents === undefined ? {} : { intents: options.intents }),
      ...(options.writtenThins === undefined ? {} : { writtenThins: options.writtenThins }),
      hostSpace: () => options.hostSpace?.(),
      detectsZeroes: options.detectsZeroes ?? false,
      countsByWalk: options.countsByWalk ?? true,
      newUid: options.newUid ?? (() => `uid${++this.#uidLast}-${this.kernel.deliveries}`),
      log: (sentence) => this.logged.push(sentence),
    });
    const received = this.#received;
    this.#client = this.kernel.spawn("client", 65536, () => new Client(received));
    options.beforeStart?.(this);
    const started = this.ask(this.pool.start());
    if (started.kind === "refused") throw new StartRefused(started.reason);
  }

  /** Runs until nothing happens any more. */
  drain(): void {
    for (;;) {
      this.kernel.run();
      if (this.clock.runYields()) continue;
      const done = this.files.journal.pending.shift();
      if (done === undefined) return;
      done();
    }
  }

  /** Runs steps to their end. */
  ask<T>(steps: Steps<T>): T {
    const answers: T[] = [];
    this.kernel.start("test", collect(steps, answers));
    this.drain();
    if (answers.length === 0) {
      throw new Error(`no answer; in flight: ${this.kernel.tasksInFlight().join("; ")}`);
    }
    return answers[0]!;
  }

  admin(command: AdminCommand | LifetimeCommand): AdminResult {
    return this.ask(this.pool.admin(command));
  }

  /** The metadata contexts of an export. */
  contexts(name: string): readonly ExportContext[] {
    this.kernel.tell(this.pool.address, { type: "describeContexts", name, client: this.#client });
    this.drain();
    const notice = this.#received.pop();
    if (notice?.type !== "contexts") throw new Error(`no contexts: ${notice?.type}`);
    return notice.contexts;
  }

  /** Attaches to a volume. */
  attach(name: string): TestingVolume {
    this.kernel.tell(this.pool.address, { type: "attach", name, client: this.#client });
    this.drain();
    const notice = this.#received.pop();
    if (notice?.type !== "attached") throw new Error(`not attached: ${notice?.type}`);
    return new TestingVolume(this, notice.volume, notice.info.uid, this.#client, this.#received);
  }
}

/** A volume as one client sees it. */
export class TestingVolume {
  constructor(
    readonly pool: TestingPool,
    readonly address: Address<ThinVolumeMessage>,
    readonly uid: string,
    readonly client: Address<ClientMessage>,
    readonly received: (ClientMessage)[],
  ) {}

  /** Submits a request without running anything. */
  submit(
    kind: BioKind,
    offsetBytes: number,
    lengthBytes: number,
    more: Partial<Pick<VolumeRequest, "data" | "fua" | "noHole" | "fastZero">> = {},
  ): VolumeRequest {
    const request: VolumeRequest = {
      kind,
      offsetBytes,
      lengthBytes,
      data: more.data ?? (kind === "read" ? new Uint8Array(lengthBytes).fill(0xee) : new Uint8Array(0)),
      fua: more.fua ?? false,
      noHole: more.noHole ?? false,
      fastZero: more.fastZero ?? false,
      client: this.client,
      status: "ok",
      holes: new Uint8Array(0),
    };
    this.pool.kernel.tell(this.address, { type: "submit", requests: [request] });
    return request;
  }

  /** Submits a request and runs until it is done. */
  perform(...args: Parameters<TestingVolume["submit"]>): VolumeRequest {
    const request = this.submit(...args);
    this.pool.drain();
    if (!this.isDone(request)) {
      throw new Error(`not done; in flight: ${this.pool.kernel.tasksInFlight().join("; ")}`);
    }
    return request;
  }

  isDone(request: VolumeRequest): boolean {
    return this.received.some((message) =>
      message.type === "requestsDone" && message.requests.includes(request)
    );
  }

  write(
    offsetBytes: number,
    data: Uint8Array,
    more: Parameters<TestingVolume["submit"]>[3] = {},
  ): VolumeRequest {
    return this.perform("write", offsetBytes, data.length, { ...more, data });
  }

  /** The bytes there; throws if the read fails. */
  read(offsetBytes: number, lengthBytes: number): Uint8Array {
    const request = this.perform("read", offsetBytes, lengthBytes);
    if (request.status !== "ok") throw new Error(`reading failed: ${request.status}`);
    return request.data;
  }

  /** Asks for block status without running anything. */
  askStatus(
    source: StatusSource | readonly StatusSource[],
    offsetBytes: number,
    lengthBytes: number,
    extentsMax = 1_000_000,
  ): StatusRequest {
    const sources = "kind" in source ? [source] : source;
    const request: StatusRequest = {
      sources,
      offsetBytes,
      lengthBytes,
      extentsMax,
      client: this.client,
      status: "ok",
      extents: [],
    };
    this.pool.kernel.tell(this.address, { type: "askStatus", request });
    return request;
  }

  /** Asks for block status and runs until it is there. */
  status(...args: Parameters<TestingVolume["askStatus"]>): StatusRequest {
    const request = this.askStatus(...args);
    this.pool.drain();
    if (!this.isAnswered(request)) throw new Error("no answer about block status");
    return request;
  }

  isAnswered(request: StatusRequest): boolean {
    return this.received.some((message) => message.type === "statusDone" && message.request === request);
  }

  detach(): void {
    this.pool.kernel.tell(this.pool.pool.address, { type: "detach", uid: this.uid, client: this.client });
    this.pool.drain();
  }
}

class Client implements Actor<ClientMessage> {
  readonly #received: (ClientMessage)[];

  constructor(received: (ClientMessage)[]) {
    this.#received = received;
  }

  receive(message: ClientMessage): void {
    this.#received.push(message);
  }
}

function* collect<T>(steps: Steps<T>, answers: T[]): Steps<void> {
  answers.push(yield* steps);
}
