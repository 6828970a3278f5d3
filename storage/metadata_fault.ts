/** Why a metadata operation did not happen. Whoever catches one knows that nothing was changed. */
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";

/** What kept an operation from happening. */
export type MetadataFaultKind =
  /** The block is not in the cache: read it, supply it, run the operation again. */
  | { readonly kind: "missing"; readonly block: MetadataBlock }
  /** The block's checksum or content cannot be right; `reason` is the end of a sentence about it. */
  | { readonly kind: "damaged"; readonly block: MetadataBlock; readonly reason: string }
  /** Too few free metadata blocks. A commit may release some; growing the metadata device helps always. */
  | { readonly kind: "noMetadataSpace" }
  /** The 24-bit snapshot clock is at its end. */
  | { readonly kind: "clockExhausted" };

/** Thrown by every operation of the engine after it has undone whatever it did. */
export class MetadataFault extends Error {
  override readonly name = "MetadataFault";
  #fault: MetadataFaultKind;

  constructor(fault: MetadataFaultKind) {
    super(fault.kind);
    this.#fault = fault;
  }

  get fault(): MetadataFaultKind {
    return this.#fault;
  }

  /**
   * A block is not in the cache. Always the same error, good until the next one: a removal misses tens of thousands, and what
   * an error notes about the stack costs as much as reading the block.
   */
  static missing(block: MetadataBlock): MetadataFault {
    missing.#fault = { kind: "missing", block };
    return missing;
  }
}

const missing = new MetadataFault({ kind: "missing", block: metadataBlock(0) });

/** Throws the fault for a block whose content cannot be right. */
export function damaged(block: MetadataBlock, reason: string): never {
  throw new MetadataFault({ kind: "damaged", block, reason });
}

/** The reason for a block that is used though it counts as free: it would be given away and overwritten. */
export const countedFree = "it is in use but its reference count is 0";

/** The metadata cannot be opened at all (or not for writing); the message is the sentence to show. */
export class OpenRefused extends Error {
  override readonly name = "OpenRefused";
}
