/**
 * Pool: the catalogue, the open volumes, the commands.
 *
 * Owns: the mode, the geometry (control/pool_geometry.ts), the catalogue of volumes, the open volumes and the clients attached
 * to each, the commands (control/command_queue.ts), the change in progress (control/pool_change.ts), the eviction of clients
 * from volumes that are removed (control/eviction.ts), the removals under way (control/removals.ts), the messages that wait until they may look at the catalogue, the commit timer.
 *
 * A volume is opened when a client attaches to it, or when it must be quiet for a change. It stays open until it is removed,
 * or until too many are open that have no clients (`openVolumesMax`). A volume that is about to be removed takes no new clients.
 *
 * Failure policy: damaged metadata makes the pool read-only, a failed commit makes it fail; both are said once and
 * do not end while the process runs. Every open volume is told to refuse what cannot be done any more.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import type { ThinId } from "../../storage/base/ids.ts";
import type { Catalogue, VolumeRecord } from "../../storage/catalogue.ts";
import type { AdminResult } from "./admin_command.ts";
import type { PoolPeers } from "./admin_peers.ts";
import { CommandQueue, type PoolCommand } from "./command_queue.ts";
import type { Actor, Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { mailboxes } from "../mailboxes.ts";
import { queues } from "../queues.ts";
import { Eviction } from "./eviction.ts";
import { closeTask, type OpenVolume, takeIdle } from "./open_volumes.ts";
import type { MetadataTrouble } from "../pool/metadata_messages.ts";
import { PoolChange } from "./pool_change.ts";
import { PoolExports } from "./pool_exports.ts";
import { PoolGeometry } from "./pool_geometry.ts";
import { Removals } from "./removals.ts";
import { ModeOfPool } from "./pool_mode.ts";
import type {
  AskGeometry,
  AskPiece,
  AskRegistry,
  CataloguePiece,
  PoolMessage,
  Registry,
  WorkOn,
} from "./pool_messages.ts";
import type {
  Attach,
  Describe,
  DescribeContexts,
  Detach,
  ListExports,
  PoolNotice,
} from "./export_messages.ts";
import { ThinVolume } from "../volume/thin_volume.ts";
import { VolumeLifetimes } from "./volume_lifetimes.ts";
import { VolumeStub } from "../volume/volume_messages.ts";

/** What the pool needs of the world besides its peers. */
export interface PoolOptions {
  readonly catalogue: Catalogue;
  readonly readOnly: boolean;
  /** Why it is open read-only though it was to be written, as words to follow a colon; by default null: it was asked so. */
  readonly trouble?: string | null;
  readonly countsByWalk?: boolean;
  /** Whose changes were replayed from the intent journal; by default none. */
  readonly writtenThins?: ReadonlySet<ThinId>;
  /** The catalogue's journal is to be rewritten once the pool has started. */
  readonly isJournalLong?: boolean;
  newUid(): string;
  /** One sentence for the operator. */
  log(sentence: string): void;
}

/** Messages that read the catalogue, or need the geometry. */
type Viewer = Attach | Describe | DescribeContexts | ListExports | AskRegistry | AskGeometry | WorkOn;

export class PoolActor implements Actor<PoolMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<PoolMessage>;
  readonly #peers: PoolPeers;
  readonly #geometry: PoolGeometry;
  readonly #options: PoolOptions;
  readonly #catalogue: Catalogue;
  readonly #open = new Map<string, OpenVolume>();
  readonly #change: PoolChange;
  readonly #eviction: Eviction;
  readonly #commands: CommandQueue;
  readonly #removals: Removals;
  /** What is left of the catalogue's pieces during a rewrite. */
  #pieces: Iterator<string> | undefined;
  /** Messages that wait until the catalogue is whole, or until their volume need not be quiet any more. */
  #viewersWaiting: Viewer[] = [];
  readonly #exports: PoolExports;
  readonly #mode: ModeOfPool;
  readonly #lifetimes: VolumeLifetimes;

  constructor(kernel: Kernel, self: Address<PoolMessage>, peers: PoolPeers, options: PoolOptions) {
    this.#kernel = kernel;
    this.#self = self;
    this.#peers = peers;
    this.#geometry = new PoolGeometry(peers);
    this.#options = options;
    this.#catalogue = options.catalogue;
    this.#eviction = new Eviction(kernel, this.#open);
    this.#commands = new CommandQueue({
      kernel,
      geometry: this.#geometry,
      isJournalLong: options.isJournalLong ?? false,
      isRemoving: () => this.#removals.isRunning,
      ended: (command, result) => this.#commandEnded(command, result),
    });
    this.#removals = new Removals({
      kernel,
      geometry: this.#geometry,
      isStopping: () => this.#commands.isStopping,
      log: (sentence) => options.log(sentence),
    });
    this.#mode = new ModeOfPool(options.readOnly, options.trouble ?? null);
    this.#change = new PoolChange({
      kernel,
      catalogue: options.catalogue,
      open: this.#open,
      perSlice: kernel.knobs.sliceRecords,
      newUid: () => options.newUid(),
      hold: (uid) => this.#lifetimes.hold(uid),
      refusal: () => this.#mode.refusal(),
    });
    this.#lifetimes = new VolumeLifetimes({
      kernel,
      catalogue: options.catalogue,
      pool: peers.pool,
      isAttached: (uid) => (this.#open.get(uid)?.clients.size ?? 0) > 0,
      log: (sentence) => options.log(sentence),
    });
    this.#exports = new PoolExports({
      geometry: this.#geometry,
      catalogue: options.catalogue,
      readOnly: options.readOnly,
      isLeaving: (uid) => this.#change.isLeaving(uid),
      isStopping: () => this.#commands.isStopping,
    });
  }

  receive(message: PoolMessage): void {
    switch (message.type) {
      case "attach":
      case "describe":
      case "describeContexts":
      case "listExports":
      case "registry":
      case "askGeometry":
      case "workOn":
        return this.#view(message);
      case "detach":
        return this.#detach(message);
      case "wrote":
        return this.#lifetimes.wrote(message.uid);
      case "lifetimeCommandEnded":
        return this.#lifetimes.ended();
      case "admin":
      case "forgetRemoved":
      case "startPool":
      case "stopPool":
        return this.#commands.push(message);
      case "plan":
        this.#kernel.reply(message, this.#change.planSlice(message.step));
        return this.#viewAgain();
      case "settle":
        this.#kernel.reply(message, this.#change.settleSlice(message.isKept));
        return this.#viewAgain();
      case "cutMade":
        this.#change.cutMade();
        return this.#viewAgain();
      case "journalLong":
        return this.#commands.journalLong();
      case "askPiece":
        return this.#kernel.reply(message, this.#piece(message));
      case "rewriteEnded":
        return this.#commands.rewriteEnded();
      case "adopt":
        this.#change.adopt(message.step);
        return this.#kernel.reply(message, "done");
      case "removeDevices":
        return this.#removals.add(message.deletions);
      case "mayRemove":
        return this.#kernel.reply(message, !this.#commands.isStopping);
      case "removalTaskEnded":
        this.#removals.ended(message.result);
        return this.#commands.removalEnded();
      case "evict":
        return this.#eviction.begin(message);
      case "adminEnded":
        return this.#commands.commandEnded(message.result);
      case "lookEnded":
        return this.#commands.lookEnded(message);
      case "tick":
        return this.#tick();
      case "geometry":
        this.#geometry.take(message.geometry);
        this.#commands.geometryKnown();
        return this.#viewAgain();
      case "metadataTrouble":
        return this.#metadataTrouble(message);
      case "spaceMode":
        return this.#mode.meetSpace(message);
      default:
        return unreachable(message);
    }
  }

  /** Answers what looks at the catalogue, or lets it wait. */
  #view(message: Viewer): void {
    if (this.#change.isTorn || !this.#geometry.isKnown) {
      return this.#viewLater(message);
    }
    switch (message.type) {
      case "attach":
        return this.#attach(message);
      case "describe":
        return this.#exports.describe(message);
      case "describeContexts":
        return this.#exports.describeContexts(message);
      case "listExports":
        return this.#exports.list(message);
      case "registry":
        return this.#kernel.reply(message, this.#registry());
      case "askGeometry":
        return this.#kernel.reply(message, this.#geometry.geometry);
      case "workOn":
        return this.#exports.workOn(message);
      default:
        return unreachable(message);
    }
  }

  #viewLater(message: Viewer): void {
    assert(this.#viewersWaiting.length < queues.viewers, "more questions wait than can be asked");
    this.#viewersWaiting.push(message);
  }

  #viewAgain(): void {
    if (this.#viewersWaiting.length === 0 || this.#change.isTorn) return;
    const waiting = this.#viewersWaiting;
    this.#viewersWaiting = [];
    for (const message of waiting) this.#view(message);
  }

  // Clients.

  #attach(message: Attach): void {
    const record = this.#exports.find(message);
    if (typeof record === "string") return this.#exports.tellUnknown(message, record);
    // It may change, and a volume that is not suspended because no client has it must stay so.
    if (this.#change.isQuiet(record.uid)) {
      return this.#viewLater(message);
    }
    const volume = this.#openVolume(record);
    const [writer] = volume.clients.values();
    if (writer !== undefined && this.#exports.isSingleWriter(record)) {
      return this.#exports.tellInUse(message, record, writer);
    }
    volume.clients.set(message.client, message.peer ?? "a client");
    this.#lifetimes.attached(record.uid);
    this.#kernel.tell(message.client, {
      type: "attached",
      info: this.#exports.infoOf(record),
      volume: volume.stub.address,
      blockSizeBytes: this.#geometry.geometry.blockSizeBytes,
    });
  }

  #detach(message: Detach): void {
    const volume = present(this.#open.get(message.uid), "detached from a volume that is not open");
    assert(volume.clients.delete(message.client), "detached without being attached");
    this.#kernel.tell(message.client, { type: "detached", uid: message.uid });
    if (volume.clients.size === 0) {
      this.#lifetimes.left(message.uid, message.isClean === true);
      this.#lookAtLifetimes();
    }
    this.#eviction.goOn();
    this.#closeIdle();
  }

  /** Not while the catalogue shows a part of a change: the next tick looks again. */
  #lookAtLifetimes(): void {
    const isIdle = this.#change.isTorn || this.#commands.isStopping || !this.#geometry.isKnown;
    if (!isIdle && !this.#options.readOnly && this.#mode.takesChanges) this.#lifetimes.look();
  }

  /** Not while a command may keep some of them quiet or wait for their clients to leave. */
  #closeIdle(): void {
    if (this.#commands.isRunning) return;
    const idle = takeIdle(this.#open, this.#kernel.knobs.openVolumesMax);
    if (idle.length > 0) this.#kernel.start("close volumes", closeTask(idle, () => {}));
  }

  #openVolume(record: VolumeRecord): OpenVolume {
    const open = this.#open.get(record.uid);
    if (open !== undefined) return open;
    const thin = { ...this.#geometry.peers.thin, id: record.thinId };
    const volume = { name: record.name, thin, sizeBytes: record.sizeBytes };
    const address = this.#kernel.spawn(
      `volume ${record.name}`,
      mailboxes.volume,
      (self) => new ThinVolume(this.#kernel, self, volume),
    );
    const opened = {
      stub: new VolumeStub(this.#kernel, address),
      clients: new Map<Address<PoolNotice>, string>(),
    };
    this.#open.set(record.uid, opened);
    this.#mode.tell(opened.stub);
    return opened;
  }

  // Admin commands.

  /** True if it is answered later. */
  #commandEnded(command: PoolCommand, result: AdminResult): boolean {
    this.#closeIdle();
    if (command.type === "admin") this.#lifetimes.commandEnded(command.command, result);
    if (command.type === "startPool" && result.kind === "done" && !this.#options.readOnly) {
      this.#armTick();
      this.#lifetimes.opened(this.#options.writtenThins ?? new Set());
      this.#lookAtLifetimes();
    }
    const waits = command.type === "admin" && command.command.verb === "rm" && command.command.wait === true;
    if (!waits || result.kind !== "done") return false;
    this.#removals.hold(command);
    return true;
  }

  /** A pool whose last commit failed may be ahead of its superblock, and what it has in memory is not written down then. */
  #piece(message: AskPiece): CataloguePiece {
    if (!this.#mode.takesChanges) return { kind: "refused", reason: "the pool takes no changes any more" };
    if (message.isFirst) this.#pieces = this.#catalogue.snapshotPieces();
    const step = present(this.#pieces, "a piece was asked for before the first").next();
    if (!step.done) return { kind: "piece", text: step.value };
    this.#pieces = undefined;
    return { kind: "end", contentBytes: this.#catalogue.contentBytes };
  }

  #registry(): Registry {
    const attached = new Map<string, number>();
    for (const [uid, { clients }] of this.#open) if (clients.size > 0) attached.set(uid, clients.size);
    const records = [...this.#catalogue.volumes()];
    const { mode, trouble, reason } = this.#mode;
    const families = this.#catalogue.families.byThin;
    const isChanging = this.#catalogue.isStaged;
    return { kind: "registry", mode, trouble, reason, records, families, isChanging, attached };
  }

  // The commit timer, and trouble.

  #armTick(): void {
    this.#kernel.tellLater(this.#kernel.knobs.commitPeriodMs, this.#self, { type: "tick" });
  }

  #tick(): void {
    if (this.#mode.mode === "fail") return;
    const metadata = this.#peers.thin.metadata;
    this.#kernel.tell(metadata.address, { type: "tick" });
    this.#lookAtLifetimes();
    this.#armTick();
  }

  #metadataTrouble(message: MetadataTrouble): void {
    const sentence = this.#mode.meet(message);
    if (sentence === undefined) return;
    this.#options.log(sentence);
    for (const volume of this.#open.values()) this.#mode.tell(volume.stub);
  }
}
