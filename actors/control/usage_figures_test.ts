import { assert, assertEquals } from "@std/assert";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { assert as require } from "../../storage/base/assert.ts";
import type { DevicePort, IoResult, ReadDone, ReadTarget } from "../../storage/device/port.ts";
import { MemoryDevice } from "../../tests/support/memory_device.ts";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import type { AdminResult, VolumeListing } from "./admin_command.ts";

/** A metadata device that counts reads, and answers them later while it is slow. */
class SlowDevice implements DevicePort {
  reads = 0;
  isSlow = false;
  readonly #device: MemoryDevice;
  #waiting: (() => void)[] = [];

  constructor(device: MemoryDevice) {
    this.#device = device;
  }

  get bytes(): Uint8Array {
    return this.#device.bytes;
  }
  get sizeBytes(): number {
    return this.#device.sizeBytes;
  }
  get local(): undefined {
    return undefined;
  }

  read(target: ReadTarget, offsetBytes: number, done: ReadDone): IoResult | "pending" {
    this.reads += 1;
    const result = this.#device.read(target, offsetBytes);
    if (!this.isSlow) return result;
    this.#waiting.push(() => done(result, target));
    return "pending";
  }

  write(buffer: Uint8Array, offsetBytes: number): IoResult {
    return this.#device.write(buffer, offsetBytes);
  }
  zero(offsetBytes: number, lengthBytes: number): IoResult {
    return this.#device.zero(offsetBytes, lengthBytes);
  }
  copy(fromBytes: number, toBytes: number, lengthBytes: number): IoResult {
    return this.#device.copy(fromBytes, toBytes, lengthBytes);
  }
  flush(): IoResult {
    return this.#device.flush();
  }

  /** Answers what waits. */
  release(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const answer of waiting) answer();
  }
}

/** A pool with the volumes `a`, with a snapshot that shares 2 of its 4 blocks, and `x`. */
function poolOf(waitedMappingsMax: number): { pool: TestingPool; device: SlowDevice } {
  const files = makeTestingFiles(64, 512);
  const metadata = new SlowDevice(files.metadata as MemoryDevice);
  const pool = new TestingPool({ ...files, metadata }, {
    knobs: { waitedMappingsMax, figuresWaitMs: 10, blocksPerRest: 1 },
  });
  for (const name of ["a", "x"]) pool.admin({ verb: "create", name, sizeBytes: 16 * bs });
  pool.attach("a").write(0, new Uint8Array(4 * bs).fill(1));
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  pool.attach("a").write(0, new Uint8Array(2 * bs).fill(2));
  pool.attach("x").write(0, new Uint8Array(3 * bs).fill(3));
  return { pool, device: metadata };
}

function listed(result: AdminResult | undefined): readonly VolumeListing[] {
  require(result?.kind === "volumes", "list answers with volumes");
  return result.volumes;
}

/** Of each volume its name, mapped, exclusive and shared blocks, and the age of the last two. */
function lines(result: AdminResult | undefined): string[] {
  const blocks = (bytes: number | null) => bytes === null ? "-" : bytes / bs;
  return listed(result).map((one) =>
    `${one.name} ${blocks(one.mapped_bytes)} ${blocks(one.exclusive_bytes)} ` +
    `${blocks(one.shared_bytes)} ${one.figures_age_ms ?? "-"}`
  );
}

/** Starts a command; what it comes to is in the list later. */
function begin(pool: TestingPool, command: Parameters<TestingPool["pool"]["admin"]>[0]): AdminResult[] {
  const answers: AdminResult[] = [];
  pool.kernel.start(
    "test",
    (function* () {
      answers.push(yield* pool.pool.admin(command));
    })(),
  );
  pool.drain();
  return answers;
}

/** Lets the slow device answer until nothing waits any more. */
function finish(pool: TestingPool, device: SlowDevice): void {
  device.isSlow = false;
  device.release();
  pool.drain();
}

const exact = ["a 4 2 2 0", "a@s 4 2 2 0", "x 3 3 0 0"];

Deno.test("figures are of now where counting is little work", () => {
  const { pool } = poolOf(1000);
  assertEquals(lines(pool.admin({ verb: "list" })), exact);
  pool.attach("a").write(2 * bs, new Uint8Array(bs).fill(4));
  assertEquals(lines(pool.admin({ verb: "list" })), ["a 4 3 1 0", "a@s 4 3 1 0", "x 3 3 0 0"]);
});

Deno.test("what has not changed is not counted again, and another family's change counts that family alone", () => {
  const { pool, device } = poolOf(1000);
  pool.admin({ verb: "list" });
  const before = device.reads;
  assertEquals(lines(pool.admin({ verb: "list" })), exact);
  assertEquals(device.reads, before);
  const commits = pool.engine.transactionId;
  pool.attach("x").write(8 * bs, new Uint8Array(bs).fill(5));
  assertEquals(lines(pool.admin({ verb: "list", names: ["a", "a@s"] })), exact.slice(0, 2));
  assertEquals([device.reads, pool.engine.transactionId], [before, commits]);
  assertEquals(lines(pool.admin({ verb: "list" })).at(-1), "x 4 4 0 0");
});

Deno.test("where counting takes long, a list shows the last figures with their age, and later the new ones", () => {
  const { pool, device } = poolOf(0);
  assertEquals(lines(pool.admin({ verb: "list" })), exact);
  pool.attach("a").write(8 * bs, new Uint8Array(bs).fill(6));
  pool.clock.nowMs += 5_000;
  device.isSlow = true;
  const early = begin(pool, { verb: "list" });
  assertEquals(early, []);
  pool.clock.advance(10);
  pool.drain();
  assertEquals(lines(early[0]), ["a 5 2 2 5010", "a@s 4 2 2 5010", "x 3 3 0 0"]);
  finish(pool, device);
  assertEquals(lines(pool.admin({ verb: "list" })), ["a 5 3 2 0", "a@s 4 2 2 0", "x 3 3 0 0"]);
});

Deno.test("figures that were never counted are said to be unknown, unless they are waited for", () => {
  const { pool, device } = poolOf(0);
  device.isSlow = true;
  const waiting = begin(pool, { verb: "list", exact: true });
  const early = begin(pool, { verb: "list" });
  pool.clock.advance(10);
  pool.drain();
  assertEquals([lines(early[0]), waiting], [["a 4 - - -", "a@s 4 - - -", "x 3 - - -"], []]);
  finish(pool, device);
  assertEquals(lines(waiting[0]), exact);
});

Deno.test("all that ask share one walk; one that asks after a change gets the next", () => {
  const { pool, device } = poolOf(1000);
  const walk = () => device.reads;
  pool.admin({ verb: "list" });
  const before = walk();
  pool.attach("x").write(8 * bs, new Uint8Array(bs).fill(5));
  pool.admin({ verb: "list" });
  const oneWalk = walk() - before;
  pool.attach("x").write(9 * bs, new Uint8Array(bs).fill(5));
  device.isSlow = true;
  const first = [1, 2, 3].map(() => begin(pool, { verb: "list" }));
  pool.attach("x").write(10 * bs, new Uint8Array(bs).fill(5));
  const last = begin(pool, { verb: "list" });
  const begun = walk();
  finish(pool, device);
  for (const answers of first) assertEquals(lines(answers[0]).at(-1), "x 5 5 0 0");
  assertEquals(lines(last[0]).at(-1), "x 6 6 0 0");
  assert(walk() - begun < 2 * oneWalk, "two walks at most for four that asked");
});

Deno.test("a pool that is closed breaks off the walk that goes on, and holds no block any more", () => {
  const { pool, device } = poolOf(0);
  device.isSlow = true;
  const early = begin(pool, { verb: "list" });
  pool.clock.advance(10);
  pool.drain();
  assertEquals(early.length, 1);
  const stopped: AdminResult[] = [];
  pool.kernel.start(
    "stop",
    (function* () {
      stopped.push(yield* pool.pool.stop());
    })(),
  );
  pool.drain();
  assertEquals(stopped, []);
  const begun = device.reads;
  finish(pool, device);
  assertEquals(device.reads, begun);
  assertEquals(stopped, [{ kind: "done" }]);
});

Deno.test("damage that counting meets is the answer, and the pool can be asked again", () => {
  const { pool, device } = poolOf(1000);
  pool.admin({ verb: "status" });
  pool.ask(pool.pool.admin({ verb: "snapshot", names: ["x@s"] }));
  // Every block but the superblock: which of them a walk reads first does not matter.
  const sound = device.bytes.slice();
  device.bytes.fill(0xff, metadataBlockSizeBytes);
  const refused = pool.admin({ verb: "list" });
  require(refused.kind === "refused", "damage is told");
  assert(refused.reason.startsWith("Cannot list the volumes: the metadata is damaged. Metadata block "));
  device.bytes.set(sound);
  assertEquals(listed(pool.admin({ verb: "list" })).length, 4);
});
