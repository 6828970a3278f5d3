/** Questions about ranges of a volume: what is provisioned, and what differs from a snapshot. */
import type { ThinId } from "../storage/ids.ts";
import type { BioStatus } from "./bio.ts";
import type { Address, Message } from "./kernel/address.ts";

/** One run of blocks alike. */
export interface Extent {
  readonly lengthBytes: number;
  readonly flags: number;
}

/** What a metadata context tells: which blocks are provisioned, or which differ from a snapshot. */
export type StatusSource =
  | { readonly kind: "allocation" }
  | { readonly kind: "dirty"; readonly thinId: ThinId };

/** A client's question about a range of a volume. */
export interface StatusRequest {
  readonly sources: readonly StatusSource[];
  readonly offsetBytes: number;
  /** More than 0, and inside the volume when the client checked. */
  readonly lengthBytes: number;
  /** For each source, at least 1. */
  readonly extentsMax: number;
  readonly client: Address<StatusDone>;
  /** "ok", or why there is no answer. Set by the volume. */
  status: BioStatus;
  /**
   * One list for each source, in their order: contiguous from `offsetBytes`, at least one extent, neighbours differ, never
   * beyond the range asked for; may end early. Set by the volume.
   */
  extents: readonly (readonly Extent[])[];
}

/** From a client to a volume: answer this and tell `request.client`. */
export interface AskStatus extends Message {
  readonly type: "askStatus";
  readonly request: StatusRequest;
}

/** Told to the client of a question. */
export interface StatusDone {
  readonly type: "statusDone";
  readonly request: StatusRequest;
}
