/**
 * Tells a server that works from one that is silent. A command may take as long as it needs, so its answer has no timeout of
 * its own: meanwhile the server is asked, on another connection, for a page that it does not have. It answers that without
 * the pool, so any answer says that the process runs.
 */
import http from "node:http";
import { asksPerSilence } from "../knobs.ts";

/** See the head of this file. */
export class SilenceWatch {
  readonly #path: string;
  readonly #silenceMs: number;
  readonly #onSilence: () => void;
  readonly #timer: ReturnType<typeof setInterval> | undefined;
  #heardMs = performance.now();
  #asking: http.ClientRequest | undefined;

  /** @param silenceMs when `onSilence` is called, once; 0: never */
  constructor(path: string, silenceMs: number, onSilence: () => void) {
    this.#path = path;
    this.#silenceMs = silenceMs;
    this.#onSilence = onSilence;
    if (silenceMs > 0) this.#timer = setInterval(() => this.#look(), silenceMs / asksPerSilence);
  }

  /** Ends it; `onSilence` is not called any more. */
  end(): void {
    clearInterval(this.#timer);
    this.#asking?.destroy();
  }

  #look(): void {
    if (performance.now() - this.#heardMs >= this.#silenceMs) {
      this.end();
      this.#onSilence();
    } else if (this.#asking === undefined) this.#ask();
  }

  #ask(): void {
    const request = http.request({ socketPath: this.#path, path: "/", agent: false }, (response) => {
      this.#heard();
      response.on("error", () => {});
      response.resume();
    });
    // A connection that is closed is a sign of life too; one that is refused is none.
    request.on("error", (error: Error & { code?: string }) => {
      if (error.code === "ECONNRESET") this.#heard();
    });
    request.on("close", () => this.#asking = undefined);
    request.end();
    this.#asking = request;
  }

  #heard(): void {
    this.#heardMs = performance.now();
  }
}
