/** Messages of the metadata actor about the set of thin devices and the size of the pool: what admin tasks send. */
import type { PoolBlocks } from "../../storage/base/geometry.ts";
import type { ThinId, VBlock } from "../../storage/base/ids.ts";
import type { DeviceAllowance } from "../../storage/device_allowances.ts";
import type { GrowthRefusal } from "../../storage/thin_metadata.ts";
import type { Request } from "../kernel/address.ts";
import type { Done, MetadataFailure } from "./metadata_results.ts";

/**
 * Change the set of thin devices and the transaction id, or a slice of such a change. No commit begins between the first
 * slice and the last. The last slice is one with `hasMore` false, of this type or of {@linkcode Revoke}.
 */
export interface Change extends Request<Done | MetadataFailure> {
  readonly type: "change";
  /** Thin devices to create, empty. */
  readonly create: readonly ThinId[];
  /** Thin devices to create as snapshots, all at one time of the snapshot clock. */
  readonly snapshots: readonly { readonly thin: ThinId; readonly origin: ThinId }[];
  /** Whether the snapshot clock advances. Not needed for a clone of a read-only snapshot, which is never written. */
  readonly tick: boolean;
  /** The transaction id after the change. */
  readonly transactionId: bigint;
  /** Allowances of devices that are new, or have others from then on. */
  readonly allowances?: readonly DeviceAllowance[];
  /** Whether slices of the same change follow. */
  readonly hasMore: boolean;
}

/** Undo a slice of a change after a later slice failed. The snapshot clock keeps its time, which does no harm. */
export interface Revoke extends Request<Done | MetadataFailure> {
  readonly type: "revoke";
  /** Thin devices that the change has created. */
  readonly thins: readonly ThinId[];
  /** The transaction id before the change. */
  readonly transactionId: bigint;
  /** Whether slices of the same change follow. */
  readonly hasMore: boolean;
}

/** Delete a bounded part of a thin device, from its end. `gone`: the thin device itself is deleted. */
export interface DeleteSlice
  extends Request<{ readonly kind: "deleted"; readonly gone: boolean } | MetadataFailure> {
  readonly type: "deleteSlice";
  readonly thin: ThinId;
}

/** Ask whether the pool can get these sizes. Blocks that are free only after a commit do not count. */
export interface AskGrowth extends Request<{ readonly kind: "possible" } | GrowthRefusal> {
  readonly type: "askGrowth";
  readonly wanted: PoolBlocks;
}

/**
 * Make the pool as large as that, as far as a bounded turn gets: `isWhole` once it is. The devices have these sizes, durably.
 * The growth is durable with the next commit, and so is each part of it.
 */
export interface Grow
  extends Request<{ readonly kind: "grown"; readonly isWhole: boolean } | MetadataFailure> {
  readonly type: "grow";
  readonly wanted: PoolBlocks;
}

/** List the thin devices, ascending. Only for the start of a pool: one turn reads all of them. */
export interface ListThins extends Request<readonly ThinId[]> {
  readonly type: "listThins";
}

/** What the metadata has about one thin device. */
export type DeviceFacts =
  | { readonly kind: "device"; readonly mappedBlocks: number; readonly highest: VBlock | undefined }
  | { readonly kind: "noDevice" };
/** Look up one thin device. */
export interface AskDevice extends Request<DeviceFacts | MetadataFailure> {
  readonly type: "device";
  readonly thin: ThinId;
}
