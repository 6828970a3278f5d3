/**
 * A volume made and removed many times against one real server: clone a base, attach, write 4 KiB, detach, remove.
 *
 *   deno run -A tests/soak/cycles.ts [--cycles N]      200,000 by default
 *
 * Prints the first and the last tenth of what must not grow with the number of cycles, and exits with 1 if something does. The
 * server is a process of its own; everything is read from /proc, its pool's directory and this client's clock.
 */
import { parseArgs } from "node:util";
import { askControl } from "../../actors/edge/control.ts";
import type { AdminCommand } from "../../mod.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { PoolOnDisk } from "../support/server.ts";
import { usageOf } from "../torture/poor_server.ts";
import { compareTenths, type Quantity, type Sample, tenthsTable } from "./tenths.ts";

const MiB = 2 ** 20;
const KiB = 2 ** 10;

/** Cycles in which V8 takes what memory it wants: a shorter run has none of its own to compare with. */
const warmCycles = 20_000;

/**
 * Memory may be 1.3 times that of the first tenth: V8 lets garbage lie for a while. The catalogue goes up and down between two
 * compactions, so its largest size counts. Latency is the machine's too, which other programs share.
 */
function quantitiesOf(cycles: number): readonly Quantity[] {
  const memory = {
    unit: "MiB",
    perUnit: MiB,
    factorMax: 1.3,
    slack: (cycles < 10 * warmCycles ? 128 : 8) * MiB,
    by: "largest",
  } as const;
  const latency = { key: "cycle", unit: "ms", perUnit: 1, slack: 2 } as const;
  return [
    { key: "RSS", ...memory },
    { key: "own memory", ...memory },
    { key: "descriptors", unit: "count", perUnit: 1, factorMax: 1, slack: 4, by: "largest" },
    { key: "catalogue", unit: "KiB", perUnit: KiB, factorMax: 1.3, slack: 128 * KiB, by: "largest" },
    { key: "metadata in use", unit: "KiB", perUnit: KiB, factorMax: 1.1, slack: 64 * KiB, by: "largest" },
    { ...latency, factorMax: 1.5, by: "quickest tenth" },
    { ...latency, factorMax: 4, by: "median" },
  ];
}

/** What the cycles did. */
export interface CyclesReport {
  readonly table: string;
  readonly isFlat: boolean;
  readonly cyclesPerSecond: number;
}

/** Runs so many cycles, one after another, and looks a thousand times, in a short run after each ten. */
export async function runCycles(cycles: number, say: (line: string) => void): Promise<CyclesReport> {
  await using pool = await PoolOnDisk.make("--data-size=256M", "--metadata-size=16M");
  const server = await pool.serve(["--create", "base=64M"]);
  const control = `${pool.directory}/control.sock`;
  const every = Math.max(10, Math.floor(cycles / 1000));
  const samples: Sample[] = [];
  const begin = performance.now();
  let cycleMs: number[] = [];
  for (let cycle = 1; cycle <= cycles; cycle++) {
    const before = performance.now();
    await liveOnce(control, server.socket, `fork${cycle}`, cycle);
    cycleMs.push(performance.now() - before);
    if (cycle % every !== 0) continue;
    const { rssBytes, ownBytes, descriptors } = usageOf(server.pid);
    const values = {
      RSS: rssBytes,
      "own memory": ownBytes,
      descriptors,
      catalogue: catalogueBytes(pool.directory),
      "metadata in use": await metadataInUse(control),
      cycle: median(cycleMs),
    };
    samples.push({ cycle, values });
    cycleMs = [];
    if (samples.length % 100 === 0) say(`${cycle} cycles: ${JSON.stringify(values)}`);
  }
  const seconds = (performance.now() - begin) / 1000;
  await server.stop();
  await pool.requireSound();
  const lines = compareTenths(samples, cycles, quantitiesOf(cycles));
  return {
    table: tenthsTable(lines),
    isFlat: lines.every((line) => line.isFlat),
    cyclesPerSecond: cycles / seconds,
  };
}

async function liveOnce(control: string, socket: string, name: string, cycle: number): Promise<void> {
  await command(control, { verb: "clone", source: "base", name });
  const client = await RawClient.attach({ path: socket }, name);
  const payload = new Uint8Array(4 * KiB).fill(1 + cycle % 255);
  await client.write((cycle % 1000) * 64 * KiB, payload);
  await client.disconnect();
  await command(control, { verb: "rm", names: [name], dryRun: false, force: true, wait: true });
}

/** All files of the pool but its devices. */
function catalogueBytes(directory: string): number {
  const devices = ["metadata.img", "data.img"];
  const names = [...Deno.readDirSync(directory)].map((entry) => entry.name);
  const others = names.filter((name) => !devices.includes(name));
  return others.reduce((sum, name) => sum + sizeOf(`${directory}/${name}`), 0);
}

/** A file may go while we look: a compaction renames it. */
function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

async function metadataInUse(control: string): Promise<number> {
  const result = await command(control, { verb: "status" });
  if (result.kind !== "status") throw new Error(`status answered ${JSON.stringify(result)}`);
  return result.status.metadata_used_bytes;
}

async function command(control: string, asked: AdminCommand) {
  const result = await askControl(control, asked, () => Promise.resolve("taken"));
  if (result === undefined) throw new Error(`The server is gone, at ${JSON.stringify(asked)}`);
  if (result.kind === "refused") throw new Error(`${JSON.stringify(asked)}: ${result.reason}`);
  return result;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { cycles: { type: "string", default: "200000" } } });
  const report = await runCycles(Number(values.cycles), (line) => console.log(line));
  console.log(report.table);
  console.log(`${Math.round(report.cyclesPerSecond)} cycles a second`);
  Deno.exit(report.isFlat ? 0 : 1);
}
