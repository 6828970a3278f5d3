/**
 * One request to the control socket, and the bytes of its answer. HTTP/1.0 (RFC 1945): the answer's body ends with the
 * connection, in one piece without a coding of its own.
 *
 * Written on Deno's own connections, because loading node:http costs a command as much processor time as Deno's whole start
 * (tests/bench/README.md).
 */
import { controlReadBytes } from "../limits.ts";

const encoder = new TextEncoder();
const headEnd = "\r\n\r\n";

/** What is asked. */
export interface ControlRequest {
  readonly method: "GET" | "POST";
  /** Of the resource, such as `/v1/commands`. */
  readonly target: string;
  /** JSON; empty for none. */
  readonly body: string;
}

/** A connection to the control socket that carries one request. Dispose of it at the end. */
export class ControlConnection implements Disposable {
  readonly #conn: Deno.UnixConn;
  #isClosed = false;

  private constructor(conn: Deno.UnixConn) {
    this.#conn = conn;
  }

  /** Connects. Throws what Deno throws. */
  static async open(path: string): Promise<ControlConnection> {
    return new ControlConnection(await Deno.connect({ transport: "unix", path }));
  }

  /**
   * Sends the request and gives the body of the answer as it comes. Throws what Deno throws, and an `Error` where the answer is
   * not HTTP. A connection that closes before any answer gives nothing. The connection is closed when the answer has ended, or is
   * not read on.
   */
  async *answerTo(request: ControlRequest): AsyncGenerator<Uint8Array> {
    // A server that refuses does not read to the end of the request; its answer is read all the same.
    const sent = this.#send(request).then(() => undefined, (error) => error);
    let head: Uint8Array | undefined = new Uint8Array(0);
    try {
      for (let piece = await this.#read(); piece !== undefined; piece = await this.#read()) {
        if (head === undefined) {
          yield piece;
          continue;
        }
        head = joined(head, piece);
        const end = bodyBegin(head);
        if (end === undefined) continue;
        yield head.subarray(end);
        head = undefined;
      }
      if (head === undefined) return;
      const error = await sent;
      if (error !== undefined) throw error;
    } finally {
      this[Symbol.dispose]();
    }
  }

  /** Closes it, and what waits for its answer ends. */
  [Symbol.dispose](): void {
    if (!this.#isClosed) this.#conn.close();
    this.#isClosed = true;
  }

  async #send({ method, target, body }: ControlRequest): Promise<void> {
    const bodyBytes = encoder.encode(body);
    const head = [
      `${method} ${target} HTTP/1.0`,
      "content-type: application/json",
      `content-length: ${bodyBytes.length}`,
    ];
    const bytes = joined(encoder.encode(head.join("\r\n") + headEnd), bodyBytes);
    for (let at = 0; at < bytes.length;) at += await this.#conn.write(bytes.subarray(at));
  }

  async #read(): Promise<Uint8Array | undefined> {
    const buffer = new Uint8Array(controlReadBytes);
    const count = await this.#conn.read(buffer);
    return count === null ? undefined : buffer.subarray(0, count);
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** Where the body begins; undefined while the head has not ended. Throws an `Error` where there is no head. */
function bodyBegin(bytes: Uint8Array): number | undefined {
  // One character for each byte.
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, controlReadBytes));
  const end = text.indexOf(headEnd);
  if (!text.startsWith("HTTP/1.".slice(0, text.length)) || (end < 0 && bytes.length > controlReadBytes)) {
    throw new Error(`it answered ${JSON.stringify(text.slice(0, 100))}`);
  }
  return end < 0 ? undefined : end + headEnd.length;
}
