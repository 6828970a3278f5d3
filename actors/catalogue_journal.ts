/**
 * CatalogueJournal: the journal of the catalogue on the host's file system.
 *
 * Owns: the port to the file. A line is durable when it is answered. The lines themselves, and what they mean, are
 * the pool's (storage/catalog.ts).
 *
 * Failure policy: an I/O error is an answer; a line that could not be appended is not there to be taken back.
 */
import { assert, present, unreachable } from "../storage/assert.ts";
import type { IoDone, IoResult } from "../storage/device/port.ts";
import type { Actor, Address, Message, Request } from "./kernel/address.ts";
import { unasked } from "./kernel/address.ts";
import type { Kernel } from "./kernel/kernel.ts";
import { ask, type Steps } from "./kernel/task.ts";

/** Appending and taking back; `done` is called once, later, never from inside the call. */
export interface JournalPort {
  /** Appends a line; it is durable when the answer is ok, and not in the file if it is anything else. */
  append(line: string, done: IoDone): void;
  /** Takes the last appended line back, durably, for a change that will not be committed. */
  retract(done: IoDone): void;
}

/** Append a line, durably. */
export interface AppendLine extends Request<IoResult> {
  readonly type: "appendLine";
  readonly line: string;
}

/** Take back the last line appended, durably. */
export interface RetractLine extends Request<IoResult> {
  readonly type: "retractLine";
}

/** From the edge: the operation has ended. */
export interface JournalCompleted extends Message {
  readonly type: "completed";
  readonly result: IoResult;
}

export type CatalogueJournalMessage = AppendLine | RetractLine | JournalCompleted;

/** The stubs of the catalogue's journal. */
export class JournalStub {
  constructor(readonly address: Address<CatalogueJournalMessage>) {}

  append(line: string): Steps<IoResult> {
    const request: AppendLine = { type: "appendLine", replyTo: unasked, line };
    return ask(this.address, request);
  }

  retract(): Steps<IoResult> {
    const request: RetractLine = { type: "retractLine", replyTo: unasked };
    return ask(this.address, request);
  }
}

export class CatalogueJournal implements Actor<CatalogueJournalMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<CatalogueJournalMessage>;
  readonly #port: JournalPort;
  /** One at a time: only the one admin task in progress asks. */
  #pending: AppendLine | RetractLine | undefined;

  constructor(kernel: Kernel, self: Address<CatalogueJournalMessage>, port: JournalPort) {
    this.#kernel = kernel;
    this.#self = self;
    this.#port = port;
  }

  receive(message: CatalogueJournalMessage): void {
    switch (message.type) {
      case "appendLine":
        this.#begin(message);
        return this.#port.append(message.line, (result) => this.#completed(result));
      case "retractLine":
        this.#begin(message);
        return this.#port.retract((result) => this.#completed(result));
      case "completed": {
        const pending = present(this.#pending, "the journal completed what nobody asked");
        this.#pending = undefined;
        return this.#kernel.reply(pending, message.result);
      }
      default:
        return unreachable(message);
    }
  }

  #begin(request: AppendLine | RetractLine): void {
    assert(this.#pending === undefined, "one change of the catalogue at a time");
    this.#pending = request;
  }

  #completed(result: IoResult): void {
    this.#kernel.post(this.#self, { type: "completed", result });
  }
}
