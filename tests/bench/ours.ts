/** Our server, and what stands between it and the platform. */
import type { AdminCommand } from "../../mod.ts";
import { askControl } from "../../actors/edge/control.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { PoolOnDisk, type ServerProcess } from "../support/server.ts";
import { Child } from "./place.ts";
import { fill, type Setup, type Subject, type SubjectKind } from "./subject.ts";

const here = new URL(".", import.meta.url).pathname;
const clusterBytes = 64 * 1024;
/** Clusters written between two snapshots of a chain. */
const chainClusters = 16;
/** The data device is sparse, and larger than what any run leaves. */
const dataBytes = 64 * 2 ** 30;

/** Asks a running server of ours for something that it has to do. */
export async function command(directory: string, asked: AdminCommand): Promise<void> {
  const result = await askControl(`${directory}/control.sock`, asked, () => Promise.resolve("taken"));
  if (result === undefined) throw new Error(`${asked.verb}: no server answers`);
  if (result.kind === "refused") throw new Error(`${asked.verb}: ${result.reason}`);
}

/** A pool of ours with a server, and `disk0`. */
export class OurSubject implements Subject {
  readonly pool: PoolOnDisk;
  readonly server: ServerProcess;
  readonly #setup: Setup;
  #prepared = 0;

  private constructor(pool: PoolOnDisk, server: ServerProcess, setup: Setup) {
    this.pool = pool;
    this.server = server;
    this.#setup = setup;
  }

  /** @param denoOptions for Deno itself, such as those of its profiler */
  static async start(setup: Setup, denoOptions: readonly string[] = []): Promise<OurSubject> {
    const pool = setup.place.own(await PoolOnDisk.make(`--data-size=${dataBytes}`));
    const server = await pool.serve([], { permissions: ["-A", ...denoOptions] });
    const subject = new OurSubject(pool, server, setup);
    await subject.#create("disk0");
    if (setup.image.kind !== "fresh") await fill(subject.uri, setup.imageBytes);
    if (setup.image.kind === "chained") await subject.#chain(setup.image.snapshots);
    return subject;
  }

  get uri(): string {
    const { kind } = this.#setup.image;
    return this.server.url(kind === "fresh" && this.#prepared > 0 ? `fresh${this.#prepared}` : "disk0");
  }

  get pid(): number {
    return this.server.pid;
  }

  get files(): readonly string[] {
    return [this.pool.dataPath, this.pool.metadataPath];
  }

  async prepare(): Promise<void> {
    const { kind } = this.#setup.image;
    if (kind === "left") {
      await this.command({ verb: "snapshot", names: ["disk0@s"] });
      await this.command({ verb: "rm", names: ["disk0@s"], dryRun: false, force: true });
    }
    if (kind !== "fresh" && kind !== "shared") return;
    const before = this.#prepared++;
    const nameOf = (at: number) => kind === "fresh" ? `fresh${at}` : `disk0@s${at}`;
    if (before > 0) await this.command({ verb: "rm", names: [nameOf(before)], dryRun: false, force: true });
    if (kind === "fresh") await this.#create(nameOf(before + 1));
    else await this.command({ verb: "snapshot", names: [nameOf(before + 1)] });
  }

  /** Has the server do something. */
  command(asked: AdminCommand): Promise<void> {
    return command(this.pool.directory, asked);
  }

  async #create(name: string): Promise<void> {
    await this.command({ verb: "create", name, sizeBytes: this.#setup.imageBytes });
  }

  async #chain(snapshots: number): Promise<void> {
    using client = await RawClient.attach({ path: this.server.socket }, "disk0");
    const payload = new Uint8Array(4096).fill(7);
    for (let at = 0; at < snapshots; at++) {
      await this.command({ verb: "snapshot", names: [`disk0@c${at}`] });
      for (let i = 0; i < chainClusters; i++) {
        const cluster = Math.floor(Math.random() * this.#setup.imageBytes / clusterBytes);
        await client.write(cluster * clusterBytes, payload);
      }
    }
    await client.flush();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#setup.place.end(this.pool);
  }
}

/** A program of this folder in front of a plain file. */
async function startScript(script: string, setup: Setup): Promise<Subject> {
  const file = setup.place.path(`${script}.img`);
  const socket = setup.place.path(`${script}.sock`);
  await Deno.writeFile(file, new Uint8Array(0));
  await Deno.truncate(file, setup.imageBytes);
  const child = setup.place.own(
    await Child.start(Deno.execPath(), ["run", "-A", here + script, socket, file], socket),
  );
  const uri = `nbd+unix:///?socket=${socket}`;
  await fill(uri, setup.imageBytes);
  const dispose = async () => {
    await setup.place.end(child);
    await Deno.remove(file);
  };
  return {
    uri,
    pid: child.pid,
    files: [file],
    said: () => child.said,
    prepare: async () => {},
    [Symbol.asyncDispose]: dispose,
  };
}

const nothingMissing = () => undefined;

/** Ours, and the two that show where its time goes. */
export const ourKinds: readonly SubjectKind[] = [
  {
    name: "ours",
    isPeer: false,
    missing: nothingMissing,
    does: () => true,
    start: (setup) => OurSubject.start(setup),
  },
  ...(["ours plain", "bare loop"] as const).map((name): SubjectKind => ({
    name,
    isPeer: false,
    missing: nothingMissing,
    does: (image, rw) => image.kind === "filled" && rw !== "trim",
    start: (setup) => startScript(name === "bare loop" ? "bare_server.ts" : "plain_server.ts", setup),
  })),
];
