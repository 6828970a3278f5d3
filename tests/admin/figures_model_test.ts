/**
 * Exclusive figures and `rm -n` on random trees of volumes, snapshots and clones, against a recount of all mappings, thin_ls,
 * and removals on a copy of the pool. GOSSAMER_SOAK=1: twenty trees of 50.
 */
import { assert, assertEquals } from "@std/assert";
import type { AdminResult } from "../../actors/control/admin_command.ts";
import { assert as require } from "../../storage/base/assert.ts";
import type { IoResult } from "../../storage/device/port.ts";
import { DiscardingDevice, MemoryDevice } from "../support/memory_device.ts";
import { Recount } from "../support/metadata_recount.ts";
import {
  makeTestingFiles,
  MemoryJournal,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../support/pool.ts";
import { usedBlocks } from "../support/pool_checks.ts";
import { hasThinTools, runThinTool } from "../support/thin_tools.ts";
import { Random, RandomPolicy } from "../support/world.ts";

const isSoak = Deno.env.get("GOSSAMER_SOAK") === "1";
const trees = isSoak ? 20 : 1;
const devicesMax = isSoak ? 50 : 10;
/** Steps between two checks of a kind. */
const checkSteps = isSoak ? 16 : 12;
const volumeBlocks = 24;

/** A metadata device that keeps what was durable at each flush. */
class KeepingDevice extends MemoryDevice {
  readonly images: Uint8Array[] = [];
  isKeeping = false;

  override flush(): IoResult {
    if (this.isKeeping) this.images.push(this.bytes.slice());
    return super.flush();
  }
}

/** The figures of every thin device, as lines "id mapped exclusive", from all mappings there are. */
function recounted(image: Uint8Array): string[] {
  const { devices } = new Recount(image);
  const mappers = new Map<number, number>();
  for (const mappings of devices.values()) {
    for (const [dblock] of mappings.values()) mappers.set(dblock, (mappers.get(dblock) ?? 0) + 1);
  }
  return [...devices].map(([id, mappings]) => {
    const own = [...mappings.values()].filter(([dblock]) => mappers.get(dblock) === 1).length;
    return `${id} ${mappings.size} ${own}`;
  }).sort();
}

/** Data blocks that only these devices map. */
function freedIn(image: Uint8Array, leaving: ReadonlySet<number>): number {
  const { devices } = new Recount(image);
  const stays = new Set<number>();
  const goes = new Set<number>();
  for (const [id, mappings] of devices) {
    for (const [dblock] of mappings.values()) (leaving.has(id) ? goes : stays).add(dblock);
  }
  return goes.difference(stays).size;
}

class Tree {
  readonly metadata: KeepingDevice;
  readonly pool: TestingPool;
  readonly #random: Random;
  readonly #data: DiscardingDevice;
  readonly #journal: MemoryJournal;
  #made = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    const files = makeTestingFiles(512, isSoak ? 1024 : 256);
    this.#data = files.data as DiscardingDevice;
    this.#journal = files.journal;
    this.metadata = new KeepingDevice((files.metadata as MemoryDevice).bytes);
    // One message a turn, in random order; every list waits for figures of now, or for none.
    const knobs = { sliceRecords: 1 + this.#random.below(20), blocksPerRest: 1 };
    this.pool = new TestingPool({ ...files, metadata: this.metadata }, {
      knobs,
      policy: new RandomPolicy(seed),
    });
    this.#create();
  }

  get names(): string[] {
    return listed(this.pool.admin({ verb: "list" })).map(({ name }) => name);
  }

  any<T>(items: readonly T[]): T {
    return items[this.#random.below(items.length)]!;
  }

  some<T>(items: readonly T[]): T[] {
    const share = this.#random.below(101) / 100;
    const chosen = items.filter(() => this.#random.chance(share));
    return chosen.length === 0 ? [this.any(items)] : chosen;
  }

  #create(): void {
    this.#made += 1;
    this.pool.admin({ verb: "create", name: `v${this.#made}`, sizeBytes: volumeBlocks * bs });
  }

  /** One step of the tree's life. */
  step(): void {
    const { names } = this;
    const volumes = names.filter((name) => !name.includes("@"));
    this.#made += 1;
    const kind = this.#random.below(10);
    if (volumes.length === 0 || kind === 0) this.#create();
    else if (kind <= 2) this.pool.admin({ verb: "snapshot", names: [`${this.any(volumes)}@s${this.#made}`] });
    else if (kind === 3) this.pool.admin({ verb: "clone", source: this.any(names), name: `c${this.#made}` });
    else if (kind === 4) {
      const removed = names.length > devicesMax ? this.some(names) : [this.any(names)];
      this.pool.admin({ verb: "rm", names: removed, dryRun: false, force: false });
    } else this.write(this.any(volumes));
  }

  /** Writes or discards a few blocks of a volume. */
  write(name: string): void {
    const volume = this.pool.attach(name);
    this.#submit(volume);
    this.pool.drain();
    volume.detach();
  }

  #submit(volume: TestingVolume): void {
    const first = this.#random.below(volumeBlocks);
    const length = (1 + this.#random.below(Math.min(6, volumeBlocks - first))) * bs;
    const kind = this.#random.below(4) === 0 ? "discard" : "write";
    volume.submit(kind, first * bs, length, kind === "write" ? { data: new Uint8Array(length).fill(1) } : {});
  }

  /** Figures and removals of some sets, against a recount and against removals on a copy. */
  check(): void {
    const volumes = listed(this.pool.admin({ verb: "list", exact: true }));
    assertEquals(
      volumes.map((one) => `${one.thin_id} ${one.mapped_bytes / bs} ${(one.exclusive_bytes ?? 0) / bs}`)
        .sort(),
      recounted(this.metadata.bytes),
    );
    const removed = this.some(volumes);
    const names = removed.map(({ name }) => name);
    const told = freed(this.pool.admin({ verb: "rm", names, dryRun: true, force: false }));
    assertEquals(told, freedIn(this.metadata.bytes, new Set(removed.map(({ thin_id }) => thin_id))));
    const copy = this.#copy();
    const before = usedBlocks(copy);
    copy.admin({ verb: "rm", names, dryRun: false, force: false });
    assertEquals(before - usedBlocks(copy), told, names.join(" "));
  }

  /** The same while clients write: the answer is that of a commit meanwhile. */
  checkBeside(): void {
    const volumes = listed(this.pool.admin({ verb: "list" }));
    const writable = volumes.filter(({ read_only }) => !read_only).map(({ name }) => name);
    if (writable.length === 0) return;
    const removed = this.some(volumes);
    this.metadata.images.splice(0, Infinity, this.metadata.bytes.slice());
    this.metadata.isKeeping = true;
    const answers: AdminResult[] = [];
    const { pool } = this;
    const ask = function* () {
      answers.push(yield* pool.pool.admin({ verb: "list", exact: true }));
    };
    const askFreed = function* () {
      const names = removed.map(({ name }) => name);
      answers.push(yield* pool.pool.admin({ verb: "rm", names, dryRun: true, force: false }));
    };
    const clients = this.some(writable).map((name) => pool.attach(name));
    pool.kernel.start("list", ask());
    pool.kernel.start("rm -n", askFreed());
    for (let count = 0; count < 4; count += 1) this.#submit(this.any(clients));
    pool.drain();
    for (const client of clients) client.detach();
    this.metadata.isKeeping = false;
    const images = [...this.metadata.images, this.metadata.bytes];
    for (const answer of answers) {
      if (answer.kind === "wouldFree") {
        const leaving = new Set(removed.map(({ thin_id }) => thin_id));
        const possible = images.map((image) => freedIn(image, leaving));
        assert(possible.includes(freed(answer)), `${freed(answer)} is none of ${possible}`);
      } else {
        // Figures are of one commit within a family; a family that has not changed before the question is not counted again.
        const possible = new Set(images.flatMap(recounted));
        for (const one of listed(answer)) {
          const line = `${one.thin_id} ${one.mapped_bytes / bs} ${(one.exclusive_bytes ?? 0) / bs}`;
          assert(possible.has(line), `${one.name}: ${line} was never so`);
        }
      }
    }
  }

  async checkByTool(): Promise<void> {
    const path = await Deno.makeTempFile();
    try {
      await Deno.writeFile(path, this.metadata.bytes);
      const args = ["--no-headers", "-o", "DEV,MAPPED_BLOCKS,EXCLUSIVE_BLOCKS", path];
      const { stdout } = runThinTool("thin_ls", "0.9", args);
      const lines = stdout.trim().split("\n").filter((line) => line !== "");
      const theirs = lines.map((line) => line.trim().replace(/\s+/g, " ")).sort();
      const ours = listed(this.pool.admin({ verb: "list" })).map((one) =>
        `${one.thin_id} ${one.mapped_bytes / bs} ${(one.exclusive_bytes ?? 0) / bs}`
      );
      assertEquals(ours.sort(), theirs);
    } finally {
      await Deno.remove(path);
    }
  }

  /** The pool as another start would find it. */
  #copy(): TestingPool {
    this.#made += 1;
    const uid = `copy${this.#made}-`;
    let uids = 0;
    return new TestingPool({
      data: new DiscardingDevice(this.#data.sizeBytes),
      metadata: new MemoryDevice(this.metadata.bytes.slice()),
      journal: new MemoryJournal(this.#journal.text),
    }, { newUid: () => `${uid}${++uids}` });
  }
}

function listed(result: AdminResult) {
  require(result.kind === "volumes", "list answers with volumes");
  return result.volumes;
}

function freed(result: AdminResult): number {
  require(result.kind === "wouldFree", "rm -n answers with bytes");
  return result.bytes / bs;
}

for (let seed = 1; seed <= trees; seed += 1) {
  Deno.test({
    name:
      `exclusive figures and rm -n are those of a recount, of thin_ls and of removals, on random tree ${seed}`,
    fn: async () => {
      const tree = new Tree(seed);
      for (let step = 0; tree.names.length < devicesMax && step < 20 * devicesMax; step += 1) {
        tree.step();
        if (step % checkSteps === 4) tree.checkBeside();
        if (step % checkSteps === 8) tree.check();
      }
      tree.check();
      if (hasThinTools("0.9")) await tree.checkByTool();
    },
  });
}
