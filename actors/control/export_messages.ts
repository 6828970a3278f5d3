/** What connections and the pool tell each other: the exports that there are, and how a client attaches to one. */
import type { StatusSource } from "../volume/block_status.ts";
import type { Address, Message } from "../kernel/address.ts";
import type { ThinVolumeMessage } from "../volume/volume_messages.ts";

/** A volume or snapshot as a client of NBD sees it. */
export interface ExportInfo {
  readonly name: string;
  /** Stays with the volume when it is renamed. */
  readonly uid: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** At most one client is attached at a time. */
  readonly isSingleWriter?: boolean;
  /** The pool is to be told when a client writes to it: {@linkcode Wrote}. */
  readonly tellsWrites?: boolean;
  /** For a human reader. */
  readonly description: string;
}

/** From a connection: its client writes to an ephemeral volume. */
export interface Wrote extends Message {
  readonly type: "wrote";
  readonly uid: string;
}

/** From a connection: attach to the volume of this name (empty: the only volume). Answered by `attached` or `unknownExport`. */
export interface Attach extends Message {
  readonly type: "attach";
  readonly name: string;
  /** How a sentence names the client. */
  readonly peer?: string;
  /** The uid of the only export that there is for the client; undefined: all are. */
  readonly only?: string | undefined;
  readonly client: Address<PoolNotice>;
}

/**
 * From a connection: it submits nothing to this volume any more, and all it submitted is done. Answered by `detached`,
 * the last that the pool tells it about the volume.
 */
export interface Detach extends Message {
  readonly type: "detach";
  readonly uid: string;
  /** The client has said that it disconnects (NBD_CMD_DISC); else it was lost, or closed by us. */
  readonly isClean?: boolean;
  readonly client: Address<PoolNotice>;
}

/** From a connection: what is there under this name? Answered by `described` or `unknownExport`. */
export interface Describe extends Message {
  readonly type: "describe";
  readonly name: string;
  /** The uid of the only export that there is for the client; undefined: all are. */
  readonly only?: string | undefined;
  readonly client: Address<PoolNotice>;
}

/** From a connection: what is there? Answered by `exports`. */
export interface ListExports extends Message {
  readonly type: "listExports";
  /** The uid of the only export that there is for the client; undefined: all are. */
  readonly only?: string | undefined;
  readonly client: Address<PoolNotice>;
}

/** From a connection: which metadata contexts has this export? Answered by `contexts` or `unknownExport`. */
export interface DescribeContexts extends Message {
  readonly type: "describeContexts";
  readonly name: string;
  /** The uid of the only export that there is for the client; undefined: all are. */
  readonly only?: string | undefined;
  readonly client: Address<PoolNotice>;
}

/** A metadata context of an export. */
export interface ExportContext {
  /** `base:allocation`, or `qemu:dirty-bitmap:` and a snapshot's own name. */
  readonly name: string;
  readonly source: StatusSource;
}

/** The names of all exports, sorted, and a description of each. */
export interface ExportList {
  readonly names: readonly string[];
  readonly descriptions: readonly string[];
}

/** What the pool tells a connection. The handshake is lock-step, so an answer belongs to the one question open. */
export type PoolNotice =
  | {
    readonly type: "attached";
    readonly info: ExportInfo;
    readonly volume: Address<ThinVolumeMessage>;
    readonly blockSizeBytes: number;
  }
  | { readonly type: "described"; readonly info: ExportInfo; readonly blockSizeBytes: number }
  /** `isInUse`: it is there, and takes no further client. */
  | {
    readonly type: "unknownExport";
    readonly name: string;
    readonly reason: string;
    readonly isInUse?: boolean;
  }
  | { readonly type: "exports" } & ExportList
  /** Every context of the export. */
  | {
    readonly type: "contexts";
    readonly info: ExportInfo;
    readonly blockSizeBytes: number;
    readonly contexts: readonly ExportContext[];
  }
  | { readonly type: "detached"; readonly uid: string }
  /** The volume has another size now; requests beyond it are refused. */
  | { readonly type: "exportResized"; readonly uid: string; readonly sizeBytes: number }
  /** The volume is going away: finish what is in flight, detach, and close. */
  | { readonly type: "exportGone"; readonly uid: string };
