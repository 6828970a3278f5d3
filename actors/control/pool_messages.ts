/** The messages of the pool actor and the stubs that send them; the actor itself is in pool.ts. */
import type { VolumeRecord } from "../../storage/catalogue.ts";
import type { Geometry } from "../../storage/base/geometry.ts";
import type { DeviceAllowance } from "../../storage/device_allowances.ts";
import type { ThinId } from "../../storage/base/ids.ts";
import type { FamilyKey } from "../../storage/families.ts";
import type { AdminCommand, AdminResult, ChangeCommand, HeldContent } from "./admin_command.ts";
import type { LineRoom } from "./catalogue_room.ts";
import type { Attach, Describe, DescribeContexts, Detach, ListExports, Wrote } from "./export_messages.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";
import type { TextOutMessage } from "./text_out.ts";
import type { GeometryNotice } from "../pool/geometry_messages.ts";
import type { MetadataTrouble } from "../pool/metadata_messages.ts";
import type { SpaceModeNotice } from "../pool/space_messages.ts";
import type { VolumeStub } from "../volume/volume_messages.ts";

/** The modes of a pool, in the words of dm-thin; mode_table.ts has what each serves. */
export type PoolMode = "write" | "out-of-data-space" | "out-of-metadata-space" | "read-only" | "fail";

/** Do an administrator's command. Those that change something go one at a time, in order. */
export interface Admin extends Request<AdminResult> {
  readonly type: "admin";
  readonly command: AdminCommand | LifetimeCommand;
  /** Where the text of `dump` goes, piece by piece; without it there is only the result. */
  readonly out: Address<TextOutMessage> | undefined;
}

/** A slice of long work is done, and there are more: the same is to be asked again. */
export interface More {
  readonly kind: "more";
}

/** From the admin task: what the command means, as of now. Asked again until the answer is another than `more`. */
export interface MakePlan extends Request<AdminPlan | PlanRefused | More> {
  readonly type: "plan";
  readonly step: PlanStep;
}

/** What a task wants planned: a user's command, or the end of a piece of work that a crash may have interrupted. */
export type PlanStep =
  | ChangeCommand
  | { readonly verb: "forget"; readonly uids: readonly string[] }
  | { readonly verb: "trimmed"; readonly uid: string }
  | LifetimeCommand
  | Reconcile;

/** A command about throw-away volumes (control/volume_lifetimes.ts): of the pool itself, or of what holds a volume. */
export type LifetimeCommand =
  /** A client has written to an ephemeral volume. */
  | { readonly verb: "written"; readonly uid: string }
  /** Remove those of them that have no client. */
  | { readonly verb: "outlived"; readonly uids: readonly string[] }
  | MakeHeld
  /** The hold has ended: remove the volume, also where clients are attached. */
  | { readonly verb: "endHeld"; readonly uid: string };

/** The verbs of {@linkcode LifetimeCommand}. */
export const lifeVerbs: readonly LifetimeCommand["verb"][] = ["written", "outlived", "makeHeld", "endHeld"];

/** Make a volume that stays as long as it is held, with clients or without. When the pool is opened again, it is removed. */
export interface MakeHeld {
  readonly verb: "makeHeld";
  readonly uid: string;
  readonly name: string;
  readonly content: HeldContent;
}

/** Thin devices without a record get one, records without a thin device are dropped. */
export interface Reconcile {
  readonly verb: "reconcile";
  readonly found: readonly FoundDevice[];
  readonly lost: readonly string[];
}

/** A thin device of the metadata that has no record in the catalogue. */
export interface FoundDevice {
  readonly thinId: ThinId;
  readonly sizeBytes: number;
}

/** What a command changes besides the catalogue. */
export interface PlannedChange {
  /** Thin devices to create, empty. */
  readonly create: readonly ThinId[];
  /** Thin devices to create as snapshots. */
  readonly snapshots: readonly { readonly thin: ThinId; readonly origin: ThinId }[];
  /** Whether the snapshot clock advances. */
  readonly tick: boolean;
  /**
   * How long the volumes that are quiet stay so: until the first slice of devices is made, until all are, or until the
   * catalogue has the change. The last is needed where their own records change.
   */
  readonly quietUntil: "firstSlice" | "devices" | "settled";
  /** Uids of volumes whose clients must leave before. */
  readonly evict: readonly string[];
  /** Devices to delete when the change is durable, and the records that then go. */
  readonly deletions: readonly Deletion[];
  /** Allowances of thin devices from this change on. */
  readonly allowances: readonly DeviceAllowance[];
  /** Volumes that have become smaller: what lies beyond is removed when the change is durable. */
  readonly trims: readonly Trim[];
  /** What the command comes to when all of it is done. */
  readonly result: AdminResult;
}

/** A change of the pool, checked and ready to be carried out. */
export interface AdminPlan extends PlannedChange {
  readonly kind: "plan";
  readonly transactionId: bigint;
  /** The line to append to the catalogue's journal, and what it may use of it. */
  readonly line: string;
  readonly room: LineRoom;
  /** Open volumes to suspend while the devices change. */
  readonly quiesce: readonly VolumeStub[];
}

/** A device to delete, and the record that then goes. */
export interface Deletion {
  readonly uid: string;
  readonly thinId: ThinId;
}

/** A volume that has become smaller, and what of it is removed. */
export interface Trim {
  readonly uid: string;
  readonly thinId: ThinId;
  readonly fromBytes: number;
  readonly sizeBytes: number;
}

/** Why a command cannot be carried out, as a sentence; `isGone` as in `AdminResult`. */
export interface PlanRefused {
  readonly kind: "refused";
  readonly reason: string;
  readonly isGone?: true;
}

/** From the admin task: the staged change is durable, or will not happen. Asked again until the answer is `settled`. */
export interface Settle extends Request<"settled" | "more"> {
  readonly type: "settle";
  readonly isKept: boolean;
}

/** From the admin task: the volumes that were to be quiet for the first slice of devices may go on. */
export interface CutMade extends Message {
  readonly type: "cutMade";
}

/** From the admin task: a change is durable, and the catalogue's journal is long enough to be rewritten. */
export interface JournalLong extends Message {
  readonly type: "journalLong";
}

/** From the rewrite task: asks for the next piece of the catalogue as one line. */
export interface AskPiece extends Request<CataloguePiece> {
  readonly type: "askPiece";
  readonly isFirst: boolean;
}

/** A piece, or that there is no more, with the bytes that the whole line takes at most. */
export type CataloguePiece =
  | { readonly kind: "piece"; readonly text: string }
  | { readonly kind: "end"; readonly contentBytes: number }
  | { readonly kind: "refused"; readonly reason: string };

/** From the rewrite task: it has ended. */
export interface RewriteEnded extends Message {
  readonly type: "rewriteEnded";
}

/** From the start of a read-only pool: reconcile in memory only. */
export interface Adopt extends Request<"done"> {
  readonly type: "adopt";
  readonly step: Reconcile;
}

/** From the admin task: make these volumes' clients leave; answered when they have. */
export interface Evict extends Request<"evicted"> {
  readonly type: "evict";
  readonly uids: readonly string[];
}

/** From a task of the pool: do a slice of this piece of work. */
export interface WorkOn extends Request<"more" | "done"> {
  readonly type: "workOn";
  readonly work: number;
}

/** From the admin task: every record, and what is attached. */
export interface AskRegistry extends Request<Registry> {
  readonly type: "registry";
}
/** The answer to {@linkcode AskRegistry}. */
export interface Registry {
  readonly kind: "registry";
  readonly mode: PoolMode;
  readonly trouble: string | null;
  /** Why the mode is not "write", as words. */
  readonly reason: string | null;
  /** All of one instant, those that are being deleted included, in no order that means anything. */
  readonly records: readonly VolumeRecord[];
  /** Which of their thin devices may share blocks. */
  readonly families: ReadonlyMap<ThinId, FamilyKey>;
  /** A change is staged: metadata may have devices already that are in neither. */
  readonly isChanging: boolean;
  /** Clients of each volume that has some, by uid. */
  readonly attached: ReadonlyMap<string, number>;
}

/** From the start of the pool: its sizes. Answered once metadata has told them. */
export interface AskGeometry extends Request<Geometry> {
  readonly type: "askGeometry";
}

/** From the admin task and the start: the names of these devices are durably gone; delete them behind the commands. */
export interface RemoveDevices extends Message {
  readonly type: "removeDevices";
  readonly deletions: readonly Deletion[];
}

/** From the removal task: may it delete a slice? Not any more when the pool is to stop. */
export interface MayRemove extends Request<boolean> {
  readonly type: "mayRemove";
}

/** From the removal task: these devices are deleted; drop their records, when it is the turn of that. */
export interface ForgetRemoved extends Request<AdminResult> {
  readonly type: "forgetRemoved";
  readonly uids: readonly string[];
}

/** From the removal task: it has ended. */
export interface RemovalTaskEnded extends Message {
  readonly type: "removalTaskEnded";
  readonly result: AdminResult;
}

/** From the admin task: the command is done. */
export interface AdminEnded extends Message {
  readonly type: "adminEnded";
  readonly result: AdminResult;
}

/** From the task of a command that only looks: it is done. */
export interface LookEnded extends Message {
  readonly type: "lookEnded";
  readonly look: Admin;
  readonly result: AdminResult;
}

/** Metadata is loaded: begin to work. Answered when interrupted changes have been settled. */
export interface StartPool extends Request<AdminResult> {
  readonly type: "startPool";
}

/** Refuse new work, let what is in flight end, commit. Answered when nothing is left to lose. */
export interface StopPool extends Request<AdminResult> {
  readonly type: "stopPool";
}

/** A removal that the pool has given itself has ended. */
export interface LifetimeCommandEnded extends Message {
  readonly type: "lifetimeCommandEnded";
}

/** A second has passed. */
export interface PoolTick extends Message {
  readonly type: "tick";
}

export type PoolMessage =
  | Attach
  | Detach
  | Describe
  | DescribeContexts
  | ListExports
  | Admin
  | MakePlan
  | Settle
  | CutMade
  | JournalLong
  | AskPiece
  | RewriteEnded
  | Adopt
  | Evict
  | WorkOn
  | AskRegistry
  | AskGeometry
  | GeometryNotice
  | RemoveDevices
  | MayRemove
  | ForgetRemoved
  | RemovalTaskEnded
  | AdminEnded
  | LookEnded
  | StartPool
  | StopPool
  | PoolTick
  | Wrote
  | LifetimeCommandEnded
  | MetadataTrouble
  | SpaceModeNotice;

/** The stubs of the pool. */
export class PoolStub {
  constructor(readonly kernel: Kernel, readonly address: Address<PoolMessage>) {}

  /** @param out where the text of `dump` goes */
  admin(command: AdminCommand | LifetimeCommand, out?: Address<TextOutMessage>): Steps<AdminResult> {
    const request: Admin = { type: "admin", replyTo: unasked, command, out };
    return ask(this.address, request);
  }

  plan(step: PlanStep): Steps<AdminPlan | PlanRefused | More> {
    const request: MakePlan = { type: "plan", replyTo: unasked, step };
    return ask(this.address, request);
  }

  settle(isKept: boolean): Steps<"settled" | "more"> {
    const request: Settle = { type: "settle", replyTo: unasked, isKept };
    return ask(this.address, request);
  }

  piece(isFirst: boolean): Steps<CataloguePiece> {
    const request: AskPiece = { type: "askPiece", replyTo: unasked, isFirst };
    return ask(this.address, request);
  }

  adopt(step: Reconcile): Steps<"done"> {
    const request: Adopt = { type: "adopt", replyTo: unasked, step };
    return ask(this.address, request);
  }

  evict(uids: readonly string[]): Steps<"evicted"> {
    const request: Evict = { type: "evict", replyTo: unasked, uids };
    return ask(this.address, request);
  }

  workOn(work: number): Steps<"more" | "done"> {
    const request: WorkOn = { type: "workOn", replyTo: unasked, work };
    return ask(this.address, request);
  }

  registry(): Steps<Registry> {
    const request: AskRegistry = { type: "registry", replyTo: unasked };
    return ask(this.address, request);
  }

  geometry(): Steps<Geometry> {
    const request: AskGeometry = { type: "askGeometry", replyTo: unasked };
    return ask(this.address, request);
  }

  mayRemove(): Steps<boolean> {
    const request: MayRemove = { type: "mayRemove", replyTo: unasked };
    return ask(this.address, request);
  }

  forgetRemoved(uids: readonly string[]): Steps<AdminResult> {
    const request: ForgetRemoved = { type: "forgetRemoved", replyTo: unasked, uids };
    return ask(this.address, request);
  }

  start(): Steps<AdminResult> {
    const request: StartPool = { type: "startPool", replyTo: unasked };
    return ask(this.address, request);
  }

  stop(): Steps<AdminResult> {
    const request: StopPool = { type: "stopPool", replyTo: unasked };
    return ask(this.address, request);
  }
}
