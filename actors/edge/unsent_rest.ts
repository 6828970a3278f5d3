/**
 * What has not been sent, of a send that did not go out at once. It holds the only reference to these bytes: what
 * {@linkcode UnsentRest.shrink} replaces is free at once.
 */
import { assert, present } from "../../storage/base/assert.ts";
import { copied } from "../nbd/wire/pieces.ts";
import { loanPieceBytes, sendCopyBytesMax } from "../limits.ts";

/** See the head of this file. */
export class UnsentRest {
  #rest: readonly Uint8Array[] = [];
  /** `shrink` was called; and what was not sent has been copied. */
  #isShrinking = false;
  #isShrunk = false;
  /** The system reads from the memory that `send` was given, not from a copy. */
  #isPinned = false;

  get isEmpty(): boolean {
    return this.#rest.length === 0;
  }

  get pieces(): readonly Uint8Array[] {
    return this.#rest;
  }

  get bytes(): number {
    let bytes = 0;
    for (const piece of this.#rest) bytes += piece.length;
    return bytes;
  }

  /** A send begins. */
  begin(pieces: readonly Uint8Array[]): void {
    assert(this.isEmpty, "a send begins before the one before has ended");
    this.#rest = pieces;
    this.#isShrinking = this.#isShrunk = false;
  }

  /** So many of the first bytes have been sent. */
  sent(bytes: number): void {
    this.#rest = copied(this.#rest, bytes);
  }

  /** The connection is lost. */
  clear(): void {
    this.#rest = [];
  }

  /** Without a copy, the system has the memory until it has sent a part. From then on it gets copies. */
  shrink(): boolean {
    this.#isShrinking = true;
    if (this.#isPinned) return false;
    if (!this.#isShrunk) this.#rest = this.#rest.flatMap(inPiecesOfItsOwn);
    this.#isShrunk = true;
    return true;
  }

  /**
   * What the system gets next. A copy, if direct calls send most bytes anyway, or if the stream takes no more at once (Node).
   * Else a copy is made only when memory is short: with copies, a large reply goes out in small parts.
   */
  next(isCopied: boolean): Uint8Array {
    const piece = present(this.#rest[0], "nothing is left to send");
    this.#isPinned = !this.#isShrinking && !isCopied;
    return this.#isPinned ? piece : piece.slice(0, sendCopyBytesMax);
  }
}

/** The same bytes in buffers of `loanPieceBytes`. */
function inPiecesOfItsOwn(bytes: Uint8Array): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += loanPieceBytes) pieces.push(bytes.slice(at, at + loanPieceBytes));
  return pieces;
}
