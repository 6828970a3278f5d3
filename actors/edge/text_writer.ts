/** Gives a text to a function of the caller, a piece at a time, as a `TextPort` (control/text_out.ts). An exception of the function is an answer too. */
import type { TextTaken } from "../control/admin_command.ts";
import { callOutside } from "./outside.ts";

/** See the head of this file. */
export class TextWriter {
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
        // The function is the caller's: its exception goes to the caller, not into the kernel.
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
