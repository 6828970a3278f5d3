/** For tests: a server behind TLS on a real socket, and openssl as its client. */
import { assert, assertEquals } from "@std/assert";
import type { ListenAddress } from "../../actors/edge/listen_address.ts";
import { readTlsKeys } from "../../actors/edge/tls_keys.ts";
import { NBD_OPT_LIST, NBD_OPT_STARTTLS, NBD_REP_ACK } from "../../actors/nbd/wire/constants.ts";
import { type Certificates, hasOpenssl, makeCertificates } from "../support/certificates.ts";
import { requiredProgram } from "../support/programs.ts";
import { Lines } from "../support/server.ts";
import type { MemoryVolume } from "./memory_pool.ts";
import { MemoryServer } from "./memory_server.ts";
import { RawClient } from "./raw_client.ts";
import { dial, type ServerAddress } from "./raw_socket.ts";
import { join, option, u32 } from "./wire_bytes.ts";

const ignore = !hasOpenssl();
export const mib = 1 << 20;

export function tlsTest(name: string, fn: (server: TlsServer) => Promise<void>, verifyPeer = false): void {
  Deno.test({ name, ignore, fn: () => TlsServer.run(fn, verifyPeer) });
}

/** A server in memory that allows TLS, or requires a certificate that its authority has signed. */
export class TlsServer {
  readonly disk: MemoryVolume;
  #stopped: Promise<void> | undefined;

  private constructor(
    readonly certificates: Certificates,
    readonly server: MemoryServer,
    readonly log: string[],
  ) {
    this.disk = server.pool.add("disk", 256 * mib).volume;
    this.disk.keepKinds = false;
  }

  static async run(test: (server: TlsServer) => Promise<void>, verifyPeer: boolean): Promise<void> {
    const folder = await Deno.makeTempDir({ prefix: "gossamer-tls-" });
    try {
      const certificates = await makeCertificates(folder);
      const log: string[] = [];
      const policy = verifyPeer ? "require" : "allow";
      const keys = readTlsKeys({ policy, certificates: certificates.server, verifyPeer });
      const anywhere: ListenAddress = { transport: "tcp", hostname: "127.0.0.1", port: 0 };
      const server = await MemoryServer.start(anywhere, (line) => log.push(line), keys);
      const running = new TlsServer(certificates, server, log);
      try {
        await test(running);
      } finally {
        await running.stop();
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  }

  /** Stops the server, once. */
  stop(): Promise<void> {
    this.#stopped ??= this.server.stop();
    return this.#stopped;
  }

  get address(): ServerAddress {
    const { address } = this.server;
    return address.transport === "tcp" ? address : { path: address.path };
  }

  /** A client inside TLS. */
  async secured(): Promise<RawClient> {
    const conn = await this.upgraded();
    const authority = Deno.readTextFileSync(`${this.certificates.uncertified}/ca-cert.pem`);
    const tls = await Deno.startTls(conn as Deno.TcpConn, { hostname: "localhost", caCerts: [authority] });
    return new RawClient(tls, 10_000);
  }

  /** A connection on which STARTTLS was accepted and not a byte of TLS was said. */
  async upgraded(): Promise<Deno.Conn> {
    const conn = await dial(this.address);
    await readBytes(conn, 18);
    await conn.write(join(u32(3), option(NBD_OPT_STARTTLS)));
    const reply = await readBytes(conn, 20);
    assertEquals(new DataView(reply.buffer).getUint32(12), NBD_REP_ACK);
    return conn;
  }

  /** The sentence of the log that says why a connection was closed, once it is there. */
  async reason(): Promise<string> {
    for (let waitedMs = 0; waitedMs < 5000; waitedMs += 10) {
      const line = this.log.find((line) => line.startsWith("closing the connection"));
      if (line !== undefined) return line;
      await sleep(10);
    }
    throw new Error(`no connection was closed: ${this.log.join("\n")}`);
  }

  /** Waits until so many clients are connected. */
  async left(clients: number): Promise<void> {
    for (let waitedMs = 0; this.server.listener.clients !== clients; waitedMs += 10) {
      assert(waitedMs < 5000, "a client stayed");
      await sleep(10);
    }
  }
}

/**
 * A way into TLS for programs that do not know NBD: what they say to this port goes to the server behind an accepted
 * STARTTLS. One connection; resolves with its two ends closed.
 */
function relay(server: TlsServer): { port: number; done: Promise<void> } {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const done = (async () => {
    const outer = await listener.accept();
    listener.close();
    const inner = await server.upgraded();
    // Either half may end by a reset; the program says what it met.
    const pipe = (from: Deno.Conn, to: Deno.Conn) => from.readable.pipeTo(to.writable).catch(() => {});
    await Promise.all([pipe(outer, inner), pipe(inner, outer)]);
    for (const conn of [outer, inner]) {
      try {
        conn.close();
      } catch {
        // The streams have closed it.
      }
    }
  })();
  return { port: (listener.addr as Deno.NetAddr).port, done };
}

/** What `openssl s_client` reads inside TLS when it asks for the list of exports, and what it complains about. */
export async function sClient(server: TlsServer, ...args: string[]): Promise<{ out: string; err: string }> {
  const { port, done } = relay(server);
  const trust = ["-verify_return_error", "-CAfile", `${server.certificates.uncertified}/ca-cert.pem`];
  const child = new Deno.Command(requiredProgram("openssl"), {
    args: ["s_client", "-quiet", ...trust, "-connect", `127.0.0.1:${port}`, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  await input.write(option(NBD_OPT_LIST));
  const [out, err] = [new Lines(child.stdout), new Lines(child.stderr)];
  // An answer, or the end without one.
  const answered = out.met((text) => text.includes("disk"));
  const tooLate = setTimeout(() => child.kill(), 5000);
  if (await answered) child.kill();
  await Promise.all([child.status, out.ended, err.ended, done]);
  clearTimeout(tooLate);
  await input.close().catch(() => {});
  return { out: out.text, err: err.text };
}

export function identity(directory: string): string[] {
  return ["-cert", `${directory}/client-cert.pem`, "-key", `${directory}/client-key.pem`];
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function readBytes(conn: Deno.Conn, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(lengthBytes);
  for (let at = 0; at < lengthBytes;) {
    const count = await conn.read(bytes.subarray(at));
    if (count === null) throw new Error("the server closed");
    at += count;
  }
  return bytes;
}
