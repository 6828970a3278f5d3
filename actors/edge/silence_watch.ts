/**
 * Tells a server that works from one that is silent. A command may take as long as it needs, so its answer has no timeout of
 * its own: meanwhile the server is asked, on another connection, for a page that it does not have. It answers that without
 * the pool, so any answer says that the process runs.
 */
import { asksPerSilence } from "../knobs.ts";
import { ControlConnection } from "./control_request.ts";

/** See the head of this file. */
export class SilenceWatch {
  readonly #path: string;
  readonly #silenceMs: number;
  readonly #onSilence: () => void;
  readonly #timer: ReturnType<typeof setInterval> | undefined;
  #heardMs = performance.now();
  #isAsking = false;
  #connection: ControlConnection | undefined;
  #hasEnded = false;

  /** @param silenceMs when `onSilence` is called, once; 0: never */
  constructor(path: string, silenceMs: number, onSilence: () => void) {
    this.#path = path;
    this.#silenceMs = silenceMs;
    this.#onSilence = onSilence;
    if (silenceMs > 0) this.#timer = setInterval(() => this.#look(), silenceMs / asksPerSilence);
  }

  /** Ends it; `onSilence` is not called any more. */
  end(): void {
    this.#hasEnded = true;
    clearInterval(this.#timer);
    this.#connection?.[Symbol.dispose]();
  }

  #look(): void {
    if (performance.now() - this.#heardMs >= this.#silenceMs) {
      this.end();
      this.#onSilence();
    } else if (!this.#isAsking) void this.#ask();
  }

  async #ask(): Promise<void> {
    this.#isAsking = true;
    try {
      using connection = await ControlConnection.open(this.#path);
      this.#connection = connection;
      if (this.#hasEnded) return;
      // The first bytes are enough, and so is the end of a connection without any.
      await connection.answerTo({ method: "GET", target: "/", body: "" }).next();
      this.#heard();
    } catch {
      // A connection that is closed is a sign of life too; one that is refused is none.
      if (this.#connection !== undefined) this.#heard();
    } finally {
      this.#connection = undefined;
      this.#isAsking = false;
    }
  }

  #heard(): void {
    this.#heardMs = performance.now();
  }
}
