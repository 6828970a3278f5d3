/** A text's way out to a function that takes it a piece at a time (text_out.ts): whatever it does is an answer. */
import type { TextPort, TextTaken } from "../control/text_out.ts";
import { callOutside } from "./outside.ts";

/** See the head of this file. */
export class TextWriter implements TextPort {
  readonly #write: (text: string) => Promise<TextTaken>;
  #failure: { readonly error: unknown } | undefined;

  /** @param write resolves when the piece is taken, or when nothing more will be */
  constructor(write: (text: string) => Promise<TextTaken>) {
    this.#write = write;
  }

  write(text: string, done: (taken: TextTaken) => void): void {
    const call = async () => {
      try {
        return await this.#write(text);
      } catch (error) {
        // Not the kernel's to know: it is thrown to the caller, whose function this is.
        this.#failure ??= { error };
        return "gone";
      }
    };
    callOutside(call, (taken) => done(taken === "gone" ? "gone" : "taken"), () => done("gone"));
  }

  /** Throws what the function threw, if it did. */
  throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
