import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { type Catalogue, type VolumeRecord } from "../../storage/catalogue.ts";
import { catalogueFrom } from "../../storage/catalogue_open.ts";
import { ioOk, type IoResult } from "../../storage/device/port.ts";
import { UserError } from "../../storage/base/errors.ts";
import { thinId } from "../../storage/base/ids.ts";
import { openLibc } from "./libc.ts";
import { isPool, PoolFiles } from "./pool_files.ts";
import { adoptPoolFiles, type InitOptions, initPoolFiles, type UnfinishedPool } from "./pool_files_init.ts";

const libc = openLibc();
const mib = 1 << 20;
const sizes = { blockSizeBytes: 65536, dataSizeBytes: 64 * mib, metadataSizeBytes: 2 * mib, libc };

/** A directory that is removed at the end; `pool` in it is not made yet. */
class Scratch {
  readonly root = Deno.makeTempDirSync({ prefix: "gossamer-test-" });
  readonly pool = `${this.root}/pool`;

  [Symbol.dispose](): void {
    Deno.removeSync(this.root, { recursive: true });
  }
}

function catalogueOf(unfinished: UnfinishedPool, transactionId = 0n): Catalogue {
  return catalogueFrom({ transactionId, settings: unfinished.settings, nextThinId: 0, volumes: [] });
}

/** The result of an operation, whenever it comes. */
function resultOf(start: (done: (result: IoResult) => void) => IoResult | "pending"): Promise<IoResult> {
  const { promise, resolve } = Promise.withResolvers<IoResult>();
  const result = start(resolve);
  if (result !== "pending") resolve(result);
  return promise;
}

function makePool(options: InitOptions): void {
  const unfinished = initPoolFiles(options);
  // Stands in for a superblock.
  unfinished.metadata.write(new Uint8Array(4096).fill(1), 0, () => {});
  unfinished.finish(catalogueOf(unfinished));
}

const volume: VolumeRecord = {
  uid: "u1",
  name: "disk0",
  thinId: thinId(0),
  sizeBytes: mib,
  readOnly: false,
  origin: null,
  owner: null,
  created: null,
};

function later(start: (done: (result: IoResult) => void) => void): Promise<IoResult> {
  const { promise, resolve } = Promise.withResolvers<IoResult>();
  start(resolve);
  return promise;
}

const room = { contentBytes: 4096, usesHeadroom: false };
/** The lines of a catalogue's file, without the room behind them. */
const linesIn = (path: string) => Deno.readTextFileSync(path).replace(/\0+$/, "");
const refusal = (start: () => unknown) => assertThrows(start, UserError).message;
const namesIn = (directory: string) => [...Deno.readDirSync(directory)].map((entry) => entry.name).sort();
const modeOf = (path: string) => (Deno.statSync(path).mode ?? 0) & 0o777;

Deno.test("a new pool is a closed directory with whole metadata, sparse data and an empty catalogue", () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  assertEquals(namesIn(scratch.pool), ["catalog.json", "data.img", "metadata.img"]);
  assertEquals(modeOf(scratch.pool), 0o700);
  const metadata = Deno.statSync(`${scratch.pool}/metadata.img`);
  const data = Deno.statSync(`${scratch.pool}/data.img`);
  assertEquals([metadata.size, data.size, modeOf(`${scratch.pool}/data.img`)], [2 * mib, 64 * mib, 0o600]);
  assert((metadata.blocks ?? 0) * 512 >= 2 * mib);
  assertEquals(data.blocks, 0);
  const pool = PoolFiles.open(scratch.pool, { libc });
  assertEquals([pool.metadata.sizeBytes, pool.data.sizeBytes], [2 * mib, 64 * mib]);
  assertEquals(pool.settle(0n).catalogue.count, 0);
  pool.close();
});

Deno.test("without the C library the metadata is written whole", () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes, libc: undefined });
  assert((Deno.statSync(`${scratch.pool}/metadata.img`).blocks ?? 0) * 512 >= 2 * mib);
});

Deno.test("sizes that nobody gave come from the host", () => {
  using scratch = new Scratch();
  const unfinished = initPoolFiles({ directory: scratch.pool, blockSizeBytes: 1 << 30, libc });
  assert(unfinished.dataSizeBytes >= 1 << 30);
  assertEquals(unfinished.dataSizeBytes % (1 << 30), 0);
  assertEquals(unfinished.metadata.sizeBytes, 16 * mib);
  unfinished.abandon();
});

Deno.test("an abandoned init leaves nothing behind", () => {
  using scratch = new Scratch();
  initPoolFiles({ directory: scratch.pool, ...sizes }).abandon();
  assertEquals(namesIn(scratch.root), []);
});

Deno.test("an init that fails leaves nothing behind", () => {
  using scratch = new Scratch();
  for (
    const [bad, problem] of [
      [{ blockSizeBytes: 4096 }, "multiple of 64 KiB"],
      [{ metadataSizeBytes: mib }, "at least 2 MiB"],
      [{ dataSizeBytes: 65535 }, "smaller than one block"],
      [{ dataPath: `${scratch.root}/none/data` }, "it does not exist"],
      [{ dataPath: `${scratch.pool}/metadata.img` }, "the same file"],
      [{ dataSizeBytes: 2 ** 52, metadataSizeBytes: 2 * mib }, "does not allow it"],
    ] as const
  ) {
    const message = refusal(() => initPoolFiles({ directory: scratch.pool, ...sizes, ...bad }));
    assertStringIncludes(message, problem);
    assertEquals(namesIn(scratch.root), [], problem);
  }
});

Deno.test("an init that was killed is no pool, and the next one begins anew", () => {
  using scratch = new Scratch();
  const killed = initPoolFiles({ directory: scratch.pool, ...sizes });
  killed.metadata.write(new Uint8Array(4096).fill(1), 0, () => {});
  const left = ["data.img", "metadata.img", "unfinished.json"];
  assertEquals(namesIn(scratch.pool), left);
  for (const name of left) Deno.copyFileSync(`${scratch.pool}/${name}`, `${scratch.root}/${name}`);
  killed.abandon();
  Deno.mkdirSync(scratch.pool);
  for (const name of left) Deno.renameSync(`${scratch.root}/${name}`, `${scratch.pool}/${name}`);
  assert(!isPool(scratch.pool));
  assertStringIncludes(refusal(() => PoolFiles.open(scratch.pool)), "making it was interrupted");
  makePool({ directory: scratch.pool, ...sizes });
  PoolFiles.open(scratch.pool).close();
});

Deno.test("a second init, and one over foreign metadata, change nothing", () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  const before = namesIn(scratch.pool);
  assertStringIncludes(refusal(() => initPoolFiles({ directory: scratch.pool, ...sizes })), "one already");
  assertEquals(namesIn(scratch.pool), before);
  const other = { directory: `${scratch.root}/other`, ...sizes, metadataPath: `${scratch.root}/foreign` };
  Deno.writeTextFileSync(other.metadataPath, "something");
  assertStringIncludes(refusal(() => initPoolFiles(other)), "not empty");
  assertEquals(Deno.readTextFileSync(other.metadataPath), "something");
  assertEquals(namesIn(scratch.root), ["foreign", "pool"]);
});

Deno.test("a pool that is open is refused until it is closed, also by way of its files", () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  const first = PoolFiles.open(scratch.pool, { libc });
  assertStringIncludes(refusal(() => PoolFiles.open(scratch.pool)), "another process has it open");
  assertStringIncludes(refusal(() => PoolFiles.open(scratch.pool, { readOnly: true })), "another process");
  const dataPath = `${scratch.pool}/data.img`;
  const thief = { directory: `${scratch.root}/thief`, ...sizes, dataPath, dataSizeBytes: 128 * mib };
  assertStringIncludes(refusal(() => initPoolFiles(thief)), "another pool, or another program");
  assertEquals(Deno.statSync(dataPath).size, 64 * mib);
  first.close();
  PoolFiles.open(scratch.pool).close();
});

Deno.test("two may have a pool open read-only, and keep out who would write", () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  const first = PoolFiles.open(scratch.pool, { readOnly: true, libc });
  const second = PoolFiles.open(scratch.pool, { readOnly: true });
  assertStringIncludes(refusal(() => PoolFiles.open(scratch.pool)), "another process has it open");
  first.close();
  second.close();
});

Deno.test("another process that has the pool open keeps it, and its death frees it", async () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  const module = new URL("./pool_files.ts", import.meta.url).href;
  const code = `import { PoolFiles } from ${JSON.stringify(module)};
    PoolFiles.open(${
    JSON.stringify(scratch.pool)
  }); console.log("open"); await Deno.stdin.read(new Uint8Array(1));`;
  const path = `${scratch.root}/holder.ts`;
  Deno.writeTextFileSync(path, code);
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const holder = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--config", config, "-A", path],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const reader = holder.stdout.getReader();
  await reader.read();
  assertStringIncludes(refusal(() => PoolFiles.open(scratch.pool)), "another process has it open");
  holder.kill("SIGKILL");
  await holder.status;
  await reader.cancel();
  await holder.stdin.close().catch(() => {});
  PoolFiles.open(scratch.pool).close();
});

Deno.test("what is no pool is a sentence", () => {
  using scratch = new Scratch();
  assertStringIncludes(refusal(() => PoolFiles.open(scratch.pool)), "the directory does not exist");
  assertStringIncludes(refusal(() => PoolFiles.open(scratch.root)), "there is no pool in it");
  Deno.writeTextFileSync(scratch.pool, "");
  assertStringIncludes(refusal(() => PoolFiles.open(scratch.pool)), "it is not a directory");
});

Deno.test("missing and truncated files are a sentence that names them", () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  const dataPath = `${scratch.pool}/data.img`;
  Deno.truncateSync(dataPath, 63 * mib);
  const pool = PoolFiles.open(scratch.pool);
  const message = refusal(() => pool.requireSizes(2 * mib, 64 * mib));
  assertStringIncludes(message, `data "${dataPath}" is truncated: it has ${63 * mib} bytes`);
  pool.close();
  Deno.truncateSync(`${scratch.pool}/metadata.img`, 100);
  assertStringIncludes(refusal(() => PoolFiles.open(scratch.pool)), "metadata");
  Deno.removeSync(dataPath);
  assertStringIncludes(refusal(() => PoolFiles.open(scratch.pool)), `"${dataPath}": it does not exist`);
});

Deno.test("what was there before an abandoned adoption stays", () => {
  using scratch = new Scratch();
  const metadataPath = `${scratch.root}/meta`;
  const dataPath = `${scratch.root}/data`;
  Deno.writeFileSync(metadataPath, new Uint8Array(8192).fill(1));
  Deno.writeFileSync(dataPath, new Uint8Array(65536).fill(2));
  const options = { directory: scratch.pool, blockSizeBytes: 65536, metadataPath, dataPath, libc };
  adoptPoolFiles(options).abandon();
  assertEquals(namesIn(scratch.root), ["data", "meta"]);
  const adopted = adoptPoolFiles(options);
  adopted.finish(catalogueOf(adopted, 5n));
  const pool = PoolFiles.open(scratch.pool);
  assertEquals([pool.metadata.path, pool.data.sizeBytes], [metadataPath, 65536]);
  assertEquals(pool.settle(5n).catalogue.transactionId, 5n);
  pool.close();
});

Deno.test("a moved pool directory opens", () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  Deno.renameSync(scratch.pool, `${scratch.root}/moved`);
  PoolFiles.open(`${scratch.root}/moved`).close();
});

Deno.test("an appended change is there after a restart if it was committed, and gone if not", async () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  const path = `${scratch.pool}/catalog.json`;
  const before = Deno.readTextFileSync(path);
  const pool = PoolFiles.open(scratch.pool, { libc });
  const { catalogue } = pool.settle(0n);
  const line = catalogue.stage([{ put: volume }]);
  assertEquals(await later((done) => pool.catalogueFile?.append(line, room, done)), ioOk);
  pool.close();
  assertEquals(linesIn(path), before + line);

  const readOnly = PoolFiles.open(scratch.pool, { readOnly: true });
  assertEquals(readOnly.settle(0n).catalogue.count, 0);
  readOnly.close();
  assertEquals(linesIn(path), before + line, "read-only writes nothing");

  const committed = PoolFiles.open(scratch.pool);
  const settled = committed.settle(1n);
  assertEquals([settled.catalogue.byName("disk0"), settled.notes], [volume, []]);
  committed.close();

  const uncommitted = PoolFiles.open(scratch.pool);
  const undone = uncommitted.settle(0n);
  assertEquals([undone.catalogue.count, undone.notes.length], [0, 1]);
  uncommitted.close();
  assertEquals(linesIn(path), before);
});

Deno.test("a torn line is cut off before the next is appended", async () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  const path = `${scratch.pool}/catalog.json`;
  Deno.writeTextFileSync(path, `{"transaction_id":"1","cha`, { append: true });
  const pool = PoolFiles.open(scratch.pool);
  const { catalogue } = pool.settle(0n);
  await later((done) => pool.catalogueFile?.append(catalogue.stage([{ put: volume }]), room, done));
  pool.close();
  const again = PoolFiles.open(scratch.pool);
  assertEquals(again.settle(1n).catalogue.count, 1);
  again.close();
});

Deno.test("a line that is taken back is gone, and the next takes its place", async () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  const path = `${scratch.pool}/catalog.json`;
  const before = Deno.readTextFileSync(path);
  const pool = PoolFiles.open(scratch.pool, { libc });
  const { catalogue } = pool.settle(0n);
  await later((done) => pool.catalogueFile?.append(catalogue.stage([{ put: volume }]), room, done));
  assertEquals(await later((done) => pool.catalogueFile?.retract(done)), ioOk);
  catalogue.abandonStaged();
  assertEquals(linesIn(path), before);
  const line = catalogue.stage([{ put: { ...volume, name: "other" } }]);
  await later((done) => pool.catalogueFile?.append(line, room, done));
  assertEquals(linesIn(path), before + line);
  pool.close();
});

Deno.test("a full host refuses to add, lets removals go on for ever, and lets the pool start", async (t) => {
  using scratch = new Scratch();
  Deno.mkdirSync(scratch.pool);
  const isMounted = Deno.uid() === 0 && mount(scratch.pool);
  await t.step({
    name: "on a tmpfs of 3 MiB (needs root)",
    ignore: !isMounted,
    fn: async () => {
      assertStringIncludes(
        refusal(() => initPoolFiles({ directory: scratch.pool, ...sizes, metadataSizeBytes: 4 * mib })),
        "the host has not so much space",
      );
      makePool({ directory: scratch.pool, ...sizes });
      const pool = PoolFiles.open(scratch.pool);
      const { catalogue, notes } = pool.settle(0n);
      assertEquals(notes, []);
      assertEquals(await resultOf((done) => pool.data.write(new Uint8Array(2 * mib), 0, done)), {
        kind: "noSpace",
      });
      assertEquals(await appendUntilRefused(pool, catalogue, false), { kind: "noSpace" });
      // Each time that the headroom is used up, the journal is written anew.
      for (let times = 0; times < 3; times += 1) {
        assertEquals(await appendUntilRefused(pool, catalogue, true), { kind: "noSpace" });
        assertEquals(await rewrite(pool, catalogue), ioOk);
      }
      await appendUntilRefused(pool, catalogue, true);
      pool.close();
      const path = `${scratch.pool}/catalog.json`;
      const before = linesIn(path);
      const again = PoolFiles.open(scratch.pool);
      const settled = again.settle(catalogue.transactionId);
      assertEquals(settled.catalogue.byName("disk0"), catalogue.byName("disk0"));
      assertStringIncludes(settled.notes.join(" "), "The host is full: the room that removing needs");
      assertEquals(await rewrite(again, settled.catalogue), ioOk);
      again.close();
      assertEquals(linesIn(path), catalogue.snapshotLine());
      assert(before.length > linesIn(path).length);
    },
  });
  if (isMounted) new Deno.Command("umount", { args: ["--lazy", scratch.pool] }).outputSync();
});

async function appendUntilRefused(
  pool: PoolFiles,
  catalogue: Catalogue,
  usesHeadroom: boolean,
): Promise<IoResult> {
  for (let round = 0; round < 10_000; round += 1) {
    const line = catalogue.stage([{ put: { ...volume, sizeBytes: mib + round * 512 } }]);
    const room = { contentBytes: catalogue.stagedContentBytes, usesHeadroom };
    const result = await later((done) => pool.catalogueFile?.append(line, room, done));
    if (result.kind !== "ok") {
      catalogue.abandonStaged();
      return result;
    }
    catalogue.commitStaged();
  }
  return ioOk;
}

async function rewrite(pool: PoolFiles, catalogue: Catalogue): Promise<IoResult> {
  const written = await later((done) => pool.catalogueFile?.rewrite(catalogue.snapshotLine(), true, done));
  if (written.kind !== "ok") return written;
  return await later((done) => pool.catalogueFile?.finishRewrite(catalogue.contentBytes, done));
}

function mount(mountPoint: string): boolean {
  const args = ["-t", "tmpfs", "-o", "size=3m", "gossamer-test", mountPoint];
  return new Deno.Command("mount", { args, stderr: "null" }).outputSync().success;
}

Deno.test("metadata of another transaction is refused, and nothing is written", () => {
  using scratch = new Scratch();
  makePool({ directory: scratch.pool, ...sizes });
  const before = Deno.readTextFileSync(`${scratch.pool}/catalog.json`);
  const pool = PoolFiles.open(scratch.pool);
  assertStringIncludes(refusal(() => pool.settle(3n)), "another program changed the pool");
  pool.close();
  assertEquals(Deno.readTextFileSync(`${scratch.pool}/catalog.json`), before);
});
