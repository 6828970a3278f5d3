/** Every verb as a person gives it: the same offline and to a running server, word for word. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { NBD_CMD_FLAG_FUA } from "../../actors/nbd/wire/constants.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { PoolOnDisk } from "../support/server.ts";
import { hasThinTools, runThinTool } from "../support/thin_tools.ts";

/** A command, its status, and what it prints: on stdout if it is 0, else on stderr. "" is nothing at all. */
type Step = readonly [command: string, status: number, prints: string | RegExp];

const names = (...lines: string[]) =>
  new RegExp(`^NAME .*\n${lines.map((line) => `${line} .*\n`).join("")}$`);
/** Lines of a list without a heading, their columns separated by tabs. */
const rows = (...lines: string[]) => lines.map((line) => `${line.replaceAll(" ", "\t")}\n`).join("");

const script: readonly Step[] = [
  ["list", 0, "NAME  SIZE  MAPPED  EXCLUSIVE  SHARED  ATTACHED\n"],
  ["list -H", 0, ""],
  ["list --json", 0, '{"volumes":[]}\n'],
  ["create a 16M", 0, ""],
  ["create 007 1000", 0, ""],
  ["create b 1.5G", 0, ""],
  ["list", 0, names("007     1 KiB", "a      16 MiB", "b     1.5 GiB")],
  ["list -Hp", 0, rows("007 1024 0 0 0 0", "a 16777216 0 0 0 0", "b 1610612736 0 0 0 0")],
  ["list -H -o id,name -s size 007 a", 0, rows("2 007", "1 a")],
  ["list b zz", 1, 'Cannot list "zz": there is no such volume or snapshot. `list` shows what is there.\n'],
  ["list -H -o name z*", 0, ""],
  ["create a 1G", 1, 'Cannot create "a": "a" exists already. Choose another name, or remove it first.\n'],
  ["create c 9007199254740991", 1, /^Cannot create "c": a volume has at most 9007199254740480 bytes/],
  ["snapshot a@s b@s", 0, ""],
  ["snapshot a@s", 1, /^Cannot take the snapshot "a@s": "a@s" exists already\./],
  ["snapshot a@t a@s", 1, /^Cannot take 2 snapshots: "a@s" exists already\./],
  ["snapshot a@t zz@t", 1, /^Cannot take 2 snapshots: there is no volume "zz"\. `list` shows/],
  ["snapshot a@t a@t", 1, /^Cannot take 2 snapshots: a name stands there twice\./],
  ["clone a@s c", 0, ""],
  ["clone a d", 0, ""],
  ["clone a@none e", 1, /^Cannot clone "a@none" as "e": there is no "a@none"\./],
  ["clone a c", 1, /^Cannot clone "a" as "c": "c" exists already\./],
  ["rename a z", 0, ""],
  ["list -H -o name,origin", 0, rows("007 -", "b -", "b@s b", "c z@s", "d z", "z -", "z@s z")],
  ["list -H -o name z*", 0, rows("z")],
  [
    "tree",
    0,
    /^NAME +SIZE +MAPPED +EXCLUSIVE +SHARED\n007 .*\nb .*\n└─ b@s .*\nz .*\n├─ d .*\n└─ z@s .*\n {3}└─ c .*\n$/,
  ],
  ["tree --json", 0, /^\{"volumes":\[\{"name":"007",.*"depth":0\},.*"name":"c",.*"depth":2\}\]\}\n$/],
  [
    "df",
    0,
    /^ +SIZE +USED +FREE +USE\ndata +64 MiB +0 B +64 MiB +0%\nmetadata .*\nhost .*\n\nVOLUME +SIZE +MAPPED +FREED BY REMOVAL\n007 +1 KiB +0 B +0 B\n/,
  ],
  [
    "df --json",
    0,
    /^\{"data":\{"total_bytes":67108864,"used_bytes":0,"free_bytes":67108864\},.*"shared_bytes":0,"volumes":\[/,
  ],
  ["list -H -o name *@s", 0, rows("b@s", "z@s")],
  ["list -H -o name -s origin ?", 0, rows("b", "z", "d", "c")],
  ["rename z@s z@first", 0, ""],
  ["rename z@first b@first", 1, /a snapshot stays with its volume/],
  ["rename z z@q", 1, /a volume stays a volume and a snapshot a snapshot/],
  ["rename z z", 1, /that is its name already/],
  ["rename nobody z", 1, /there is no "nobody"/],
  [
    "rollback z@first",
    0,
    "what it had is kept as z@before-rollback-1; it alone holds 0 bytes (0 B)\n",
  ],
  ["rm --wait z@before-rollback-1", 0, ""],
  ["rollback z@none", 1, /there is no such snapshot/],
  ["resize z 32M", 0, ""],
  [
    "resize z 64M --shrink",
    1,
    /^Cannot resize "z": 67108864 bytes are more than it has, 33554432\. Leave out/,
  ],
  ["resize z 100", 0, ""],
  ["resize z@first 1G", 1, /it is a read-only snapshot\. Clone it/],
  ["resize nobody 1G", 1, /there is no such volume/],
  ["rm z nobody", 1, /^Cannot remove "nobody": there is no such volume or snapshot\. Nothing was removed\./],
  ["rm -n nobody", 1, /there is no such volume or snapshot/],
  ["rm -n z", 0, "0 bytes (0 B) would be freed\n"],
  ["rm --wait z", 0, ""],
  [
    "list -o name,origin",
    0,
    "NAME     ORIGIN\n007      -\nb        -\nb@s      b\nc        z@first\nd        -\nz@first  -\n",
  ],
  ["rollback z@first", 1, /the volume "z" is gone\. Clone the snapshot instead\./],
  ["create z 1M", 0, ""],
  ["snapshot z@first", 1, /"z@first" exists already/],
  ["rename z y", 0, ""],
  ["clone z@first again", 0, ""],
  ["rm --wait b z@first b@s 007", 0, ""],
  ["list", 0, names("again", "c", "d", "y")],
  ["list --json d", 0, /^\{"volumes":\[\{"name":"d".*"exclusive_bytes":0,"shared_bytes":0,.*\}\]\}\n$/],
  ["check", 0, "The metadata is sound.\n"],
  ["dump", 0, /^<superblock uuid="" time="3" transaction="\d+" flags="0" version="2" data_block_size="128" /],
  ["status", 0, /^mode +write\ndata +0 B of 64 MiB used, blocks of 64 KiB\n/],
];

/** What a run of the script printed, less what is different each time. */
async function run(pool: PoolOnDisk): Promise<string[]> {
  const printed: string[] = [];
  for (const [command, status, prints] of script) {
    const result = await pool.cli(command.split(" "));
    assertEquals(result.status, status, `${command}: ${result.stderr}`);
    const [said, silent] = status === 0 ? [result.stdout, result.stderr] : [result.stderr, result.stdout];
    // A size that was rounded up is told beside the result.
    assertMatch(
      silent,
      /^(note: the size of \d+ bytes was rounded up to \d+, a multiple of 512\n)?$/,
      command,
    );
    if (typeof prints === "string") assertEquals(said, prints, command);
    else assertMatch(said, prints, command);
    if (status !== 0) assertMatch(said, /^[A-Z"][^\n]*\.\n$/, command);
    const same = said.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "TIME").replace(/"host":\{[^}]*\}/, "HOST")
      .replace(/^host .*$/m, "HOST").replace(/ +/g, " ");
    printed.push(`${command}: ${same}`);
  }
  return printed;
}

Deno.test("every verb does and says the same offline and to a running server", async () => {
  const size = ["--data-size", "64M", "--metadata-size", "2M"];
  await using offline = await PoolOnDisk.make(...size);
  await using served = await PoolOnDisk.make(...size);
  const server = await served.serve();
  const [alone, asked] = await Promise.all([run(offline), run(served)]);
  assertEquals(alone, asked);
  await server.stop();
  assertMatch(server.stderr, /^stopping;[^\n]*\n$/);
  assertEquals(await served.list().then((list) => list.length), 4);
});

const listKeys = [
  "name",
  "thin_id",
  "size_bytes",
  "mapped_bytes",
  "exclusive_bytes",
  "shared_bytes",
  "figures_age_ms",
  "attached",
  "read_only",
  "origin",
  "created",
];
const statusKeys = [
  "mode",
  "transaction_id",
  "block_size_bytes",
  "data_total_bytes",
  "data_used_bytes",
  "metadata_total_bytes",
  "metadata_used_bytes",
];

Deno.test({
  name: "list and status print what the contract says, and exclusive bytes are thin_ls's",
  ignore: !hasThinTools("0.9"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "2M");
    const server = await pool.serve(["--create", "a=16M"]);
    const empty = await pool.status();
    const client = await RawClient.attach({ path: server.socket }, "a");
    await client.write(0, new Uint8Array(8 << 16).fill(1), NBD_CMD_FLAG_FUA);
    await client.flush();
    // Commits are not changes of the catalogue.
    assertEquals((await pool.status()).transaction_id, empty.transaction_id);
    await pool.verb("snapshot", "a@s");
    await client.write(0, new Uint8Array(3 << 16).fill(2));
    await pool.verb("clone", "a@s", "c");
    await client.flush();
    const status = await pool.status();
    for (const key of statusKeys) assert(key in status, key);
    assertEquals(status.transaction_id, empty.transaction_id + 2);
    assertEquals(
      [status.mode, status.block_size_bytes, status.data_total_bytes, status.metadata_total_bytes],
      ["write", 65536, 64 << 20, 2 << 20],
    );
    assertEquals(status.data_used_bytes, 11 << 16);
    assert(status.metadata_used_bytes > empty.metadata_used_bytes);
    const list = await pool.list();
    for (const volume of list) for (const key of listKeys) assert(key in volume, key);
    assertEquals(
      list.map((one) => [one.name, one.thin_id, one.size_bytes, one.mapped_bytes, one.read_only, one.origin]),
      [
        ["a", 1, 16 << 20, 8 << 16, false, null],
        ["a@s", 2, 16 << 20, 8 << 16, true, "a"],
        ["c", 3, 16 << 20, 8 << 16, false, "a@s"],
      ],
    );
    for (const { created } of list) assertMatch(created ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
    // What a removal would free is what it frees; a and its snapshot together free what neither does alone.
    for (const args of [["c"], ["a@s"], ["a"]]) {
      const [bytes] = (await pool.verb("rm", "-n", ...args)).split(" ");
      const used = await pool.used();
      if (args[0] === "a") await client.disconnect();
      await pool.verb("rm", "--wait", ...args);
      assertEquals(used - await pool.used(), Number(bytes), args.join(" "));
    }
    await server.stop();
    assertEquals(exclusiveByTool(pool), []);
  },
});

/** Thin id and exclusive bytes of every device, by thin_ls. */
function exclusiveByTool(pool: PoolOnDisk): string[] {
  const args = ["--no-headers", "-o", "DEV,EXCLUSIVE_BYTES", pool.metadataPath];
  const { stdout } = runThinTool("thin_ls", "0.9", args);
  return stdout.trim().split("\n").filter((line) => line !== "").map((line) =>
    line.trim().replace(/\s+/g, " ")
  );
}

Deno.test({
  name: "exclusive bytes are those of thin_ls, whatever shares with whatever",
  ignore: !hasThinTools("0.9") || !hasThinTools("1.x"),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "2M");
    const server = await pool.serve(["--create", "a=16M", "--create", "b=16M"]);
    const write = async (name: string, block: number, blocks: number) => {
      const client = await RawClient.attach({ path: server.socket }, name);
      await client.write(block << 16, new Uint8Array(blocks << 16).fill(7));
      await client.disconnect();
    };
    await write("a", 0, 20);
    await write("b", 3, 2);
    await pool.verb("snapshot", "a@s", "b@s");
    await write("a", 0, 5);
    await pool.verb("clone", "a", "c");
    await write("c", 18, 6);
    await pool.verb("clone", "a@s", "d");
    await pool.verb("rm", "--wait", "a@s");
    const list = await pool.list();
    await server.stop();
    const ours = list.map((volume) => `${volume.thin_id} ${volume.exclusive_bytes}`).sort();
    assertEquals(ours, exclusiveByTool(pool).sort());
    assert(
      list.some(({ exclusive_bytes: own, mapped_bytes: mapped }) => own !== null && own > 0 && own < mapped),
    );
    await pool.requireSound();
  },
});
