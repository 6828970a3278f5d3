/** The README's incremental backup, run as it stands there: full copy, changes, a copy of what changed. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { hasProgram, hasPythonNbd, python } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, type ServerProcess } from "../support/server.ts";
import { allottedBytes, nbdsh, run } from "./clients.ts";

const ignore = !["nbdinfo", "nbdcopy", "nbdkit"].every(hasProgram) || !hasPythonNbd();
const root = new URL("../..", import.meta.url).pathname;
const KiB = 1024;
const MiB = 1024 * KiB;
const volumeBytes = 256 * MiB + 512;

/** The block of the README's chapter on backups that is in this language. */
function readmeBlock(language: string): string {
  const chapter = Deno.readTextFileSync(`${root}README.md`).split(/^## /m)
    .find((text) => text.startsWith("Backups"));
  const block = new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, "ms").exec(chapter ?? "");
  if (block === null) throw new Error(`The README has no block of ${language} on backups.`);
  return block[1]!;
}

/** Runs lines of the README in the test's folder, with its alias, against the test's server; gives what they printed. */
async function runReadme(pool: PoolOnDisk, server: ServerProcess, lines: string): Promise<string> {
  const address = /^listening nbd:\/\/(\S+)$/m.exec(server.stdout)![1]!;
  const script = [
    `gossamer() { "${Deno.execPath()}" run -A "${root}cli.ts" --pool "${pool.directory}" "$@"; }`,
    `cd "${pool.folder}"`,
    lines.replaceAll("127.0.0.1:10809", address),
  ];
  return await runToEnd("/bin/sh", ["-euc", script.join("\n")]);
}

/** A volume of which 64 MiB are written, served over TCP as the README has it and on a Unix socket. */
async function serveVolume(pool: PoolOnDisk): Promise<ServerProcess> {
  await pool.verb("create", "disk0", `${volumeBytes}`);
  const listen = ["--listen", "tcp:127.0.0.1:0", "--listen", `unix:${pool.path("nbd.sock")}`];
  const server = await pool.serveAt(listen, {}, pool.path("nbd.sock"));
  await nbdsh(server.url("disk0"), [
    "import os",
    "for at in range(0, 128, 2): h.pwrite(os.urandom(1 << 20), at << 20)",
    "h.flush()",
  ]);
  return server;
}

/** Requires that a file holds what an export does. */
async function requireEqual(pool: PoolOnDisk, url: string, file: string): Promise<void> {
  await run("nbdcopy", [url, pool.path("fresh.img")]);
  await runToEnd("/usr/bin/cmp", [pool.path("fresh.img"), file]);
  await Deno.remove(pool.path("fresh.img"));
}

/** Requires that a snapshot that is not there, and a copy that is too small, end the program with a sentence. */
async function requireSentences(pool: PoolOnDisk, server: ServerProcess): Promise<void> {
  const small = `nbdkit memory 1M --run '${python} incremental.py ${server.url("disk0")} SINCE "$uri"'`;
  for (
    const [since, says] of [["mondy", /differs from mondy\.$/], [
      "tuesday",
      /^The copy is smaller than /,
    ]] as const
  ) {
    const said = await runToEnd("/bin/sh", [
      "-c",
      `cd ${pool.folder}; ! ${small.replace("SINCE", since)} 2>&1`,
    ]);
    assertMatch(said.trimEnd().split("\n").at(-1)!, says);
    assertEquals(said.includes("Traceback"), false);
  }
}

Deno.test({
  name: "the README's incremental backup ends byte-equal and moves only what changed",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=512M");
    const server = await serveVolume(pool);
    // Without -U the copy's server is on the port of ours, or the script finds ours there and writes the live volume.
    assertMatch(readmeBlock("sh"), /^nbdkit -U - file backup.img /m);
    const [monday, tuesday] = readmeBlock("sh").split(/^(?=gossamer snapshot disk0@tuesday$)/m);
    await Deno.writeTextFile(pool.path("incremental.py"), readmeBlock("python"));
    const backup = pool.path("backup.img");

    await runReadme(pool, server, monday!);
    await requireEqual(pool, server.url("disk0@monday"), backup);
    assert(allottedBytes(backup) < 66 * MiB, "the full copy skipped the holes");

    // Fifteen blocks are written, of which four are new, 16 MiB are trimmed, and 512 bytes at the odd end.
    await nbdsh(server.url("disk0"), [
      "for at in range(11): h.pwrite(b'c' * 3000, (at * 4 << 20) + 65536 * at + 1234)",
      "h.pwrite(b'n' * 200_000, 200 << 20)",
      "h.trim(16 << 20, 64 << 20)",
      `h.pwrite(b'e' * 512, ${volumeBytes - 512})`,
      "h.flush()",
    ]);
    const said = await runReadme(pool, server, tuesday!);
    await requireEqual(pool, server.url("disk0@tuesday"), backup);
    await requireSentences(pool, server);
    // Of the range that was trimmed only half had been written: the rest was a hole before and is one now.
    const differed = 15 * 64 * KiB + 8 * MiB + 512;
    assertEquals(said, `${differed} bytes of ${volumeBytes} differed\n`);
    assert(allottedBytes(backup) < 60 * MiB, "what was trimmed is a hole in the copy too");
    assertEquals((await pool.list()).map((volume) => volume.name), ["disk0", "disk0@tuesday"]);
    await server.stop();
  },
});
