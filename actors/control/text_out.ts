/**
 * TextOut: sends a long text out of the process, a piece at a time.
 *
 * Owns: the port to the reader, and the one piece under way. The writer waits until the reader has taken it, so the text may
 * be larger than memory.
 *
 * Failure policy: a reader that has gone is an answer.
 */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import type { Actor, Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";
import type { TextTaken } from "./admin_command.ts";

/** Where a text goes. Calls `done` once for each piece, later, never from inside the call. */
export interface TextPort {
  write(text: string, done: (taken: TextTaken) => void): void;
}

/** Pass a piece on; answered when the reader wants the next. */
export interface WriteText extends Request<TextTaken> {
  readonly type: "writeText";
  readonly text: string;
}

/** From the edge: what became of the piece. */
export interface TextCompleted extends Message {
  readonly type: "completed";
  readonly taken: TextTaken;
}

/** Nothing more will be written. */
export interface EndText extends Message {
  readonly type: "endText";
}

export type TextOutMessage = WriteText | TextCompleted | EndText;

/** Writes a piece and waits until it is taken. */
export function* sendText(out: Address<TextOutMessage>, text: string): Steps<TextTaken> {
  const request: WriteText = { type: "writeText", replyTo: unasked, text };
  return yield* ask(out, request);
}

export class TextOut implements Actor<TextOutMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<TextOutMessage>;
  readonly #port: TextPort;
  #pending: WriteText | undefined;

  constructor(kernel: Kernel, self: Address<TextOutMessage>, port: TextPort) {
    this.#kernel = kernel;
    this.#self = self;
    this.#port = port;
  }

  receive(message: TextOutMessage): void {
    switch (message.type) {
      case "writeText":
        assert(this.#pending === undefined, "two pieces of a text at once");
        this.#pending = message;
        return this.#write(message.text);
      case "completed": {
        const pending = present(this.#pending, "a piece was completed that was not written");
        this.#pending = undefined;
        return this.#kernel.reply(pending, message.taken);
      }
      case "endText":
        return this.#kernel.retire(this.#self);
      default:
        return unreachable(message);
    }
  }

  #write(text: string): void {
    const done = (taken: TextTaken) => this.#kernel.post(this.#self, { type: "completed", taken });
    try {
      this.#port.write(text, done);
    } catch (error) {
      // The writer stops for any reason in the same way.
      reasonOutside(error);
      done("gone");
    }
  }
}
