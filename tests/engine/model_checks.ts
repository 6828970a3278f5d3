/** What a model of the engine (engine_model.ts) compares with the engine and with its image. */
import { assert, assertEquals } from "@std/assert";
import type { MetadataDriver } from "../support/metadata_driver.ts";
import { Recount } from "../support/metadata_recount.ts";
import { type DBlock, dblock, type ThinId, type VBlock, vblock } from "../../storage/base/ids.ts";
import type { PoolBlocks } from "../../storage/base/geometry.ts";

/** The mappings of every thin device. */
export type Devices = Map<ThinId, Map<VBlock, DBlock>>;

/** Where nothing waits for a commit, a block is shared if another device maps it and only then, whatever the times. */
export function assertSharing(driver: MetadataDriver, devices: Devices): void {
  for (const [thin, mappings] of devices) {
    for (const [block, mapped] of mappings) {
      const mapping = driver.run((engine) => engine.lookup(thin, block));
      const isShared = isMappedBeside(devices, thin, block, mapped);
      if (mapping.kind !== "provisioned" || mapping.shared !== isShared) {
        throw new Error(`block ${block} of device ${thin} is ${isShared ? "shared" : "its own"}`);
      }
    }
  }
}

/** The image holds exactly these mappings and has these sizes, and its counts are right. Answers the counts of data blocks. */
export function assertImage(image: Uint8Array, devices: Devices, sizes: PoolBlocks): Iterable<number> {
  const recount = new Recount(image);
  const { dataSpaceMap, metadataSpaceMap } = recount.superblock;
  assertEquals({ dataBlocks: dataSpaceMap.blocks, metadataBlocks: metadataSpaceMap.blocks }, sizes);
  assertEquals(sortedKeys(recount.devices), sortedKeys(devices));
  for (const [thin, mappings] of devices) {
    const found = recount.devices.get(thin)!;
    assertEquals(found.size, mappings.size);
    for (const [block, mapped] of mappings) assertEquals(found.get(block)?.[0], mapped);
  }
  return recount.dataCounts.values();
}

/** What a range look-up finds, a few runs at a time. */
export function mappingsIn(
  driver: MetadataDriver,
  thin: ThinId,
  begin: number,
  end: number,
): Map<VBlock, DBlock> {
  const found = new Map<VBlock, DBlock>();
  for (let at = begin; at < end;) {
    const range = driver.run((engine) => engine.lookupRange(thin, vblock(at), vblock(end), 10));
    for (const run of range.runs) {
      for (let index = 0; index < run.length; index++) {
        found.set(vblock(run.vblockBegin + index), dblock(run.dblockBegin + index));
      }
    }
    assert(range.next > at, "a range look-up gets on");
    at = range.next;
  }
  return found;
}

/** True if another device maps the block too. */
export function isMappedBeside(devices: Devices, thin: ThinId, block: VBlock, mapped: DBlock): boolean {
  return [...devices].some(([other, mappings]) => other !== thin && mappings.get(block) === mapped);
}

/** A copy that later changes leave alone. */
export function copied(devices: Devices): Devices {
  return new Map([...devices].map(([thin, mappings]) => [thin, new Map(mappings)]));
}

function sortedKeys(map: ReadonlyMap<number, unknown>): number[] {
  return [...map.keys()].sort((a, b) => a - b);
}
