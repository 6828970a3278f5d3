/** The steps of one bio where metadata says what cannot be. */
import { assertEquals } from "@std/assert";
import { blockBio, type RequestDone, type VolumeRequest } from "./bio.ts";
import { BlockDevice, DeviceStub } from "../pool/block_device.ts";
import { AllocatorStub, type DataAllocatorMessage } from "../pool/data_allocator.ts";
import { spawnDataLocks } from "../pool/data_locks.ts";
import type { Actor, Address, Message } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { MetadataMessage } from "../pool/metadata_messages.ts";
import { MetadataStub } from "../pool/metadata_messages.ts";
import { remap } from "./remap.ts";
import { MemoryDevice } from "../../tests/support/memory_device.ts";
import { dblock, thinId } from "../../storage/base/ids.ts";
import { spawnRegion } from "../../tests/support/locks.ts";
import { World } from "../../tests/support/world.ts";

const bs = 65536;

/** Metadata and allocator at once: data block 5 is mapped, shared, and free. */
class Liar implements Actor<MetadataMessage | DataAllocatorMessage> {
  readonly heard: string[] = [];

  constructor(readonly kernel: Kernel) {}

  receive(message: MetadataMessage | DataAllocatorMessage): void {
    this.heard.push(message.type);
    if (message.type === "lookup") {
      this.kernel.reply(message, { kind: "provisioned", dblock: dblock(5), shared: true, isOld: true });
    } else if (message.type === "allocate") {
      this.kernel.reply(message, { kind: "allocated", dblock: dblock(5) });
    } else if (message.type === "reportMappedFree") {
      this.kernel.reply(message, { kind: "damaged", reason: "it is free" });
    }
  }
}

Deno.test("a block that is leased to be copied to, and is the one to be copied, is damage and is not waited for", () => {
  const world = new World();
  const { kernel } = world;
  const liar = new Liar(kernel);
  const address = kernel.spawn("liar", 1000, () => liar) as Address<Message>;
  const data = new MemoryDevice(10 * bs);
  const device = kernel.spawn("data", 1000, (self) => new BlockDevice(kernel, self, data));
  const thin = {
    id: thinId(1),
    blockSizeBytes: bs,
    metadata: new MetadataStub(kernel, address as Address<MetadataMessage>),
    allocator: new AllocatorStub(kernel, address as Address<DataAllocatorMessage>),
    dataLocks: spawnDataLocks(kernel),
    data: new DeviceStub(device, true),
  };
  const request: VolumeRequest = {
    kind: "write",
    offsetBytes: 0,
    lengthBytes: 512,
    data: new Uint8Array(512).fill(1),
    fua: false,
    noHole: false,
    fastZero: false,
    client: address as Address<RequestDone>,
    status: "ok",
    holes: new Uint8Array(0),
  };
  const bio = { ...blockBio(request, bs, 0), regions: [spawnRegion(kernel, "region", 0, 10)] };
  assertEquals(world.run(remap(thin, bio)), "ioError");
  assertEquals(liar.heard, ["lookup", "allocate", "reportMappedFree", "giveBack"]);
  assertEquals(data.bytes.every((byte) => byte === 0), true);
});
