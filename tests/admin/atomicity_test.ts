/**
 * A command is wholly there after a crash, or not at all: the world is stopped after each operation on the devices and
 * the catalogue's journal that a command makes, and the pool is opened from what is left.
 */
import { assert, assertEquals } from "@std/assert";
import { assert as require, present } from "../../storage/base/assert.ts";
import type { AdminCommand } from "../../actors/control/admin_command.ts";
import type { SchedulerPolicy } from "../../actors/kernel/ports.ts";
import { settleCatalogue } from "../../storage/catalogue_open.ts";
import { readJournal } from "../../storage/catalogue_journal.ts";
import { unpackSuperblock } from "../../storage/format/superblock.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../support/pool.ts";
import { Random, RandomPolicy } from "../support/world.ts";
import { type Image, StoppableFiles } from "./stopped_world.ts";
import { readInto } from "../../storage/device/port.ts";

let uidLast = 0;

interface StoppedOptions {
  readonly operationsMax?: number;
  readonly policy?: SchedulerPolicy;
}

/** Opens the pool of an image; the pool is undefined if the world stopped before it was open. */
function open(
  image: Image,
  options: StoppedOptions = {},
): { files: StoppableFiles; pool: TestingPool | undefined } {
  const files = new StoppableFiles({ ...image, journal: settledJournal(image) }, options.operationsMax);
  try {
    const { policy } = options;
    const newUid = () => `u${++uidLast}`;
    return { files, pool: new TestingPool(files, { newUid, ...(policy === undefined ? {} : { policy }) }) };
  } catch (error) {
    if (!files.fuse.stopped) throw error;
    return { files, pool: undefined };
  }
}

/** What the files of a pool do before it is opened (pool_files.ts): what was not committed goes, and one line remains. */
function settledJournal(image: Image): string {
  const superblock = unpackSuperblock(image.metadata.subarray(0, metadataBlockSizeBytes));
  require(typeof superblock !== "string", "a crash has damaged the superblock");
  return settleCatalogue(readJournal(image.journal), superblock.transactionId).catalogue.snapshotLine();
}

/** A volume with a snapshot that differs from it, a clone, another volume; every one ends within a block. */
function makeImage(): Image {
  const files = makeTestingFiles(48, 128);
  const pool = new TestingPool(files, { newUid: () => `u${++uidLast}` });
  const run = (command: AdminCommand) => assertEquals(pool.admin(command), { kind: "done" });
  const filled = (blocks: number, value: number) => new Uint8Array(blocks * bs).fill(value);
  run({ verb: "create", name: "a", sizeBytes: 5 * bs - 1024 });
  run({ verb: "create", name: "b", sizeBytes: 3 * bs });
  const [a, b] = [pool.attach("a"), pool.attach("b")];
  a.write(0, filled(4, 1));
  a.write(4 * bs, new Uint8Array(bs - 1024).fill(2));
  run({ verb: "snapshot", names: ["a@s"] });
  a.write(bs, filled(2, 3));
  a.perform("discard", 0, bs);
  b.write(bs, filled(1, 4));
  run({ verb: "clone", source: "a@s", name: "c" });
  pool.attach("c").write(2 * bs, filled(1, 5));
  assertEquals(a.perform("flush", 0, 0).status, "ok");
  const { data, metadata } = new StoppableFiles({
    data: bytesOf(files.data),
    metadata: bytesOf(files.metadata),
    journal: "",
  });
  return { data: data.bytes, metadata: metadata.bytes, journal: files.journal.text };
}

function bytesOf(
  device: { readonly sizeBytes: number; read: TestingPool["files"]["data"]["read"] },
): Uint8Array {
  const bytes = new Uint8Array(device.sizeBytes);
  readInto(device, bytes, 0, () => {});
  return bytes;
}

/** All that can be seen of a pool: every volume with its content, and the space. */
function stateOf(image: Image): string {
  const pool = present(open(image).pool, "a world without end has stopped");
  assertEquals(pool.admin({ verb: "check" }), { kind: "checked", problems: [], notes: [], waiting: 0 });
  const listed = pool.admin({ verb: "list" });
  const status = pool.admin({ verb: "status" });
  require(listed.kind === "volumes" && status.kind === "status", "a pool that is open can be looked at");
  const lines = listed.volumes.map(({ created: _, ...volume }) => {
    const content = pool.attach(volume.name).read(0, volume.size_bytes);
    return `${JSON.stringify(volume)} ${hash(content)}`;
  });
  return [...lines, `used ${status.status.data_used_bytes}`].join("\n");
}

function hash(bytes: Uint8Array): number {
  let mixed = 17;
  for (const word of new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2)) {
    mixed = Math.imul(mixed, 31) + word | 0;
  }
  return mixed;
}

/** What lay beyond the end of a volume that became smaller is gone for good: it does not come back when it grows. */
function requireZeroesBeyond(image: Image, name: string): void {
  const pool = present(open(image).pool, "a world without end has stopped");
  const listed = pool.admin({ verb: "list" });
  require(listed.kind === "volumes", "a pool that is open can be looked at");
  const end = listed.volumes.find((volume) => volume.name === name)?.size_bytes ?? 0;
  assertEquals(pool.admin({ verb: "resize", name, sizeBytes: end + 5 * bs }), { kind: "done" });
  assert(pool.attach(name).read(end, 5 * bs).every((byte) => byte === 0), "old bytes beyond the end");
}

const remove = (names: string[]): AdminCommand => ({ verb: "rm", names, dryRun: false, force: false });

const fork = (source: string, count: number): AdminCommand => {
  return { verb: "fork", source, count, name: "f%02d", ephemeral: false, lingerMs: null, ttlMs: null };
};

const commands: readonly AdminCommand[] = [
  { verb: "create", name: "d", sizeBytes: 7 * bs },
  { verb: "snapshot", names: ["a@t"] },
  { verb: "snapshot", names: ["a@t", "b@t", "c@t"] },
  { verb: "clone", source: "a@s", name: "d" },
  { verb: "clone", source: "a", name: "d" },
  fork("a", 1),
  fork("a", 5),
  fork("a@s", 5),
  { verb: "rollback", snapshot: "a@s" },
  { verb: "rename", from: "a", to: "z" },
  { verb: "rename", from: "a@s", to: "a@z" },
  { verb: "resize", name: "a", sizeBytes: 9 * bs },
  { verb: "resize", name: "a", sizeBytes: bs + 1000 },
  { verb: "resize", name: "b", sizeBytes: bs },
  remove(["b"]),
  remove(["a"]),
  remove(["a@s", "c"]),
  remove(["a", "a@s", "b", "c"]),
];

const describe = (command: AdminCommand) =>
  Object.entries(command).filter(([key]) => !["verb", "dryRun", "force"].includes(key))
    .map(([, value]) => String(value)).join(" ");

/** Runs a command until the world stops; says whether it was answered as done. */
function runStopped(image: Image, command: AdminCommand, options: StoppedOptions): {
  files: StoppableFiles;
  answered: boolean;
} {
  const { files, pool } = open(image, options);
  let answered = false;
  if (pool !== undefined) {
    try {
      const result = pool.admin(command);
      assert(result.kind !== "refused", `refused: ${JSON.stringify(result)}`);
      answered = true;
    } catch (error) {
      if (!files.fuse.stopped) throw error;
    }
  }
  return { files, answered };
}

const image = makeImage();
const before = stateOf(image);

for (const command of commands) {
  Deno.test(`a crash at any step of ${command.verb} ${describe(command)} leaves all of it or nothing`, () => {
    const whole = runStopped(image, command, {});
    const after = stateOf(whole.files.afterKill());
    assert(after !== before);
    const random = new Random(1);
    let wasBefore = 0;
    for (let count = 0; count < whole.files.fuse.count; count += 1) {
      const { files, answered } = runStopped(image, command, { operationsMax: count });
      const images = [files.afterKill(), files.afterPowerCut(random), files.afterPowerCut(random)];
      for (const left of images) {
        const state = stateOf(left);
        if (state === before && !answered) wasBefore += 1;
        else assertEquals(state, after, `stopped after ${count} operations`);
        if (state === after && command.verb === "resize") requireZeroesBeyond(left, command.name);
      }
    }
    assert(wasBefore > 0);
    assertEquals(stateOf(runStopped(image, command, {}).files.afterPowerCut(random)), after);
  });
}

Deno.test("a crash while what a crash interrupted is settled changes nothing of the outcome", () => {
  for (const command of commands) {
    const whole = runStopped(image, command, {});
    const after = stateOf(whole.files.afterKill());
    const random = new Random(2);
    for (let count = 0; count < whole.files.fuse.count; count += 3) {
      let left = runStopped(image, command, { operationsMax: count }).files.afterPowerCut(random);
      for (let again = 0; again < 4; again += 1) {
        left = open(left, { operationsMax: random.below(12) }).files.afterPowerCut(random);
      }
      const state = stateOf(left);
      assert(state === before || state === after, `${describe(command)} after ${count} operations`);
    }
  }
});

Deno.test("a crash under any schedule leaves a command whole or absent", () => {
  for (const [index, command] of commands.entries()) {
    const after = stateOf(runStopped(image, command, {}).files.afterKill());
    for (let seed = 1; seed <= 12; seed += 1) {
      const random = new Random(100 * index + seed);
      const policy = new RandomPolicy(seed);
      const operationsMax = random.below(40);
      const { files, answered } = runStopped(image, command, { operationsMax, policy });
      const state = stateOf(files.afterPowerCut(random));
      assert(state === after || (state === before && !answered), `${describe(command)}, seed ${seed}`);
    }
  }
});
