/** Bios that go together (remapBatch in remap.ts): what is served at once, and what goes on alone. */
import { assertEquals } from "@std/assert";
import { defaultKnobs, type Knobs } from "../knobs.ts";
import { FailingDevice } from "../../tests/support/devices.ts";
import { MemoryDevice } from "../../tests/support/memory_device.ts";
import {
  makeTestingFiles,
  testingBlockSizeBytes as bs,
  TestingPool,
  type TestingVolume,
} from "../../tests/support/pool.ts";
import { assert } from "../../storage/base/assert.ts";
import type { VolumeRequest } from "./bio.ts";

/** Does nothing at once, as a device whose bytes are not in memory. */
class ColdDevice extends MemoryDevice {
  override readAtOnce(): undefined {
    return undefined;
  }

  override writeAtOnce(): undefined {
    return undefined;
  }
}

function open(knobs: Partial<Knobs> = {}, data: MemoryDevice = new MemoryDevice(64 * bs)) {
  const pool = new TestingPool({ ...makeTestingFiles(64), data }, { knobs: { ...defaultKnobs, ...knobs } });
  pool.admin({ verb: "create", name: "a", sizeBytes: 32 * bs });
  const a = pool.attach("a");
  for (let block = 0; block < 8; block += 1) a.write(block * bs, filled(block));
  a.perform("flush", 0, 0);
  return { pool, a };
}

function filled(value: number): Uint8Array {
  return new Uint8Array(bs).fill(value + 1);
}

const kinds = { r: "read", w: "write", t: "discard" } as const;

/** Requests that come in one message: "r3" reads the begin of block 3, "w3" writes it, and "t3" discards the block. */
function together(volume: TestingVolume, ...asked: string[]): VolumeRequest[] {
  const requests = asked.map((text): VolumeRequest => {
    const kind = kinds[text.charAt(0) as keyof typeof kinds];
    const isRead = kind === "read";
    return {
      kind,
      offsetBytes: Number(text.slice(1)) * bs,
      lengthBytes: kind === "discard" ? bs : 4096,
      data: isRead ? new Uint8Array(4096).fill(0xee) : filled(100).subarray(0, kind === "discard" ? 0 : 4096),
      fua: false,
      noHole: false,
      fastZero: false,
      client: volume.client,
      status: "ok",
      holes: new Uint8Array(0),
    };
  });
  volume.pool.kernel.tell(volume.address, { type: "submit", requests });
  return requests;
}

/** What is sent while `act` runs: the types of the messages of bios and their batches. */
function sentWhile(pool: TestingPool, act: () => void): string[] {
  const sent: string[] = [];
  pool.kernel.trace = {
    record: ({ kind, text }) => void (kind === "ask" || kind === "tell" ? sent.push(text) : 0),
  };
  act();
  pool.drain();
  pool.kernel.trace = undefined;
  const steps = [
    "lockAtOnce",
    "lockBlock",
    "lookupAtOnce",
    "lookup",
    "transferAtOnce",
    "read",
    "write",
    "unlockTaken",
  ];
  return sent.map((text) => text.split(" ")[0]!).filter((type) => [...steps, "requestsDone"].includes(type));
}

Deno.test("reads and writes of blocks of the volume's own that come together take one message a step", () => {
  const { pool, a } = open();
  const sent = sentWhile(pool, () => together(a, "r0", "w1", "r2", "w3"));
  assertEquals(sent, ["lockAtOnce", "lookupAtOnce", "transferAtOnce", "unlockTaken", "requestsDone"]);
});

Deno.test("requests that come together are answered as if each came alone", () => {
  const blocks = ["r0", "w1", "r20", "w2", "w2", "w21", "r3", "w30"];
  const seen = [1, 32].map((batchBiosMax) => {
    const { pool, a } = open({ batchBiosMax });
    const requests = together(a, ...blocks);
    pool.drain();
    return {
      answers: requests.map(({ status, data, holes }) => [status, data[0], holes]),
      content: a.read(0, 32 * bs),
    };
  });
  assertEquals(seen[1], seen[0]);
});

Deno.test("a batch is as long as the knob allows, and what it leaves over goes in the next", () => {
  const { pool, a } = open({ batchBiosMax: 3 });
  const sent = sentWhile(pool, () => together(a, "r0", "r1", "r2", "r3", "r4"));
  assertEquals(sent.filter((type) => type === "transferAtOnce").length, 2);
});

Deno.test("a write that needs a new block goes on alone, and delays no other bio of its batch", () => {
  const { pool, a } = open();
  const sent = sentWhile(pool, () => together(a, "w20", "r0", "r1"));
  const [first, ...later] = sent.slice(sent.indexOf("unlockTaken"));
  assertEquals([first, later.filter((type) => type === "requestsDone").length], ["unlockTaken", 2]);
  assertEquals(a.read(20 * bs, 4096), filled(100).subarray(0, 4096));
});

Deno.test("a bio that goes alone does not overtake the batch before it", () => {
  const { pool, a } = open();
  together(a, "w0", "w1", "t0");
  pool.drain();
  assertEquals([a.read(0, 1)[0], a.read(bs, 1)[0]], [0, 101]);
});

Deno.test("after a snapshot a batch writes nothing in place", () => {
  const { pool, a } = open();
  pool.admin({ verb: "snapshot", names: ["a@s"] });
  together(a, "w0", "w1");
  pool.drain();
  const snapshot = pool.attach("a@s");
  assertEquals([snapshot.read(0, 1)[0], snapshot.read(bs, 1)[0]], [1, 2]);
  assertEquals([a.read(0, 1)[0], a.read(bs, 1)[0]], [101, 101]);
});

Deno.test("what the device does not do at once goes on alone", () => {
  const { pool, a } = open({}, new ColdDevice(64 * bs));
  const requests = together(a, "r0", "w1", "r2");
  const sent = sentWhile(pool, () => {});
  assertEquals(sent.filter((type) => type === "read" || type === "write").length, 3);
  assertEquals(requests.map(({ status, data }) => [status, data[0]]), [["ok", 1], ["ok", 101], ["ok", 3]]);
});

Deno.test("a block that the device cannot read is an error of its own request alone", () => {
  class BadBlock extends MemoryDevice {
    bad = -1;
    override read(target: Parameters<MemoryDevice["read"]>[0], offsetBytes: number) {
      if (offsetBytes === this.bad) return { kind: "ioError", reason: "a bad block" } as const;
      return super.read(target, offsetBytes);
    }
  }
  const data = new BadBlock(64 * bs);
  const { pool, a } = open({}, data);
  data.bad = data.bytes.indexOf(2);
  assert(data.bad >= 0 && data.bad % bs === 0, "the block of the ones is there");
  const requests = together(a, "r0", "r1", "r2");
  pool.drain();
  assertEquals(requests.map(({ status }) => status), ["ok", "ioError", "ok"]);
});

Deno.test("where metadata has to be read first, each bio is looked up alone and finds its block", () => {
  const files = makeTestingFiles(64);
  {
    const pool = new TestingPool(files);
    pool.admin({ verb: "create", name: "a", sizeBytes: 32 * bs });
    const a = pool.attach("a");
    for (let block = 0; block < 3; block += 1) a.write(block * bs, filled(block));
    a.perform("flush", 0, 0);
  }
  const pool = new TestingPool({ ...files, metadata: new FailingDevice(files.metadata) });
  const a = pool.attach("a");
  const requests = together(a, "r0", "r1", "r2");
  const sent = sentWhile(pool, () => {});
  assertEquals(requests.map(({ status, data }) => [status, data[0]]), [["ok", 1], ["ok", 2], ["ok", 3]]);
  assertEquals(sent.filter((type) => type === "lookup").length > 0, true);
});
