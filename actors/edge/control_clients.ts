/**
 * The clients of the control socket: how many, and how long each may take for what.
 *
 *   asking     its request is on its way                     controlRequestMs
 *   running    its command is carried out                    no timeout; a dump's next piece is taken in stalledDumpMs
 *   answered   its answer is on its way                      controlAnswerMs
 *   leaving    its answer was sent, it may close its end     controlFarewellMs
 *
 * So a client that does nothing loses its place soon. When all places are taken, a new client gets the place of one that has no
 * running command. There is always such a client, because fewer commands run at once than there are places.
 */
import type { Duplex } from "node:stream";
import { STATUS_CODES } from "node:http";
import { assert } from "../../storage/base/assert.ts";
import { controlAnswerMs, controlFarewellMs, controlRequestMs, stalledDumpMs } from "../limits.ts";
import { ConnStream, type StreamConn } from "./conn_stream.ts";

/** How long a client may take, in milliseconds: see limits.ts. */
export interface ControlTimes {
  readonly requestMs: number;
  readonly answerMs: number;
  readonly dumpPieceMs: number;
  readonly farewellMs: number;
}

/** What holds unless a test says otherwise. */
export const controlTimes: ControlTimes = {
  requestMs: controlRequestMs,
  answerMs: controlAnswerMs,
  dumpPieceMs: stalledDumpMs,
  farewellMs: controlFarewellMs,
};

/** One connection. */
export class ControlClient {
  readonly stream: ConnStream;
  #state: "asking" | "running" | "answered" | "leaving" = "asking";
  #hasAsked = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param gone is called once, when the connection is closed */
  constructor(conn: StreamConn, readonly times: ControlTimes, gone: () => void) {
    this.stream = new ConnStream(conn);
    this.stream.on("finish", () => this.#leave());
    this.stream.on("close", () => {
      clearTimeout(this.#timer);
      gone();
    });
    this.#startTimeout(this.times.requestMs, () => this.#late());
  }

  /** Its command is carried out. */
  get isRunning(): boolean {
    return this.#state === "running";
  }

  /** It has given a command, and not taken the answer yet. */
  get isServed(): boolean {
    return this.#state === "running" || this.#state === "answered";
  }

  /** It has no command yet. */
  get isAsking(): boolean {
    return this.#state === "asking";
  }

  /** Its request begins. False for a second one. */
  begin(): boolean {
    if (this.#hasAsked) return false;
    this.#hasAsked = true;
    return true;
  }

  /** Its command is carried out from now on. */
  run(): void {
    assert(this.#state === "asking", "a control client gives one command");
    this.#state = "running";
    clearTimeout(this.#timer);
  }

  /** Its whole answer is on the way. */
  answered(): void {
    if (this.#state === "running") this.#state = "answered";
    this.#startTimeout(this.times.answerMs, () => this.close());
  }

  /** Answers what became no request: with a sentence, to which the full stop is added. */
  refuse(status: number, sentence: string): void {
    // What the client sends while its command is carried out does not change that command.
    if (this.#state !== "asking" || this.stream.writableEnded) return;
    const body = JSON.stringify({ kind: "refused", reason: `${sentence}.` });
    const head = [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      "Content-Type: application/json",
      `Content-Length: ${new TextEncoder().encode(body).length}`,
      "Connection: close",
    ];
    // Nothing reads the rest of what the client sends.
    this.stream.removeAllListeners("data");
    this.stream.resume();
    this.stream.end(`${head.join("\r\n")}\r\n\r\n${body}`);
    this.answered();
  }

  /** Closes the connection at once, whatever is under way. */
  close(): void {
    this.stream.destroy();
  }

  #late(): void {
    if (this.stream.hasReceived) {
      this.refuse(408, `The request took more than ${this.times.requestMs / 1000} s`);
    } else this.close();
  }

  #leave(): void {
    if (this.stream.destroyed) return;
    this.#state = "leaving";
    // The end of the client's stream, which closes ours, is noticed only while something reads.
    this.stream.resume();
    this.#startTimeout(this.times.farewellMs, () => this.close());
  }

  #startTimeout(ms: number, over: () => void): void {
    clearTimeout(this.#timer);
    if (!this.stream.destroyed) this.#timer = setTimeout(over, ms);
  }
}

/** All connections, the oldest first. */
export class ControlClients {
  readonly #clients = new Map<Duplex, ControlClient>();
  readonly #times: ControlTimes;
  readonly #connectionsMax: number;
  #emptied: (() => void) | undefined;

  /** @param connectionsMax how many there may be; one more closes one without a command */
  constructor(times: ControlTimes, connectionsMax: number) {
    this.#times = times;
    this.#connectionsMax = connectionsMax;
  }

  /** The client of a stream; undefined if it has gone. */
  of(stream: Duplex): ControlClient | undefined {
    return this.#clients.get(stream);
  }

  /** Takes a connection in, in the place of another one if there is no other. */
  add(conn: StreamConn): ControlClient {
    if (this.#clients.size >= this.#connectionsMax) this.#makeRoom();
    const client = new ControlClient(conn, this.#times, () => {
      this.#clients.delete(client.stream);
      if (this.#clients.size === 0) this.#emptied?.();
    });
    this.#clients.set(client.stream, client);
    return client;
  }

  /** Closes those without a command, lets the others end for `ms`, closes those too, and resolves when all have gone. */
  async drain(ms: number): Promise<void> {
    for (const client of this.#clients.values()) if (client.isAsking) client.close();
    if (this.#clients.size === 0) return;
    assert(this.#emptied === undefined, "the clients are drained once");
    const emptied = new Promise<void>((resolve) => this.#emptied = resolve);
    const timer = setTimeout(() => {
      for (const client of this.#clients.values()) client.close();
    }, ms);
    await emptied;
    clearTimeout(timer);
  }

  /** Of the oldest without a command; else of the oldest that has not taken its answer. */
  #makeRoom(): void {
    const clients = [...this.#clients.values()];
    const client = clients.find((each) => !each.isServed) ?? clients.find((each) => !each.isRunning);
    if (client === undefined) return;
    // It leaves the list in a later turn, but its descriptor is free now.
    client.close();
    this.#clients.delete(client.stream);
  }
}
