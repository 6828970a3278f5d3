/** The messages of the metadata actor and the stubs that send them; the actor itself is in metadata.ts. */
import type { DBlockRun } from "../../storage/block_set.ts";
import type { IoResult } from "../../storage/device/port.ts";
import type { DBlock, MetadataBlock, ThinId, VBlock } from "../../storage/base/ids.ts";
import type { MappedRun, Mapping, MarkedRun } from "../../storage/thin_metadata.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";

/** Why an operation did not happen. */
export type MetadataFailure =
  | { readonly kind: "noMetadataSpace" }
  | { readonly kind: "clockExhausted" }
  | { readonly kind: "damaged"; readonly reason: string }
  | { readonly kind: "readOnly" }
  | { readonly kind: "poolFailed" };

/** It happened. */
export type Done = { readonly kind: "done" };

/** Where a virtual block is. */
export interface Lookup extends Request<Mapping | MetadataFailure> {
  readonly type: "lookup";
  readonly thin: ThinId;
  readonly vblock: VBlock;
}

/** The mapped runs in a range, as far as a bounded turn gets; `next` is where to go on. */
export interface MappedRangeReply {
  readonly kind: "range";
  readonly runs: readonly MappedRun[];
  readonly next: VBlock;
}
export interface LookupRange extends Request<MappedRangeReply | MetadataFailure> {
  readonly type: "lookupRange";
  readonly thin: ThinId;
  readonly begin: VBlock;
  readonly end: VBlock;
  readonly runsMax: number;
}

/**
 * From `begin` on, as far as a bounded turn gets: what is mapped or, if there is another device to compare with, what
 * differs from it. Runs without gaps, at least one, neighbours different.
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

/** Map a virtual block, replacing the mapping it had; or only its time, if it has this data block already. */
export interface Insert extends Request<Done | MetadataFailure> {
  readonly type: "insert";
  readonly thin: ThinId;
  readonly vblock: VBlock;
  readonly dblock: DBlock;
}

/** Unmap what lies between two virtual blocks, as far as a bounded turn gets; `next` is where to go on. */
export interface RemoveRange
  extends Request<{ readonly kind: "removed"; readonly next: VBlock } | MetadataFailure> {
  readonly type: "removeRange";
  readonly thin: ThinId;
  readonly begin: VBlock;
  readonly end: VBlock;
}

/** Unreferenced data blocks from `from` on, as far as a bounded turn gets; leased and quarantined ones too. */
export interface FindFree extends
  Request<
    { readonly kind: "free"; readonly runs: readonly DBlockRun[]; readonly next: DBlock } | MetadataFailure
  > {
  readonly type: "findFree";
  readonly from: DBlock;
  readonly blocksWanted: number;
}

/** Make everything done so far durable, data included. */
export interface Commit extends Request<Done | MetadataFailure> {
  readonly type: "commit";
  /** The devices are closed after it: no other flush is to be under way when it is answered. */
  readonly isLast: boolean;
}

/**
 * A change of the set of devices, or of nothing but the transaction id; or a slice of one. No commit begins between the
 * first slice and the last, which is either of these or of a {@linkcode Revoke}.
 */
export interface Change extends Request<Done | MetadataFailure> {
  readonly type: "change";
  /** Devices to make, empty. */
  readonly create: readonly ThinId[];
  /** Devices to make as snapshots, all at one tick of the clock. */
  readonly snapshots: readonly { readonly thin: ThinId; readonly origin: ThinId }[];
  /** False where no origin will be written again: a clone of a read-only snapshot needs no tick. */
  readonly tick: boolean;
  /** Becomes the transaction id together with the change. */
  readonly transactionId: bigint;
  /** Whether slices of the same change follow. */
  readonly hasMore: boolean;
}

/** Takes back a slice of a change of which a later slice failed. The clock stays where it is, which harms nothing. */
export interface Revoke extends Request<Done | MetadataFailure> {
  readonly type: "revoke";
  /** Devices that the change has made. */
  readonly thins: readonly ThinId[];
  /** That before the change. */
  readonly transactionId: bigint;
  /** Whether slices of the same change follow. */
  readonly hasMore: boolean;
}

/** Delete a bounded slice of a device, from its end; `gone` when the device itself is deleted. */
export interface DeleteSlice
  extends Request<{ readonly kind: "deleted"; readonly gone: boolean } | MetadataFailure> {
  readonly type: "deleteSlice";
  readonly thin: ThinId;
}

/** What there is to know about the pool's space. */
export interface Facts {
  readonly kind: "facts";
  readonly transactionId: bigint;
  readonly dataBlockSizeBytes: number;
  readonly dataBlocks: number;
  readonly dataFree: number;
  readonly metadataBlocks: number;
  readonly metadataFree: number;
  readonly dirtyBlocks: number;
  readonly clock: number;
}
export interface AskFacts extends Request<Facts> {
  readonly type: "facts";
}

/** Which devices are there? Ascending. For the start of a pool: it takes a turn as long as there are many. */
export interface ListThins extends Request<readonly ThinId[]> {
  readonly type: "listThins";
}

/** What the metadata says about one device. */
export type DeviceFacts =
  | { readonly kind: "device"; readonly mappedBlocks: number; readonly highest: VBlock | undefined }
  | { readonly kind: "noDevice" };
/** What is a thin device like? */
export interface AskDevice extends Request<DeviceFacts | MetadataFailure> {
  readonly type: "device";
  readonly thin: ThinId;
}

/** Keep the blocks of the last durable commit until `releaseCommit`. */
export interface HoldCommit
  extends Request<{ readonly kind: "held"; readonly hold: number; readonly superblock: Uint8Array }> {
  readonly type: "holdCommit";
}
/** The blocks of this held commit are no longer read. */
export interface ReleaseCommit extends Message {
  readonly type: "releaseCommit";
  readonly hold: number;
}

/** From the commit task: take everything done so far as the transaction to commit; or begin a flush. */
export interface Freeze extends Request<Frozen | MetadataFailure> {
  readonly type: "freeze";
}
/** `isAlone`: one request waits for it, and no other flush is under way. */
export type Frozen =
  | { readonly kind: "clean"; readonly flush: number; readonly isAlone: boolean }
  | {
    readonly kind: "frozen";
    readonly isAlone: boolean;
    readonly blocks: readonly { readonly block: MetadataBlock; readonly bytes: Uint8Array }[];
    readonly superblock: Uint8Array;
  };

/** From the commit task: how it ended; undefined if well. */
export interface CommitEnded extends Message {
  readonly type: "commitEnded";
  readonly failure: string | undefined;
  /** What freezing answered: there was something to write, or it was refused. */
  readonly begun: "frozen" | MetadataFailure["kind"];
}

/** From the commit task: how a flush ended that found nothing to commit; undefined if well. */
export interface FlushEnded extends Message {
  readonly type: "flushEnded";
  readonly flush: number;
  readonly failure: string | undefined;
}

/** From a fetch task: the block that some operation misses. */
export interface Fetched extends Message {
  readonly type: "fetched";
  readonly block: MetadataBlock;
  readonly bytes: Uint8Array;
  readonly result: IoResult;
}

/** From the pool: a second has passed. */
export interface Tick extends Message {
  readonly type: "tick";
}

/** To the allocator: nothing references these blocks any more. */
export interface Freed extends Message {
  readonly type: "freed";
  readonly runs: readonly DBlockRun[];
}

/** To the allocator: a commit has begun; what was freed before is freed in it. */
export interface FrozenNotice extends Message {
  readonly type: "frozen";
}

/** To the allocator: that commit is durable. */
export interface DurableNotice extends Message {
  readonly type: "durable";
}

/** To the allocator, also from its reclaim task: a commit failed or was refused, so nothing comes out of quarantine. */
export interface NotCommitted extends Message {
  readonly type: "notCommitted";
}

/** What the allocator is told, by the metadata actor but for the end of reclaiming. */
export type AllocatorNotice = Freed | FrozenNotice | DurableNotice | NotCommitted;

/** From a bio that may be answered with nothing else: the metadata was full, and a commit did not help. */
export interface SpaceRefused extends Message {
  readonly type: "spaceRefused";
}

/** From the allocator: so many free data blocks are bad, and are not leased. */
export interface DataRetired extends Message {
  readonly type: "dataRetired";
  readonly blocks: number;
}

/** A data block was leased as a free one, and is mapped. Answered with the damage that it is. */
export interface ReportMappedFree extends Request<MetadataFailure> {
  readonly type: "reportMappedFree";
  readonly dblock: DBlock;
}

/** From the pool: who its peers are. */
export interface ConnectMetadata extends Message {
  readonly type: "connect";
  readonly allocator: Address<AllocatorNotice>;
  readonly pool: Address<MetadataTrouble>;
}

/** From the pool: refuse changes from now on. */
export interface StopWriting extends Message {
  readonly type: "stopWriting";
}

/** To the pool: metadata is damaged (it writes no more), or a commit has failed (nothing goes on). */
export interface MetadataTrouble extends Message {
  readonly type: "metadataTrouble";
  readonly what: "damaged" | "commitFailed";
  readonly reason: string;
}

/** What the engine does in one turn, or again once a block it missed is there. */
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
  | AskDevice
  | Load
  | Freeze;

/** Read what must be in memory before the pool can work. */
export interface Load extends Request<Done | MetadataFailure> {
  readonly type: "load";
}

export type MetadataMessage =
  | Operation
  | Commit
  | AskFacts
  | ListThins
  | HoldCommit
  | ReleaseCommit
  | CommitEnded
  | FlushEnded
  | Fetched
  | Tick
  | ConnectMetadata
  | SpaceRefused
  | DataRetired
  | ReportMappedFree
  | StopWriting;

/** The stubs of the metadata actor. */
export class MetadataStub {
  constructor(readonly kernel: Kernel, readonly address: Address<MetadataMessage>) {}

  lookup(thin: ThinId, vblock: VBlock): Steps<Mapping | MetadataFailure> {
    const request: Lookup = { type: "lookup", replyTo: unasked, thin, vblock };
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

  holdCommit(): Steps<{ readonly kind: "held"; readonly hold: number; readonly superblock: Uint8Array }> {
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
