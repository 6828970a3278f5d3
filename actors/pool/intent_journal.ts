/**
 * The intent journal: what a killed process has to leave behind so that no acknowledged change of mappings is lost.
 *
 * The metadata actor appends a record in the turn in which it has done the change. Records are collected, and `writeOut` gives
 * them to the file with one write, without a sync. Whatever sends bytes to a client calls it first (`SocketPort.send`): so what
 * a client was told is in the host's page cache, which outlives the process. The bytes themselves are there already, as the
 * data device has accepted them before their mapping was made.
 *
 * Two segments. A record belongs to the transaction in which it was done, and a segment to one transaction. A freeze begins
 * the other segment. The steps, and what an open finds if we stop after each:
 *
 *  1. What is collected is written to the segment of the frozen transaction. An open with the old superblock replays it. It
 *     comes first, so that no record of the next segment stands behind a record that is missing.
 *  2. The header of the other segment is written. An open with the old superblock replays the first segment, and nothing more,
 *     as the other has no records; with the new one (written later, by the commit) it finds that this one builds on it.
 *  3. Records go to the other segment. An open with the old superblock replays both, since the header names what it follows;
 *     with the new superblock only this one.
 *
 * Step 2 overwrites the records of the transaction before, whose superblock is durable: one commit at a time.
 *
 * `start` has these steps, on the superblock that was read, of which no older record is needed any more:
 *
 *  1. Both segment headers are erased. If we stop after it, nothing is replayed. This comes before the header of the file: the
 *     old segments may be from before a power cut, and would be believed with the boot id of today.
 *  2. The header of the file is written, and is not void. If we stop after it, nothing is replayed.
 *  3. The header of segment 0 is written, and records follow.
 *
 * Failure policy: after a failure of a device or of the file itself the journal is void, before the failure is answered. Its
 * header says so; if that cannot be written, the file is removed. It stays void until the pool is opened again. The pool goes on:
 * what was flushed is durable, as without a journal.
 *
 * Between the end of a flush that failed and that mark there is an instant in which no client has heard of the failure. If the
 * process is killed in it, the journal is believed. Lost metadata is written again by the replay, or noticed by its superblock
 * (edge/disk_state.ts). But a replayed change may lead to data that the flush has lost; nothing in the journal tells.
 */
import { assert } from "../../storage/base/assert.ts";
import type { IntentBinding, IntentPort } from "../../storage/device/intent_port.ts";
import { type IoResult, reasonOfIo } from "../../storage/device/port.ts";
import {
  baseOf,
  intentHeaderBytes,
  packFileHeader,
  packSegmentHeader,
} from "../../storage/intent_headers.ts";
import { intentFileBytes, recordsPerSegment, segmentBegin } from "../../storage/intent_read.ts";
import { type Intent, IntentBuffer, intentRecordBytes, packIntent } from "../../storage/intent_record.ts";
import { intentPlacesKept, intentsCollectedMax } from "../limits.ts";
import type { DeviceRequest } from "./device_messages.ts";

/** Whether changes are recorded, and if not, why. "none": they never were since the pool was opened. */
export interface IntentState {
  readonly kind: "kept" | "none" | "void";
  readonly reason: string | null;
  /** Changes that an earlier process has left and that are not committed: the pool is open read-only. */
  readonly waiting: number;
}

/** What the journal is made with. */
export interface IntentParts {
  readonly port: IntentPort;
  readonly binding: IntentBinding;
  /** Bytes of one segment, its header included. */
  readonly segmentBytes: number;
  /** One sentence for the operator. */
  log(sentence: string): void;
}

/** See the head of this file. */
export class IntentJournal {
  readonly #parts: IntentParts | undefined;
  #state: IntentState;
  readonly #collected = new IntentBuffer(intentsCollectedMax);
  #collectedBytes = 0;
  readonly #recordsMax: number;
  #segment: 0 | 1 = 0;
  #generation = 0n;
  /** Records of the current segment, collected ones included. */
  #records = 0;
  /** A transaction is frozen, and its superblock is not durable. */
  #isCommitting = false;
  #isStarted = false;

  /**
   * @param parts why no journal is kept (null: the pool is open read-only), or what it is made with
   * @param waiting changes that an earlier process has left and that stay in the file
   */
  constructor(parts: IntentParts | string | null, waiting = 0) {
    const isKept = parts !== null && typeof parts !== "string";
    this.#parts = isKept ? parts : undefined;
    this.#recordsMax = isKept ? recordsPerSegment(parts.segmentBytes) : 0;
    assert(!isKept || this.#recordsMax > intentPlacesKept, "a segment has room for records");
    assert(!isKept || waiting === 0, "a journal begins when nothing waits in its file");
    this.#state = isKept ? { kind: "kept", reason: null, waiting } : { kind: "none", reason: parts, waiting };
  }

  get state(): IntentState {
    return this.#state;
  }

  /** Bytes of the file. */
  get fileBytes(): number {
    return this.#parts === undefined ? 0 : intentFileBytes(this.#parts.segmentBytes);
  }

  /** The next change of mappings has to wait for a commit. One that is under way may still be recorded. */
  get isFull(): boolean {
    return this.#isKept && this.#records >= this.#recordsMax - intentPlacesKept;
  }

  /** A commit should begin, so that no change has to wait. */
  get isHalfFull(): boolean {
    return this.#isKept && this.#records >= this.#recordsMax / 2;
  }

  get #isKept(): boolean {
    return this.#isStarted && this.#state.kind === "kept";
  }

  /** The metadata is loaded, and what was replayed is durable. */
  start(superblock: Uint8Array): void {
    const parts = this.#parts;
    if (parts === undefined) return;
    assert(!this.#isStarted, "an intent journal is started once");
    this.#isStarted = true;
    this.#segment = 1;
    const { segmentBytes, binding } = parts;
    const nothing = new Uint8Array(intentHeaderBytes);
    const isWritten = this.#write(nothing, segmentBegin(0, segmentBytes)) &&
      this.#write(nothing, segmentBegin(1, segmentBytes)) &&
      this.#write(packFileHeader({ isVoid: false, segmentBytes, binding }), 0);
    if (isWritten) this.#begin(superblock);
  }

  /** The change was done, and is not answered yet. */
  append(intent: Intent): void {
    if (!this.#isKept) return;
    assert(this.#records < this.#recordsMax, "a change was done that the intent journal has no room for");
    if (this.#collectedBytes === this.#collected.bytes.length) this.writeOut();
    const place = { generation: this.#generation, sequence: this.#records };
    packIntent(this.#collected, this.#collectedBytes, intent, place);
    this.#collectedBytes += intentRecordBytes;
    this.#records += 1;
  }

  /** To be called before any byte goes to a client. */
  writeOut(): void {
    if (this.#collectedBytes > 0) this.#writeCollected();
  }

  #writeCollected(): void {
    const bytes = this.#collected.bytes.subarray(0, this.#collectedBytes);
    const endBytes = intentHeaderBytes + this.#records * intentRecordBytes;
    this.#collectedBytes = 0;
    if (!this.#isKept || this.#parts === undefined) return;
    this.#write(bytes, segmentBegin(this.#segment, this.#parts.segmentBytes) + endBytes - bytes.length);
  }

  /** The transaction is frozen; `superblock` is the one that its commit will write. */
  freeze(superblock: Uint8Array): void {
    assert(!this.#isCommitting, "a segment was given up whose transaction is not durable");
    this.#isCommitting = true;
    this.writeOut();
    if (this.#isKept) this.#begin(superblock);
  }

  /** The superblock of the frozen transaction is durable. */
  durable(): void {
    assert(this.#isCommitting, "a transaction became durable that was not frozen");
    this.#isCommitting = false;
  }

  /** Begins the other segment, on a superblock. */
  #begin(superblock: Uint8Array): void {
    const { port, segmentBytes } = this.#parts!;
    const follows = this.#isCommitting ? { generation: this.#generation, records: this.#records } : undefined;
    this.#segment = this.#segment === 0 ? 1 : 0;
    this.#generation = port.newGeneration();
    this.#records = 0;
    const header = packSegmentHeader({ generation: this.#generation, follows, base: baseOf(superblock) });
    this.#write(header, segmentBegin(this.#segment, segmentBytes));
  }

  /** A device has failed, or a commit: what is recorded may name bytes that are lost. To be called before that is answered. */
  fail(reason: string): void {
    const parts = this.#parts;
    if (parts === undefined || this.#state.kind === "void") return;
    this.#state = { kind: "void", reason, waiting: 0 };
    this.#collectedBytes = 0;
    const { segmentBytes, binding } = parts;
    const marked = parts.port.write(packFileHeader({ isVoid: true, segmentBytes, binding }), 0);
    const removed = marked.kind === "ok" ? marked : parts.port.remove();
    const isStuck = removed.kind !== "ok";
    parts.log(
      `The intent journal is void: ${reason}. Until the pool is opened again, what no flush has made durable is lost if ` +
        `the server is killed.${
          isStuck ? ` It could not be removed (${reasonOfIo(removed)}): remove it by hand.` : ""
        }`,
    );
  }

  /** Nothing is open any more. Records of a transaction that is not durable stay for the next open. */
  end(): void {
    const parts = this.#parts;
    if (!this.#isKept || parts === undefined || this.#isCommitting || this.#records > 0) return;
    const nothing = new Uint8Array(intentHeaderBytes);
    this.#write(nothing, segmentBegin(0, parts.segmentBytes));
    this.#write(nothing, segmentBegin(1, parts.segmentBytes));
  }

  #write(bytes: Uint8Array, offsetBytes: number): boolean {
    const result = this.#parts!.port.write(bytes, offsetBytes);
    if (result.kind === "ok") return true;
    this.fail(`writing it failed: ${reasonOfIo(result)}`);
    return false;
  }
}

/**
 * Whether an operation that failed may have lost something that was written before, or overwrote half of it. A full host loses
 * nothing that it has taken, but for what a flush was to store.
 */
export function losesWrites({ type }: DeviceRequest, result: IoResult): boolean {
  if (type === "flush") return true;
  if (type === "read" || type === "discard" || result.kind !== "ioError") return false;
  return result.isOfSource !== true;
}
