/**
 * A volume made and removed many times in simulated time: what the server keeps must not grow with how much has happened.
 *
 *   deno run -A tests/soak/history.ts [--cycles N]      1,000,000 by default
 *
 * Each cycle clones a base, attaches a client of NBD to the clone, which writes and goes away, and removes the clone; a snapshot
 * comes and goes too, and what is only looked at. The actors are the real ones, wired as in production; devices, journal
 * and sockets are in memory. Prints the first and the last tenth, and exits with 1 if something grows.
 */
import { parseArgs } from "node:util";
import type { AdminCommand } from "../../actors/control/admin_command.ts";
import { NbdListener } from "../../actors/nbd/listener.ts";
import type { Address } from "../../actors/kernel/address.ts";
import { catalogueChangesBytesMin } from "../../actors/limits.ts";
import { mailboxes } from "../../actors/mailboxes.ts";
import type { NbdListenerMessage } from "../../actors/nbd/messages.ts";
import { thinIdMax } from "../../storage/base/ids.ts";
import { SimClient } from "../sim/client.ts";
import { makeTestingFiles, testingBlockSizeBytes, type TestingFiles, TestingPool } from "../support/pool.ts";
import { Random } from "../support/world.ts";
import { compareTenths, type Quantity, type Sample, type TenthsLine, tenthsTable } from "./tenths.ts";

const KiB = 2 ** 10;
const MiB = 2 ** 20;

/** Milliseconds of simulated time that a cycle takes: a commit by the timer comes between some of them. */
const cycleMs = 20;

const quantities: readonly Quantity[] = [
  { key: "catalogue", unit: "KiB", perUnit: KiB, factorMax: 1.3, slack: 64 * KiB, by: "largest" },
  // V8 lets garbage lie for a while; 100 bytes that a cycle leaves behind are 86 MiB in a million cycles.
  { key: "heap", unit: "MiB", perUnit: MiB, factorMax: 1.3, slack: 24 * MiB, by: "median" },
  { key: "buffers", unit: "MiB", perUnit: MiB, factorMax: 1.3, slack: 64 * MiB, by: "median" },
  { key: "actors", unit: "count", perUnit: 1, factorMax: 1, slack: 0, by: "largest" },
  { key: "tasks", unit: "count", perUnit: 1, factorMax: 1, slack: 0, by: "largest" },
  { key: "mailbox", unit: "messages", perUnit: 1, factorMax: 1, slack: 4, by: "largest" },
  { key: "data in use", unit: "blocks", perUnit: 1, factorMax: 1, slack: 0, by: "largest" },
  { key: "metadata in use", unit: "blocks", perUnit: 1, factorMax: 1.1, slack: 8, by: "largest" },
  { key: "cycle", unit: "us", perUnit: 1e-3, factorMax: 1.5, slack: 0.2, by: "median" },
];

/** A pool in memory with a listener for clients, whose catalogue is written anew as a real one is. */
export class HistoryPool {
  readonly files: TestingFiles;
  readonly pool: TestingPool;
  readonly #listener: Address<NbdListenerMessage>;
  readonly #later: (() => void)[] = [];
  readonly #random = new Random(1);
  #cycle = 0;

  /** @param nextThinId of the first volume */
  constructor(nextThinId = 1) {
    this.files = makeTestingFiles(64, 512);
    const { journal } = this.files;
    journal.text = journal.text.replace(`"next_thin_id":1`, `"next_thin_id":${nextThinId}`);
    journal.changesCharsMax = catalogueChangesBytesMin;
    this.pool = new TestingPool(this.files);
    const { kernel } = this.pool;
    const peers = { pool: this.pool.pool.address, accepts: [], log: () => {}, clientsMax: undefined };
    this.#listener = kernel.spawn(
      "listener",
      mailboxes.listener,
      (self) => new NbdListener(kernel, self, peers),
    );
    this.command({ verb: "create", name: "base", sizeBytes: 8 * testingBlockSizeBytes });
    this.#useVolume("base");
    this.command({ verb: "snapshot", names: ["base@s"] });
  }

  command(command: AdminCommand): void {
    const result = this.pool.admin(command);
    if (result.kind === "refused") throw new Error(`${command.verb}: ${result.reason}`);
  }

  /** One volume, from its creation to its removal. */
  cycle(): void {
    this.#cycle += 1;
    const name = `fork${this.#cycle}`;
    // A clone of a volume that can be written takes a tick of the snapshot clock, of which there are 16 million.
    const source = this.#cycle % 16 === 0 ? "base" : "base@s";
    this.command({ verb: "clone", source, name });
    this.#useVolume(name);
    if (this.#cycle % 64 === 0) this.#visit(name);
    this.command({ verb: "rm", names: [name], dryRun: false, force: false });
    this.pool.clock.advance(cycleMs);
    this.#drain();
  }

  /** What else there is: a snapshot, a rename, a resize, a rollback, and looks. */
  #visit(name: string): void {
    const snapshot = `${name}@t`;
    this.command({ verb: "snapshot", names: [snapshot] });
    this.command({ verb: "rollback", snapshot, force: true });
    this.command({
      verb: "resize",
      name,
      sizeBytes: (1 + this.#cycle % 9) * testingBlockSizeBytes,
      force: true,
    });
    this.command({ verb: "rename", from: name, to: `${name}.new` });
    this.command({ verb: "list" });
    const names = [`${name}.new@t`, `${name}.new@before-rollback-1`];
    this.command({ verb: "rm", names, dryRun: false, force: false });
    this.command({ verb: "rename", from: `${name}.new`, to: name });
  }

  /** A client attaches, writes, and is gone: by chance before it has heard the answer. */
  #useVolume(name: string): void {
    const world = { random: this.#random, swarm: { pieceBytes: 0 } };
    const socketWorld = {
      kernel: this.pool.kernel,
      world,
      schedule: (event: () => void) => void this.#later.push(event),
      isAlive: () => true,
      beforeSend: () => {},
    };
    let answers = 0;
    const client = new SimClient(socketWorld, { answered: () => answers += 1, lost: () => {} }, name, true);
    this.pool.kernel.post(this.#listener, { type: "connected", socket: client.socket });
    this.#drain();
    if (!client.isAttached) throw new Error(`not attached to ${name}`);
    const data = new Uint8Array(4 * KiB).fill(1 + this.#cycle % 255);
    const flags = { fua: false, noHole: false, fastZero: false };
    const offsetBytes = this.#cycle % 8 * testingBlockSizeBytes;
    client.ask({ kind: "write", offsetBytes, lengthBytes: data.length, data, ...flags });
    if (this.#random.below(4) > 0) {
      this.#drain();
      if (answers !== 1) throw new Error(`a write to ${name} was not answered`);
    }
    client.socket.reset();
    this.#drain();
  }

  #drain(): void {
    do this.pool.drain(); while (this.#runLater());
  }

  #runLater(): boolean {
    const event = this.#later.shift();
    event?.();
    return event !== undefined;
  }

  /** What there is now. */
  sample(): Record<string, number> {
    const status = this.pool.admin({ verb: "status" });
    if (status.kind !== "status") throw new Error(`status answered ${status.kind}`);
    const marks = this.pool.kernel.mailboxHighWater();
    const { heapUsed, external } = Deno.memoryUsage();
    return {
      catalogue: this.files.journal.text.length,
      heap: heapUsed,
      buffers: external,
      actors: marks.size,
      tasks: this.pool.kernel.tasksInFlight().length,
      mailbox: Math.max(...marks.values()),
      "data in use": status.status.data_used_bytes / testingBlockSizeBytes,
      "metadata in use": status.status.metadata_used_bytes / (4 * KiB),
    };
  }

  /** Thin ids of all volumes, by name. */
  thinIds(): Map<string, number> {
    const list = this.pool.admin({ verb: "list" });
    if (list.kind !== "volumes") throw new Error(`list answered ${list.kind}`);
    return new Map(list.volumes.map((volume) => [volume.name, volume.thin_id]));
  }

  /** Throws unless the metadata is sound. */
  requireSound(): void {
    const checked = this.pool.admin({ verb: "check" });
    const isSound = checked.kind === "checked" && checked.problems.length === 0;
    if (!isSound) throw new Error(`not sound: ${JSON.stringify(checked)}`);
  }
}

/** Runs so many cycles and looks a thousand times. */
export function runHistory(cycles: number, say: (line: string) => void): TenthsLine[] {
  const history = new HistoryPool(thinIdMax - Math.floor(cycles / 2));
  const every = Math.max(1, Math.floor(cycles / 1000));
  const samples: Sample[] = [];
  let begin = performance.now();
  for (let cycle = 1; cycle <= cycles; cycle += 1) {
    history.cycle();
    if (cycle % every !== 0) continue;
    const cycleMs = (performance.now() - begin) / every;
    const values = { ...history.sample(), cycle: cycleMs };
    samples.push({ cycle, values });
    if (cycle % (every * 100) === 0) say(`${cycle} cycles: ${JSON.stringify(values)}`);
    begin = performance.now();
  }
  history.requireSound();
  return compareTenths(samples, cycles, quantities);
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { cycles: { type: "string", default: "1000000" } } });
  const lines = runHistory(Number(values.cycles), (line) => console.log(line));
  console.log(tenthsTable(lines));
  Deno.exit(lines.every((line) => line.isFlat) ? 0 : 1);
}
