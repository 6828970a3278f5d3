/**
 * CatalogueJournal: the journal of the catalogue on the host's file system.
 *
 * Owns: the port to the files. A line is durable when its append is answered. The lines and their meaning belong to the pool
 * (storage/catalogue.ts). A journal that has become long is rewritten as one line, in pieces.
 *
 * Failure policy: an I/O error is an answer; a line that could not be appended is not in the file.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import type { IoDone, IoResult } from "../../storage/device/port.ts";
import type { LineRoom } from "./catalogue_room.ts";
import type { Actor, Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";

/** Changing the journal; `done` is called once, later, never from inside the call. One operation at a time. */
export interface JournalPort {
  /**
   * Appends a line; it is durable when the answer is ok, and not in the file if it is anything else. Answers noSpace if
   * the line does not leave the room that it must.
   */
  append(line: string, room: LineRoom, done: IoDone): void;
  /** Takes the last appended line back, durably, for a change that will not be committed. */
  retract(done: IoDone): void;
  /** Whether the journal is long enough to be rewritten, for a catalogue of so many bytes. */
  isLong(contentBytes: number): boolean;
  /** Writes a piece of a new journal beside this one; `isFirst`: the new journal begins with this piece. */
  rewrite(piece: string, isFirst: boolean, done: IoDone): void;
  /** Replaces the journal by the new one, durably; the journal is unchanged if the answer is not ok. */
  finishRewrite(contentBytes: number, done: IoDone): void;
}

/** Append a line, durably. */
export interface AppendLine extends Request<Appended> {
  readonly type: "appendLine";
  readonly line: string;
  readonly room: LineRoom;
}

/** How appending ended, and whether the journal is to be rewritten. */
export interface Appended {
  readonly result: IoResult;
  readonly isLong: boolean;
}

/** Take back the last line appended, durably. */
export interface RetractLine extends Request<IoResult> {
  readonly type: "retractLine";
}

/** Write a piece of the journal that is to replace this one. */
export interface RewritePiece extends Request<IoResult> {
  readonly type: "rewritePiece";
  readonly piece: string;
  readonly isFirst: boolean;
}

/** Replace the journal by what was written. */
export interface FinishRewrite extends Request<IoResult> {
  readonly type: "finishRewrite";
  readonly contentBytes: number;
}

/** From the edge: the operation has ended. */
export interface JournalCompleted extends Message {
  readonly type: "completed";
  readonly result: IoResult;
}

type JournalRequest = AppendLine | RetractLine | RewritePiece | FinishRewrite;

export type CatalogueJournalMessage = JournalRequest | JournalCompleted;

/** The stubs of the catalogue's journal. */
export class JournalStub {
  constructor(readonly address: Address<CatalogueJournalMessage>) {}

  append(line: string, room: LineRoom): Steps<Appended> {
    const request: AppendLine = { type: "appendLine", replyTo: unasked, line, room };
    return ask(this.address, request);
  }

  retract(): Steps<IoResult> {
    const request: RetractLine = { type: "retractLine", replyTo: unasked };
    return ask(this.address, request);
  }

  rewrite(piece: string, isFirst: boolean): Steps<IoResult> {
    const request: RewritePiece = { type: "rewritePiece", replyTo: unasked, piece, isFirst };
    return ask(this.address, request);
  }

  finishRewrite(contentBytes: number): Steps<IoResult> {
    const request: FinishRewrite = { type: "finishRewrite", replyTo: unasked, contentBytes };
    return ask(this.address, request);
  }
}

export class CatalogueJournal implements Actor<CatalogueJournalMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<CatalogueJournalMessage>;
  readonly #port: JournalPort;
  /** One request at a time: only the admin task in progress sends requests. */
  #pending: JournalRequest | undefined;

  constructor(kernel: Kernel, self: Address<CatalogueJournalMessage>, port: JournalPort) {
    this.#kernel = kernel;
    this.#self = self;
    this.#port = port;
  }

  receive(message: CatalogueJournalMessage): void {
    if (message.type === "completed") return this.#answer(message.result);
    assert(this.#pending === undefined, "one change of the catalogue at a time");
    this.#pending = message;
    const done: IoDone = (result) => this.#kernel.post(this.#self, { type: "completed", result });
    try {
      this.#call(message, done);
    } catch (error) {
      // Nothing else answers then.
      done({ kind: "ioError", reason: `the catalogue: ${reasonOutside(error)}` });
    }
  }

  #call(message: JournalRequest, done: IoDone): void {
    switch (message.type) {
      case "appendLine":
        return this.#port.append(message.line, message.room, done);
      case "retractLine":
        return this.#port.retract(done);
      case "rewritePiece":
        return this.#port.rewrite(message.piece, message.isFirst, done);
      case "finishRewrite":
        return this.#port.finishRewrite(message.contentBytes, done);
      default:
        return unreachable(message);
    }
  }

  #answer(result: IoResult): void {
    const pending = present(this.#pending, "the journal completed what nothing asked");
    this.#pending = undefined;
    if (result.kind === "ok") this.#kernel.count("journalBytes", bytesOf(pending));
    if (pending.type !== "appendLine") return this.#kernel.reply(pending, result);
    const isLong = result.kind === "ok" && this.#port.isLong(pending.room.contentBytes);
    this.#kernel.reply(pending, { result, isLong });
  }
}

/** Bytes that a request has added to the journal or to the one that replaces it. Lines are ASCII. */
function bytesOf(request: JournalRequest): number {
  switch (request.type) {
    case "appendLine":
      return request.line.length;
    case "rewritePiece":
      return request.piece.length;
    case "retractLine":
    case "finishRewrite":
      return 0;
    default:
      return unreachable(request);
  }
}
