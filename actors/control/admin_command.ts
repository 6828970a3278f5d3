/** What an administrator can ask of a pool, and what comes back: plain data, the same offline and over the control socket. */
import type { Address } from "../kernel/address.ts";
import type { TextOutMessage } from "./text_out.ts";

/** A command to the pool. Names are parsed and well-formed; sizes are bytes. How each is written is in verbs.ts. */
export type AdminCommand =
  | { readonly verb: "create"; readonly name: string; readonly sizeBytes: number }
  /** All of them at one point in time; each is `VOL@SNAP`. */
  | { readonly verb: "snapshot"; readonly names: readonly string[] }
  | { readonly verb: "clone"; readonly source: string; readonly name: string }
  | { readonly verb: "rollback"; readonly snapshot: string }
  | { readonly verb: "rename"; readonly from: string; readonly to: string }
  | { readonly verb: "resize"; readonly name: string; readonly sizeBytes: number }
  /** All or none of them. */
  | {
    readonly verb: "rm";
    readonly names: readonly string[];
    readonly dryRun: boolean;
    readonly force: boolean;
  }
  | { readonly verb: "list" }
  | { readonly verb: "status" }
  | { readonly verb: "check" }
  /** The text goes to `out`, piece by piece; without it there is only the result. */
  | { readonly verb: "dump"; readonly out?: Address<TextOutMessage> };

/** Everything that can be asked of a pool or of its server. */
export type Command = AdminCommand;

/** One entry of `list --json`. */
export interface VolumeListing {
  readonly name: string;
  readonly thin_id: number;
  readonly size_bytes: number;
  readonly mapped_bytes: number;
  readonly exclusive_bytes: number;
  readonly read_only: boolean;
  readonly origin: string | null;
  readonly created: string | null;
  readonly attached: number;
}

/** The object of `status --json`. `transaction_id` is 64 bits and printed as a number. */
export interface PoolStatus {
  readonly mode: string;
  readonly transaction_id: number;
  readonly block_size_bytes: number;
  readonly data_total_bytes: number;
  readonly data_used_bytes: number;
  readonly metadata_total_bytes: number;
  readonly metadata_used_bytes: number;
  readonly volumes: number;
  readonly attached: number;
  /** Why the pool writes no more, if so. */
  readonly trouble: string | null;
}

/** What an admin command has come to, by the kind of command; `refused` is a sentence for a person. */
export type AdminResult =
  | { readonly kind: "done" }
  | { readonly kind: "volumes"; readonly volumes: readonly VolumeListing[] }
  | { readonly kind: "status"; readonly status: PoolStatus }
  /** `rm -n`: what would come back. */
  | { readonly kind: "wouldFree"; readonly bytes: number }
  | { readonly kind: "checked"; readonly problems: readonly string[]; readonly notes: readonly string[] }
  /** A sentence: what was tried, why it failed, the next step. */
  | { readonly kind: "refused"; readonly reason: string };
