/** What admin tasks answer, and the words for what went wrong. */
import type { MetadataFailure } from "../pool/metadata_results.ts";
import type { AdminResult } from "./admin_command.ts";

/** The result of a command that has nothing more to say. */
export const done: AdminResult = { kind: "done" };

/** The result of a command that was not carried out. */
export type RefusedCommand = Extract<AdminResult, { readonly kind: "refused" }>;

/** See {@linkcode RefusedCommand}. */
export function refused(reason: string): RefusedCommand {
  return { kind: "refused", reason };
}

/** The reason of a failure, as words that follow a colon. */
export function reasonOfFailure(failure: MetadataFailure): string {
  switch (failure.kind) {
    case "noMetadataSpace":
      return "the metadata is full; remove volumes or snapshots, or make it larger with `grow --metadata`";
    case "clockExhausted":
      return "the pool's 24-bit snapshot clock has reached its end; copy the volumes to a new pool";
    case "quotaExceeded":
      return "the volume has all that its quota allows";
    case "reserved":
      return "what is free would not suffice for what is reserved for volumes; remove something, make the pool larger, or " +
        "reserve less";
    case "damaged":
      return failure.reason;
    case "readOnly":
      return "the pool is read-only";
    case "poolFailed":
      return "the pool has failed; restart it";
  }
}
