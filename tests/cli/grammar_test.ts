/** The words of the command line: what is wrong usage (status 2), what is refused (1), what goes to stdout and to stderr. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { mapAtOnce } from "../support/thin_tools.ts";
import { connectionsMax } from "../../actors/limits.ts";
import { catalogueFormat } from "../../storage/catalogue_journal.ts";
import { commandLine } from "./command_line.ts";

const longName = "n".repeat(128);

/** Wrong usage, and what the sentence says of it. No pool is needed: the grammar comes first. */
const wrongUsage: readonly (readonly [args: string[], says: RegExp])[] = [
  [[], /usage: /],
  [["--pool", "elsewhere"], /No command/],
  [["--pool"], /No command|--pool needs/],
  [["bogus"], /no command "bogus"/],
  [["constructor"], /no command "constructor"/],
  [["help", "bogus"], /no command "bogus"/],
  [["bogus", "--help"], /no command "bogus"/],
  [["help", "create", "rm"], /write `help \[COMMAND\]/],
  [["version", "more"], /options only/],
  [["list", "--bogus"], /no option --bogus/],
  [["list", "-x"], /no option -x/],
  [["list", "a b"], /only letters/],
  [["list", "-o", "name,colour"], /"colour" is no column\. There are name, size, mapped/],
  [["list", "-s", "colour"], /"colour" is no column/],
  [["list", "-s"], /--sort needs a value/],
  [["list", "--json", "-p"], /Leave out -H, -p and -o/],
  [["status", "-p"], /status has no option --parsable/],
  [["create", "a", "1G", "--json"], /create has no option --json/],
  [["list", "--force"], /list has no option --force/],
  [["create"], /write `create NAME SIZE`\. /],
  [["create", "a"], /write `create NAME SIZE`\. /],
  [["create", "a", "1G", "b"], /write `create NAME SIZE`\. /],
  [["grow"], /grow was given no size: write `grow SIZE`/],
  [["rm"], /write `rm NAME\.\.\./],
  [["rm", "-n"], /write `rm NAME\.\.\./],
  [["snapshot"], /write `snapshot VOL@SNAP\.\.\.`\. /],
  [["rollback", "a@s", "a@t"], /write `rollback VOL@SNAP/],
  [["import", "--metadata", "m"], /needs --metadata PATH and --data PATH/],
  [["init", "--data-size"], /--data-size needs a value/],
  [["create", "a", "0"], /is nothing/],
  [["create", "a", "-1"], /less than nothing/],
  [["create", "a", "-1.5G"], /less than nothing/],
  [["create", "a", "1e3"], /"1e3" is not a size/],
  [["create", "a", "10X"], /"10X" is not a size/],
  [["create", "a", "10 G"], /"10 G" is not a size/],
  [["create", "a", ""], /"" is not a size/],
  [["create", "a", "9999999T"], /more than the 8 PiB/],
  [["init", "--data-size", "much"], /"much" is not a size/],
  [["create", "", "1G"], /it is empty/],
  [["create", "-x", "1G"], /no option -x/],
  [["create", "--", "-x", "1G"], /may not start with "-"/],
  [["create", "a@b@c", "1G"], /more than one "@"/],
  [["create", "a@s", "1G"], /Leave out "@s"/],
  [["create", longName, "1G"], /128 bytes, more than 127/],
  [["create", "../x", "1G"], /only letters/],
  [["create", "ü", "1G"], /only letters/],
  [["create", "a b", "1G"], /only letters/],
  [["snapshot", "a"], /Write it as a@SNAPSHOT/],
  [["snapshot", "a@"], /one side of the "@"/],
  [["rollback", "a"], /Write it as a@SNAPSHOT/],
  [["clone", "a", "b@s"], /Leave out "@s"/],
  [["fork"], /write `fork VOL\[@SNAP\]`/],
  [["fork", "a", "--count", "0"], /"0" is no number of volumes/],
  [["fork", "a", "--name", "x%s"], /is no pattern of names/],
  [["fork", "a", "--name", "a@x%d"], /has an "@"/],
  [["fork", "a", "--count", "2", "--name", "x"], /cannot have one name: write %d into it/],
  [["fork", "a", "--linger", "5m"], /--linger goes with --ephemeral/],
  [["fork", "a", "--ttl", "soon"], /"soon" is not a time/],
  [["kick"], /write `kick CLIENT/],
  [["kick", "x"], /"x" is no client's number/],
  [["kick", "0"], /"0" is no client's number/],
  [["kick", "1", "--for", "soon"], /"soon" is not a time/],
  [["kick", "1", "--for", "0s"], /"0s" is not a time/],
  [["clients", "--for", "1s"], /clients has no option --for/],
  [["list", "--timeout", "soon"], /--timeout takes seconds, such as 30 or 0\.5, not "soon"/],
  [["serve", "--lock-wait", "-1"], /--lock-wait (takes seconds|needs a value)|less than nothing/],
  [["serve", "--timeout", "1"], /serve has no option --timeout/],
  [["serve", "--listen", "here"], /neither tcp: nor unix:/],
  [["serve", "--listen", "tcp:127.0.0.1:99999"], /at most 65535/],
  [["serve", "--listen", "unix:"], /names no path/],
  [["serve", "--create", "a"], /NAME=SIZE/],
  [["serve", "--create", "=1G"], /NAME=SIZE/],
  [["serve", "--create", "a@s=1G"], /Leave out "@s"/],
  [["serve", "--create", "a=1Q"], /"1Q" is not a size/],
  [["serve", "--read-only", "--create", "a=1G"], /--read-only forbids/],
  [["serve", "--tls", "on"], /off, allow or require, not "on"/],
  [["serve", "--tls", "require"], /needs --tls-certificates DIR/],
  [["serve", "--tls-certificates", "tls"], /--tls-certificates means nothing without TLS/],
  [["serve", "--tls", "off", "--tls-certificates", "tls"], /--tls-certificates means nothing without TLS/],
  [["serve", "--tls-verify-peer"], /--tls-verify-peer needs --tls require: with off/],
  [["serve", "--tls", "off", "--tls-verify-peer"], /--tls-verify-peer needs --tls require: with off/],
  [
    ["serve", "--tls", "allow", "--tls-certificates", "tls", "--tls-verify-peer"],
    /--tls-verify-peer needs --tls require: with allow/,
  ],
  [["serve", "--warn-at", "90,80"], /whole percents from 1 to 100, ascending, such as 80,90,95, not "90,80"/],
  [["serve", "--warn-at", "101"], /whole percents/],
  [["serve", "--auto-grow", "data:80%,10G"], /data:AT%,STEP,MAX/],
  [["serve", "--auto-grow", "data:0%,1G,2G"], /data:AT%,STEP,MAX/],
  [["serve", "--auto-grow", "data:80%,1Q,2G"], /"1Q" is not a size/],
  [["serve", "--auto-grow", "data:80%,1G,2G", "--auto-grow", "data:90%,1G,2G"], /one rule for data/],
  [["serve", "--auto-grow", "data:80%,1G,2G", "--read-only"], /--read-only forbids/],
  [["list", "--tls", "off"], /list has no option --tls/],
];

async function inFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-cli-" });
  try {
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("wrong usage is one sentence on stderr, status 2, and nothing appears", () =>
  inFolder(async (folder) => {
    await mapAtOnce(wrongUsage, 4, async ([args, says]) => {
      const { status, stdout, stderr } = await commandLine(args, folder);
      assertEquals([status, stdout], [2, ""], `${args.join(" ")}: ${stderr}`);
      assertMatch(stderr, says, args.join(" "));
      if (args.length > 0) assertMatch(stderr, /^[^\n]+\n$/, args.join(" "));
    });
    assertEquals([...Deno.readDirSync(folder)], []);
  }));

Deno.test("help is a result: on stdout, status 0, with every command", () =>
  inFolder(async (folder) => {
    const helps = await mapAtOnce([["--help"], ["-h"], ["help"]], 2, (args) => commandLine(args, folder));
    for (const help of helps) {
      assertEquals(help, { ...helps[0]!, status: 0, stderr: "" });
    }
    for (
      const verb
        of "serve init create snapshot clone rollback rename resize rm list status check dump clients kick import"
          .split(" ")
    ) {
      assertMatch(helps[0]!.stdout, new RegExp(`^  ${verb}\\b`, "m"));
    }
    assertMatch(helps[0]!.stdout, new RegExp(`\\bat most ${connectionsMax} clients\\b`));
  }));

Deno.test("help about one verb is its summary, grammar, options and example, and nothing of the others", () =>
  inFolder(async (folder) => {
    const ways = [["help", "rm"], ["rm", "--help"], ["--help", "rm"], ["rm", "a", "-h"], [
      "help",
      "rm",
      "-h",
    ]];
    const helps = await mapAtOnce(ways, 2, (args) => commandLine(args, folder));
    const expected = `rm: remove volumes or snapshots, all or none

usage: gossamer [--pool DIR] rm NAME... [-n] [--force] [--wait] [--timeout S] [--lock-wait S]

  -n, --dry-run             only say how many bytes would become free
  --force                   also where clients are attached
  --wait                    return when the space is back, not when the names are gone
  --timeout S               seconds until a silent server is given up (30; 0: never); a working one is waited for
  --lock-wait S             seconds to wait for a pool that another process has open (10)

The pool is --pool, else $GOSSAMER_POOL, else ./pool.
Where gossamer is not installed, write \`deno run -A cli.ts\` in its place.

example: gossamer rm disk0 disk0@monday
`;
    for (const help of helps) assertEquals(help, { status: 0, stdout: expected, stderr: "" });
  }));

Deno.test("--version names the version of the package, of Deno and of the pool's format", () =>
  inFolder(async (folder) => {
    const { version } = JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url)));
    const expected = `gossamer ${version} (deno ${Deno.version.deno}, format ${catalogueFormat})\n`;
    for (const args of [["--version"], ["version"], ["list", "--version"]]) {
      assertEquals(await commandLine(args, folder), { status: 0, stdout: expected, stderr: "" });
    }
    await commandLine(["init", "--data-size", "1M", "--metadata-size", "2M"], folder);
    // A pool without what the newer formats have is written in the first, so that older programs open it.
    const catalogue = await Deno.readTextFile(`${folder}/pool/catalog.json`);
    assertStringIncludes(catalogue, `"format":"gossamer catalog 1"`);
  }));

Deno.test("the pool is --pool, else GOSSAMER_POOL, else ./pool", () =>
  inFolder(async (folder) => {
    const init = ["init", "--data-size", "1M", "--metadata-size", "2M"];
    assertEquals((await commandLine(init, folder)).status, 0);
    assertEquals((await commandLine(init, folder, { GOSSAMER_POOL: "two" })).status, 0);
    assertEquals(
      (await commandLine(["--pool", "three", ...init], folder, { GOSSAMER_POOL: "two" })).status,
      0,
    );
    assertEquals([...Deno.readDirSync(folder)].map((entry) => entry.name).sort(), ["pool", "three", "two"]);
    for (const name of ["pool", "two", "three"]) assertEquals(modeOf(`${folder}/${name}`), 0o700);
  }));

function modeOf(path: string): number {
  return (Deno.statSync(path).mode ?? 0) & 0o777;
}

Deno.test("init takes sizes as people write them, and refuses what no pool can be", () =>
  inFolder(async (folder) => {
    const sizes: readonly (readonly [text: string, bytes: number])[] = [
      ["1M", 2 ** 20],
      ["1MiB", 2 ** 20],
      ["1MB", 983040],
      ["1.5m", 1.5 * 2 ** 20],
      ["100000", 65536],
    ];
    const made = await mapAtOnce(sizes, 2, async ([text]) => {
      const pool = ["--pool", text];
      await commandLine([...pool, "init", "--metadata-size", "2M", "--data-size", text], folder);
      const { stdout } = await commandLine([...pool, "status", "--json"], folder);
      return JSON.parse(stdout).data_total_bytes;
    });
    assertEquals(made, sizes.map(([, bytes]) => bytes));
    const refused: readonly (readonly [args: string[], says: RegExp])[] = [
      [["--block-size", "100K"], /block size of 102400 bytes: it must be a multiple of 64 KiB/],
      [["--block-size", "2G"], /at most 1 GiB/],
      [["--data-size", "1K"], /smaller than one block/],
      [["--data-size", "1M", "--metadata-size", "1M"], /at least 2 MiB/],
      [["--data-size", "8000T"], /host|host's file system/],
    ];
    await mapAtOnce(refused, 2, async ([args, says]) => {
      const { status, stdout, stderr } = await commandLine([
        "--pool",
        `none${args.join("")}`,
        "init",
        ...args,
      ], folder);
      assertEquals([status, stdout], [1, ""]);
      assertMatch(stderr, says);
      assertMatch(stderr, /^[^\n]+\.\n$/);
    });
    assert(![...Deno.readDirSync(folder)].some((entry) => entry.name.startsWith("none")));
  }));
