/** What a file does in pieces of `filePieceBytes`: zeroes that are written, and copies. */
import { type IoDone, ioOk, type IoResult } from "../../storage/device/port.ts";
import { filePieceBytes } from "../limits.ts";
import type { FileReads } from "./file_reads.ts";

/** Does one piece of an operation; `begin` is relative to the operation's first byte. */
export type OperatePiece = (beginBytes: number, lengthBytes: number, done: IoDone) => IoResult | "pending";

/** What a copy reads and writes with. */
export interface PieceParts {
  readonly reads: FileReads;
  readonly readLater: (buffer: Uint8Array, offsetBytes: number, done: IoDone) => "pending";
  /** `isBorrowed`: the buffer is used for something else after the call. */
  readonly write: (
    buffer: Uint8Array,
    offsetBytes: number,
    done: IoDone,
    isBorrowed?: boolean,
  ) => IoResult | "pending";
}

/** See the head of this file. The ranges lie inside the file. */
export class FilePieces {
  readonly #parts: PieceParts;
  #piece: Uint8Array | undefined;
  #zeroes: Uint8Array | undefined;

  constructor(parts: PieceParts) {
    this.#parts = parts;
  }

  writeZeroes(offsetBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    const zeroes = this.#zeroes ??= new Uint8Array(filePieceBytes);
    return inPieces(
      lengthBytes,
      done,
      (begin, length, done) => this.#parts.write(zeroes.subarray(0, length), offsetBytes + begin, done),
    );
  }

  /** The ranges may not overlap. */
  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    return inPieces(
      lengthBytes,
      done,
      (begin, length, done) => this.#copyPiece(fromBytes + begin, toBytes + begin, length, done),
    );
  }

  #copyPiece(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): IoResult | "pending" {
    const { reads, readLater, write } = this.#parts;
    this.#piece ??= new Uint8Array(filePieceBytes);
    const piece = this.#piece.subarray(0, lengthBytes);
    const cached = reads.readCached(piece, fromBytes);
    if (cached !== undefined) {
      return cached.kind === "ok" ? write(piece, toBytes, done, true) : ofSource(cached);
    }
    // `#piece` is shared by all copies. A copy that waits for the disk gets a buffer of its own.
    const own = new Uint8Array(lengthBytes);
    return readLater(own, fromBytes, (read) => {
      const written = read.kind === "ok" ? write(own, toBytes, done) : ofSource(read);
      if (written !== "pending") done(written);
    });
  }
}

/** Does pieces of a range, one after the other until one fails. `done` is called if one of them answers later. */
function inPieces(
  lengthBytes: number,
  done: IoDone,
  operate: OperatePiece,
  firstBytes = 0,
): IoResult | "pending" {
  for (let begin = firstBytes; begin < lengthBytes; begin += filePieceBytes) {
    const result = operate(begin, Math.min(filePieceBytes, lengthBytes - begin), (result) => {
      const rest = result.kind === "ok"
        ? inPieces(lengthBytes, done, operate, begin + filePieceBytes)
        : result;
      if (rest !== "pending") done(rest);
    });
    if (result === "pending" || result.kind !== "ok") return result;
  }
  return ioOk;
}

/** The failure of a copy that could not read its source. */
export function ofSource(read: IoResult): IoResult {
  return read.kind === "ioError" ? { ...read, isOfSource: true } : read;
}
