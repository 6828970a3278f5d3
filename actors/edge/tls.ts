/**
 * TLS on a client's stream that has begun in clear text. In Deno only node:tls can do this, and only its server refuses a client
 * with a certificate of another authority. So a node:tls server gets the stream as a connection. Tests use certificates of
 * another authority to check this.
 */
import { Buffer } from "node:buffer";
import { createServer, type TLSSocket } from "node:tls";
import { ByteDuplex } from "./byte_duplex.ts";
import { type ByteStream, NodeStream } from "./byte_stream.ts";
import { callOutside } from "./outside.ts";
import type { TlsKeys } from "./tls_keys.ts";
import { tlsReadBytes } from "../limits.ts";

/** An encrypted stream. */
export interface SecuredStream {
  readonly stream: ByteStream;
  /** The common name in the client's certificate, if that was verified. */
  readonly clientName: string | undefined;
}

/**
 * Does the server's part of the handshake. Rejects, with nothing under way, if that fails or the stream is closed; the
 * caller closes the stream then. There is no timeout here.
 */
export function secureStream(stream: ByteStream, keys: TlsKeys): Promise<SecuredStream> {
  return new Promise((resolve, reject) => {
    const clear = new ClearStream(stream);
    const fail = (error?: Error) => reject(new Error(reasonOf(error, clear.hasEnded, keys.verifyPeer)));
    // One server for each client: of one server for all, it would not be known which client a new socket belongs to.
    const server = createServer({
      key: keys.key,
      cert: keys.certificate,
      ca: keys.authority,
      requestCert: keys.verifyPeer,
      rejectUnauthorized: keys.verifyPeer,
      minVersion: "TLSv1.2",
      handshakeTimeout: 2 ** 31 - 1,
    });
    server.on("tlsClientError", (error: Error, socket: TLSSocket) => {
      socket.destroy();
      fail(error);
    });
    server.on("secureConnection", (socket: TLSSocket) => {
      clear.boundBy(socket);
      const secured = new NodeStream(socket, () => clear.readMore());
      resolve({ stream: secured, clientName: keys.verifyPeer ? nameOf(socket) : undefined });
    });
    clear.on("error", fail);
    clear.on("close", () => fail());
    server.emit("connection", clear);
  });
}

function nameOf(socket: TLSSocket): string | undefined {
  const name: unknown = socket.getPeerCertificate()?.subject?.CN;
  return typeof name === "string" ? name : undefined;
}

/** One clause on why there is no TLS. */
function reasonOf(error: Error | undefined, hasEnded: boolean, verifyPeer: boolean): string {
  const code = error !== undefined && "code" in error ? error.code : undefined;
  if (code === "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE") return "it showed no certificate";
  if (hasEnded) return "it went away in its TLS handshake";
  // If TLS closes the stream without a reason, the client's certificate was refused.
  if (error !== undefined && code !== "ECONNRESET") return `its TLS handshake failed: ${error.message}`;
  return verifyPeer ? "its certificate is not valid, or of another authority" : "its TLS handshake failed";
}

/**
 * The bytes of the wire, as the stream that node:tls works on. Reading pauses while `tlsReadBytes` of decrypted bytes have
 * not been taken: node:tls alone would read, decrypt and keep all that a client sends.
 *
 * The caller of `secureStream` is told of the end by the "close" of this stream; by then the carrier is closed.
 */
class ClearStream extends ByteDuplex {
  /** The client has ended it. */
  hasEnded = false;
  readonly #stream: ByteStream;
  #decrypted: TLSSocket | undefined;
  /** A read that waits until decrypted bytes are taken. */
  #isReadPaused = false;

  constructor(stream: ByteStream) {
    super(stream);
    this.#stream = stream;
  }

  /** From here on, reads wait while many decrypted bytes do. */
  boundBy(decrypted: TLSSocket): void {
    this.#decrypted = decrypted;
  }

  /** Goes on with a read that was paused, if there is room again. */
  readMore(): void {
    if (!this.#isReadPaused) return;
    this.#isReadPaused = false;
    this._read();
  }

  override _read(): void {
    if (this.#decrypted !== undefined && this.#decrypted.readableLength >= tlsReadBytes) {
      this.#isReadPaused = true;
      return;
    }
    const buffer = new Uint8Array(tlsReadBytes);
    callOutside(() => this.#stream.read(buffer), (count) => {
      this.hasEnded ||= count === null;
      // Before the TLS socket exists, nothing else notices the end of the stream.
      if (count === null && this.#decrypted === undefined) return void this.destroy();
      this.push(count === null ? null : Buffer.from(buffer.buffer, 0, count));
    }, (reason) => {
      this.hasEnded = true;
      this.destroy(new Error(reason));
    });
  }
}
