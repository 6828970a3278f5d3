/**
 * Which records of an intent journal are replayed: those that the last superblock does not have. See FORMAT.md, "The intent
 * journal".
 */
import { metadataBlockSizeBytes } from "./base/ids.ts";
import type { IntentBinding } from "./device/intent_port.ts";
import {
  areSameBytes,
  baseOf,
  intentHeaderBytes,
  type SegmentHeader,
  unpackFileHeader,
  unpackSegmentHeader,
} from "./intent_headers.ts";
import { type Intent, intentRecordBytes, unpackIntent } from "./intent_record.ts";

/** Where the parts of the file are, given the bytes of one segment. */
export function segmentBegin(segment: 0 | 1, segmentBytes: number): number {
  return intentHeaderBytes + segment * segmentBytes;
}

/** Records that fit in one segment. */
export function recordsPerSegment(segmentBytes: number): number {
  return Math.floor((segmentBytes - intentHeaderBytes) / intentRecordBytes);
}

/** Bytes of the whole file. */
export function intentFileBytes(segmentBytes: number): number {
  return segmentBegin(1, segmentBytes) + segmentBytes;
}

/**
 * What a file says. "newer": it must not be overwritten. "none": nothing of it is to be replayed; `why` says so for a person
 * where that is worth a word.
 */
export type IntentsFound =
  | { readonly kind: "none"; readonly why?: string }
  | { readonly kind: "newer"; readonly format: number }
  | { readonly kind: "found"; readonly intents: readonly Intent[] };

const none: IntentsFound = { kind: "none" };

/**
 * The records to replay on this superblock, in order.
 *
 * @param bytes the whole file; empty if there is none
 * @param binding of this host and these devices; undefined if the boot id is not known
 * @param superblock as it was read from the metadata device
 */
export function findIntents(
  bytes: Uint8Array,
  binding: IntentBinding | undefined,
  superblock: Uint8Array,
): IntentsFound {
  const header = unpackFileHeader(bytes);
  if (header === undefined) return none;
  if (typeof header === "number") return { kind: "newer", format: header };
  // After another boot the page cache is another one: what was flushed is what counts.
  if (binding === undefined || header.binding.bootId !== binding.bootId) return none;
  const { segmentBytes } = header;
  const hasSegments = segmentBytes >= intentHeaderBytes + intentRecordBytes &&
    intentFileBytes(segmentBytes) <= bytes.length;
  if (!hasSegments) return { kind: "none", why: "it is not whole" };
  const segments = [segmentOf(bytes, 0, segmentBytes), segmentOf(bytes, 1, segmentBytes)];
  const onIt = intentsOn(superblock, segments);
  const intents = onIt ?? [];
  const { data, metadata, file } = header.binding;
  if (data !== binding.data || metadata !== binding.metadata || file !== binding.file) {
    // A copy of a pool that was closed has a journal of other files too, and has lost nothing.
    if (intents.length === 0) return none;
    return { kind: "none", why: "it belongs to other files than those of this pool" };
  }
  if (header.isVoid) return { kind: "none", why: "a device had failed" };
  if (intents.length > 0) return { kind: "found", intents };
  // While a server runs, one of its segments builds on the superblock that is there. Without segment 0 a journal was being begun
  // or ended: that erases it first, when nothing of either segment is needed any more.
  return onIt === undefined && segments[0] !== undefined && hasRecords(segments)
    ? { kind: "none", why: ofAnotherState }
    : none;
}

/** The second is an open that was killed after the commit of its replay and before its own journal began. */
const ofAnotherState =
  "its changes are for another state of the metadata than the one that is there, because " +
  "another program has changed the pool since, or they have been replayed before";

function hasRecords(segments: readonly (Segment | undefined)[]): boolean {
  return segments.some((segment) => segment !== undefined && recordsOf(segment).length > 0);
}

interface Segment {
  readonly header: SegmentHeader;
  /** Its part of the file. */
  readonly bytes: Uint8Array;
}

function segmentOf(bytes: Uint8Array, segment: 0 | 1, segmentBytes: number): Segment | undefined {
  const begin = segmentBegin(segment, segmentBytes);
  const part = bytes.subarray(begin, begin + segmentBytes);
  const header = unpackSegmentHeader(part);
  return header === undefined ? undefined : { header, bytes: part };
}

/**
 * The segment whose transaction builds on the superblock, and then the one that follows it: its transaction began when the
 * first one's was frozen. If the superblock is that of the first one's transaction, only the second builds on it. Undefined if
 * no segment builds on the superblock.
 */
function intentsOn(superblock: Uint8Array, segments: readonly (Segment | undefined)[]): Intent[] | undefined {
  if (superblock.length !== metadataBlockSizeBytes) return undefined;
  const base = baseOf(superblock);
  const first = segments.find((segment) => segment !== undefined && areSameBytes(segment.header.base, base));
  if (first === undefined) return undefined;
  const intents = recordsOf(first);
  const second = segments.find((segment) => segment?.header.follows?.generation === first.header.generation);
  // With fewer records than the second counts on, its own would be changes of another state.
  if (second?.header.follows?.records !== intents.length) return intents;
  return intents.concat(recordsOf(second));
}

/** Up to the first that does not follow. */
function recordsOf({ header, bytes }: Segment): Intent[] {
  const intents: Intent[] = [];
  for (let at = intentHeaderBytes;; at += intentRecordBytes) {
    const place = { generation: header.generation, sequence: intents.length };
    const intent = unpackIntent(bytes, at, place);
    if (intent === undefined) return intents;
    intents.push(intent);
  }
}
