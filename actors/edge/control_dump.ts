/** The answer of the control server to a dump (control_server.ts). */
import type { ServerResponse } from "node:http";
import type { AdminResult, TextTaken } from "../control/admin_command.ts";
import type { ControlClient } from "./control_clients.ts";

/** The pieces as the client takes them, each written when the one before has been taken. */
export class DumpAnswer {
  readonly #client: ControlClient;
  readonly #response: ServerResponse;

  constructor(client: ControlClient, response: ServerResponse) {
    this.#client = client;
    this.#response = response;
  }

  /** Resolves when the piece was taken, or when the client has gone. */
  write(text: string): Promise<TextTaken> {
    const { stream } = this.#client;
    const { promise, resolve } = Promise.withResolvers<TextTaken>();
    if (stream.destroyed) {
      resolve("gone");
      return promise;
    }
    if (!this.#response.headersSent) {
      this.#response.writeHead(200, { "content-type": "application/x-ndjson", "connection": "close" });
    }
    const timer = setTimeout(() => this.#client.close(), this.#client.times.dumpPieceMs);
    const finish = (taken: TextTaken) => {
      clearTimeout(timer);
      stream.off("close", lost);
      resolve(taken);
    };
    const lost = () => finish("gone");
    stream.once("close", lost);
    this.#response.write(`${JSON.stringify({ text })}\n`, (error) => finish(error ? "gone" : "taken"));
    return promise;
  }

  end(result: AdminResult): void {
    if (!this.#response.headersSent) {
      this.#response.writeHead(200, { "content-type": "application/x-ndjson", "connection": "close" });
    }
    this.#response.end(`${JSON.stringify(result)}\n`);
    this.#client.answered();
  }
}
