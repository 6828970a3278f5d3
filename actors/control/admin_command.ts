/** What an administrator can ask of a pool, and what comes back: plain data, the same offline and over the control socket. */
import type { SizeChange } from "../../storage/base/sizes.ts";

/** A command that changes the pool. Names are parsed and well-formed; sizes are bytes. How each is written is in verb_table.ts. */
export type ChangeCommand =
  | CreateCommand
  /** All of them at one point in time; each is `VOL@SNAP`. */
  | { readonly verb: "snapshot"; readonly names: readonly string[] }
  | CloneCommand
  | ForkCommand
  | RollbackCommand
  | { readonly verb: "rename"; readonly from: string; readonly to: string }
  | ResizeCommand
  /** Null: none. */
  | { readonly verb: "quota"; readonly name: string; readonly quotaBytes: number | null }
  /** Null: none. */
  | { readonly verb: "reserve"; readonly name: string; readonly reserveBytes: number | null }
  /** All or none of them. */
  | {
    readonly verb: "rm";
    readonly names: readonly string[];
    readonly dryRun: boolean;
    readonly force: boolean;
    /** Answer when the space is back, not when the names are gone. */
    readonly wait?: boolean;
  };

/** How long a new volume exists: its lifetime. */
export interface LifetimeOptions {
  /** Remove it when its last client has gone. */
  readonly ephemeral?: boolean;
  /** How long an ephemeral one stays when its client was lost; null: the default. */
  readonly lingerMs?: number | null;
  /** Null: it does not expire. */
  readonly ttlMs?: number | null;
}

/** Makes a volume that shares every block with another one, or with a snapshot. */
export interface CloneCommand extends LifetimeOptions {
  /** Which command this is. */
  readonly verb: "clone";
  /** The name of a volume or snapshot. */
  readonly source: string;
  /** Of the new volume. */
  readonly name: string;
}

/** Makes an empty volume. */
export interface CreateCommand extends LifetimeOptions {
  /** Which command this is. */
  readonly verb: "create";
  /** Of the new volume. */
  readonly name: string;
  /** Rounded up to 512 bytes. */
  readonly sizeBytes: number;
  /** One client at a time. */
  readonly singleWriter?: boolean;
}

/** `count` clones of a volume or snapshot, all or none of them. */
export interface ForkCommand {
  /** Which command this is. */
  readonly verb: "fork";
  /** The name of a volume or snapshot. */
  readonly source: string;
  /** How many volumes to make. */
  readonly count: number;
  /** The names, with one %d or %0Nd if there are several (storage/base/name_pattern.ts); null: `VOLUME-fork-%d`. */
  readonly name: string | null;
  /** Remove each when its last client has gone. */
  readonly ephemeral: boolean;
  /** Only of ephemeral ones; null: the default. */
  readonly lingerMs: number | null;
  /** Null: they do not expire. */
  readonly ttlMs: number | null;
}

/** Gives a volume the content of its snapshot, and keeps what it had as another one. */
export interface RollbackCommand {
  /** Which command this is. */
  readonly verb: "rollback";
  /** `VOL@SNAP`. */
  readonly snapshot: string;
  /** Also where clients are attached. */
  readonly force?: boolean;
}

/** Gives a volume another size. */
export interface ResizeCommand {
  /** Which command this is. */
  readonly verb: "resize";
  /** Of the volume. */
  readonly name: string;
  /** The new size, rounded up to 512 bytes. */
  readonly sizeBytes: number;
  /** Refuse a size that is larger than the present one. */
  readonly shrink?: boolean;
  /** Make it smaller also where clients are attached. */
  readonly force?: boolean;
}

/** A fork that was made. */
export interface ForkListing {
  /** Of the new volume. */
  readonly name: string;
  /** Where it is served: a URI of NBD for each address of the server; none without a server. */
  readonly uris: readonly string[];
}

/** A command that changes the sizes of the pool's devices. */
export type GrowthCommand =
  /** Null: that device stays as it is. */
  | { readonly verb: "grow"; readonly data: SizeChange | null; readonly metadata: SizeChange | null }
  /** To the sizes that the devices have by now. */
  | { readonly verb: "rescan" };

/** A command that changes nothing. */
export type LookCommand =
  | {
    readonly verb: "list";
    /** Names, and patterns for some; none: all volumes and snapshots. */
    readonly names?: readonly string[];
    /** Wait for figures of now, however long counting takes. */
    readonly exact?: boolean;
  }
  /** `exact` as of `list`. */
  | { readonly verb: "tree"; readonly exact?: boolean }
  | { readonly verb: "df"; readonly exact?: boolean }
  | { readonly verb: "status" }
  /** With `clearNeedsCheck`, of a pool that no process has open, also what takes needs_check away if all is sound. */
  | { readonly verb: "check"; readonly clearNeedsCheck?: boolean }
  | { readonly verb: "dump" };

/** A command to the pool. */
export type AdminCommand = ChangeCommand | GrowthCommand | LookCommand;

/** A command to the server of a pool, about its clients. */
export type ServerCommand =
  | { readonly verb: "clients" }
  /** Its host is refused for `refuseMs` from then on; 0: it is not. */
  | { readonly verb: "kick"; readonly client: number; readonly refuseMs: number };

/** What a volume begins with that exists as long as it is held: the blocks of a volume or snapshot, or none. */
export type HeldContent = { readonly source: string } | { readonly sizeBytes: number };

/** A volume that was made to be held, and where it alone is served. */
export interface HeldVolume {
  /** Which result this is. */
  readonly kind: "held";
  /** Ends the hold. */
  readonly uid: string;
  /** Of the volume. */
  readonly name: string;
  /** The absolute path of its private socket. */
  readonly socketPath: string;
}

/** Everything that can be asked of a pool or of its server. */
export type Command = AdminCommand | ServerCommand;

/** Whether the reader of a text took the piece, or has gone. */
export type TextTaken = "taken" | "gone";

/** One entry of `list --json`. */
export interface VolumeListing {
  /** `VOLUME` or `VOLUME@SNAPSHOT`. */
  readonly name: string;
  /** The number of its thin device in the metadata. */
  readonly thin_id: number;
  /** What clients see as its size. */
  readonly size_bytes: number;
  /** Bytes of the blocks that it maps. */
  readonly mapped_bytes: number;
  /** Bytes that removing it would free; null: not counted yet. */
  readonly exclusive_bytes: number | null;
  /** What `mapped_bytes` may be at most; null: no bound. */
  readonly quota_bytes: number | null;
  /** What is kept for it alone, with what it maps alone; null: nothing is. */
  readonly reserve_bytes: number | null;
  /** Bytes of its blocks that another volume or snapshot maps too; null: not counted yet. */
  readonly shared_bytes: number | null;
  /** How long ago exclusive and shared bytes were right, in milliseconds; 0: they are; null: not counted yet. */
  readonly figures_age_ms: number | null;
  /** True for a snapshot. */
  readonly read_only: boolean;
  /** The present name of what it was made from; null if that is gone, or if it was made empty. */
  readonly origin: string | null;
  /** RFC 3339 in UTC; null where it is not known. */
  readonly created: string | null;
  /** Clients that have it attached. */
  readonly attached: number;
}

/** One entry of `tree --json`: what it was made from stands before it, with one less `depth`. */
export interface TreeListing extends VolumeListing {
  /** 0 for what was made empty, or from what is gone. */
  readonly depth: number;
}

/** The space of one thing, in bytes. */
export interface SpaceBytes {
  /** All of it. */
  readonly total_bytes: number;
  /** What is not free. */
  readonly used_bytes: number;
  /** What new blocks can still be made of. */
  readonly free_bytes: number;
}

/** The object of `df --json`. */
export interface PoolSpace {
  /** The data device. */
  readonly data: SpaceBytes;
  /** What is kept for removals and commits counts as used. */
  readonly metadata: SpaceBytes;
  /** The host's file system under the data; null if it is not known. */
  readonly host: SpaceBytes | null;
  /** Bytes of the data that no volume or snapshot holds alone: removing several together frees some of them. Null: not counted yet. */
  readonly shared_bytes: number | null;
  /** By `exclusive_bytes`, what removing each would free: the largest first. */
  readonly volumes: readonly VolumeListing[];
}

/** One entry of `clients --json`. */
export interface ClientListing {
  /** What `kick` takes. */
  readonly id: number;
  /** Its address, with the name in its certificate if it has shown one. */
  readonly peer: string;
  /** By what its places are counted, and what `kick --for` refuses: its host, or its certificate. Null for a local client. */
  readonly identity: string | null;
  /** Null if it is not attached, or its volume was removed. */
  readonly export: string | null;
  /** When it connected: RFC 3339, UTC. */
  readonly since: string;
}

/** The object of `status --json`. `transaction_id` is 64 bits and printed as a number. */
export interface PoolStatus {
  /** What the pool does: `write`, `out-of-data-space`, `out-of-metadata-space`, `read-only` or `fail` (docs/modes.md). */
  readonly mode: string;
  /** The superblock's; raised by each change of the catalogue. */
  readonly transaction_id: number;
  /** Bytes of a data block. */
  readonly block_size_bytes: number;
  /** Bytes of the data device. */
  readonly data_total_bytes: number;
  /** Bytes of the data blocks that are mapped. */
  readonly data_used_bytes: number;
  /**
   * Bytes of the free data blocks that are kept for volumes with a reserve. Without a server, what such a volume shares or may
   * share with relatives is not counted as its own, so it may be more than a server keeps.
   */
  readonly data_reserved_bytes: number;
  /** Bytes of the metadata device. */
  readonly metadata_total_bytes: number;
  /** Bytes of the metadata device that no write may use any more; what is kept for removals and commits is among them. */
  readonly metadata_used_bytes: number;
  /** Volumes and snapshots. */
  readonly volumes: number;
  /** Clients attached to any of them. */
  readonly attached: number;
  /** Why the pool writes no more, if so. */
  readonly trouble: string | null;
  /** How full the data device is: `full` if no block is free, `host-full` if the host has no room for one. */
  readonly data: SpaceWord;
  /** How full the metadata is. */
  readonly metadata: SpaceWord;
  /** How full the host's file system under the data is; null if that is not known. */
  readonly host: Exclude<SpaceWord, "host-full"> | null;
  /** Bytes that the host has free for the data device; null if that is not known. */
  readonly host_free_bytes: number | null;
  /** Volumes and snapshots whose names are gone, and whose space comes back. */
  readonly removing: number;
  /** Bytes that those map still; what others share of them does not come back. */
  readonly removing_bytes: number;
  /** Writes that wait for space; a request of several blocks may be several. */
  readonly parked: number;
  /** Why the mode is not `write`, as a sentence; null if it is, or if the pool was opened to be read only. */
  readonly reason: string | null;
  /**
   * `kept`: what is acknowledged outlives a server that is killed. `void`: not any more, as a device has failed. `none`: only
   * what a flush has made durable does.
   */
  readonly intent_journal: "kept" | "none" | "void";
  /** Why it is not kept; null if it is, or if the pool was opened to be read only. */
  readonly intent_journal_reason: string | null;
  /** Changes that a killed server has left in the journal and that are not committed; 0 of a pool that is open for writing. */
  readonly intent_journal_waiting: number;
}

/** How full a device is; `low` from the lowest threshold of `serve --warn-at` on, 80 % by default. */
export type SpaceWord = "ok" | "low" | "full" | "host-full";

/** The object of `grow --json` and `rescan --json`. */
export interface PoolSizes {
  /** Bytes of the data device that the pool uses. */
  readonly data_total_bytes: number;
  /** Bytes of the metadata device that the pool uses. */
  readonly metadata_total_bytes: number;
}

/** The object of `check --json`. */
export interface CheckedPool {
  /** Whether there are no problems. */
  readonly sound: boolean;
  /** What is wrong, a sentence each. */
  readonly problems: readonly string[];
  /** What is worth knowing, a sentence each. */
  readonly notes: readonly string[];
  /** Changes that a killed server has left in the intent journal, and that what was checked does not have. */
  readonly intent_journal_waiting: number;
}

/** What an admin command has come to, by the kind of command; `refused` is a sentence for a human reader. */
export type AdminResult =
  | { readonly kind: "done" }
  /** What the volume had is a snapshot now; bytes that removing it would free, null if that is not known. */
  | { readonly kind: "rolledBack"; readonly kept: string; readonly exclusiveBytes: number | null }
  | { readonly kind: "forked"; readonly volumes: readonly ForkListing[] }
  | { readonly kind: "volumes"; readonly volumes: readonly VolumeListing[] }
  | { readonly kind: "tree"; readonly volumes: readonly TreeListing[] }
  | { readonly kind: "df"; readonly space: PoolSpace }
  | { readonly kind: "status"; readonly status: PoolStatus }
  | { readonly kind: "clients"; readonly clients: readonly ClientListing[] }
  /** `rm -n`: bytes that would be freed. */
  | { readonly kind: "wouldFree"; readonly bytes: number }
  /** Sizes of the devices, as the pool used them before and uses them now. */
  | { readonly kind: "grown"; readonly before: PoolSizes; readonly sizes: PoolSizes }
  /** `waiting`: changes that a killed server has left in the intent journal, and that what was checked does not have. */
  | {
    readonly kind: "checked";
    readonly problems: readonly string[];
    readonly notes: readonly string[];
    readonly waiting: number;
  }
  /**
   * A sentence: what was tried, why it failed, the next step. `isGone`: there is no volume any more for which a hold could be
   * ended, so whatever else the hold has may end too.
   */
  | { readonly kind: "refused"; readonly reason: string; readonly isGone?: true };
