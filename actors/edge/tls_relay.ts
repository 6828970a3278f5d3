/**
 * TLS for the clients of the I/O thread, on the main side: between a client's socket, which is encrypted, and one end of a socket
 * pair, at whose other end the pool's side talks in clear text (relayed_tls.ts). Deno has TLS only in its event loop, which that
 * thread does not run.
 *
 * Descriptors: the client's is the pool side's, and a duplicate of it is used here; the end of the pair is ours. Both are closed
 * here, then `tlsOver` is told, and only then the pool's side closes the client's. So while a relay is there, no other file
 * gets a number that it knows.
 *
 * Ends: when the client ends its side, the pool's side receives the end, and may still reply. If TLS breaks, that is told
 * (`tlsBroken`), and our end of the pair stays open until the other end is closed: so a broken stream is never taken for one that
 * was ended. When the pool's side has closed its end, what is on its way is sent to the client, for `streamFarewellMs` at most.
 */
import { Socket } from "node:net";
import { assert } from "../../storage/base/assert.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import type { TlsWanted } from "./border.ts";
import { type ByteStream, ClosedOnce, NodeStream } from "./byte_stream.ts";
import { closeDuplicate, duplicate } from "./descriptors.ts";
import { DirectSocket } from "./direct_socket.ts";
import { callOutside } from "./outside.ts";
import type { RelayNews } from "./relayed_tls.ts";
import { secureStream } from "./tls.ts";
import type { TlsKeys } from "./tls_keys.ts";
import { streamFarewellMs, streamWriteBytesMax, tlsReadBytes } from "../limits.ts";

/** The relays that are not over. */
export class TlsRelays {
  readonly #tell: (news: RelayNews) => void;
  readonly #relays = new Map<number, TlsRelay>();

  /** @param tell sends to the pool's side */
  constructor(tell: (news: RelayNews) => void) {
    this.#tell = tell;
  }

  /** Begins a relay. The last that is told of it is `tlsOver`. */
  begin({ relay, clientFd, clearFd, keys }: TlsWanted): void {
    assert(!this.#relays.has(relay), "two relays have one number");
    const ownFd = duplicate(clientFd);
    if (ownFd === undefined) {
      closeDuplicate(clearFd);
      this.#tell({ type: "tlsBroken", relay, reason: "there is no free descriptor for its TLS" });
      return this.#tell({ type: "tlsOver", relay });
    }
    const begun = new TlsRelay(ownFd, clearFd, {
      secured: (clientName) => this.#tell({ type: "tlsSecured", relay, clientName }),
      broken: (reason) => this.#tell({ type: "tlsBroken", relay, reason }),
    });
    this.#relays.set(relay, begun);
    const over = () => {
      const wasThere = this.#relays.delete(relay);
      assert(wasThere, "a relay is over once");
      this.#tell({ type: "tlsOver", relay });
    };
    callOutside(() => begun.run(keys), over, over);
  }

  /** The pool's side has closed its end. The relay may be over. */
  end(relay: number): void {
    this.#relays.get(relay)?.end();
  }
}

/** What is told of one relay. */
interface RelayOwner {
  secured(clientName: string | undefined): void;
  broken(reason: string): void;
}

class TlsRelay {
  readonly #owner: RelayOwner;
  readonly #client: ClosedOnce;
  readonly #clearSocket: Socket;
  readonly #clear: NodeStream;
  /** The same as `#clear`, where the C library can be called. Its descriptor is closed by `#clearSocket`. */
  readonly #direct: DirectSocket | undefined;
  /** After the handshake. */
  #secured: ByteStream | undefined;
  #isBroken = false;
  #hasPoolEnded = false;
  #cutOff: ReturnType<typeof setTimeout> | undefined;

  constructor(ownFd: number, clearFd: number, owner: RelayOwner) {
    this.#owner = owner;
    this.#client = new ClosedOnce(new NodeStream(new Socket({ fd: ownFd, allowHalfOpen: true })));
    this.#clearSocket = new Socket({ fd: clearFd, allowHalfOpen: true });
    this.#clear = new NodeStream(this.#clearSocket);
    this.#direct = DirectSocket.adopt(clearFd);
  }

  /** Until everything is closed. */
  async run(keys: TlsKeys): Promise<void> {
    const toClient = this.#toClient();
    try {
      const { stream, clientName } = await secureStream(this.#client, keys);
      this.#secured = new ClosedOnce(stream);
      if (this.#hasPoolEnded) await this.#close();
      else this.#owner.secured(clientName);
      await this.#toPool(this.#secured);
    } catch (error) {
      // The pool's side is told, and closes its end.
      this.#broken(error);
    }
    await toClient;
    await this.#close();
    await this.#clear.close();
    clearTimeout(this.#cutOff);
  }

  /** The pool's side has closed its end, which may be behind bytes that the client does not take. */
  end(): void {
    this.#cutOff ??= setTimeout(() => void this.#close(), streamFarewellMs);
  }

  /** Also receives the end of the pool's side while there is no TLS yet. */
  async #toClient(): Promise<void> {
    const buffer = new Uint8Array(streamWriteBytesMax);
    try {
      for (;;) {
        const count = await this.#clear.read(buffer);
        if (count === null) break;
        // What is replied to a client that is lost is dropped.
        if (this.#isBroken) continue;
        assert(this.#secured !== undefined, "the pool's side replies before there is TLS");
        await this.#writeAll(this.#secured, buffer.subarray(0, count)).catch((error) => this.#broken(error));
      }
    } catch (error) {
      // As its end: the pool's side has nothing more to say.
      reasonOutside(error);
    }
    this.#hasPoolEnded = true;
    await this.#close();
  }

  async #toPool(secured: ByteStream): Promise<void> {
    const buffer = new Uint8Array(tlsReadBytes);
    for (;;) {
      const count = await secured.read(buffer);
      if (count === null) return void this.#clearSocket.end();
      const bytes = buffer.subarray(0, count);
      await this.#writeAll(this.#clear, bytes.subarray(this.#sentToPool(bytes)));
    }
  }

  /** Bytes that the pool's side has room for, sent without a turn of the event loop. */
  #sentToPool(bytes: Uint8Array): number {
    // A socket that node has destroyed may have lost its number to another file.
    if (this.#clearSocket.destroyed) return 0;
    const count = this.#direct?.send([bytes], 0) ?? 0;
    return Math.max(0, count);
  }

  async #writeAll(stream: ByteStream, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await stream.write(bytes.subarray(at));
  }

  #broken(error: unknown): void {
    const reason = reasonOutside(error);
    if (this.#isBroken || this.#hasPoolEnded) return;
    this.#isBroken = true;
    this.#owner.broken(reason);
  }

  /** Takes leave of the client. */
  async #close(): Promise<void> {
    await this.#secured?.close();
    await this.#client.close();
  }
}
