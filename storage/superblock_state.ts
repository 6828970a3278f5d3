/**
 * The superblock in three states: of the last durable commit, of the commit under way, and the two fields that the
 * running transaction changes directly, the snapshot clock and the transaction id.
 */
import { assert } from "./base/assert.ts";
import { canBecome, type Geometry, geometryOf } from "./base/geometry.ts";
import { sectorSizeBytes } from "./base/ids.ts";
import { timeMax } from "./format/block_time.ts";
import { flagNeedsCheck, packSuperblock, type Superblock } from "./format/superblock.ts";
import { MetadataFault } from "./metadata_fault.ts";

/** What a commit changes in the superblock besides clock and transaction id. */
export type SuperblockRoots = Pick<
  Superblock,
  "dataSpaceMap" | "metadataSpaceMap" | "mappingRoot" | "detailsRoot"
>;

/** A copy of a superblock's bytes, without needs_check. Flag and checksum lie in one sector, which no power cut tears. */
export function withoutNeedsCheck(superblock: Superblock, bytes: Uint8Array): Uint8Array {
  return packSuperblock({ ...superblock, flags: superblock.flags & ~flagNeedsCheck }, bytes.slice());
}

/** See the head of this file. */
export class SuperblockState {
  #durable: Superblock;
  #geometry: Geometry;
  #durableBytes: Uint8Array;
  #committing: { readonly superblock: Superblock; readonly bytes: Uint8Array } | undefined;
  #time: number;
  #transactionId: bigint;
  /** Their values at the begin of the operation, for rollback. */
  #timeBefore = 0;
  #transactionIdBefore = 0n;

  /** @param bytes the superblock as it is on the device */
  constructor(superblock: Superblock, bytes: Uint8Array) {
    this.#durable = superblock;
    this.#geometry = geometryIn(superblock);
    this.#durableBytes = bytes;
    this.#time = superblock.time;
    this.#transactionId = superblock.transactionId;
  }

  /** The superblock of the last durable commit. */
  get durable(): Superblock {
    return this.#durable;
  }
  /** The sizes that the durable superblock has. The same object as long as they are the same. */
  get geometry(): Geometry {
    return this.#geometry;
  }
  /** The snapshot clock. */
  get time(): number {
    return this.#time;
  }
  /** The number that ties the metadata to the catalogue. It means nothing to the metadata itself. */
  get transactionId(): bigint {
    return this.#transactionId;
  }
  set transactionId(id: bigint) {
    this.#transactionId = id;
  }

  /** Advances the snapshot clock. Faults if it has its largest value: see {@linkcode timeMax}. */
  tick(): void {
    if (this.#time >= timeMax) throw new MetadataFault({ kind: "clockExhausted" });
    this.#time++;
  }

  /** A copy of the durable superblock's bytes. */
  durableBytes(): Uint8Array {
    return this.#durableBytes.slice();
  }

  /** The durable superblock with needs_check set. */
  needsCheckBytes(): Uint8Array {
    const flagged: Superblock = { ...this.#durable, flags: this.#durable.flags | flagNeedsCheck };
    return packSuperblock(flagged, this.#durableBytes.slice());
  }

  begin(): void {
    this.#timeBefore = this.#time;
    this.#transactionIdBefore = this.#transactionId;
  }

  rollback(): void {
    this.#time = this.#timeBefore;
    this.#transactionId = this.#transactionIdBefore;
  }

  /** The commit of the running transaction begins. Returns the bytes of its superblock. */
  freeze(roots: SuperblockRoots): Uint8Array {
    assert(this.#committing === undefined, "one commit at a time");
    assert(this.#time >= this.#durable.time, "the snapshot clock went back");
    const superblock: Superblock = {
      ...this.#durable,
      ...roots,
      time: this.#time,
      transactionId: this.#transactionId,
    };
    const bytes = packSuperblock(superblock, this.#durableBytes.slice());
    this.#committing = { superblock, bytes };
    return bytes;
  }

  /** The superblock of the commit under way is durable. */
  commitDurable(): void {
    assert(this.#committing !== undefined, "a commit is under way");
    assert(this.#time >= this.#committing.superblock.time, "the snapshot clock went back during a commit");
    this.#durable = this.#committing.superblock;
    const geometry = geometryIn(this.#durable);
    assert(canBecome(this.#geometry, geometry), "a commit made the pool smaller");
    const { dataBlocks, metadataBlocks } = this.#geometry;
    if (geometry.dataBlocks > dataBlocks || geometry.metadataBlocks > metadataBlocks) {
      this.#geometry = geometry;
    }
    this.#durableBytes = this.#committing.bytes;
    this.#committing = undefined;
  }
}

function geometryIn({ dataBlockSizeSectors, dataSpaceMap, metadataSpaceMap }: Superblock): Geometry {
  return geometryOf({
    blockSizeBytes: dataBlockSizeSectors * sectorSizeBytes,
    dataBlocks: dataSpaceMap.blocks,
    metadataBlocks: metadataSpaceMap.blocks,
  });
}
