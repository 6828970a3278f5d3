/** The messages of a commit: requests for one, its steps, and what the allocator is told of it. */
import type { DBlockRun } from "../../storage/block_set.ts";
import type { Geometry } from "../../storage/base/geometry.ts";
import type { MetadataBlock, ThinId } from "../../storage/base/ids.ts";
import type { DeviceState } from "../../storage/thin_metadata.ts";
import type { Message, Request } from "../kernel/address.ts";
import type { Done, MetadataFailure } from "./metadata_results.ts";

/** Make all changes so far durable, with the data of their blocks. */
export interface Commit extends Request<Done | MetadataFailure> {
  readonly type: "commit";
  /** The devices are closed after it, so no other flush may be under way when it is answered. */
  readonly isLast: boolean;
}

/** The last durable commit, kept for a reader. `hold` names it in {@linkcode ReleaseCommit}. */
export interface CommitHandle {
  readonly kind: "held";
  readonly hold: number;
  readonly superblock: Uint8Array;
  /** Its number: {@linkcode DeviceState} has the number of a transaction too. */
  readonly transaction: number;
  /** The sizes that this superblock has. */
  readonly geometry: Geometry;
}

/** Keep the blocks of the last durable commit until `releaseCommit`. */
export interface HoldCommit extends Request<CommitHandle> {
  readonly type: "holdCommit";
}
/** The reader is done with this held commit. */
export interface ReleaseCommit extends Message {
  readonly type: "releaseCommit";
  readonly hold: number;
}

/** Ask what some thin devices map, as many as a turn may look at; undefined for one that is not there. */
export interface AskDeviceStates extends Request<readonly (DeviceState | undefined)[]> {
  readonly type: "deviceStates";
  readonly thins: readonly ThinId[];
}

/** From the commit task: all changes so far become the transaction to commit. If there are none: begin a flush. */
export interface Freeze extends Request<Frozen | MetadataFailure> {
  readonly type: "freeze";
}
/** The answer to {@linkcode Freeze}. `isAlone`: one request waits for it, and no other flush is under way. */
export type Frozen =
  | { readonly kind: "clean"; readonly flush: number; readonly isAlone: boolean }
  | {
    readonly kind: "frozen";
    readonly isAlone: boolean;
    readonly blocks: readonly { readonly block: MetadataBlock; readonly bytes: Uint8Array }[];
    readonly superblock: Uint8Array;
  };

/** From the commit task: it has ended. `failure` is undefined after success. */
export interface CommitEnded extends Message {
  readonly type: "commitEnded";
  readonly failure: string | undefined;
  /** The answer to the freeze: a transaction, or why there is none. */
  readonly begun: "frozen" | MetadataFailure["kind"];
}

/** From the commit task: a flush with nothing to commit has ended. `failure` is undefined after success. */
export interface FlushEnded extends Message {
  readonly type: "flushEnded";
  readonly flush: number;
  readonly failure: string | undefined;
}

/** To the allocator: these blocks have lost their last reference. */
export interface Freed extends Message {
  readonly type: "freed";
  readonly runs: readonly DBlockRun[];
}

/** To the allocator: a commit has begun. The blocks freed before are freed in it. */
export interface FrozenNotice extends Message {
  readonly type: "frozen";
}

/** To the allocator: that commit is durable. */
export interface DurableNotice extends Message {
  readonly type: "durable";
}

/** To the allocator, also from its reclaim task: a commit failed or was refused, so no block leaves the quarantine. */
export interface NotCommitted extends Message {
  readonly type: "notCommitted";
}

/** What the allocator is told of freed blocks and of commits. */
export type AllocatorNotice = Freed | FrozenNotice | DurableNotice | NotCommitted;
