/** What a pool goes on from, where the host's memory and its disks differ. */
import { geometryOf } from "../../storage/base/geometry.ts";
import { assertEquals, assertRejects } from "@std/assert";
import { UserError } from "../../storage/base/errors.ts";
import { unpackSuperblock } from "../../storage/format/superblock.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { ioOk, type IoResult, type ReadTarget } from "../../storage/device/port.ts";
import { ThinMetadata } from "../../storage/thin_metadata.ts";
import { type CachedDevice, seeDisks } from "./disk_state.ts";

const superblock =
  ThinMetadata.format(geometryOf({ metadataBlocks: 1024, dataBlocks: 16, blockSizeBytes: 65536 }))
    .find(({ block }) => block === 0)!.bytes;

/** A file of one block, which the host has in memory. */
class CachedFile implements CachedDevice {
  readonly path = "file";
  readonly sizeBytes = metadataBlockSizeBytes;
  readonly asked: string[] = [];
  memory: Uint8Array;
  disk: Uint8Array | undefined;
  isNotedFlushed = false;
  pagesMapped = 0;
  flushed: IoResult = ioOk;

  constructor(memory: Uint8Array, disk = memory) {
    this.memory = memory;
    this.disk = disk;
  }

  read(target: ReadTarget): IoResult {
    target.memory().set(this.memory);
    return ioOk;
  }

  flush(): IoResult {
    this.asked.push("flush");
    return this.flushed;
  }

  letGo(): Promise<number> {
    this.asked.push("let go");
    if (this.pagesMapped === 0) this.memory = this.disk ?? this.memory;
    return Promise.resolve(this.pagesMapped);
  }

  readPastCache(): Uint8Array | undefined {
    return this.disk;
  }
}

function changed(bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  copy[200]! ^= 1;
  return copy;
}

Deno.test("where memory and disk agree nothing is said, and data that was noted as flushed keeps its page cache", async () => {
  const [metadata, data] = [new CachedFile(superblock), new CachedFile(superblock)];
  data.isNotedFlushed = true;
  assertEquals(await seeDisks({ metadata, data }, false), []);
  assertEquals([metadata.asked, data.asked], [["flush", "let go"], []]);
});

Deno.test("data that was not noted as flushed is flushed and read anew", async () => {
  const [metadata, data] = [new CachedFile(superblock), new CachedFile(superblock)];
  assertEquals(await seeDisks({ metadata, data }, false), []);
  assertEquals(data.asked, ["flush", "let go"]);
});

Deno.test("a superblock that only the memory has is told of and forgotten, and the data's memory with it", async () => {
  const metadata = new CachedFile(changed(superblock), superblock);
  const data = new CachedFile(superblock);
  data.isNotedFlushed = true;
  const [said, ...more] = await seeDisks({ metadata, data }, false);
  assertEquals(said?.includes("a flush had failed. The pool goes on from what the disk has"), true, said);
  assertEquals([more, metadata.memory, data.asked], [[], superblock, ["flush", "let go"]]);
  assertEquals(typeof unpackSuperblock(metadata.memory), "object");
});

Deno.test("a host that shows another superblock than its disk has, and keeps showing it, is not believed", async () => {
  const metadata = new CachedFile(changed(superblock), superblock);
  metadata.pagesMapped = 1;
  const devices = { metadata, data: new CachedFile(superblock) };
  await assertRejects(() => seeDisks(devices, false), UserError, "does not let go of it");
});

Deno.test("pages that stay in memory are told of where nothing else tells what the disk has", async () => {
  const metadata = new CachedFile(superblock);
  metadata.disk = undefined;
  metadata.pagesMapped = 3;
  const [said] = await seeDisks({ metadata, data: new CachedFile(superblock) }, false);
  assertEquals(said?.startsWith("The host keeps 3 pages of the metadata"), true, said);
});

Deno.test("a flush that fails at the start keeps the pool closed", async () => {
  const metadata = new CachedFile(superblock);
  metadata.flushed = { kind: "ioError", reason: "EIO" };
  const devices = { metadata, data: new CachedFile(superblock) };
  await assertRejects(() => seeDisks(devices, false), UserError, 'Cannot flush the metadata "file": EIO');
});

Deno.test("opening read-only asks for no flush, and reads what the disk has", async () => {
  const [metadata, data] = [new CachedFile(changed(superblock), superblock), new CachedFile(superblock)];
  await seeDisks({ metadata, data }, true);
  assertEquals([metadata.asked, data.asked, metadata.memory], [["let go"], ["let go"], superblock]);
});
