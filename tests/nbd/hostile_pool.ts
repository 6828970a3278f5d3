/**
 * A small pool, really served on a Unix socket by this process, for clients that mean harm. A test runs in
 * `hostileTest`, which afterwards requires that nothing came of it: no defect, nobody still connected, an honest
 * client is served, and another volume has the bytes it had.
 */
import { assert, assertEquals } from "@std/assert";
import { connectionsMax, drainMs } from "../../actors/limits.ts";
import { openLibc } from "../../actors/edge/libc.ts";
import { makePool } from "../../actors/edge/make_pool.ts";
import { PoolProcess } from "../../actors/edge/pool_process.ts";
import { NbdServer } from "../../actors/edge/nbd_server.ts";
import { formatSize } from "../../storage/base/sizes.ts";
import { testIo } from "../support/running_ring.ts";
import { RawClient } from "./raw_client.ts";
import { randomNumbers } from "./wire_bytes.ts";

// Once for the process, so that no single test seems to leak it.
openLibc();

const KiB = 1024;
const MiB = 1024 * KiB;

/** Size of `disk`; its end is in the midst of a block. */
export const diskBytes = 48 * MiB + 1024;
/** Size of `small` and of its snapshot `small@monday`. */
export const smallBytes = 4 * MiB;
/** Size of `huge`, more than a 32-bit length says. */
export const hugeBytes = 2 ** 40;
const victimBytes = 256 * KiB;
/** Milliseconds in which clients that have gone must be forgotten. */
const leaveMs = 5000;

/** Bytes that tell a wrong byte from a right one. */
export function pattern(lengthBytes: number, seed: number): Uint8Array {
  const random = randomNumbers(seed);
  return Uint8Array.from({ length: lengthBytes }, () => random() * 256);
}

const victimContent = pattern(victimBytes, 77);
/** What `small@monday` has from its begin. */
export const mondayContent: Uint8Array = pattern(4096, 78);

export class HostilePool implements AsyncDisposable {
  readonly path: string;
  readonly log: string[];
  readonly process: PoolProcess;
  readonly #folder: string;
  readonly #endIo: () => Promise<void>;
  #server: NbdServer | undefined;

  private constructor(folder: string, process: PoolProcess, log: string[], endIo: () => Promise<void>) {
    this.#endIo = endIo;
    this.#folder = folder;
    this.path = `${folder}/s`;
    this.process = process;
    this.log = log;
  }

  /** A pool of `disk`, `huge`, `small`, `small@monday` and `victim`. */
  static async serve(dataSizeBytes: number = 256 * MiB): Promise<HostilePool> {
    const folder = await Deno.makeTempDir({ prefix: "gossamer-hostile-" });
    const directory = `${folder}/pool`;
    const blockSizeBytes = 64 * KiB;
    await makePool({ directory, blockSizeBytes, dataSizeBytes, metadataSizeBytes: 4 * MiB });
    const log: string[] = [];
    const { io, end } = testIo();
    const options = { log: (sentence: string) => log.push(sentence) };
    const process = await PoolProcess.open(directory, options, undefined, io);
    const pool = new HostilePool(folder, process, log, end);
    for (const [name, sizeBytes] of volumes) {
      const created = await process.command({ verb: "create", name, sizeBytes });
      assert(created.kind !== "refused", `${name} of ${formatSize(sizeBytes)} was not created`);
    }
    await pool.serveAgain();
    await pool.#write("victim", victimContent);
    await pool.#write("small", mondayContent);
    await process.command({ verb: "snapshot", names: ["small@monday"] });
    return pool;
  }

  get dataPath(): string {
    return `${this.#folder}/pool/data.img`;
  }

  async #write(name: string, content: Uint8Array): Promise<void> {
    using client = await this.attach(name);
    await client.write(0, content);
    await client.disconnect();
  }

  /** A client that has connected and said nothing. */
  connect(timeoutMs = 10_000): Promise<RawClient> {
    return RawClient.connect(this, { timeoutMs });
  }

  /** A client that has sent its flags. */
  async greeted(clientFlags = 3): Promise<RawClient> {
    const client = await this.connect();
    await client.greet(clientFlags);
    return client;
  }

  /** A client in transmission. */
  attach(
    name = "disk",
    options: { readonly structured?: boolean; readonly timeoutMs?: number } = {},
  ): Promise<RawClient> {
    return RawClient.attach(this, name, options);
  }

  /** Connections that the listener has not forgotten. */
  get connections(): number {
    const names = [...this.process.kernel.mailboxHighWater().keys()];
    return names.filter((name) => name.startsWith("nbd connection")).length;
  }

  /** Waits until everybody has left. */
  async everybodyLeft(): Promise<void> {
    const endMs = performance.now() + leaveMs;
    while (this.connections > 0 && performance.now() < endMs) await pause(2);
    assertEquals(this.connections, 0, `clients that went were not forgotten within ${leaveMs} ms`);
  }

  /** What has to hold when all clients have gone. Nobody is served any more then. */
  async requireUnharmed(): Promise<void> {
    assert(!this.process.kernel.stopped, "the server met a defect");
    await this.everybodyLeft();
    for (const [name, content] of [["victim", victimContent], ["small@monday", mondayContent]] as const) {
      using client = await this.attach(name);
      assert((await client.read(0, content.length)).toHex() === content.toHex(), `${name} was changed`);
      await client.disconnect();
    }
    await this.everybodyLeft();
    const begunMs = performance.now();
    await this.stop();
    assert(performance.now() - begunMs < drainMs / 2, "the listener waited for somebody who has left");
  }

  /** Takes clients, for the first time or after `stop`. */
  async serveAgain(): Promise<void> {
    const settings = { listen: [`unix:${this.path}`], inherited: [], keys: undefined };
    this.#server = await NbdServer.bind(this.process, settings, connectionsMax);
    await this.#server.accept();
  }

  /** Stops serving, as at SIGTERM. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    await server?.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.process.close();
    await this.#endIo();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

const volumes = [
  ["disk", diskBytes],
  ["huge", hugeBytes],
  ["small", smallBytes],
  ["victim", victimBytes],
] as const;

/** Waits. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A send that may end with the connection. */
export async function sendAnyhow(client: RawClient, ...parts: Uint8Array[]): Promise<void> {
  try {
    await client.send(...parts);
  } catch (error) {
    const isGone = error instanceof Deno.errors.BrokenPipe || error instanceof Deno.errors.ConnectionReset ||
      error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted;
    if (!isGone) throw error;
  }
}

/** A test against a pool of its own, which must be unharmed at the end. */
export function hostileTest(name: string, run: (pool: HostilePool) => Promise<void>): void {
  Deno.test(name, async () => {
    await using pool = await HostilePool.serve();
    await run(pool);
    await pool.requireUnharmed();
  });
}
