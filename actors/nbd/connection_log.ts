/** What the log is told of one client. */
import { quoted } from "./wire/option.ts";
import type { LogPort, SocketPort } from "./socket_port.ts";

/** See the head of this file. The client's name is the socket's, which is longer once it has shown a certificate. */
export class ConnectionLog {
  readonly #log: LogPort;
  readonly #socket: Pick<SocketPort, "peer" | "only">;

  constructor(log: LogPort, socket: Pick<SocketPort, "peer" | "only">) {
    this.#log = log;
    this.#socket = socket;
  }

  /**
   * Not of the clients of a private socket: the program that it was opened for (`run`) connects as often as it likes.
   * @param what the export and how it is used, as words
   */
  attached(what: string, isSecured: boolean): void {
    if (this.#socket.only !== undefined) return;
    this.#log(`${this.#socket.peer} attached to ${what}${isSecured ? ", TLS" : ""}`);
  }

  /** It detached from the export of this name. */
  left(name: string): void {
    if (this.#socket.only !== undefined) return;
    this.#log(`${this.#socket.peer} left ${quoted(name)}`);
  }

  /** The connection broke. */
  lost(reason: string): void {
    this.#log(`lost ${this.#socket.peer}: ${reason}`);
  }

  /** The server ends the connection. */
  closing(reason: string): void {
    this.#log(`closing the connection from ${this.#socket.peer}: ${reason}`);
  }

  /** The client wanted what needs TLS in clear text, and nothing else. */
  refusedClearText(): void {
    this.#log(`refused ${this.#socket.peer}: it did not ask for TLS`);
  }
}
