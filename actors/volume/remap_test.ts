/** The steps of one bio where metadata says what cannot be. */
import { assertEquals } from "@std/assert";
import { type BioStatus, blockBio, type RequestsDone, type VolumeRequest } from "./bio.ts";
import { BlockDevice } from "../pool/block_device.ts";
import { DeviceStub } from "../pool/device_messages.ts";
import { AllocatorStub, type DataAllocatorMessage } from "../pool/allocator_messages.ts";
import { spawnDataLocks } from "../pool/data_locks.ts";
import type { Actor, Address, Message } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { SpaceStub, type SpaceWatchMessage } from "../pool/space_messages.ts";
import type { MetadataMessage } from "../pool/metadata_messages.ts";
import { MetadataStub } from "../pool/metadata_messages.ts";
import { remap } from "./remap.ts";
import { MemoryDevice } from "../../tests/support/memory_device.ts";
import { ioOk, type IoResult, type MappedSegment, type ReadTarget } from "../../storage/device/port.ts";
import { TraceRecorder } from "../kernel/trace.ts";
import { dblock, thinId } from "../../storage/base/ids.ts";
import { startCollecting } from "../../tests/support/stand_ins.ts";
import { spawnRegion } from "../../tests/support/locks.ts";
import { World } from "../../tests/support/world.ts";

const bs = 65536;

/** Metadata and allocator at once: data block 5 is mapped, shared, and free. */
class Liar implements Actor<MetadataMessage | DataAllocatorMessage> {
  readonly heard: string[] = [];
  /** After so many look-ups the block is mapped no more. */
  lookupsMapped = Infinity;

  constructor(readonly kernel: Kernel) {}

  receive(message: MetadataMessage | DataAllocatorMessage): void {
    this.heard.push(message.type);
    if (message.type === "lookup") {
      this.lookupsMapped -= 1;
      if (this.lookupsMapped < 0) return this.kernel.reply(message, { kind: "unprovisioned" });
      this.kernel.reply(message, { kind: "provisioned", dblock: dblock(5), shared: true, isOld: true });
    } else if (message.type === "allocate") {
      this.kernel.reply(message, { kind: "allocated", dblock: dblock(5) });
    } else if (message.type === "reportMappedFree") {
      this.kernel.reply(message, { kind: "damaged", reason: "it is free" });
    }
  }
}

/** A device of zeroes that maps every read for a reader that takes that, and fills memory for any other. */
class MappingDevice extends MemoryDevice {
  override read(target: ReadTarget, offsetBytes: number): IoResult {
    const { lengthBytes } = target;
    if (!target.takesMapped) return super.read(target, offsetBytes);
    const segment: MappedSegment = { kind: "mapped", lengthBytes, drain: 0, address: 0, copyTo: () => ioOk };
    // The base class answers with less; the port allows this too.
    return segment as unknown as IoResult;
  }
}

/** What a bio needs, on a device of ten blocks; what is asked of the device is traced. */
function makeThin(data = new MemoryDevice(10 * bs)) {
  const world = new World();
  const { kernel } = world;
  const liar = new Liar(kernel);
  const address = kernel.spawn("liar", 1000, () => liar) as Address<Message>;
  const device = kernel.spawn("data", 1000, (self) => new BlockDevice(kernel, self, data));
  const thin = {
    id: thinId(1),
    blockSizeBytes: bs,
    metadata: new MetadataStub(kernel, address as Address<MetadataMessage>),
    allocator: new AllocatorStub(kernel, address as Address<DataAllocatorMessage>),
    dataLocks: spawnDataLocks(kernel),
    detectsZeroes: false,
    count: () => {},
    data: new DeviceStub(device, true),
    space: new SpaceStub(kernel, address as Address<SpaceWatchMessage>),
  };
  const client = address as Address<RequestsDone>;
  const regions = [spawnRegion(kernel, "region", 0, 10)];
  return { world, liar, data, thin, client, regions };
}

/** A request of one bio at the volume's beginning. */
function makeRequest(client: Address<RequestsDone>, parts: Partial<VolumeRequest>): VolumeRequest {
  return {
    kind: "read",
    offsetBytes: 0,
    lengthBytes: 512,
    data: new Uint8Array(512).fill(1),
    fua: false,
    noHole: false,
    fastZero: false,
    client,
    status: "ok",
    holes: new Uint8Array(0),
    ...parts,
  };
}

Deno.test("a block that is leased to be copied to, and is the one to be copied, is damage and is not waited for", () => {
  const { world, liar, data, thin, client, regions } = makeThin();
  const bio = blockBio(makeRequest(client, { kind: "write" }), bs, 0);
  bio.regions = regions;
  assertEquals(world.run(remap(thin, bio)), "ioError");
  assertEquals(liar.heard, ["lookup", "allocate", "reportMappedFree", "giveBack"]);
  assertEquals(data.bytes.every((byte) => byte === 0), true);
});

Deno.test("zeroes find their block unmapped while they wait to write it, and provision nothing", () => {
  const { world, liar, thin, client, regions } = makeThin();
  liar.lookupsMapped = 2;
  // Both hold the block and have looked it up when they ask to be alone with it.
  const statuses: BioStatus[] = [];
  for (let count = 0; count < 2; count += 1) {
    const bio = blockBio(makeRequest(client, { kind: "writeZeroes" }), bs, 0);
    bio.regions = regions;
    startCollecting(world.kernel, remap(thin, bio), statuses);
  }
  world.kernel.run();
  assertEquals(statuses, ["ok", "ok"]);
  assertEquals(liar.heard, ["lookup", "lookup", "lookup", "lookup"]);
});

Deno.test("one read of the device serves a request that takes mapped segments, which then makes no memory, and one that does not", () => {
  for (const takesSegments of [true, false]) {
    const { world, thin, client, regions } = makeThin(new MappingDevice(10 * bs));
    const trace = new TraceRecorder();
    world.kernel.trace = trace;
    const taken: [number, MappedSegment][] = [];
    const data = new Uint8Array(bs).fill(1);
    let memories = 0;
    const request = makeRequest(client, {
      lengthBytes: bs,
      takesSegments,
      data,
      takeData: () => {
        memories += 1;
        return data;
      },
      takeSegment: (ordinal, segment) => taken.push([ordinal, segment]),
    });
    const bio = blockBio(request, bs, 0);
    bio.regions = regions;
    assertEquals(world.run(remap(thin, bio)), "ok");
    const asked = trace.events.filter(({ kind, to }) => kind === "ask" && to === "data");
    assertEquals(asked.map(({ text }) => text), [`read offsetBytes ${5 * bs} lengthBytes ${bs} target read`]);
    assertEquals([memories, data[0]], takesSegments ? [0, 1] : [1, 0]);
    const expected = takesSegments ? [[0, bs, world.kernel.drains]] : [];
    assertEquals(
      taken.map(([ordinal, { lengthBytes, drain }]) => [ordinal, lengthBytes, drain]),
      expected,
    );
  }
});
