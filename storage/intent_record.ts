/** The records of the intent journal: one change of mappings each, 48 bytes. See FORMAT.md, "The intent journal". */
import { crc32c } from "./format/crc32c.ts";
import {
  exactNumberEnd,
  readOpaqueU64,
  readU32,
  readU64,
  viewOf,
  writeOpaqueU64,
  writeU32,
  writeU64,
} from "./format/fields.ts";
import { type DBlock, dblock, type ThinId, thinId, thinIdMax, type VBlock, vblock } from "./base/ids.ts";

/** A vblock was mapped to a data block that had no reference; `replaced` is what it was mapped to before. */
export interface InsertIntent {
  readonly kind: "insert";
  readonly thin: ThinId;
  readonly vblock: VBlock;
  readonly dblock: DBlock;
  readonly replaced: DBlock | undefined;
}

/** All mappings in `[begin, end)` were removed. */
export interface RemoveIntent {
  readonly kind: "remove";
  readonly thin: ThinId;
  readonly begin: VBlock;
  readonly end: VBlock;
}

/** One change of mappings, as metadata did it. */
export type Intent = InsertIntent | RemoveIntent;

/** Bytes of a record. */
export const intentRecordBytes = 48;

const kindInsert = 1;
const kindRemove = 2;
/** In place of a data block: the vblock was not mapped. */
const noneHalf = 0xffff_ffff;

/** Where records stand: each carries both, so that what an earlier use of the segment left does not follow. */
export interface IntentPlace {
  readonly generation: bigint;
  /** The number of records before it in its segment. */
  readonly sequence: number;
}

/**
 * A buffer for records. Every first write of a block packs one, and making a view takes longer than packing: so there is one
 * view for the whole buffer.
 */
export class IntentBuffer {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(recordsMax: number) {
    this.bytes = new Uint8Array(recordsMax * intentRecordBytes);
    this.view = viewOf(this.bytes);
  }
}

/** Writes the record to bytes `[at, at + 48)` of the buffer. */
export function packIntent(
  { bytes, view }: IntentBuffer,
  at: number,
  intent: Intent,
  place: IntentPlace,
): void {
  writeOpaqueU64(view, at + 8, place.generation);
  writeU32(view, at + 16, place.sequence);
  writeU32(view, at + 20, intent.thin);
  if (intent.kind === "insert") {
    writeU32(view, at + 4, kindInsert);
    writeU64(view, at + 24, intent.vblock);
    writeU64(view, at + 32, intent.dblock);
    if (intent.replaced === undefined) {
      writeU32(view, at + 40, noneHalf);
      writeU32(view, at + 44, noneHalf);
    } else writeU64(view, at + 40, intent.replaced);
  } else {
    writeU32(view, at + 4, kindRemove);
    writeU64(view, at + 24, intent.begin);
    writeU64(view, at + 32, intent.end);
    writeU64(view, at + 40, 0);
  }
  writeU32(view, at, crc32c(bytes, at + 4, at + intentRecordBytes));
}

/** The record at `at`; undefined if it is not whole, or does not stand in this place. */
export function unpackIntent(bytes: Uint8Array, at: number, place: IntentPlace): Intent | undefined {
  if (at + intentRecordBytes > bytes.length) return undefined;
  const view = viewOf(bytes.subarray(at, at + intentRecordBytes));
  if (readU32(view, 0) !== crc32c(bytes, at + 4, at + intentRecordBytes)) return undefined;
  if (readOpaqueU64(view, 8) !== place.generation || readU32(view, 16) !== place.sequence) return undefined;
  const thin = readU32(view, 20);
  const [first, second] = [readU64(view, 24), readU64(view, 32)];
  if (thin > thinIdMax || first >= exactNumberEnd || second >= exactNumberEnd) return undefined;
  switch (readU32(view, 4)) {
    case kindInsert: {
      const isNone = readU32(view, 40) === noneHalf && readU32(view, 44) === noneHalf;
      const replaced = isNone ? undefined : dblock(readU64(view, 40));
      return {
        kind: "insert",
        thin: thinId(thin),
        vblock: vblock(first),
        dblock: dblock(second),
        replaced,
      };
    }
    case kindRemove:
      if (first >= second) return undefined;
      return { kind: "remove", thin: thinId(thin), begin: vblock(first), end: vblock(second) };
    default:
      return undefined;
  }
}
