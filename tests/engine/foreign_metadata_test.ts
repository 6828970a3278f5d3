/**
 * Metadata made by others: by thin_restore of both generations, by the kernel, with shared nodes and metadata
 * snapshots.
 */
import { Random } from "../support/world.ts";
import { geometryOf } from "../../storage/base/geometry.ts";
import { assert, assertEquals } from "@std/assert";
import { setBitmapCount } from "../../storage/format/bitmap.ts";
import { nodeValueOffset, setNodeEntries, setNodeKey } from "../../storage/format/btree_node.ts";
import { viewOf, writeU32 } from "../../storage/format/fields.ts";
import { metadataIndexEntry } from "../../storage/format/metadata_index.ts";
import {
  dblock,
  metadataBlockSizeBytes,
  type ThinId,
  thinId,
  type VBlock,
  vblock,
} from "../../storage/base/ids.ts";
import { MetadataFault } from "../../storage/thin_metadata.ts";
import { type Corpus, kernelCorpora, poolXml, sharingCorpora, toolCorpora } from "../compat/corpora.ts";
import { withBlock } from "../support/metadata_image.ts";
import { hasThinTools, restoreImage, runOnImage, type ThinToolsVersion } from "../support/thin_tools.ts";
import { createSnapshots, createThin, MetadataDriver } from "../support/metadata_driver.ts";
import { Recount, type RecountedDevices } from "../support/metadata_recount.ts";
import { faultOf, makeMapped, superblockOf } from "../support/small_pools.ts";

const versions: readonly ThinToolsVersion[] = ["0.9", "1.x"];
const cacheBlocks = 50;
/** No corpus has devices from here on. */
const snapshotIdMin = 0x70_0000;

/** Every mapping of every device answers as the image says, one by one and as runs. */
function assertAnswers(pool: MetadataDriver, devices: RecountedDevices): void {
  assertEquals(pool.engine.thinIds(), [...devices.keys()].sort((a, b) => a - b).map(thinId));
  for (const [id, mappings] of devices) {
    const thin = thinId(id);
    assertEquals(pool.engine.device(thin)!.mappedBlocks, mappings.size);
    for (const [block, [mapped]] of mappings) {
      const answer = pool.run((engine) => engine.lookup(thin, vblock(block)));
      assert(answer.kind === "provisioned" && answer.dblock === mapped, `device ${id}, block ${block}`);
    }
    assertEquals(mappedInRuns(pool, thin), mappings.size);
  }
}

function mappedInRuns(pool: MetadataDriver, thin: ThinId): number {
  const end = vblock(2 ** 41);
  let mapped = 0;
  for (let at = vblock(0); at < end;) {
    const { runs, next } = pool.run((engine) => engine.lookupRange(thin, at, end, 50));
    for (const run of runs) mapped += run.length;
    at = next;
  }
  return mapped;
}

/**
 * Some of everything, as far as space allows. Fills what it is told to with what must be there afterwards.
 */
function change(pool: MetadataDriver, devices: RecountedDevices, random: Random): void {
  if (devices.size === 0) {
    pool.run((engine) => createThin(engine, thinId(5)));
    devices.set(5, new Map());
  }
  const ids = [...devices.keys()];
  let next = dblock(0);
  const fresh = () => {
    const { runs } = pool.run((engine) => engine.findFreeData(next, 1));
    if (runs.length === 0) return undefined;
    next = dblock(runs[0]!.begin + 1);
    return runs[0]!.begin;
  };
  const write = (id: number, block: VBlock): void => {
    const mapped = fresh();
    if (mapped === undefined) return;
    pool.run((engine) => engine.insert(thinId(id), block, mapped));
    devices.get(id)!.set(block, [mapped, pool.engine.time]);
  };
  for (const id of ids.slice(0, 5)) {
    let snapshot = snapshotIdMin;
    while (devices.has(snapshot)) snapshot++;
    pool.run((engine) =>
      createSnapshots(engine, [{ thin: thinId(snapshot), origin: thinId(id) }], { tick: true })
    );
    devices.set(snapshot, new Map(devices.get(id)!));
    const keys = [...devices.get(id)!.keys()];
    for (let count = 0; count < 20; count++) {
      write(id, vblock(keys[random.below(keys.length)] ?? random.below(1000)));
      write(snapshot, vblock(random.below(100_000)));
    }
    const begin = keys[random.below(keys.length)] ?? 0;
    removeRange(pool, devices, id, begin, begin + 300);
  }
  if (ids.length > 1) {
    const gone = ids[random.below(ids.length)]!;
    while (!pool.run((engine) => engine.deleteThin(thinId(gone), 4)));
    devices.delete(gone);
  }
}

function removeRange(
  pool: MetadataDriver,
  devices: RecountedDevices,
  id: number,
  begin: number,
  end: number,
): void {
  for (let at = begin; at < end;) {
    const { next } = pool.run((engine) => engine.removeRange(thinId(id), vblock(at), vblock(end)));
    for (const block of [...devices.get(id)!.keys()]) {
      if (block >= at && block < next) devices.get(id)!.delete(block);
    }
    at = next;
  }
}

async function assertToolsAccept(image: Uint8Array): Promise<void> {
  for (const version of versions.filter(hasThinTools)) {
    const { status, stderr } = await runOnImage("thin_check", version, image);
    assertEquals(status, 0, `thin_check ${version}: ${stderr}`);
  }
}

function corpora(): Corpus[] {
  return [...sharingCorpora(), ...kernelCorpora(), ...toolCorpora()];
}

for (const corpus of corpora()) {
  Deno.test(`opened, answers right, is changed and still sound: ${corpus.name}`, async () => {
    const pool = new MetadataDriver(corpus.image(), cacheBlocks);
    const devices = new Recount(pool.image, false).devices;
    assertAnswers(pool, devices);
    const random = new Random(1);
    for (let round = 0; round < 2; round++) {
      try {
        change(pool, devices, random);
      } catch (error) {
        if (!(error instanceof MetadataFault) || error.fault.kind !== "noMetadataSpace") throw error;
        break; // some corpora are nearly full; what was changed so far must still be sound
      }
      pool.commit();
      for (const id of [...devices.keys()].filter((key) => key >= snapshotIdMin)) {
        while (!pool.run((engine) => engine.deleteThin(thinId(id), 4)));
        devices.delete(id);
      }
    }
    pool.commit();
    assertEquals(new Recount(pool.image).devices, devices);
    pool.reopen();
    assertAnswers(pool, devices);
    await assertToolsAccept(pool.image);
  });
}

Deno.test({
  name: "210,000 mappings from thin_restore, shared by five devices, answer right and are changed",
  ignore: !hasThinTools("0.9"),
  fn: async () => {
    const runs = Array.from({ length: 70 }, (_, index) => [4000 * index, 3000 * index, 3000, 1] as const);
    const few = runs.slice(0, 2);
    const xml = poolXml(new Map([[1, runs], [2, few], [3, few], [4, few], [5, few]]), 220_000);
    const pool = new MetadataDriver(restoreImage(xml, "0.9", 8192), cacheBlocks);
    const devices = new Recount(pool.image, false).devices;
    assertEquals(devices.get(1)!.size, 210_000);
    assertAnswers(pool, devices);
    removeRange(pool, devices, 2, 100, 3500);
    removeRange(pool, devices, 1, 2000, 200_000);
    pool.commit();
    const recount = new Recount(pool.image);
    assertEquals([...recount.devices.values()].map((mappings) => mappings.size), [
      devices.get(1)!.size,
      devices.get(2)!.size,
      6000,
      6000,
      6000,
    ]);
    assertEquals(recount.dataCounts.get(50), 5);
    await assertToolsAccept(pool.image);
  },
});

Deno.test("metadata is not opened where the space map counts three references to a block of its own", () => {
  const pool = makeMapped(1);
  const { image } = pool;
  const { bitmapRoot, overflowRoot } = superblockOf(pool).metadataSpaceMap;
  const index = image.subarray(
    bitmapRoot * metadataBlockSizeBytes,
    (bitmapRoot + 1) * metadataBlockSizeBytes,
  );
  const { bitmap } = metadataIndexEntry(viewOf(index), 0);
  for (const block of [bitmapRoot, bitmap, overflowRoot]) {
    const counted = withBlock(image, bitmap, (_, bytes) => setBitmapCount(bytes, block, 3));
    const leaked = withBlock(counted, overflowRoot, (view) => {
      setNodeEntries(view, 1);
      setNodeKey(view, 0, block);
      writeU32(view, nodeValueOffset(view, 0), 3);
    });
    const reason = "it is the metadata space map's own, which counts 3 references to it";
    assertEquals(faultOf(() => new MetadataDriver(leaked, cacheBlocks)), { kind: "damaged", block, reason });
  }
});

for (const version of versions) {
  Deno.test({
    name:
      `a metadata snapshot of the kernel's stays readable for thin_dump ${version} while its pool changes`,
    ignore: !hasThinTools(version),
    fn: async () => {
      const held = kernelCorpora().find((corpus) => corpus.name.endsWith("held"))!;
      const pool = new MetadataDriver(held.image(), cacheBlocks);
      assert(superblockOf(pool).heldRoot !== 0, "the corpus has a metadata snapshot");
      const before = await runOnImage("thin_dump", version, pool.image, ["-m"]);
      assertEquals(before.status, 0, before.stderr);
      const devices = new Recount(pool.image, false).devices;
      for (let round = 0; round < 3; round++) {
        change(pool, devices, new Random(round));
        pool.commit();
      }
      const after = await runOnImage("thin_dump", version, pool.image, ["-m"]);
      assertEquals(after.stdout, before.stdout);
    },
  });

  Deno.test({
    name: `what we write survives thin_dump and thin_restore ${version}`,
    ignore: !hasThinTools(version),
    fn: async () => {
      const geometry = geometryOf({ metadataBlocks: 1024, dataBlocks: 40_000, blockSizeBytes: 384 * 512 });
      const pool = MetadataDriver.format(geometry);
      const devices: RecountedDevices = new Map();
      for (const id of [3, 0, 0xff_ffff]) {
        pool.run((engine) => createThin(engine, thinId(id)));
        devices.set(id, new Map());
      }
      change(pool, devices, new Random(4));
      pool.commit();
      const dump = await runOnImage("thin_dump", version, pool.image);
      assertEquals(dump.status, 0, dump.stderr);
      const restored = new MetadataDriver(restoreImage(dump.stdout, version, 2048), cacheBlocks);
      assertAnswers(restored, devices);
      assertEquals(restored.engine.dataFree, pool.engine.dataFree);
    },
  });
}
