/** What is sent in one go: bytes of ours, and mapped segments of a device, in order. */
import type { MappedSegment } from "../../../storage/device/port.ts";

/** Bytes to be sent: ours, or a device's that are sent from where they lie. */
export type Piece = Uint8Array | MappedSegment;

/** Bytes of a piece. */
export function lengthOf(piece: Piece): number {
  return piece instanceof Uint8Array ? piece.length : piece.lengthBytes;
}

/** Where memory for copies is from. */
export interface CopyMemory {
  takeCopy(lengthBytes: number): Uint8Array;
}

/** What is left of the pieces after so many bytes, with mapped segments as they are now. Throws if that cannot be read. */
export function copied(
  pieces: readonly Piece[],
  doneBytes: number,
  memory?: CopyMemory,
): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let skipBytes = doneBytes;
  for (const piece of pieces) {
    const lengthBytes = lengthOf(piece);
    const beginBytes = Math.min(skipBytes, lengthBytes);
    skipBytes -= beginBytes;
    if (beginBytes === lengthBytes) continue;
    if (piece instanceof Uint8Array) {
      rest.push(beginBytes === 0 ? piece : piece.subarray(beginBytes));
    } else {
      const restBytes = lengthBytes - beginBytes;
      const bytes = memory?.takeCopy(restBytes) ?? new Uint8Array(restBytes);
      const result = piece.copyTo(bytes, beginBytes);
      // A part of the reply has been sent, so an error reply is no longer possible: the stream ends.
      if (result.kind !== "ok") throw new Error("what was to be sent could not be read");
      rest.push(bytes);
    }
  }
  return rest;
}
