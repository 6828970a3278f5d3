/** The messages of the metadata actor and the stubs that send them; the actor itself is in metadata.ts. */
import type { DBlockRun } from "../../storage/block_set.ts";
import type { IoResult } from "../../storage/device/port.ts";
import type { Geometry, PoolBlocks } from "../../storage/base/geometry.ts";
import type { DBlock, MetadataBlock, ThinId, VBlock } from "../../storage/base/ids.ts";
import type { DeviceState, MappedRun, Mapping, MarkedRun } from "../../storage/thin_metadata.ts";
import type { GeometryNotice } from "./geometry_messages.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";
import type { SpaceCame, SpaceRefused } from "./space_messages.ts";
import type {
  AllocatorNotice,
  AskDeviceStates,
  Commit,
  CommitEnded,
  CommitHandle,
  FlushEnded,
  Freeze,
  Frozen,
  HoldCommit,
  ReleaseCommit,
} from "./commit_messages.ts";
import type { IntentState } from "./intent_journal.ts";
import type { AllowanceMessage } from "./allowance_messages.ts";
import type {
  AskDevice,
  AskGrowth,
  Change,
  DeleteSlice,
  DeviceFacts,
  Grow,
  ListThins,
  Revoke,
} from "./thin_device_messages.ts";
import type { Done, MetadataFailure } from "./metadata_results.ts";

/** Look up the mapping of a virtual block. */
export interface Lookup extends Request<Mapping | MetadataFailure> {
  readonly type: "lookup";
  readonly thin: ThinId;
  readonly vblock: VBlock;
}

/** A block of a batch, and its mapping. */
export interface WantedMapping {
  readonly vblock: VBlock;
  /** Set by metadata; undefined if a metadata block is not in memory or is damaged. */
  mapping: Mapping | undefined;
}

/** Look up the mappings that need no block that is not in memory. */
export interface LookupAtOnce extends Request<"answered"> {
  readonly type: "lookupAtOnce";
  readonly thin: ThinId;
  readonly wanted: readonly WantedMapping[];
}

/** The mapped runs in a range, as many as a bounded turn finds. `next` is the block to continue from. */
export interface MappedRangeReply {
  readonly kind: "range";
  readonly runs: readonly MappedRun[];
  readonly next: VBlock;
}
/** Look up the mapped runs in a range. */
export interface LookupRange extends Request<MappedRangeReply | MetadataFailure> {
  readonly type: "lookupRange";
  readonly thin: ThinId;
  readonly begin: VBlock;
  readonly end: VBlock;
  readonly runsMax: number;
}

/**
 * Look up, from `begin` on and as far as a bounded turn gets, which blocks are mapped or, with `other`, which differ from
 * that thin device. The runs have no gaps, there is at least one, and neighbours differ.
 */
export interface AskRuns extends
  Request<
    | { readonly kind: "runs"; readonly runs: readonly MarkedRun[] }
    | { readonly kind: "noDevice" }
    | MetadataFailure
  > {
  readonly type: "askRuns";
  readonly thin: ThinId;
  readonly other: ThinId | undefined;
  readonly begin: VBlock;
  readonly end: VBlock;
  readonly runsMax: number;
}

/** Map a virtual block. Replaces its mapping, or only the time of it if it has this data block already. */
export interface Insert extends Request<Done | MetadataFailure> {
  readonly type: "insert";
  readonly thin: ThinId;
  readonly vblock: VBlock;
  readonly dblock: DBlock;
}

/** Unmap a range of virtual blocks, as far as a bounded turn gets. `next` is the block to continue from. */
export interface RemoveRange
  extends Request<{ readonly kind: "removed"; readonly next: VBlock } | MetadataFailure> {
  readonly type: "removeRange";
  readonly thin: ThinId;
  readonly begin: VBlock;
  readonly end: VBlock;
}

/** Find data blocks without a reference, from `from` on. They may be leased or in quarantine: the allocator knows. */
export interface FindFree extends
  Request<
    { readonly kind: "free"; readonly runs: readonly DBlockRun[]; readonly next: DBlock } | MetadataFailure
  > {
  readonly type: "findFree";
  readonly from: DBlock;
  readonly blocksWanted: number;
}

/** The sizes of the pool and what is free. Leased and quarantined data blocks count as free. */
export interface Facts {
  readonly kind: "facts";
  readonly transactionId: bigint;
  /** Of the current state: it may be larger than what is durable. */
  readonly geometry: Geometry;
  readonly dataFree: number;
  /** Free data blocks that are kept for devices with a reserve. */
  readonly dataOwed: number;
  /** What operations other than removals may still use. */
  readonly metadataAvailable: number;
  readonly dirtyBlocks: number;
  readonly clock: number;
  readonly intents: IntentState;
}
/** Ask for the sizes and counts of the metadata. */
export interface AskFacts extends Request<Facts> {
  readonly type: "facts";
}

/** From a fetch task: a block that operations wait for. */
export interface Fetched extends Message {
  readonly type: "fetched";
  readonly block: MetadataBlock;
  readonly bytes: Uint8Array;
  readonly result: IoResult;
}

/** From the pool, every `commitPeriodMs`: commit if there are changes. */
export interface Tick extends Message {
  readonly type: "tick";
}

/** From the allocator: the number of free data blocks that are bad and are not leased. */
export interface DataRetired extends Message {
  readonly type: "dataRetired";
  readonly blocks: number;
}

/** A data block was leased as free and is mapped: the metadata is damaged. Answered with that failure. */
export interface ReportMappedFree extends Request<MetadataFailure> {
  readonly type: "reportMappedFree";
  readonly dblock: DBlock;
}

/** From the pool, once: the addresses of its peers. */
export interface ConnectMetadata extends Message {
  readonly type: "connect";
  readonly allocator: Address<AllocatorNotice>;
  readonly pool: Address<MetadataTrouble | GeometryNotice>;
  /** Is told when a command was refused for want of metadata blocks, and when a commit has freed some after a refusal. */
  readonly space: Address<SpaceCame | SpaceRefused>;
}

/** To the pool: metadata is damaged (no more changes), or a commit has failed (the pool fails). */
export interface MetadataTrouble extends Message {
  readonly type: "metadataTrouble";
  readonly what: "damaged" | "commitFailed";
  readonly reason: string;
}

/** A request that the engine serves in one turn, or serves again after a missing block was read. */
export type Operation =
  | Lookup
  | LookupRange
  | AskRuns
  | Insert
  | RemoveRange
  | FindFree
  | Change
  | Revoke
  | DeleteSlice
  | Grow
  | AskDevice
  | Load
  | Freeze;

/** Read the blocks that must be in memory before the pool can serve. */
export interface Load extends Request<Done | MetadataFailure> {
  readonly type: "load";
}

export type MetadataMessage =
  | Operation
  | LookupAtOnce
  | Commit
  | AskFacts
  | AskGrowth
  | ListThins
  | AskDeviceStates
  | HoldCommit
  | ReleaseCommit
  | CommitEnded
  | FlushEnded
  | Fetched
  | Tick
  | ConnectMetadata
  | DataRetired
  | AllowanceMessage
  | ReportMappedFree;

/** The stubs of the metadata actor. */
export class MetadataStub {
  constructor(readonly kernel: Kernel, readonly address: Address<MetadataMessage>) {}

  lookup(thin: ThinId, vblock: VBlock): Steps<Mapping | MetadataFailure> {
    const request: Lookup = { type: "lookup", replyTo: unasked, thin, vblock };
    return ask(this.address, request);
  }

  /** Sets the mapping of each that can be looked up now. */
  lookupAtOnce(thin: ThinId, wanted: readonly WantedMapping[]): Steps<"answered"> {
    const request: LookupAtOnce = { type: "lookupAtOnce", replyTo: unasked, thin, wanted };
    return ask(this.address, request);
  }

  lookupRange(
    thin: ThinId,
    begin: VBlock,
    end: VBlock,
    runsMax: number,
  ): Steps<MappedRangeReply | MetadataFailure> {
    const request: LookupRange = { type: "lookupRange", replyTo: unasked, thin, begin, end, runsMax };
    return ask(this.address, request);
  }

  runs(question: Omit<AskRuns, "type" | "replyTo" | "reply">): Steps<NonNullable<AskRuns["reply"]>> {
    const request: AskRuns = { type: "askRuns", replyTo: unasked, ...question };
    return ask(this.address, request);
  }

  insert(thin: ThinId, vblock: VBlock, dblock: DBlock): Steps<Done | MetadataFailure> {
    const request: Insert = { type: "insert", replyTo: unasked, thin, vblock, dblock };
    return ask(this.address, request);
  }

  removeRange(
    thin: ThinId,
    begin: VBlock,
    end: VBlock,
  ): Steps<{ readonly kind: "removed"; readonly next: VBlock } | MetadataFailure> {
    const request: RemoveRange = { type: "removeRange", replyTo: unasked, thin, begin, end };
    return ask(this.address, request);
  }

  findFree(
    from: DBlock,
    blocksWanted: number,
  ): Steps<
    { readonly kind: "free"; readonly runs: readonly DBlockRun[]; readonly next: DBlock } | MetadataFailure
  > {
    const request: FindFree = { type: "findFree", replyTo: unasked, from, blocksWanted };
    return ask(this.address, request);
  }

  reportMappedFree(dblock: DBlock): Steps<MetadataFailure> {
    const request: ReportMappedFree = { type: "reportMappedFree", replyTo: unasked, dblock };
    return ask(this.address, request);
  }

  commit(isLast = false): Steps<Done | MetadataFailure> {
    const request: Commit = { type: "commit", replyTo: unasked, isLast };
    return ask(this.address, request);
  }

  change(change: Omit<Change, "type" | "replyTo" | "reply">): Steps<Done | MetadataFailure> {
    const request: Change = { type: "change", replyTo: unasked, ...change };
    return ask(this.address, request);
  }

  revoke(revoke: Omit<Revoke, "type" | "replyTo" | "reply">): Steps<Done | MetadataFailure> {
    const request: Revoke = { type: "revoke", replyTo: unasked, ...revoke };
    return ask(this.address, request);
  }

  deleteSlice(thin: ThinId): Steps<{ readonly kind: "deleted"; readonly gone: boolean } | MetadataFailure> {
    const request: DeleteSlice = { type: "deleteSlice", replyTo: unasked, thin };
    return ask(this.address, request);
  }

  growthRefusal(wanted: PoolBlocks): Steps<NonNullable<AskGrowth["reply"]>> {
    const request: AskGrowth = { type: "askGrowth", replyTo: unasked, wanted };
    return ask(this.address, request);
  }

  grow(wanted: PoolBlocks): Steps<NonNullable<Grow["reply"]>> {
    const request: Grow = { type: "grow", replyTo: unasked, wanted };
    return ask(this.address, request);
  }

  facts(): Steps<Facts> {
    const request: AskFacts = { type: "facts", replyTo: unasked };
    return ask(this.address, request);
  }

  thins(): Steps<readonly ThinId[]> {
    const request: ListThins = { type: "listThins", replyTo: unasked };
    return ask(this.address, request);
  }

  device(thin: ThinId): Steps<DeviceFacts | MetadataFailure> {
    const request: AskDevice = { type: "device", replyTo: unasked, thin };
    return ask(this.address, request);
  }

  deviceStates(thins: readonly ThinId[]): Steps<readonly (DeviceState | undefined)[]> {
    const request: AskDeviceStates = { type: "deviceStates", replyTo: unasked, thins };
    return ask(this.address, request);
  }

  holdCommit(): Steps<CommitHandle> {
    const request: HoldCommit = { type: "holdCommit", replyTo: unasked };
    return ask(this.address, request);
  }

  releaseCommit(hold: number): void {
    this.kernel.tell(this.address, { type: "releaseCommit", hold });
  }

  load(): Steps<Done | MetadataFailure> {
    const request: Load = { type: "load", replyTo: unasked };
    return ask(this.address, request);
  }

  freeze(): Steps<Frozen | MetadataFailure> {
    const request: Freeze = { type: "freeze", replyTo: unasked };
    return ask(this.address, request);
  }
}
