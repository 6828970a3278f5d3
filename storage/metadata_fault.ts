/** The faults of metadata operations. An operation that throws one has changed nothing. */
import { type MetadataBlock, metadataBlock } from "./base/ids.ts";

/** Why an operation was not carried out. */
export type MetadataFaultKind =
  /** The block is not in the cache: read it, call `supply` and run the operation again. */
  | { readonly kind: "missing"; readonly block: MetadataBlock }
  /** The block's checksum or content is wrong; `reason` is the end of a sentence about it. */
  | { readonly kind: "damaged"; readonly block: MetadataBlock; readonly reason: string }
  /** Too few free metadata blocks. A commit may free some; growing the metadata device always helps. */
  | { readonly kind: "noMetadataSpace" }
  /** The 24-bit snapshot clock has its largest value. */
  | { readonly kind: "clockExhausted" }
  /** The device maps as many blocks as its quota allows. */
  | { readonly kind: "quotaExceeded" }
  /** The free data blocks are owed to devices with a reserve. */
  | { readonly kind: "reserved" };

/** Thrown by every operation of the engine after it has undone its changes. */
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
   * The fault for a block that is not in the cache. Always the same object, valid until the next call: a removal misses
   * tens of thousands of blocks, and recording the stack in a new Error costs as much as reading the block.
   */
  static missing(block: MetadataBlock): MetadataFault {
    missing.#fault = { kind: "missing", block };
    return missing;
  }
}

const missing = new MetadataFault({ kind: "missing", block: metadataBlock(0) });

/** Throws the fault for a block with wrong content. */
export function damaged(block: MetadataBlock, reason: string): never {
  throw new MetadataFault({ kind: "damaged", block, reason });
}

/** The reason for a block that is in use with count 0. It could be allocated and overwritten. */
export const countedFree = "it is in use but its reference count is 0";

/** The metadata cannot be opened, or not for writing. The message is for the user. */
export class OpenRefused extends Error {
  override readonly name = "OpenRefused";
}
