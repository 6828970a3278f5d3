/**
 * Bytes on their way to one client. Small pieces are put together in pooled blocks; a large payload is queued
 * as it is. One drain of the connection takes everything queued as a few pieces, in order.
 *
 * At most one batch is under way at a time: `take`, write its pieces, `recycle`, `take` again.
 */
import { outputBlockBytes, spareOutputBlocksMax } from "../../limits.ts";
import { referenceMinBytes } from "./limits.ts";
import { assert } from "../../../storage/base/assert.ts";
import type { Piece } from "./pieces.ts";

class Block {
  readonly bytes = new Uint8Array(outputBlockBytes);
  readonly view = new DataView(this.bytes.buffer);
}

export class OutputQueue {
  #pieces: Piece[] = [];
  #pieceBytes = 0;

  #block: Block | undefined;
  /** The part of the block that is filled and not yet in `#pieces`. */
  #begin = 0;
  #end = 0;

  readonly #used: Block[] = [];
  readonly #underWay: Block[] = [];
  readonly #spare: Block[] = [];
  #batchUnderWay = false;

  /** Bytes queued and not yet taken. */
  get pendingBytes(): number {
    return this.#pieceBytes + this.#end - this.#begin;
  }

  /** Makes room for `sizeBytes` contiguous bytes in `view` and `bytes`; returns where they begin. */
  claim(sizeBytes: number): number {
    assert(sizeBytes <= outputBlockBytes, "claim exceeds a block");
    if (this.#block === undefined || this.#end + sizeBytes > outputBlockBytes) this.#nextBlock();
    const at = this.#end;
    this.#end += sizeBytes;
    return at;
  }

  /** The block of the last `claim`, for its header fields. */
  get view(): DataView {
    return this.#current().view;
  }

  /** The block of the last `claim`, for its bytes. */
  get bytes(): Uint8Array {
    return this.#current().bytes;
  }

  /**
   * Queues a payload. It may be queued by reference, so it must stay untouched until the batch it goes into has been
   * written; a mapped segment must be sent before the event loop's next turn.
   */
  append(payload: Piece): void {
    if (!(payload instanceof Uint8Array)) {
      this.#closePiece();
      this.#pieces.push(payload);
      this.#pieceBytes += payload.lengthBytes;
    } else if (payload.length < referenceMinBytes) {
      const at = this.claim(payload.length);
      this.#current().bytes.set(payload, at);
    } else {
      this.#closePiece();
      this.#pieces.push(payload);
      this.#pieceBytes += payload.length;
    }
  }

  /** Takes everything queued, to be written in order. Empty if nothing is; else `recycle` must follow the write. */
  take(): readonly Piece[] {
    assert(!this.#batchUnderWay, "output taken while a batch is under way");
    if (this.pendingBytes === 0) return noPieces;
    this.#closePiece();
    const batch = this.#pieces;
    this.#pieces = [];
    this.#pieceBytes = 0;
    if (this.#block !== undefined) this.#used.push(this.#block);
    this.#block = undefined;
    this.#begin = this.#end = 0;
    for (let block = this.#used.pop(); block !== undefined; block = this.#used.pop()) {
      this.#underWay.push(block);
    }
    this.#batchUnderWay = true;
    return batch;
  }

  /** The batch has been written (or the client is gone): its blocks may be filled again. */
  recycle(): void {
    assert(this.#batchUnderWay, "no batch is under way");
    this.#batchUnderWay = false;
    for (let block = this.#underWay.pop(); block !== undefined; block = this.#underWay.pop()) {
      if (this.#spare.length < spareOutputBlocksMax) this.#spare.push(block);
    }
  }

  #current(): Block {
    assert(this.#block !== undefined, "no block is claimed from");
    return this.#block;
  }

  #nextBlock(): void {
    this.#closePiece();
    if (this.#block !== undefined) this.#used.push(this.#block);
    this.#block = this.#spare.pop() ?? new Block();
    this.#begin = this.#end = 0;
  }

  #closePiece(): void {
    if (this.#end === this.#begin) return;
    this.#pieces.push(this.#current().bytes.subarray(this.#begin, this.#end));
    this.#pieceBytes += this.#end - this.#begin;
    this.#begin = this.#end;
  }
}

const noPieces: readonly Piece[] = [];
