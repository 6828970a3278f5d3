/** Flushes that find nothing to commit, beside each other and beside commits. */
import { assert, assertEquals } from "@std/assert";
import type { VolumeRequest } from "../volume/bio.ts";
import type { Steps } from "../kernel/task.ts";
import { defaultKnobs } from "../knobs.ts";
import { flagNeedsCheck, type Superblock, unpackSuperblock } from "../../storage/format/superblock.ts";
import { assert as require } from "../../storage/base/assert.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { SlowDevice } from "../../tests/support/devices.ts";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../../tests/support/pool.ts";
import { readInto } from "../../storage/device/port.ts";

function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** A pool whose volume has one block written and committed, and whose data device now flushes when it is told to. */
class SlowPool {
  readonly data: SlowDevice;
  readonly pool: TestingPool;
  readonly volume: TestingVolume;

  constructor() {
    const files = makeTestingFiles();
    this.data = new SlowDevice(files.data);
    this.pool = new TestingPool({ ...files, data: this.data });
    this.pool.admin({ verb: "create", name: "a", sizeBytes: 64 * bs });
    this.volume = this.pool.attach("a");
    this.volume.write(0, filled(bs, 1));
    this.volume.perform("flush", 0, 0);
    this.data.slows = "flush";
  }

  /** Asks for a flush by itself: what it can begin has begun. */
  flush(): VolumeRequest {
    const request = this.volume.submit("flush", 0, 0);
    this.pool.drain();
    return request;
  }

  /** Lets the oldest flush of the device end, or so many. */
  finish(count = 1): void {
    this.data.finish(count);
    this.pool.drain();
  }

  /** What was answered to each: "open" if nothing yet. */
  answers(requests: readonly VolumeRequest[]): string[] {
    return requests.map((request) => this.volume.isDone(request) ? request.status : "open");
  }

  superblock(): Superblock {
    const bytes = new Uint8Array(metadataBlockSizeBytes);
    readInto(this.pool.files.metadata, bytes, 0, () => {});
    const superblock = unpackSuperblock(bytes);
    require(typeof superblock !== "string", "the superblock is sound");
    return superblock;
  }
}

Deno.test("flushes that find nothing to commit run beside each other, as many as may, and the rest share the next", () => {
  const slow = new SlowPool();
  const first = Array.from({ length: defaultKnobs.flushesMax }, () => slow.flush());
  const rest = [slow.flush(), slow.flush(), slow.flush()];
  assertEquals(slow.data.pendingCount, defaultKnobs.flushesMax);
  slow.finish();
  assertEquals(slow.answers(first), ["ok", "open"]);
  assertEquals(slow.data.pendingCount, defaultKnobs.flushesMax);
  slow.finish(defaultKnobs.flushesMax);
  assertEquals(slow.answers([...first, ...rest]), ["ok", "ok", "ok", "ok", "ok"]);
  assertEquals(slow.data.pendingCount, 0);
});

Deno.test("flushes asked for at the same moment are one", () => {
  const slow = new SlowPool();
  const requests = [1, 2, 3].map(() => slow.volume.submit("flush", 0, 0));
  slow.pool.drain();
  assertEquals(slow.data.pendingCount, 1);
  slow.finish();
  assertEquals(slow.answers(requests), ["ok", "ok", "ok"]);
});

Deno.test("a flush after a write covers that write, also beside one that began before it", () => {
  const slow = new SlowPool();
  const before = slow.flush();
  slow.volume.write(0, filled(10, 2));
  const after = slow.flush();
  assertEquals(slow.data.pendingCount, 2);
  slow.finish();
  assertEquals(slow.answers([before, after]), ["ok", "open"]);
});

Deno.test("a commit begins when the flushes beside it have ended, and no flush runs beside a commit", () => {
  const slow = new SlowPool();
  const committed = slow.superblock();
  const flush = slow.flush();
  slow.volume.write(bs, filled(bs, 2));
  const commit = slow.flush();
  assertEquals(slow.data.pendingCount, 1);
  slow.finish();
  assertEquals(slow.answers([flush, commit]), ["ok", "open"]);
  assertEquals(slow.superblock(), committed);
  const later = slow.flush();
  assertEquals(slow.data.pendingCount, 1);
  slow.finish();
  assertEquals(slow.answers([commit, later]), ["ok", "open"]);
  assert(slow.superblock().mappingRoot !== committed.mappingRoot, "the new mapping is committed");
  slow.finish();
  assertEquals(slow.answers([later]), ["ok"]);
});

Deno.test("where one of two flushes fails, the pool does, and neither the one after it nor a commit behind them says well", () => {
  const slow = new SlowPool();
  slow.data.failsFlushes = true;
  const failing = slow.flush();
  slow.data.failsFlushes = false;
  const other = slow.flush();
  slow.volume.write(bs, filled(bs, 2));
  const commit = slow.flush();
  const committed = slow.superblock();
  slow.finish(3);
  slow.finish(3);
  assertEquals(slow.answers([failing, other, commit]), ["poolFailed", "poolFailed", "poolFailed"]);
  assertEquals(slow.superblock(), { ...committed, flags: flagNeedsCheck });
  assertEquals(slow.data.pendingCount, 0);
});

Deno.test("a flush that ended before the one beside it failed has kept what it was for", () => {
  const slow = new SlowPool();
  const well = slow.flush();
  slow.data.failsFlushes = true;
  const failing = slow.flush();
  slow.finish(2);
  assertEquals(slow.answers([well, failing]), ["ok", "poolFailed"]);
});

Deno.test("both of two flushes may fail", () => {
  const slow = new SlowPool();
  slow.data.failsFlushes = true;
  const requests = [slow.flush(), slow.flush()];
  slow.finish(2);
  assertEquals(slow.answers(requests), ["poolFailed", "poolFailed"]);
  assertEquals(slow.pool.logged.filter((sentence) => sentence.includes("a fault of the test")).length, 1);
});

function* stopTask(slow: SlowPool, answers: unknown[]): Steps<void> {
  answers.push(yield* slow.pool.pool.stop());
}

Deno.test("a pool that stops waits for every flush under way, so that each is answered and nothing is left open", () => {
  const slow = new SlowPool();
  const requests = [slow.flush()];
  const answers: unknown[] = [];
  slow.pool.kernel.start("stop", stopTask(slow, answers));
  slow.pool.drain();
  slow.data.finishLast();
  slow.pool.drain();
  assertEquals([answers, slow.answers(requests)], [[], ["ok"]]);
  slow.finish();
  assertEquals([answers, slow.answers(requests)], [[{ kind: "done" }], ["ok"]]);
});
