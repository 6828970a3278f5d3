/** A flipped bit in any metadata block: met when the pool is opened, by `check`, or while it is served. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import { assert as require, Defect } from "../../storage/base/assert.ts";
import { MemoryDevice } from "../support/memory_device.ts";
import { metadataBlockSizeBytes as blockBytes } from "../../storage/base/ids.ts";
import { checkImage } from "../support/metadata_reader.ts";
import {
  makeTestingFiles,
  MemoryJournal,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../support/pool.ts";
import { Random } from "../support/world.ts";
import { hasThinTools, mapAtOnce, runOnImage, type ThinToolsVersion } from "../support/thin_tools.ts";

const done: AdminResult = { kind: "done" };

interface Image {
  readonly data: Uint8Array;
  readonly metadata: Uint8Array;
  readonly journal: string;
}

/** What the mapped blocks of each volume begin with: volume, vblock from and to, value. */
const content: readonly (readonly [name: string, begin: number, end: number, value: number])[] = [
  ["a", 0, 40, 2],
  ["a", 40, 300, 1],
  ["a@s", 0, 300, 1],
  ["a@t", 0, 300, 1],
  ["b", 0, 40, 3],
  ["c", 0, 300, 1],
];

/** Volumes with trees of several leaves, and blocks that more of them map than a bitmap can count. */
function makeImage(): Image {
  const { journal, ...devices } = makeTestingFiles(512, 256);
  const pool = new TestingPool({ ...devices, journal });
  const run = (command: AdminCommand) => assertEquals(pool.admin(command), done);
  const fill = (volume: TestingVolume, begin: number, end: number, value: number) => {
    for (let at = begin; at < end; at += 1) volume.write(at * bs, new Uint8Array(1).fill(value));
  };
  run({ verb: "create", name: "a", sizeBytes: 300 * bs });
  run({ verb: "create", name: "b", sizeBytes: 300 * bs });
  const [a, b] = [pool.attach("a"), pool.attach("b")];
  fill(a, 0, 300, 1);
  run({ verb: "snapshot", names: ["a@s"] });
  run({ verb: "snapshot", names: ["a@t"] });
  run({ verb: "clone", source: "a@s", name: "c" });
  fill(a, 0, 40, 2);
  fill(b, 0, 40, 3);
  assertEquals(a.perform("flush", 0, 0).status, "ok");
  require(devices.data instanceof MemoryDevice, "it is in memory");
  require(devices.metadata instanceof MemoryDevice, "it is in memory");
  return { data: devices.data.bytes, metadata: devices.metadata.bytes, journal: journal.text };
}

const image = makeImage();

/** Every block that holds something, whether it is in use or not. */
const blocksWritten = Array.from({ length: image.metadata.length / blockBytes }, (_, block) => block)
  .filter((block) =>
    image.metadata.subarray(block * blockBytes, (block + 1) * blockBytes).some((byte) => byte !== 0)
  );

function withFlippedBit(block: number, random: Random): Uint8Array {
  const metadata = image.metadata.slice();
  metadata[block * blockBytes + random.below(blockBytes)]! ^= 1 << random.below(8);
  return metadata;
}

/** Opens the pool, or gives the sentence with which it was refused. */
function open(metadata: Uint8Array): TestingPool | string {
  const files = {
    data: new MemoryDevice(image.data.slice()),
    metadata: new MemoryDevice(metadata),
    journal: new MemoryJournal(image.journal),
  };
  try {
    return new TestingPool(files);
  } catch (error) {
    if (error instanceof Defect || !(error instanceof Error)) throw error;
    return error.message;
  }
}

/** Reads all that was written; says how many reads failed. What is read is right. */
function readAll(pool: TestingPool): number {
  let failed = 0;
  for (const [name, begin, end, value] of content) {
    const volume = pool.attach(name);
    for (let at = begin; at < end; at += 1) {
      const read = volume.perform("read", at * bs, 2);
      if (read.status === "ok") assertEquals([...read.data], [value, 0], `${name} ${at}`);
      else {
        assertEquals(read.status, "ioError");
        failed += 1;
      }
    }
  }
  return failed;
}

function statusOf(pool: TestingPool) {
  const result = pool.admin({ verb: "status" });
  require(result.kind === "status", "a damaged pool can be looked at");
  return result.status;
}

Deno.test("a flipped bit in any block is an error or nothing, never other bytes, and is told in one sentence", () => {
  const random = new Random(1);
  let refused = 0;
  let damaged = 0;
  for (const block of blocksWritten) {
    const metadata = withFlippedBit(block, random);
    const sound = checkImage(metadata).problemCount === 0;
    const pool = open(metadata.slice());
    if (typeof pool === "string") {
      assert(!sound);
      assertMatch(pool, /^(The metadata was not opened|Cannot open the pool): .*damaged.*\.$/);
      refused += 1;
      continue;
    }
    const failed = readAll(pool);
    if (sound) {
      assertEquals([failed, pool.logged], [0, []]);
      continue;
    }
    const checked = pool.admin({ verb: "check" });
    assert(checked.kind === "checked" && checked.problems.length > 0, `block ${block}`);
    if (failed > 0) {
      damaged += 1;
      requireWritesNoMore(pool, metadata);
    }
  }
  assert(refused >= 5, `${refused} refused`);
  assert(damaged >= 5, `${damaged} met while serving`);
});

/** The pool has met damage: nothing changes any more, what is not damaged is read. */
function requireWritesNoMore(pool: TestingPool, metadata: Uint8Array): void {
  assertEquals(pool.logged.length, 1);
  assertMatch(
    pool.logged[0]!,
    /^The pool writes no more: metadata block \d+ is damaged: .*\. Run `check`, which names all damage\.$/,
  );
  const { mode, trouble } = statusOf(pool);
  assertEquals(mode, "read-only");
  assertMatch(trouble!, /^metadata block \d+ is damaged: /);
  const b = pool.attach("b");
  const statuses = (["flush", "write", "discard", "writeZeroes"] as const).map((kind) =>
    b.perform(kind, 0, kind === "flush" ? 0 : bs, { data: new Uint8Array(kind === "write" ? bs : 0) }).status
  );
  assertEquals(statuses, Array(4).fill("ioError"));
  const changed = pool.admin({ verb: "create", name: "d", sizeBytes: bs });
  assert(changed.kind === "refused");
  assertMatch(
    changed.kind === "refused" ? changed.reason : "",
    /^The pool takes no changes \(mode read-only\): metadata block \d+ is damaged.*\. Run `check`, which names all damage\.$/,
  );
  pool.clock.advance(60_000);
  pool.drain();
  assertEquals(pool.logged.length, 1);
  const { bytes } = pool.files.metadata as MemoryDevice;
  assert(bytes.every((byte, at) => byte === metadata[at]), "metadata was written after damage was met");
}

Deno.test("damage met by a write keeps it out, and reads elsewhere go on", () => {
  const random = new Random(2);
  let met = 0;
  for (const block of blocksWritten) {
    const pool = open(withFlippedBit(block, random));
    if (typeof pool === "string") continue;
    const b = pool.attach("b");
    if (b.perform("read", 0, 2).status !== "ok") continue;
    const c = pool.attach("c");
    const statuses = [0, 150, 299].map((at) => c.write(at * bs, new Uint8Array([9])).status);
    if (statuses.every((status) => status === "ok")) continue;
    assert(
      statuses.every((status) => status === "ok" || status === "ioError"),
      `block ${block}: ${statuses}`,
    );
    assertEquals(pool.logged.length, 1);
    assertEquals(statusOf(pool).mode, "read-only");
    assertEquals(b.read(0, 2), new Uint8Array([3, 0]));
    met += 1;
  }
  assert(met >= 3, `${met} met by writes`);
});

const versions: readonly ThinToolsVersion[] = ["0.9", "1.x"];

Deno.test({
  name: "check finds a flipped bit wherever thin_check 0.9 or 1.x does, and nowhere else",
  ignore: !versions.every(hasThinTools),
  fn: async () => {
    const random = new Random(3);
    const images = blocksWritten.map((block) => ({ block, metadata: withFlippedBit(block, random) }));
    const found = await mapAtOnce(images, 24, async ({ block, metadata }) => {
      const tools = await Promise.all(
        versions.map((version) => runOnImage("thin_check", version, metadata, ["-q"])),
      );
      return [block, tools.some((tool) => tool.status !== 0), checkImage(metadata).problemCount > 0];
    });
    assertEquals(found.filter(([, theirs, ours]) => theirs !== ours), []);
    assert(found.filter(([, theirs]) => theirs).length >= 10);
  },
});
