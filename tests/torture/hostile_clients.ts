/**
 * Clients that mean no good, bounded in number: what the server closes or refuses is opened again after a pause, so that
 * their number stays as it is.
 */
import { Repeated, sleep } from "./repeated.ts";

/** How many there are of each kind. */
export interface HostileCounts {
  /** Ask for a dump and never read it; each leaves in the midst after a while. */
  readonly unreadDumps: number;
  /** Connect to the control socket and say nothing. */
  readonly idleControls: number;
  /** Begin an NBD handshake and do not end it. */
  readonly halfOpen: number;
  /** Attach, ask for 32 MiB and do not take it. */
  readonly unreadReads: number;
}

/** Between an end and the next try. */
const pauseMs = 500;
/** After this a client leaves by itself, in the midst of whatever the server does for it. */
const unreadMs = 5_000;
const idleMs = 60_000;

const encoder = new TextEncoder();

/** What a client does once. */
interface Visit {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly stayMs: number;
  /** Whether it takes what the server says, and so sees that the server has closed. */
  readonly reads: boolean;
}

/** Stop them at the end. */
export class HostileClients {
  readonly #clients: Repeated[] = [];
  /** Connections that the server took, and those that it refused. */
  connected = 0;
  refused = 0;

  /** They go for the two sockets from now on; `volume` is an export of 32 MiB at least. */
  constructor(control: string, nbd: string, volume: string, counts: HostileCounts) {
    const kinds: readonly (readonly [number, Visit])[] = [
      [counts.unreadDumps, { path: control, bytes: dumpRequest(), stayMs: unreadMs, reads: false }],
      [counts.idleControls, { path: control, bytes: new Uint8Array(0), stayMs: idleMs, reads: true }],
      // The client's flags and the beginning of an option.
      [counts.halfOpen, {
        path: nbd,
        bytes: new Uint8Array([0, 0, 0, 3, 0x49, 0x48]),
        stayMs: idleMs,
        reads: true,
      }],
      [counts.unreadReads, { path: nbd, bytes: unreadRead(volume), stayMs: idleMs, reads: false }],
    ];
    for (const [count, visit] of kinds) {
      for (let index = 0; index < count; index++) {
        // Not all in step.
        const own = { ...visit, stayMs: visit.stayMs * (1 + index / count) };
        this.#clients.push(new Repeated((stopped) => this.#visit(own, stopped)));
      }
    }
  }

  /** They are all gone when this resolves. */
  async stop(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.stop()));
  }

  async #visit({ path, bytes, stayMs, reads }: Visit, stopped: AbortSignal): Promise<void> {
    try {
      using connection = await Deno.connect({ transport: "unix", path });
      if (bytes.length > 0) await connection.write(bytes);
      this.connected += 1;
      const stay = sleep(stayMs, stopped);
      // Closing ends a read that is under way with an error.
      await (reads ? Promise.race([stay, readToEnd(connection).catch(() => {})]) : stay);
    } catch {
      // Refused, or closed: that is the server's good right.
      this.refused += 1;
    }
    await sleep(pauseMs, stopped);
  }
}

function dumpRequest(): Uint8Array {
  const body = '{"verb":"dump"}';
  const head = `POST /v1/commands HTTP/1.1\r\nhost: pool\r\ncontent-type: application/json\r\n`;
  return encoder.encode(`${head}content-length: ${body.length}\r\n\r\n${body}`);
}

/** Client flags (fixed newstyle, no zeroes), EXPORT_NAME, then a READ of 32 MiB: the protocol lets them follow each other. */
function unreadRead(volume: string): Uint8Array {
  const name = encoder.encode(volume);
  const bytes = new Uint8Array(4 + 16 + name.length + 28);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 3);
  view.setBigUint64(4, 0x49484156454f5054n);
  view.setUint32(12, 1);
  view.setUint32(16, name.length);
  bytes.set(name, 20);
  const at = 20 + name.length;
  view.setUint32(at, 0x25609513);
  view.setUint32(at + 24, 32 * 2 ** 20);
  return bytes;
}

async function readToEnd(connection: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(4096);
  while (await connection.read(buffer) !== null);
}
