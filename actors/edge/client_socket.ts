/** One client's socket as its connection sees it: completions become messages here, and clear text becomes TLS. */
import { present } from "../../storage/assert.ts";
import { quoted } from "../../storage/nbd/option.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { SocketNotice, SocketPort, TlsPolicy } from "../socket_port.ts";
import { type ByteStream, ClosedOnce } from "./byte_stream.ts";
import type { TlsKeys } from "./tls_keys.ts";

/** One client's socket. A read and a send may be under way; when both have ended after a close, that is told. */
export class ClientSocket implements SocketPort {
  readonly tls: TlsPolicy;
  sentBytes = 0;
  readonly #kernel: Kernel;
  readonly #keys: TlsKeys | undefined;
  readonly #forget: () => void;
  #stream: ByteStream;
  #peer: string;
  #owner: Address<SocketNotice> | undefined;
  #reading = false;
  #sending = false;
  #securing = false;
  #closing = false;
  /** Streams that say their last words: one, or TLS and what carried it. */
  #ending = 0;
  #reason: string | undefined;

  /** @param keys what TLS needs, where there is any; `forget` is called when the socket is closed */
  constructor(
    kernel: Kernel,
    stream: ByteStream,
    peer: string,
    keys: TlsKeys | undefined,
    forget: () => void,
  ) {
    this.#kernel = kernel;
    this.#stream = stream;
    this.#peer = peer;
    this.#keys = keys;
    this.tls = keys?.policy ?? "off";
    this.#forget = forget;
  }

  get peer(): string {
    return this.#peer;
  }

  open(owner: Address<SocketNotice>): void {
    this.#owner = owner;
  }

  read(buffer: Uint8Array): void {
    if (this.#closing) return;
    this.#reading = true;
    this.#read(buffer);
  }

  send(pieces: readonly Uint8Array[]): void {
    if (this.#closing) return;
    this.#sending = true;
    this.#send(pieces);
  }

  startTls(): void {
    if (this.#closing) return;
    this.#securing = true;
    this.#startTls(present(this.#keys, "TLS where there is none"));
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#forget();
    this.#closeStream();
  }

  async #startTls(keys: TlsKeys): Promise<void> {
    // From here on two close it: we, and TLS when it is done with it.
    const clear = new ClosedOnce(this.#stream);
    this.#stream = clear;
    try {
      // Loaded where it is used: it takes longer than all else at the start.
      const { secureStream } = await import("./tls.ts");
      const secured = await secureStream(clear, keys);
      this.#stream = secured.stream;
      if (secured.clientName !== undefined) this.#peer += ` (${quoted(secured.clientName)})`;
      this.#securing = false;
    } catch (error) {
      this.#securing = false;
      return this.#broken(error);
    }
    if (this.#closing) return this.#closeStream();
    this.#tell({ type: "secured" });
  }

  #closeStream(): void {
    const ended = this.#stream.close();
    if (ended === undefined) return this.#tellClosed();
    this.#ending += 1;
    ended.then(() => {
      this.#ending -= 1;
      this.#tellClosed();
    });
  }

  async #read(buffer: Uint8Array): Promise<void> {
    let count: number | null = null;
    try {
      count = await this.#stream.read(buffer);
      this.#reading = false;
    } catch (error) {
      this.#reading = false;
      return this.#broken(error);
    }
    if (this.#closing) return this.#tellClosed();
    this.#tell(count === null ? { type: "ended" } : { type: "received", bytes: buffer.subarray(0, count) });
  }

  async #send(pieces: readonly Uint8Array[]): Promise<void> {
    try {
      for (const piece of pieces) await this.#write(piece);
      this.#sending = false;
    } catch (error) {
      this.#sending = false;
      return this.#broken(error);
    }
    if (this.#closing) return this.#tellClosed();
    this.#tell({ type: "sent" });
  }

  async #write(piece: Uint8Array): Promise<void> {
    let begin = await this.#stream.write(piece);
    this.sentBytes += begin;
    while (begin < piece.length) {
      const count = await this.#stream.write(piece.subarray(begin));
      this.sentBytes += count;
      begin += count;
    }
  }

  /** The client is gone, or `close` interrupted what was under way. */
  #broken(error: unknown): void {
    if (this.#closing) return this.#tellClosed();
    this.#reason = error instanceof Error ? error.message : String(error);
    this.close();
  }

  #tellClosed(): void {
    if (this.#reading || this.#sending || this.#securing || this.#ending > 0) return;
    this.#tell(this.#reason === undefined ? { type: "closed" } : { type: "closed", reason: this.#reason });
  }

  #tell(notice: SocketNotice): void {
    // A client that was refused has no owner.
    if (this.#owner !== undefined) this.#kernel.post(this.#owner, notice);
  }
}
