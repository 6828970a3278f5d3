/**
 * Replies of mapped segments to clients that read late, while the file changes: each shows what the file held when it was read.
 * Beside the random test there is one for each way in which bytes change.
 */
import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import { ioOk, type IoResult, type MappedSegment } from "../../../storage/device/port.ts";
import { pause, SocketPair, type SocketWorld } from "../../../tests/support/socket_pair.ts";
import { ignoreRing, runningLoop } from "../../../tests/support/running_ring.ts";
import { libc, mib, resultOf, scratchFile } from "../../../tests/support/scratch_file.ts";
import { soak } from "../../../tests/support/server.ts";
import { Random } from "../../../tests/support/world.ts";
import { Kernel } from "../../kernel/kernel.ts";
import { FileDevice } from "../file_device.ts";
import { RingFiles } from "./ring_files.ts";
import { RingSockets } from "./ring_sockets.ts";

const fileBytes = 16 * mib;
const blockBytes = 64 * 1024;
/** More than a Unix socket takes of a client that does not read. */
const replyBytes = 8 * blockBytes;
/** The part of the file that changes at random: so small that most changes meet a reply that waits. */
const spanBytes = 3 * mib;

/** A device on the ring, and sockets. */
class World implements AsyncDisposable {
  readonly #running = runningLoop();
  readonly #scratch = scratchFile(fileBytes);
  readonly device: FileDevice;
  readonly sockets: SocketWorld;

  constructor() {
    const { loop } = this.#running;
    const kernel = new Kernel({ clock: loop });
    loop.serve(kernel);
    this.sockets = { host: new RingSockets(loop), kernel, end: () => Promise.resolve() };
    this.device = FileDevice.open(this.#scratch.path, {
      libc,
      calls: new RingFiles(loop),
      readsColdBeside: true,
      writesBeside: true,
      givesSegments: true,
    });
  }

  get path(): string {
    return this.#scratch.path;
  }

  client(): Promise<SocketPair> {
    return SocketPair.make(this.sockets);
  }

  /** Where bytes lie; they are read until they are mapped. */
  async segment(offsetBytes: number, lengthBytes: number): Promise<MappedSegment> {
    for (let tries = 0; tries < 100; tries += 1) {
      const memory = new Uint8Array(lengthBytes);
      const target = { lengthBytes, takesMapped: true, memory: () => memory };
      const { promise, resolve } = Promise.withResolvers<void>();
      const found = this.device.read(target, offsetBytes, () => resolve());
      if (found === "pending") await promise;
      else if (found.kind === "mapped") return found;
    }
    throw new Error("the file is not mapped");
  }

  /** The same at once; undefined if the bytes are not mapped at present. */
  segmentNow(offsetBytes: number, lengthBytes: number): MappedSegment | undefined {
    const target = { lengthBytes, takesMapped: true, memory: () => new Uint8Array(lengthBytes) };
    const found = this.device.readAtOnce(target, offsetBytes);
    return found?.kind === "mapped" ? found : undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.device.idle();
    this.device.close();
    await this.#running.end();
    this.#scratch[Symbol.dispose]();
  }
}

/** Reads so many bytes. */
async function taken(client: Deno.Conn, lengthBytes: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(lengthBytes);
  for (let at = 0; at < lengthBytes;) {
    const count = await client.read(bytes.subarray(at));
    if (count === null) throw new Error("the stream ended amidst a reply");
    at += count;
  }
  return bytes;
}

function requireSame(found: Uint8Array, wanted: Uint8Array): void {
  if (Buffer.from(found).equals(wanted)) return;
  const at = found.findIndex((byte, index) => byte !== wanted[index]);
  assert(at < 0, `byte ${at} of a reply is ${found[at]} where the file held ${wanted[at]}`);
}

const content = (lengthBytes: number, seed: number) =>
  Uint8Array.from({ length: lengthBytes }, (_, at) => 1 + (at * 7 + (at >> 9) + seed) % 255);

type Change = (device: FileDevice, done: (result: IoResult) => void) => IoResult | "pending";

const changes: Readonly<Record<string, Change>> = {
  "a write": (device, done) => device.write(new Uint8Array(replyBytes).fill(0), 0, done),
  "a write at once": (device, done) => {
    const [bytes, offset] = [new Uint8Array(blockBytes), replyBytes - blockBytes];
    // Undefined while the disk is busy.
    return device.writeAtOnce(bytes, offset) ?? device.write(bytes, offset, done);
  },
  "zeroes": (device, done) => device.zero(replyBytes - 4096, 4096, done),
  "a large range of zeroes": (device, done) => device.zero(0, 2 * mib, done),
  "a punch": (device, done) => device.discard(0, replyBytes, done),
  "a copy": (device, done) => device.copy(8 * mib, 0, replyBytes, done),
  "growth": (device, done) => device.grow(fileBytes + mib, false, done),
};

for (const [what, change] of Object.entries(changes)) {
  Deno.test({
    name: `${what} changes no reply that its client has not taken yet`,
    ignore: ignoreRing,
    fn: async () => {
      await using world = new World();
      const before = content(replyBytes, 1);
      await resultOf((done) => world.device.write(before, 0, done));
      await using pair = await world.client();
      pair.socket.send([await world.segment(0, replyBytes)]);
      assert(pair.socket.sendingBytes > 0, "the client had room for all of it");
      assertEquals(await resultOf((done) => change(world.device, done)), ioOk);
      requireSame(await taken(pair.client, replyBytes), before);
      assertEquals(await pair.notice(), { type: "sent" });
    },
  });
}

Deno.test({
  name: "a reply whose memory is needed is copied, and the client gets what was read",
  ignore: ignoreRing,
  fn: async () => {
    await using world = new World();
    const before = content(replyBytes, 1);
    await resultOf((done) => world.device.write(before, 0, done));
    await using pair = await world.client();
    pair.socket.send([Uint8Array.of(9), await world.segment(0, replyBytes), Uint8Array.of(8)]);
    assertEquals(pair.socket.shrink(), true);
    assertEquals(pair.socket.shrink(), true);
    world.device.write(new Uint8Array(replyBytes), 0, () => {});
    requireSame(await taken(pair.client, replyBytes + 2), new Uint8Array([9, ...before, 8]));
    assertEquals(await pair.notice(), { type: "sent" });
  },
});

Deno.test({
  name: "a reply whose file was cut breaks its connection, with the reason",
  ignore: ignoreRing,
  fn: async () => {
    await using world = new World();
    await resultOf((done) => world.device.write(content(replyBytes, 1), 0, done));
    await using pair = await world.client();
    pair.socket.send([await world.segment(0, replyBytes)]);
    Deno.truncateSync(world.path, 4096);
    const reading = taken(pair.client, replyBytes).then(() => "whole", () => "cut");
    const notice = await pair.notice();
    assertEquals([notice.type, "reason" in notice, await reading], ["closed", true, "cut"]);
  },
});

/** The file in memory, and which ranges of it change at present. */
class Model {
  readonly bytes = content(spanBytes, 3);
  readonly #changing = new Set<{ readonly begin: number; readonly end: number }>();

  /** As the locks of the volumes: what changes is neither read nor changed otherwise. */
  isQuiet(begin: number, lengthBytes: number): boolean {
    for (const range of this.#changing) {
      if (begin < range.end && range.begin < begin + lengthBytes) return false;
    }
    return true;
  }

  async during(begin: number, lengthBytes: number, change: Promise<IoResult>): Promise<void> {
    const range = { begin, end: begin + lengthBytes };
    this.#changing.add(range);
    assertEquals(await change, ioOk);
    this.#changing.delete(range);
  }
}

/** One client of the random test, and what it has to get. */
class Reader {
  readonly wanted: Uint8Array[] = [];
  sends = 0;
  #isSending = false;

  constructor(readonly pair: SocketPair) {}

  /** Sends a reply of two segments, unless one is under way. */
  async send(world: World, model: Model, offsets: readonly number[], lengthBytes: number): Promise<void> {
    if (this.#isSending && this.pair.noticesWaiting === 0) return;
    if (this.#isSending) assertEquals(await this.pair.notice(), { type: "sent" });
    this.#isSending = false;
    if (!offsets.every((offset) => model.isQuiet(offset, lengthBytes))) return;
    const segments = offsets.map((offset) => world.segmentNow(offset, lengthBytes));
    // Holes are not in the page cache; other ranges are mapped when they are read again.
    if (segments.includes(undefined)) return;
    this.sends += 1;
    for (const offset of offsets) this.wanted.push(model.bytes.slice(offset, offset + lengthBytes));
    this.pair.socket.send(segments as MappedSegment[]);
    this.#isSending = true;
  }

  /** Takes a part that was sent before, if there is one. */
  async take(): Promise<void> {
    const wanted = this.wanted.shift();
    if (wanted !== undefined) requireSame(await taken(this.pair.client, wanted.length), wanted);
  }
}

Deno.test({
  name: "whatever changes a file, and whenever a client reads, a reply shows what was read",
  ignore: ignoreRing,
  fn: async () => {
    await using world = new World();
    await using closing = new AsyncDisposableStack();
    const random = new Random(soak ? Date.now() : 1);
    const model = new Model();
    await resultOf((done) => world.device.write(model.bytes, 0, done));
    const readers: Reader[] = [];
    for (let count = 0; count < 4; count += 1) {
      readers.push(new Reader(closing.use(await world.client())));
    }
    const changing: Promise<void>[] = [];
    const blocks = spanBytes / blockBytes;
    const sends = () => readers.reduce((sum, { sends }) => sum + sends, 0);
    for (let step = 0; sends() < (soak ? 2000 : 20); step += 1) {
      assert(step < 100_000, "hardly any replies are sent");
      const reader = readers[random.below(readers.length)]!;
      const offset = random.below(blocks - 8) * blockBytes;
      const kind = random.below(8);
      if (kind < 2) {
        const other = random.below(blocks - 4) * blockBytes;
        await reader.send(world, model, [offset, other], 4 * blockBytes);
      } else if (kind < 5) await reader.take();
      else changing.push(change(world.device, model, random, offset));
      if (random.chance(0.2)) await pause(0);
    }
    await Promise.all(changing);
    for (const reader of readers) while (reader.wanted.length > 0) await reader.take();
  },
});

/** Changes a range of the file and of its model; resolves when that is over. */
async function change(device: FileDevice, model: Model, random: Random, offset: number): Promise<void> {
  // Few punches: a hole is not mapped.
  const kind =
    (["write", "write", "write", "zero", "copy", "copy", "copy", "punch"] as const)[random.below(8)]!;
  const lengthBytes = (1 + random.below(kind === "punch" ? 128 : 8 * 128)) * 512;
  const bytes = new Uint8Array(lengthBytes).fill(1 + random.below(255));
  const from = (offset + spanBytes / 2) % (spanBytes - 8 * blockBytes);
  if (!model.isQuiet(offset, lengthBytes) || !model.isQuiet(from, lengthBytes)) return;
  if (kind === "copy" && Math.abs(from - offset) < lengthBytes) return;
  const changed = resultOf((done) => {
    if (kind === "write") return device.write(bytes, offset, done);
    if (kind === "zero") return device.zero(offset, lengthBytes, done);
    if (kind === "copy") return device.copy(from, offset, lengthBytes, done);
    return device.discard(offset, lengthBytes, done);
  });
  if (kind === "write") model.bytes.set(bytes, offset);
  else if (kind === "copy") model.bytes.copyWithin(offset, from, from + lengthBytes);
  else model.bytes.fill(0, offset, offset + lengthBytes);
  const ended = model.during(offset, lengthBytes, changed);
  await (kind === "copy" ? model.during(from, lengthBytes, changed) : undefined);
  await ended;
}
