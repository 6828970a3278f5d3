/** How a bio has ended, by what the metadata, the allocator and the device have answered. */
import { unreachable } from "../../storage/base/assert.ts";
import type { IoResult } from "../../storage/device/port.ts";
import type { Allocation } from "../pool/allocator_messages.ts";
import type { MetadataFailure } from "../pool/metadata_results.ts";
import type { BioStatus } from "./bio.ts";

/** The status of a bio whose metadata operation did not happen. */
export function bioStatusOf(failure: MetadataFailure): BioStatus {
  switch (failure.kind) {
    case "noMetadataSpace":
    case "poolFailed":
    case "quotaExceeded":
      return failure.kind;
    // For this volume there is no free block.
    case "reserved":
      return "noDataSpace";
    // Damage made the pool read-only after this bio was admitted: its client did nothing wrong.
    case "readOnly":
    case "damaged":
    case "clockExhausted":
      return "ioError";
    default:
      return unreachable(failure);
  }
}

/** True if reading the old block made the copy fail. Then the new block is not bad, and is given back. */
export function isOfSource(copied: IoResult): boolean {
  return copied.kind === "ioError" && copied.isOfSource === true;
}

/** The status of a bio that got no block. */
export function statusOfAllocation({ kind }: Exclude<Allocation, { readonly kind: "allocated" }>): BioStatus {
  return kind === "failed" ? "ioError" : "noDataSpace";
}

/** The status of a bio whose operation on the device has ended so. */
export function statusOfIo(result: IoResult): BioStatus {
  if (result.kind === "noSpace") return "noHostSpace";
  return result.kind === "ok" ? "ok" : "ioError";
}
