/** What operations cost on a pool with many mappings or many volumes. */
import { NBD_CMD_TRIM } from "../../actors/nbd/wire/constants.ts";
import type { AdminCommand } from "../../mod.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { PoolOnDisk, runToEnd, type ServerProcess } from "../support/server.ts";
import { runFio } from "./fio.ts";
import { command } from "./ours.ts";
import type { Place } from "./place.ts";
import { mainThreadTimes, memoryOf, MemoryWatch } from "./proc.ts";
import { blockBytes, dataBlocksOf, type Shape } from "./scale_image.ts";

/** Commands can take minutes, and what waits for them too. */
const timeoutMs = 600_000;
/** Bytes of a volume beside, to see whether a command holds it up. */
const besideBytes = 1 << 26;
const MiB = 2 ** 20;

/** Figures by name, in the order in which they were taken; the unit stands in the name. */
export type Figures = Map<string, number>;

async function ms(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

/** A pool around a copy of the image, with a sparse data device. Nobody serves it yet. */
async function poolOf(place: Place, image: string, shape: Shape): Promise<PoolOnDisk> {
  const pool = place.own(await PoolOnDisk.folder());
  pool.metadataPath = pool.path("metadata");
  const data = pool.path("data");
  await runToEnd("/bin/cp", ["--sparse=always", image, pool.metadataPath]);
  await Deno.writeFile(data, new Uint8Array(0));
  await Deno.truncate(data, dataBlocksOf(shape) * blockBytes);
  await pool.verb("import", "--metadata", pool.metadataPath, "--data", data);
  return pool;
}

/** Measures one shape. */
export async function measureScale(
  place: Place,
  image: string,
  shape: Shape,
  seconds: number,
  say: (text: string) => void,
): Promise<Figures> {
  const figures: Figures = new Map();
  const set = (name: string, value: number) => {
    figures.set(name, value);
    say(`  ${name}: ${value.toFixed(1)}`);
  };
  const pool = await poolOf(place, image, shape);
  set("check, offline, s", await ms(() => pool.verb("check")) / 1000);
  let server: ServerProcess | undefined;
  set("start to listening, ms", await ms(async () => server = await pool.serve()));
  await new ServedScale(pool, server!, shape, set).measure(seconds);
  await server!.stop();
  set("start to listening at the end, ms", await ms(async () => server = await pool.serve()));
  await server!.stop();
  await place.end(pool);
  return figures;
}

class ServedScale {
  readonly #pool: PoolOnDisk;
  readonly #server: ServerProcess;
  readonly #shape: Shape;
  readonly #set: (name: string, value: number) => void;

  constructor(
    pool: PoolOnDisk,
    server: ServerProcess,
    shape: Shape,
    set: (name: string, value: number) => void,
  ) {
    this.#pool = pool;
    this.#server = server;
    this.#shape = shape;
    this.#set = set;
  }

  async measure(seconds: number): Promise<void> {
    const set = this.#set;
    using watch = new MemoryWatch(this.#server.pid);
    this.#setMemory("after start");
    const name = `thin-${Math.ceil(this.#shape.devices / 2)}`;
    await this.#firstRead(name);
    await this.#reads(name, seconds);
    set("list --exact, ms", await ms(() => this.#command({ verb: "list", exact: true })));
    set("list, ms", await ms(() => this.#command({ verb: "list" })));
    set(
      "create, ms",
      await ms(() => this.#command({ verb: "create", name: "beside", sizeBytes: besideBytes })),
    );
    set("snapshot, ms", await ms(() => this.#command({ verb: "snapshot", names: [`${name}@s`] })));
    set("clone, ms", await ms(() => this.#command({ verb: "clone", source: name, name: "fork" })));
    await this.#commits(name);
    set("list after changes, ms", await ms(() => this.#command({ verb: "list" })));
    set("check beside, ms", await ms(() => this.#command({ verb: "check" })));
    await this.#remove("remove snapshot", `${name}@s`);
    await this.#remove("remove clone", "fork");
    await this.#remove("remove volume", name);
    this.#setMemory("at the end");
    set("own memory at most, MiB", watch.ownBytesMax / MiB);
  }

  #setMemory(when: string): void {
    const { ownBytes, fileBytes } = memoryOf(this.#server.pid);
    this.#set(`own memory ${when}, MiB`, ownBytes / MiB);
    this.#set(`of files ${when}, MiB`, fileBytes / MiB);
  }

  #command(asked: AdminCommand): Promise<void> {
    return command(this.#pool.directory, asked);
  }

  #attach(name: string): Promise<RawClient> {
    return RawClient.attach({ path: this.#server.socket }, name, { timeoutMs });
  }

  async #firstRead(name: string): Promise<void> {
    let client: RawClient | undefined;
    this.#set("attach, ms", await ms(async () => client = await this.#attach(name)));
    const offset = Math.floor(this.#shape.mappingsPerDevice / 3) * blockBytes;
    this.#set("first read, ms", await ms(() => client!.read(offset, 4096)));
    client!.close();
  }

  async #reads(name: string, seconds: number): Promise<void> {
    const sizeBytes = this.#shape.mappingsPerDevice * blockBytes;
    const job = {
      uri: this.#server.url(name),
      rw: "randread",
      blockBytes: 4096,
      depth: 32,
      sizeBytes,
    } as const;
    const first = await runFio({ ...job, seconds });
    this.#set("4k random read d32, IOPS at first", first.requestsPerSecond);
    const then = await runFio({ ...job, seconds });
    this.#set("4k random read d32, IOPS", then.requestsPerSecond);
    this.#set("its p99, us", then.p99Us);
    this.#setMemory("after it");
  }

  /** Trims blocks, so that their mappings change, and times the flush. The snapshot keeps their data. */
  async #commits(name: string): Promise<void> {
    using client = await this.#attach(name);
    const trim = async (block: number, blocks: number) => {
      const range = { offsetBytes: block * blockBytes, lengthBytes: blocks * blockBytes };
      const { error, message } = await client.perform({ type: NBD_CMD_TRIM, ...range });
      if (error !== 0) throw new Error(`trim: error ${error}, ${message}`);
    };
    const mapped = this.#shape.mappingsPerDevice;
    await client.flush();
    this.#set("flush with nothing to do, ms", await ms(() => client.flush()));
    for (const changes of [1, 1000].filter((changes) => changes <= mapped)) {
      for (let at = 0; at < changes; at++) await trim(Math.floor((at + 0.5) * mapped / changes), 1);
      this.#set(`commit of ${changes} scattered changes, ms`, await ms(() => client.flush()));
    }
    const inRow = 100_000;
    if (mapped < inRow) return;
    // A request is at most 4 GiB long.
    const piece = 50_000;
    const began = performance.now();
    for (let at = 0; at < inRow; at += piece) await trim(at, piece);
    this.#set(`trim of ${inRow} blocks, ms`, performance.now() - began);
    this.#set(`commit of ${inRow} changes in a row, ms`, await ms(() => client.flush()));
  }

  /** Removes something while another volume is read block after block. */
  async #remove(what: string, name: string): Promise<void> {
    using client = await this.#attach("beside");
    let removing = true;
    const removal = ms(() =>
      this.#command({ verb: "rm", names: [name], dryRun: false, force: true, wait: true })
    )
      .finally(() => removing = false);
    const tookMs: number[] = [];
    const ownMs: number[] = [];
    while (removing) {
      const waitedMs = this.#waitedMs();
      const took = await ms(() => client.read(0, 4096));
      tookMs.push(took);
      ownMs.push(took - (this.#waitedMs() - waitedMs));
    }
    this.#set(`${what}, ms`, await removal);
    tookMs.sort((a, b) => a - b);
    this.#set(`${what}: p99.9 of reads beside, ms`, tookMs[Math.floor(tookMs.length * 0.999)] ?? 0);
    this.#set(`${what}: longest read beside, ms`, tookMs.at(-1) ?? 0);
    this.#set(`${what}: the same without waits for a core, ms`, ownMs.reduce((a, b) => Math.max(a, b), 0));
  }

  /** How long the server's thread and this one have been ready without a core. */
  #waitedMs(): number {
    return (mainThreadTimes(this.#server.pid).waitUs + mainThreadTimes(Deno.pid).waitUs) / 1000;
  }
}
