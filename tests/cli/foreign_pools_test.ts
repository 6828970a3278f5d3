/** Pools that another program made, changed or damaged: what the command line says, and that it writes nothing. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { openLibc } from "../../actors/edge/libc.ts";
import { openPool, UserError } from "../../mod.ts";
import { assert as require } from "../../storage/base/assert.ts";
import { packSuperblock, type Superblock, unpackSuperblock } from "../../storage/format/superblock.ts";
import { metadataBlockSizeBytes, thinId } from "../../storage/base/ids.ts";
import { keepsIntents, leaveIntents, leftInserts } from "../support/left_intents.ts";
import { PoolOnDisk } from "../support/server.ts";
import { hasThinTools, restoreImage, runThinTool } from "../support/thin_tools.ts";

const ignore = !hasThinTools("0.9");

// Once for the process, and before the first test, so that no test is said to leak it.
openLibc();

/** A small pool with two volumes and a snapshot. */
async function makePool(): Promise<PoolOnDisk> {
  const pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "2M");
  await pool.verb("create", "a", "16M");
  await pool.verb("create", "b", "1M");
  await pool.verb("snapshot", "a@s");
  return pool;
}

async function changeSuperblock(pool: PoolOnDisk, change: Partial<Superblock>): Promise<void> {
  using file = await Deno.open(pool.metadataPath, { read: true, write: true });
  const block = new Uint8Array(metadataBlockSizeBytes);
  await file.read(block);
  const superblock = unpackSuperblock(block);
  require(typeof superblock !== "string", "the superblock is sound");
  await file.seek(0, Deno.SeekMode.Start);
  await file.write(packSuperblock({ ...superblock, ...change }));
}

/** What is in the folder: every file's name, size and bytes but for the data. */
async function filesOf(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) files.push(...await filesOf(path));
    else {
      const { size } = await Deno.stat(path);
      const bytes = !entry.isFile || size > 4 << 20 ? new Uint8Array() : await Deno.readFile(path);
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-1", bytes));
      files.push(`${path} ${size} ${hash.join()}`);
    }
  }
  return files.sort();
}

/** The sentence with which a command is refused. It has changed nothing. */
async function refusal(pool: PoolOnDisk, ...args: string[]): Promise<string> {
  const before = await filesOf(pool.folder);
  const { status, stdout, stderr } = await pool.cli(args);
  assertEquals([status, stdout], [1, ""], `${args.join(" ")}: ${stderr}`);
  assertEquals(await filesOf(pool.folder), before);
  assertMatch(stderr, /^[A-Z"][^\n]*\.\n$/);
  return stderr.trim();
}

Deno.test("metadata that may only be read is listed and served read-only, and refused for any change", async () => {
  await using pool = await makePool();
  for (
    const [change, reason] of [
      [{ compatRoFlags: 4 }, /features to be read only/],
      [{ compatRoFlags: 0, flags: 1 }, /needs? a? ?check|needing a check/],
    ] as const
  ) {
    await changeSuperblock(pool, change);
    for (const args of [["create", "c", "1M"], ["rm", "b"], ["serve", "--listen", "tcp:127.0.0.1:0"]]) {
      assertMatch(await refusal(pool, ...args), reason);
    }
    const status = await pool.status();
    assertEquals(status.mode, "read-only");
    assertMatch(status.trouble ?? "", reason);
    assertEquals((await pool.list()).map((volume) => volume.name), ["a", "a@s", "b"]);
    const server = await pool.serve(["--read-only"]);
    await server.stop();
  }
});

Deno.test("metadata with unknown features is refused for everything", async () => {
  await using pool = await makePool();
  await changeSuperblock(pool, { incompatFlags: 2 });
  for (const args of [["create", "c", "1M"], ["list"], ["status"], ["serve", "--read-only"]]) {
    assertMatch(await refusal(pool, ...args), /features unknown here/);
  }
});

Deno.test("a transaction id that is not the catalogue's means that another program changed the pool", async () => {
  await using pool = await makePool();
  await changeSuperblock(pool, { transactionId: 77n });
  for (const args of [["create", "c", "1M"], ["list"], ["serve", "--read-only"]]) {
    assertMatch(await refusal(pool, ...args), /which is at 77: another program changed the pool/);
  }
  const { status, stdout } = await pool.cli(["check"]);
  assertEquals(status, 1);
  assertMatch(stdout, /another program changed the pool/);
});

const device = (id: number, mappings: string) =>
  `<device dev_id="${id}" mapped_blocks="${
    mappings === "" ? 0 : 1
  }" transaction="0" creation_time="0" snap_time="0">` +
  `${mappings}</device>`;

const poolXml = (devices: string, transaction = 0, dataBlocks = 1024) =>
  `<superblock uuid="" time="1" transaction="${transaction}" data_block_size="128" nr_data_blocks="${dataBlocks}">` +
  `${devices}</superblock>`;

const mappedOnce = (vblock: number) => `<single_mapping origin_block="${vblock}" data_block="5" time="0"/>`;

Deno.test({
  name:
    "devices that another program made or deleted at the same transaction id are adopted and dropped, and told",
  ignore: ignore || !hasThinTools("1.x"),
  fn: async () => {
    await using pool = await makePool();
    const { transaction_id } = await pool.status();
    // Device 2 was "b"; 3 was "a@s"; 9 is new and mapped up to vblock 6.
    const xml = poolXml(device(1, "") + device(3, "") + device(9, mappedOnce(6)), transaction_id);
    await Deno.writeFile(pool.metadataPath, restoreImage(xml, "0.9", 512));
    assertEquals((await pool.list()).map((volume) => volume.name), ["a", "a@s", "thin-9"]);
    const server = await pool.serve();
    const list = await pool.list();
    await server.stop();
    assertEquals(list.map((volume) => volume.name), ["a", "a@s", "thin-9"]);
    const { size_bytes, mapped_bytes, read_only, origin, created } = list[2]!;
    assertEquals([size_bytes, mapped_bytes, read_only, origin, created], [
      7 * 65536,
      65536,
      false,
      null,
      null,
    ]);
    assertMatch(server.stderr, /^Another program made thin devices in this pool: 9\. .*$/m);
    assertMatch(server.stderr, /^Another program deleted thin devices of this pool: b\. .*$/m);
    assertEquals((await pool.status()).transaction_id, transaction_id + 1);
    await pool.requireSound();
    const again = await pool.serve();
    await again.stop();
    assert(!again.stderr.includes("Another program"), "it is told once");
  },
});

Deno.test({
  name: "import makes a pool around metadata and data without changing a byte of them",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    const [metadata, data] = [pool.path("m"), pool.path("d")];
    // The last one is mapped further out than any volume can reach.
    const far = device(16777215, mappedOnce(2 ** 40));
    await Deno.writeFile(
      metadata,
      restoreImage(poolXml(device(0, mappedOnce(0)) + device(4, "") + far, 41), "0.9"),
    );
    await Deno.writeFile(data, new Uint8Array(0));
    await Deno.truncate(data, 1024 * 65536);
    const before = await Deno.readFile(metadata);
    await pool.verb("import", "--metadata", metadata, "--data", data);
    assertEquals(await Deno.readFile(metadata), before);
    const list = await pool.list();
    assertEquals(list.map(({ name, thin_id, size_bytes }) => [name, thin_id, size_bytes]), [
      ["thin-0", 0, 65536],
      ["thin-4", 4, 65536],
      ["thin-16777215", 16777215, 2 ** 53 - 512],
    ]);
    const { mode, transaction_id } = await pool.status();
    assertEquals([mode, transaction_id], ["write", 41]);
    await pool.verb("create", "new", "1M");
    assertEquals((await pool.list()).map((volume) => volume.thin_id), [1, 0, 4, 16777215]);
    assertEquals(runThinTool("thin_check", "0.9", [metadata]).status, 0);
  },
});

Deno.test({
  name:
    "import refuses what is no metadata, too small, twice the same, missing, or in use, and leaves nothing behind",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    const [good, zeroes, noise, short, data, small] = ["good", "zeroes", "noise", "short", "data", "small"]
      .map((name) => pool.path(name)) as [string, string, string, string, string, string];
    await Deno.writeFile(good, restoreImage(poolXml(device(1, mappedOnce(0))), "0.9"));
    await Deno.writeFile(zeroes, new Uint8Array(1 << 20));
    await Deno.writeFile(noise, crypto.getRandomValues(new Uint8Array(65536)));
    await Deno.writeFile(short, (await Deno.readFile(good)).subarray(0, 100_000));
    for (const [path, sizeBytes] of [[data, 1024 * 65536], [small, 1023 * 65536]] as const) {
      await Deno.writeFile(path, new Uint8Array(0));
      await Deno.truncate(path, sizeBytes);
    }
    const cases: [string, string, RegExp][] = [
      [zeroes, data, /its superblock is not that of dm-thin metadata, or damaged/],
      [noise, data, /its superblock is not that of dm-thin metadata, or damaged/],
      [short, data, /only 24 are there|holds only 24/],
      [good, small, /it has 67043328 bytes, and the metadata needs 67108864/],
      [good, good, /they are the same file/],
      [good, pool.path("nothing"), /does not exist/],
      [pool.path("nothing"), data, /does not exist/],
      [pool.folder, data, /neither a file nor a block device/],
    ];
    for (const [metadata, dataPath, reason] of cases) {
      assertMatch(await refusal(pool, "import", "--metadata", metadata, "--data", dataPath), reason);
    }
    await pool.verb("import", "--metadata", good, "--data", data);
    const server = await pool.serve();
    const other = ["--pool", `${pool.folder}/other`, "import", "--metadata", good, "--data", data];
    assertMatch(await refusal(pool, ...other), /has it locked/);
    await server.stop();
    assertMatch(
      await refusal(pool, "import", "--metadata", good, "--data", data),
      /there is one already/,
    );
    for (const args of [["import"], ["import", "--metadata", good], ["import", "--data", data, good]]) {
      assertEquals((await pool.cli(args)).status, 2);
    }
    assert(!(await filesOf(pool.folder)).some((file) => file.includes("other")));
  },
});

/** Changes the text of the catalogue. */
const catalogues = ["catalog.json", "catalog.spare"];

/** Changes the catalogue and its second copy alike. */
async function changeCatalogue(pool: PoolOnDisk, change: (text: string) => string): Promise<void> {
  for (const name of catalogues) {
    const path = `${pool.directory}/${name}`;
    await Deno.writeTextFile(path, change(await Deno.readTextFile(path)));
  }
}

Deno.test("a pool with files missing, cut or not its own is refused with the file's name or the reason", async () => {
  await using base = await makePool();
  const cases: [string, (pool: PoolOnDisk) => Promise<void>, RegExp][] = [
    ["metadata missing", (pool) => Deno.remove(pool.metadataPath), /metadata\.img": it does not exist/],
    ["data missing", (pool) => Deno.remove(pool.dataPath), /data\.img": it does not exist/],
    ["no catalogue", async (pool) => {
      for (const name of catalogues) await Deno.remove(`${pool.directory}/${name}`);
    }, /there is no pool in it/],
    ["metadata cut", (pool) => Deno.truncate(pool.metadataPath, 1 << 20), /512 blocks.* only 256/],
    [
      "metadata gone but a bit",
      (pool) => Deno.truncate(pool.metadataPath, 99),
      /metadata\.img" is truncated/,
    ],
    ["data cut", (pool) => Deno.truncate(pool.dataPath, 1 << 20), /data\.img" is truncated/],
    ["catalogue empty", (pool) => changeCatalogue(pool, () => ""), /catalogue .*is damaged in line 1/],
    ["catalogue cut", (pool) => changeCatalogue(pool, (text) => text.slice(0, 99)), /damaged in line 1/],
    [
      "other version",
      (pool) => changeCatalogue(pool, (text) => text.replace("catalog 1", "catalog 99")),
      /version/,
    ],
    ["not JSON", (pool) => changeCatalogue(pool, (text) => `x${text}`), /damaged in line 1/],
    [
      "block size",
      (pool) => changeCatalogue(pool, (text) => text.replace("65536", "131072")),
      /131072 bytes, .*65536/,
    ],
    [
      "thin id",
      (pool) => changeCatalogue(pool, (text) => text.replace('"thin_id":1', '"thin_id":-1')),
      /thin_id/,
    ],
  ];
  for (const [name, damage, reason] of cases) {
    await using pool = await PoolOnDisk.folder();
    await new Deno.Command("cp", { args: ["-a", base.directory, pool.directory] }).output();
    await damage(pool);
    assertMatch(await refusal(pool, "list"), reason, name);
    const before = await filesOf(pool.folder);
    for (const readOnly of [true, false]) {
      const error = await assertRejects(
        () => openPool(pool.directory, { readOnly }),
        UserError,
        undefined,
        name,
      );
      assertMatch(error.message, reason, name);
    }
    assertEquals(await filesOf(pool.folder), before, name);
    assertEquals((await pool.cli(["check"])).status, 1, name);
  }
});

Deno.test("what is no pool is refused with the next step, and nothing appears", async () => {
  await using pool = await PoolOnDisk.folder();
  assertMatch(await refusal(pool, "list"), /the directory does not exist. Make one with `init`/);
  assertMatch(await refusal(pool, "serve", "--read-only"), /the directory does not exist/);
  await Deno.mkdir(pool.directory);
  assertMatch(await refusal(pool, "create", "a", "1M"), /there is no pool in it/);
  await Deno.remove(pool.directory);
  await Deno.writeTextFile(pool.directory, "a file");
  assertMatch(await refusal(pool, "list"), /it is not a directory/);
  assertMatch(await refusal(pool, "init"), /not a directory/);
});

Deno.test("a pool whose catalogue is lost is the same pool, by its second copy, and is told once", async () => {
  await using pool = await PoolOnDisk.make();
  await pool.verb("create", "disk0", "10M");
  await pool.verb("snapshot", "disk0@a");
  const list = await pool.list();
  await Deno.remove(`${pool.directory}/catalog.json`);
  assertEquals(await pool.list(), list);
  const { stderr } = await pool.cli(["create", "disk1", "1M"]);
  assertMatch(
    stderr,
    /^".*catalog.json" is missing, so its second copy, ".*catalog.spare", is used: no change is lost.\n$/,
  );
  const after = await pool.list();
  assertEquals(after.map(({ name }) => name), ["disk0", "disk0@a", "disk1"]);
  assertEquals((await pool.cli(["list"])).stderr, "", "it is mended");
  assertEquals(
    await Deno.readTextFile(`${pool.directory}/catalog.spare`),
    await Deno.readTextFile(`${pool.directory}/catalog.json`),
  );
});

Deno.test("import of the metadata of a pool of ours finds names and sizes beside it", async () => {
  await using pool = await PoolOnDisk.make();
  await pool.verb("create", "disk0", "10M");
  await pool.verb("create", "web.db", "3M");
  await pool.verb("snapshot", "disk0@a");
  const list = await pool.list();
  await Deno.remove(`${pool.directory}/catalog.json`);
  const other = pool.path("other");
  const { status, stdout, stderr } = await pool.cli([
    ...["--pool", other, "import", "--metadata", `${pool.directory}/metadata.img`],
    ...["--data", `${pool.directory}/data.img`],
  ]);
  assertEquals([status, stderr], [0, "Names and sizes are those of the catalogue beside the metadata.\n"]);
  // In natural order, as they are listed, and not in that of their making.
  assertEquals(stdout, "disk0  10 MiB\ndisk0@a  10 MiB\nweb.db  3 MiB\n");
  const imported = await pool.cli(["--pool", other, "list", "--json"]);
  assertEquals(JSON.parse(imported.stdout).volumes, list);
});

for (const hasCatalogue of [true, false]) {
  Deno.test({
    name: `import ${
      hasCatalogue ? "with" : "without"
    } a catalogue takes over what a killed server has left in the intent journal`,
    ignore: !keepsIntents,
    fn: async () => {
      await using pool = await PoolOnDisk.make();
      await pool.verb("create", "disk0", "10M");
      await leaveIntents(pool.directory, leftInserts(thinId(1), 20));
      if (!hasCatalogue) {
        await Deno.remove(`${pool.directory}/catalog.json`);
        await Deno.remove(`${pool.directory}/catalog.spare`);
      }
      const other = pool.path("other");
      const devices = [
        "--metadata",
        `${pool.directory}/metadata.img`,
        "--data",
        `${pool.directory}/data.img`,
      ];
      const imported = await pool.cli(["--pool", other, "import", ...devices]);
      assertMatch(imported.stderr, /^20 changes wait in the intent journal beside the metadata; /);
      const size = hasCatalogue ? 10 << 20 : 20 << 16;
      const created = await pool.cli(["--pool", other, "create", "more", "1M"]);
      assertMatch(created.stderr, /^20 changes .*: replayed and committed\.\n$/);
      const { stdout } = await pool.cli([
        "--pool",
        other,
        "list",
        "-Hp",
        "-o",
        "size,mapped",
        "-s",
        "mapped",
      ]);
      assertEquals(stdout, `${1 << 20}\t0\n${size}\t${20 << 16}\n`);
      assertEquals((await pool.cli(["--pool", other, "check"])).stdout, "The metadata is sound.\n");
    },
  });
}
