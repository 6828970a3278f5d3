/** A pool whose every turn the search chooses, with the operations of a scenario under way. */
import { defaultKnobs } from "../../../actors/knobs.ts";
import type { BioDone, BioKind, RequestsDone, VolumeRequest } from "../../../actors/volume/bio.ts";
import type { AdminCommand, AdminResult } from "../../../actors/control/admin_command.ts";
import { assemblePool } from "../../../actors/assemble.ts";
import { AllocatorStub } from "../../../actors/pool/allocator_messages.ts";
import type { Actor, Address, Message } from "../../../actors/kernel/address.ts";
import type { Steps } from "../../../actors/kernel/task.ts";
import type { RetireRegion } from "../../../actors/pool/region_locks.ts";
import { MetadataStub } from "../../../actors/pool/metadata_messages.ts";
import type { PoolStub } from "../../../actors/control/pool_messages.ts";
import type { PoolNotice } from "../../../actors/control/export_messages.ts";
import type { ThinVolumeMessage } from "../../../actors/volume/volume_messages.ts";
import { assert, Defect } from "../../../storage/base/assert.ts";
import { settleCatalogue } from "../../../storage/catalogue_open.ts";
import { readJournal } from "../../../storage/catalogue_journal.ts";
import { metadataBlockSizeBytes } from "../../../storage/base/ids.ts";
import { ThinMetadata } from "../../../storage/thin_metadata.ts";
import { stamped } from "../../crash/stamps.ts";
import { testingBlockSizeBytes as blockBytes } from "../../support/pool.ts";
import { ManualClock } from "../../support/world.ts";
import { IntentJournal } from "../../../actors/pool/intent_journal.ts";
import { intentHeaderBytes } from "../../../storage/intent_headers.ts";
import { intentRecordBytes } from "../../../storage/intent_record.ts";
import { searchBinding } from "./recovery.ts";
import { firstImages } from "./first_images.ts";
import { bioKinds, commandOf, isCommand, keyOf, statusOf } from "./held_commands.ts";
import { HeldKernel } from "./held_kernel.ts";
import { DeviceLog, firstJournal, LoggedDevice, LoggedIntents, LoggedJournal } from "./logged_device.ts";
import type { Event, Run } from "./execution.ts";
import {
  blockSectors,
  initialSequence,
  isFua,
  isOfClone,
  noExport,
  type Op,
  opOf,
  type Scenario,
  volumeSectors,
} from "./scenario.ts";

/** A pool whose messages are held. */
export class HeldPool implements Run {
  readonly kernel: HeldKernel;
  readonly log = new DeviceLog();
  readonly ops: Op[] = [];
  readonly data: LoggedDevice;
  readonly metadata: LoggedDevice;
  readonly journal: LoggedJournal;
  readonly intentFile: LoggedIntents;
  readonly #intents: IntentJournal;
  readonly pool: PoolStub;
  readonly scenario: Scenario;
  /** What the devices held when the run began; all of it durable. */
  baseMetadata: Uint8Array = new Uint8Array(0);
  baseData: Uint8Array = new Uint8Array(0);
  baseIntents: Uint8Array = new Uint8Array(0);
  baseJournal = "";
  readonly #later: (() => void)[] = [];
  readonly #clock = new ManualClock();
  readonly #client: Address<RequestsDone | PoolNotice>;
  #volume: Address<ThinVolumeMessage> | undefined;
  /** Of the other volume, where there is one. */
  #other: Address<ThinVolumeMessage> | undefined;
  #notice: PoolNotice | undefined;
  readonly #opOf = new Map<VolumeRequest | string, Op>();
  #event: Event | undefined;
  /** Whose client waits to be attached to the new volume. */
  #attaching: Op | undefined;
  #uidLast = 0;

  constructor(scenario: Scenario) {
    this.scenario = scenario;
    const { perSlice = Infinity } = scenario;
    const slices = { sliceRecords: perSlice, sliceDevices: perSlice, sliceDevicesMax: perSlice };
    // Bios of any length, as most requests of a scenario are about whole blocks.
    const batches = { batchBiosMax: scenario.together ?? 1, batchedBytesMax: Infinity };
    const knobs = { ...defaultKnobs, ...slices, ...batches };
    this.kernel = new HeldKernel({ clock: this.#clock, knobs });
    const images = firstImages(scenario);
    this.data = new LoggedDevice(images.data.slice(), this.log, "data", blockBytes);
    this.metadata = new LoggedDevice(images.metadata.slice(), this.log, "metadata", metadataBlockSizeBytes);
    this.journal = new LoggedJournal(firstJournal(blockBytes), this.log, this.#later);
    const segmentBytes = intentHeaderBytes + (scenario.intentRecords ?? 20) * intentRecordBytes;
    this.intentFile = new LoggedIntents(segmentBytes, this.log);
    this.#intents = new IntentJournal({
      port: this.intentFile,
      binding: searchBinding,
      segmentBytes,
      log: () => {},
    });
    const engine = ThinMetadata.open(images.metadata.slice(0, metadataBlockSizeBytes), {
      cacheBlocks: 256,
      deviceBlocks: images.metadata.length / metadataBlockSizeBytes,
      readOnly: false,
    });
    const { catalogue } = settleCatalogue(readJournal(this.journal.text), engine.transactionId);
    this.pool = assemblePool(this.kernel, {
      data: this.data,
      metadata: this.metadata,
      journal: this.journal,
      catalogue,
      engine,
      intents: this.#intents,
      readOnly: false,
      ...(scenario.waits ? { noSpace: { kind: "queue", timeoutMs: 0 } } : {}),
      newUid: () => `uid${++this.#uidLast}`,
      log: () => {},
    });
    const receive = (message: RequestsDone | PoolNotice) => this.#received(message);
    this.#client = this.kernel.spawn("client", 4096, () => new Client(receive));
    this.ask(this.pool.start());
    this.#setUp();
  }

  #setUp(): void {
    this.ask(this.pool.admin({ verb: "create", name: "a", sizeBytes: volumeSectors * 512 }));
    this.#volume = this.#attach("a");
    const { state, layout } = this.scenario;
    if (state !== "unmapped") {
      const sectors = layout === "two blocks" ? volumeSectors : blockSectors;
      this.submit("write", 0, stamped(1, 0, sectors, initialSequence), sectors);
      this.drain();
    }
    if (state === "shared" || state === "left" || state === "cloned") {
      this.ask(this.pool.admin({ verb: "snapshot", names: ["a@base"] }));
    }
    if (state === "cloned") {
      this.ask(this.pool.admin({ verb: "clone", source: "a@base", name: "b" }));
      this.#other = this.#attach("b");
    }
    if (state === "left" || state === "cloned") {
      this.ask(this.pool.admin({ verb: "rm", names: ["a@base"], force: true, dryRun: false }));
    }
    this.submit("flush", 0, new Uint8Array(0), 0);
    this.drain();
    this.baseData = this.data.bytes.slice();
    this.baseMetadata = this.metadata.bytes.slice();
    this.baseJournal = this.journal.text;
    this.baseIntents = this.intentFile.bytes.slice();
    this.log.operations.length = 0;
    const { failingFlush } = this.scenario;
    if (failingFlush === undefined) return;
    this.log.failing = { device: failingFlush.device, flushesBefore: failingFlush.ordinal };
  }

  #attach(name: string): Address<ThinVolumeMessage> {
    this.#notice = undefined;
    this.kernel.tell(this.pool.address, { type: "attach", name, client: this.#client });
    this.drain();
    const notice = this.#notice as PoolNotice | undefined;
    if (notice?.type !== "attached") throw new Error(`"${name}" is not there`);
    return notice.volume;
  }

  /** Lets everything run that is not held. */
  drain(): void {
    for (;;) {
      this.kernel.run();
      if (this.#clock.runYields()) continue;
      const done = this.#later.shift();
      if (done === undefined) return;
      done();
    }
  }

  ask<T>(steps: Steps<T>): T {
    const answers: T[] = [];
    this.kernel.start("test", told(steps, (answer) => answers.push(answer)));
    this.drain();
    if (answers.length === 0) throw new Error(`no answer: ${this.kernel.tasksInFlight().join("; ")}`);
    return answers[0]!;
  }

  submit(
    kind: BioKind,
    sectorBegin: number,
    data: Uint8Array,
    sectors: number,
    fua = false,
    volume = this.#volume,
  ): VolumeRequest {
    const request = this.#requestFor(kind, sectorBegin, data, sectors, fua);
    this.kernel.tell(volume!, { type: "submit", requests: [request] });
    return request;
  }

  #requestFor(
    kind: BioKind,
    sectorBegin: number,
    data: Uint8Array,
    sectors: number,
    fua: boolean,
  ): VolumeRequest {
    return {
      kind,
      offsetBytes: sectorBegin * 512,
      lengthBytes: sectors * 512,
      data,
      fua,
      noHole: false,
      fastZero: false,
      client: this.#client,
      status: "ok",
      holes: new Uint8Array(0),
    };
  }

  begin(): void {
    const together: Op[] = [];
    for (const [index, kind] of this.scenario.kinds.entries()) {
      const op = opOf(kind, index, this.scenario);
      this.ops.push(op);
      if (isCommand(kind)) this.#beginCommand(op);
      else if (isOfClone(kind)) this.#attachOnce(op);
      else if (op.volume === "a" && this.scenario.together !== undefined) together.push(op);
      else this.#beginBios([op], op.volume === "a" ? this.#volume : this.#other);
    }
    if (together.length > 0) this.#beginBios(together, this.#volume);
  }

  #beginCommand(op: Op): void {
    const command = commandOf(op, this.scenario);
    const result = (answer: AdminResult) => {
      op.status = statusOf(answer);
      this.#answer(op);
    };
    this.kernel.start(`op ${op.number}`, told(this.pool.admin(command), result));
    this.#opOf.set(keyOf(command), op);
  }

  #beginBios(ops: readonly Op[], volume: Address<ThinVolumeMessage> | undefined): void {
    const requests = ops.map((op) => {
      const kind = bioKinds[op.kind as keyof typeof bioKinds];
      const sectors = op.sectorEnd - op.sectorBegin;
      const request = this.#requestFor(kind, op.sectorBegin, op.data, sectors, isFua(op.kind));
      this.#opOf.set(request, op);
      return request;
    });
    this.kernel.tell(volume!, { type: "submit", requests });
  }

  /** The client writes when it has the new volume. Where it came before that, it goes without. */
  #attachOnce(op: Op): void {
    assert(this.#attaching === undefined, "one client attaches at a time");
    this.#attaching = op;
    this.kernel.tell(this.pool.address, { type: "attach", name: "b", client: this.#client });
  }

  requestOf(message: Message): number | undefined {
    if (message.type !== "bioDone" && message.type !== "bioWithoutSpace") return undefined;
    return this.#opOf.get((message as BioDone).bio.request!)?.number;
  }

  onEvent(event: Event): void {
    this.#event = event;
    this.log.event = event.index;
    const { message } = event as { message: { requests?: VolumeRequest[]; command?: AdminCommand } };
    if (event.message.type === "submit") {
      for (const request of message.requests!) this.#opOf.get(request)!.submitted = event;
    }
    if (event.message.type === "admin") this.#opOf.get(keyOf(message.command!))!.submitted = event;
  }

  /** After each event: what the journal's file owes is answered, which is held like any message. */
  afterEvent(): void {
    for (let done = this.#later.shift(); done !== undefined; done = this.#later.shift()) done();
  }

  #received(message: RequestsDone | PoolNotice): void {
    if (message.type !== "requestsDone") {
      this.#notice = message;
      const op = this.#attaching;
      this.#attaching = undefined;
      if (op === undefined) return;
      if (message.type === "attached") return this.#beginBios([op], message.volume);
      op.status = noExport;
      op.submitted = this.#event;
      return this.#answer(op);
    }
    for (const request of message.requests) {
      const op = this.#opOf.get(request);
      if (op === undefined) continue;
      op.status = request.status;
      this.#answer(op);
    }
  }

  /** The answer leaves: what the edge does before that comes first. */
  #answer(op: Op): void {
    this.#intents.writeOut();
    op.answered = this.#event;
    op.answers += 1;
  }

  /** The flush that the scenario lets fail has been asked. */
  get hasFailed(): boolean {
    return this.log.hasFailed;
  }

  /** Ends the search's part: from now on messages pass at once, and a test may look at the pool. */
  release(): void {
    this.kernel.hold = undefined;
    this.log.event = -1;
  }

  #addressOf(name: string): Address<Message> {
    for (const [address, other] of this.kernel.names) if (other === name) return address as Address<Message>;
    throw new Error(`there is no ${name}`);
  }

  /** Every block that metadata counts as free can be leased. Leases them all. */
  problemOfLeases(): string | undefined {
    const facts = this.ask(new MetadataStub(this.kernel, this.#addressOf("metadata")).facts());
    const allocator = new AllocatorStub(this.kernel, this.#addressOf("allocator"));
    let leased = 0;
    while (this.ask(allocator.allocate()).kind === "allocated") leased += 1;
    return leased === facts.dataFree ? undefined : `of ${facts.dataFree} free blocks ${leased} can be leased`;
  }

  /** A region that is told to retire does so when it is idle, and then nothing can send to it. */
  problemOfLocks(): string | undefined {
    for (const [address, name] of this.kernel.names) {
      if (!name.includes("region ")) continue;
      const region = address as Address<RetireRegion>;
      this.kernel.tell(region, { type: "retireRegion" });
      this.drain();
      let isThere = true;
      try {
        this.kernel.tell(region, { type: "retireRegion" });
      } catch (error) {
        if (!(error instanceof Defect)) throw error;
        isThere = false;
      }
      if (isThere) return `a lock is held in ${name}`;
    }
    return undefined;
  }

  /** The bytes of a volume or snapshot, through the product. */
  readVolume(name: string): Uint8Array {
    this.#volume = this.#attach(name);
    const request = this.submit("read", 0, new Uint8Array(volumeSectors * 512).fill(0xee), volumeSectors);
    this.drain();
    if (request.status !== "ok") throw new Error(`reading "${name}" was answered ${request.status}`);
    return request.data;
  }
}

class Client implements Actor<RequestsDone | PoolNotice> {
  constructor(readonly receive: (message: RequestsDone | PoolNotice) => void) {}
}

function* told<T>(steps: Steps<T>, tell: (answer: T) => void): Steps<void> {
  tell(yield* steps);
}
