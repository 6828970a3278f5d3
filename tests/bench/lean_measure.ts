/** Runs the lean client's rows on all servers, in turns, and keeps what came out. */
import fs from "node:fs";
import { makeCertificates } from "../support/certificates.ts";
import { programPath } from "../support/programs.ts";
import { LeanClient } from "./lean.ts";
import { type Group, type LeanRow, type LeanSample } from "./lean_rows.ts";
import { type LeanKind, LeanServer, type LeanSetup, spareBytes } from "./lean_servers.ts";
import type { Effort } from "./measure.ts";
import type { Place } from "./place.ts";
import { writeBack } from "./subject.ts";

/** All runs of a row on a server. */
export interface LeanOutcome {
  readonly server: string;
  readonly isPeer: boolean;
  readonly samples: LeanSample[];
}

/** A row with what came out on each server. */
export interface LeanResult {
  readonly row: string;
  readonly unit: string;
  readonly isMoreBetter: boolean;
  readonly outcomes: readonly LeanOutcome[];
}

/** What hears of each row that is measured, and of what is left out, in a sentence. */
export interface Listeners {
  readonly report: (result: LeanResult) => void;
  readonly skip: (sentence: string) => void;
}

/** Of a run, before it is measured, at most; a short run has as much again as it is measured. */
const warmSecondsMax = 0.3;
/** Seconds of each kind of request that warm a server which compiles what it runs. */
const exerciseSeconds = 1;
/** Files that are cached to a smaller share are filled again before a warm row. */
const cachedShareMin = 0.999;
const tmpfsFolder = "/dev/shm";

/** Measures the chosen rows, one group after the other. */
export async function measureLean(
  place: Place,
  rows: readonly LeanRow[],
  kinds: readonly LeanKind[],
  effort: Effort,
  listeners: Listeners,
): Promise<void> {
  if (rows.length === 0) return;
  const missing = LeanClient.missing();
  if (missing !== undefined) {
    for (const { name } of rows) listeners.skip(`${name}: skipped, ${missing} is not installed`);
    return;
  }
  const client = await LeanClient.make(place.folder);
  const here = kinds.filter((kind) => kind.missing() === undefined);
  const roomBytes = roomOf(here.length, effort.imageBytes);
  const able = rows.filter((row) => {
    const lacks = lackOf(row, client, roomBytes);
    if (lacks !== undefined) listeners.skip(`${row.name}: skipped, ${lacks} is missing`);
    return lacks === undefined;
  });
  for (const chosen of Map.groupBy(able, ({ group }) => group).values()) {
    const bench = new Bench(place, client, chosen[0]!.group, effort, listeners);
    await bench.start(here);
    for (const row of chosen) listeners.report(await bench.measure(row));
    await bench.end();
  }
}

/** Bytes that the servers of one group have on a disk. */
export function roomOf(servers: number, imageBytes: number): number {
  return servers * (imageBytes + spareBytes);
}

/** What a row needs and this machine has not. */
function lackOf({ group, missing }: LeanRow, client: LeanClient, roomBytes: number): string | undefined {
  if (group.transport === "tls") {
    if (!client.hasTls) return "gnutls/gnutls.h (libgnutls28-dev)";
    if (programPath("openssl") === undefined) return "openssl";
  }
  if (group.medium === "tmpfs") {
    const isTmpfs = / \/dev\/shm tmpfs /.test(Deno.readTextFileSync("/proc/self/mounts"));
    if (!isTmpfs) return `a tmpfs at ${tmpfsFolder}`;
    const { bavail, bsize } = fs.statfsSync(tmpfsFolder);
    if (bavail * bsize < roomBytes) return `room in ${tmpfsFolder} (--size makes images smaller)`;
  }
  return missing?.();
}

/** The servers of one group. */
class Bench {
  readonly #place: Place;
  readonly #client: LeanClient;
  readonly #group: Group;
  readonly #effort: Effort;
  readonly #listeners: Listeners;
  readonly #servers: LeanServer[] = [];

  constructor(place: Place, client: LeanClient, group: Group, effort: Effort, listeners: Listeners) {
    this.#place = place;
    this.#client = client;
    this.#group = group;
    this.#effort = effort;
    this.#listeners = listeners;
  }

  /** Starts, fills and warms a server of each kind. All but ours are left out where they cannot do it, with what they say. */
  async start(kinds: readonly LeanKind[]): Promise<void> {
    const setup = await this.#setup();
    for (const kind of kinds) {
      // What stores nothing has nothing on a disk to be compared by.
      if (this.#group.isCold === true && !kind.hasFiles && kind.make === undefined) continue;
      try {
        const server = await LeanServer.start(kind, setup);
        this.#servers.push(server);
        if (this.#group.isBare === true) continue;
        await server.fill(this.#client);
        if (this.#group.isCold !== true) await this.#exercise(server, 0, exerciseSeconds);
      } catch (error) {
        const failed = this.#servers.at(-1)?.kind === kind ? this.#servers.pop() : undefined;
        const sentence = `${kind.name} cannot do the group "${this.#group.name}": ${messageOf(error)}` +
          (failed?.complaint ?? "");
        if (failed !== undefined) await this.#place.end(failed);
        if (kind.name === "ours") throw new Error(sentence, { cause: error });
        this.#listeners.skip(sentence);
      }
    }
  }

  async end(): Promise<void> {
    for (const server of this.#servers) await this.#place.end(server);
  }

  /** A row: each round begins with another server, so that none always follows the same one. */
  async measure(row: LeanRow): Promise<LeanResult> {
    const outcomes = this.#servers.map(({ kind }): LeanOutcome => ({
      server: kind.name,
      isPeer: kind.isPeer,
      samples: [],
    }));
    for (let round = 0; round < this.#effort.rounds; round++) {
      for (let turn = 0; turn < this.#servers.length; turn++) {
        const at = (round + turn) % this.#servers.length;
        outcomes[at]!.samples.push(await this.#sample(row, this.#servers[at]!, round));
      }
    }
    return { row: row.name, unit: row.unit, isMoreBetter: row.isMoreBetter, outcomes };
  }

  async #sample(row: LeanRow, server: LeanServer, round: number): Promise<LeanSample> {
    const { seconds } = this.#effort;
    const warmSeconds = Math.min(warmSecondsMax, seconds);
    try {
      const cachedShare = await this.#prepared(server);
      await writeBack(server);
      const run = { client: this.#client, server, seconds, warmSeconds, seed: round + 1 };
      const sample = await row.run(run);
      await writeBack(server);
      return { ...sample, cachedShare };
    } catch (error) {
      const sentence = `${server.kind.name} failed at "${row.name}": ${messageOf(error)}${server.complaint}`;
      throw new Error(sentence, { cause: error });
    }
  }

  /** Has the files as the group wants them, and gives the share of them that is cached; null if that says nothing. */
  async #prepared(server: LeanServer): Promise<number | null> {
    const { files, setup, kind } = server;
    if (this.#group.isBare === true || files.length === 0) return null;
    const allBytes = setup.volumes * setup.volumeBytes;
    if (this.#group.isCold === true) {
      // Nothing has them mapped then; and what a server has in its own memory goes, too.
      await server.stop();
      const { cachedBytes } = await this.#client.drop(files);
      await server.start();
      await this.#exercise(server, setup.volumes - 1, exerciseSeconds);
      return cachedBytes / allBytes;
    }
    if (kind.isDirect === true) return null;
    const share = async () => (await this.#client.cached(files)).cachedBytes / allBytes;
    if (await share() < cachedShareMin) await server.fill(this.#client);
    return Math.min(1, await share());
  }

  /** Small requests on one volume. In a cold group they only read: what is written would be written back meanwhile. */
  async #exercise(server: LeanServer, volume: number, seconds: number): Promise<void> {
    const uris = [server.uris[volume]!];
    await this.#client.run({ mode: "read", uris, depth: 32, seconds });
    if (this.#group.isCold === true) return;
    await this.#client.run({ mode: "write", uris, depth: 32, seconds });
    await this.#client.run({ mode: "flush", uris, depth: 8, seconds });
  }

  async #setup(): Promise<LeanSetup> {
    const { volumes, transport, medium } = this.#group;
    const place = this.#place;
    const certificates = place.path("certificates");
    if (transport === "tls") {
      await Deno.mkdir(certificates);
      await makeCertificates(certificates);
    }
    return {
      place,
      folder: medium === "tmpfs" ? await place.folderIn(tmpfsFolder) : place.folder,
      volumes,
      volumeBytes: Math.floor(this.#effort.imageBytes / volumes / alignBytes) * alignBytes,
      transport,
      certificates: `${certificates}/server`,
    };
  }
}

/** Volumes are whole requests of the largest size. */
const alignBytes = 2 * 2 ** 20;

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
