/** A socket for tests: any bytes out, exact bytes in, and never a wait without an end. */
import { join } from "./wire_bytes.ts";

/** Where a server listens. */
export type ServerAddress =
  | { readonly path: string }
  | { readonly hostname: string; readonly port: number };

/** Opens a connection to a server. */
export async function dial(address: ServerAddress): Promise<Deno.Conn> {
  if ("path" in address) return await Deno.connect({ transport: "unix", path: address.path });
  const conn = await Deno.connect(address);
  conn.setNoDelay();
  return conn;
}

const receiveBytes = 256 * 1024;

export class RawSocket implements Disposable {
  readonly #conn: Deno.Conn;
  readonly #timeoutMs: number;
  /** Received bytes are those from `#begin` to `#end`. */
  #buffer: Uint8Array = new Uint8Array(receiveBytes);
  #begin = 0;
  #end = 0;
  #isEnded = false;
  #isClosed = false;

  /** @param timeoutMs each wait for bytes from the server ends after this time with an error */
  constructor(conn: Deno.Conn, timeoutMs: number) {
    this.#conn = conn;
    this.#timeoutMs = timeoutMs;
  }

  /** Sends bytes as they are. */
  async send(...parts: Uint8Array[]): Promise<void> {
    let rest = join(...parts);
    while (rest.length > 0) rest = rest.subarray(await this.#conn.write(rest));
  }

  /** The next `lengthBytes` bytes. Throws if the server closes before. */
  async receive(lengthBytes: number): Promise<Uint8Array> {
    while (this.#end - this.#begin < lengthBytes) {
      if (!await this.#readMore()) {
        throw new Error(`the server closed after ${this.#end - this.#begin} of ${lengthBytes} bytes`);
      }
    }
    const bytes = this.#buffer.slice(this.#begin, this.#begin + lengthBytes);
    this.#begin += lengthBytes;
    return bytes;
  }

  /** Everything until the server closes or resets the connection. */
  async receiveAll(): Promise<Uint8Array> {
    while (await this.#readMore());
    return await this.receive(this.#end - this.#begin);
  }

  /** True if the server closes without another byte; throws at the timeout. */
  async isClosedByServer(): Promise<boolean> {
    return (await this.receiveAll()).length === 0;
  }

  /** Sends no more, but goes on receiving. */
  async closeWrite(): Promise<void> {
    await this.#conn.closeWrite();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#conn.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** False at the end of the stream; a reset counts as its end. */
  async #readMore(): Promise<boolean> {
    if (this.#isEnded) return false;
    this.#makeRoom();
    let isLate = false;
    const alarm = setTimeout(() => {
      isLate = true;
      this.close();
    }, this.#timeoutMs);
    try {
      const count = await this.#conn.read(this.#buffer.subarray(this.#end));
      if (count === null) this.#isEnded = true;
      else this.#end += count;
    } catch (error) {
      if (isLate) throw new Error(`no answer within ${this.#timeoutMs} ms`, { cause: error });
      if (!(error instanceof Deno.errors.ConnectionReset)) throw error;
      this.#isEnded = true;
    } finally {
      clearTimeout(alarm);
    }
    return !this.#isEnded;
  }

  #makeRoom(): void {
    if (this.#end < this.#buffer.length) return;
    const rest = this.#buffer.subarray(this.#begin, this.#end);
    const next = new Uint8Array(Math.max(receiveBytes, 2 * rest.length));
    next.set(rest);
    this.#buffer = next;
    this.#end -= this.#begin;
    this.#begin = 0;
  }
}
