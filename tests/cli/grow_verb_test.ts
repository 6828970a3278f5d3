/** `grow` and `rescan`, as a person gives them: the same offline and to a running server. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { PoolOnDisk } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { SmallHost } from "../torture/host.ts";

const ignore = !hasThinTools("0.9") || !hasThinTools("1.x");
const mib = 1024 * 1024;

/** A command, its status, and what it prints: on stdout if it is 0, else on stderr. */
type Step = readonly [command: string, status: number, prints: string | RegExp];

const script: readonly Step[] = [
  ["grow", 2, "grow was given no size: write `grow SIZE`, `grow +SIZE` or `grow --metadata SIZE`.\n"],
  [
    "grow 32M",
    1,
    /^The pool was not grown: the data has 64 MiB already, and a pool cannot become smaller\. /,
  ],
  ["grow --metadata 1M", 1, /: the metadata has 2 MiB already, and a pool cannot become smaller\. /],
  ["grow +1000", 1, /^The pool was not grown: 1000 B is less than one block of 64 KiB\.\n$/],
  [
    "grow --metadata 20G",
    1,
    /: the metadata can have at most 15\.9 GiB \(4161600 blocks\), as dm-thin's format limits/,
  ],
  ["grow 20T", 1, /: the metadata is too small to count so much\. Grow it as well: --metadata 91M\.\n$/],
  ["grow 64M", 0, "data      64 MiB -> 64 MiB\nmetadata  2 MiB -> 2 MiB\n"],
  ["grow 100M", 0, "data      64 MiB -> 100 MiB\nmetadata  2 MiB -> 2 MiB\n"],
  ["grow +28M --json", 0, `{"data_total_bytes":${128 * mib},"metadata_total_bytes":${2 * mib}}\n`],
  ["grow --metadata +6M", 0, "data      128 MiB -> 128 MiB\nmetadata  2 MiB -> 8 MiB\n"],
  // Several steps of the growth, and bitmaps that are in the added metadata.
  ["grow 3T", 1, /: the metadata is too small to count so much\. Grow it as well: --metadata 14M\.\n$/],
  ["grow 3T --metadata 14M", 0, "data      128 MiB -> 3 TiB\nmetadata  8 MiB -> 14 MiB\n"],
  ["rescan", 0, "data      3 TiB -> 3 TiB\nmetadata  14 MiB -> 14 MiB\n"],
  ["check", 0, "The metadata is sound.\n"],
  [
    "status",
    0,
    /^mode +write\ndata +0 B of 3 TiB used, blocks of 64 KiB\nmetadata +[\d.]+ MiB of 14 MiB used\n/,
  ],
];

async function run(pool: PoolOnDisk): Promise<string[]> {
  const printed: string[] = [];
  for (const [command, status, prints] of script) {
    const result = await pool.cli(command.split(" "));
    assertEquals(result.status, status, `${command}: ${result.stderr}`);
    const [said, silent] = status === 0 ? [result.stdout, result.stderr] : [result.stderr, result.stdout];
    assertEquals(silent, "", command);
    if (typeof prints === "string") assertEquals(said, prints, command);
    else assertMatch(said, prints, command);
    printed.push(`${command}: ${said}`);
  }
  return printed;
}

Deno.test({
  name:
    "a pool grows by the same words offline and while it is served, and the metadata file is stored whole",
  ignore,
  fn: async () => {
    const size = ["--data-size", "64M", "--metadata-size", "2M"];
    await using offline = await PoolOnDisk.make(...size);
    const printed = await run(offline);
    await offline.requireSound();

    await using served = await PoolOnDisk.make(...size);
    const server = await served.serve();
    assertEquals(await run(served), printed);
    await server.stop();
    await served.requireSound();

    for (const pool of [offline, served]) {
      const metadata = Deno.statSync(pool.metadataPath);
      assert(metadata.size === 14 * mib && (metadata.blocks ?? 0) * 512 >= 14 * mib);
      const data = Deno.statSync(pool.dataPath);
      assert(data.size === 3 * 1024 * 1024 * mib && (data.blocks ?? 0) * 512 < mib);
    }
  },
});

Deno.test("rescan takes what was appended to the files, and refuses files that became shorter", async () => {
  await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "2M");
  const server = await pool.serve();
  await Deno.truncate(pool.dataPath, 80 * mib + 5);
  await Deno.truncate(pool.metadataPath, 3 * mib + 5);
  assertEquals(await pool.verb("rescan"), "data      64 MiB -> 80 MiB\nmetadata  2 MiB -> 3 MiB\n");
  await Deno.truncate(pool.dataPath, 70 * mib);
  const refused = await pool.cli(["rescan"]);
  assertEquals([refused.status, refused.stdout], [1, ""]);
  assertMatch(refused.stderr, /^The pool was not grown: the data could not be made larger: .*shorter/);
  await Deno.truncate(pool.dataPath, 80 * mib);
  await server.stop();
  await pool.verb("check");
});

Deno.test("a device that is larger than the superblock says, as a crash leaves it, is used by the next growth", async () => {
  await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "2M");
  await Deno.truncate(pool.dataPath, 100 * mib);
  await Deno.truncate(pool.metadataPath, 4 * mib);
  assertEquals((await pool.status()).data_total_bytes, 64 * mib);
  await pool.verb("check");
  assertEquals(
    await pool.verb("grow", "80M", "--metadata", "3M"),
    "data      64 MiB -> 80 MiB\nmetadata  2 MiB -> 3 MiB\n",
  );
  assert((Deno.statSync(pool.metadataPath).blocks ?? 0) * 512 >= 3 * mib, "it is stored");
  await pool.verb("check");
});

Deno.test({
  name: "a host without space for the metadata refuses the growth, and the file is what it was",
  ignore: ignore || !SmallHost.isPossible(),
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    await using _host = await SmallHost.mount(pool.folder, 24 * mib);
    await pool.verb("init", "--data-size", "64M", "--metadata-size", "2M");
    const server = await pool.serve();
    const refused = await pool.cli(["grow", "+64M", "--metadata", "+64M"]);
    assertEquals([refused.status, refused.stdout], [1, ""]);
    assertMatch(
      refused.stderr,
      /^The pool was not grown: the host has not so much space for the metadata\. /,
    );
    assertEquals(Deno.statSync(pool.metadataPath).size, 2 * mib);
    assertEquals(Deno.statSync(pool.dataPath).size, 64 * mib);
    assertEquals(
      await pool.verb("rescan"),
      "data      64 MiB -> 64 MiB\nmetadata  2 MiB -> 2 MiB\n",
    );
    // What the host has is enough for this: the refused growth has left nothing behind.
    assertEquals(
      await pool.verb("grow", "--metadata", "+12M"),
      "data      64 MiB -> 64 MiB\nmetadata  2 MiB -> 14 MiB\n",
    );
    await pool.verb("create", "disk0", "1M");
    await server.stop();
    await pool.requireSound();
  },
});

Deno.test("a size that is no multiple of 512 is rounded up, and that is said", async () => {
  await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "2M");
  const said: string[] = [];
  for (const command of ["create a 1", "create b 512", "resize a 1000", "resize b 1024"]) {
    said.push((await pool.cli(command.split(" "))).stderr);
  }
  assertEquals(said, [
    "note: the size of 1 bytes was rounded up to 512, a multiple of 512\n",
    "",
    "note: the size of 1000 bytes was rounded up to 1024, a multiple of 512\n",
    "",
  ]);
});
