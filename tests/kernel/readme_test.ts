/** The server and the kernel that attaches it in one machine, as the README says: both run in the VM. */
import { assertEquals } from "@std/assert";
import { runToEnd, soakTest } from "../support/server.ts";
import { runGuest } from "../vm/vm.ts";
import { hasKernelClient } from "./attached.ts";
import { hangSeconds } from "./guest_pool.ts";

const root = new URL("../..", import.meta.url).pathname;

Deno.test("the lines of the README with nbd-client are those that the guest runs", async () => {
  const script = await Deno.readTextFile(new URL("readme.sh", import.meta.url));
  const readme = await Deno.readTextFile(`${root}README.md`);
  const lines = readme.split("\n").filter((line) => /^sudo .*nbd-client/.test(line));
  assertEquals(lines.length, 6);
  const ran = new Set(script.split("\n"));
  assertEquals(lines.filter((line) => !ran.has(line.replace(/ +#.*/, ""))), []);
});

/** Fills a folder with the server, with the packages that it needs, and with the guest's functions. */
async function stageServer(folder: string): Promise<void> {
  const copy = (from: readonly string[], to: string) => runToEnd("cp", ["-R", ...from, to]);
  await copy([new URL("nbd.sh", import.meta.url).pathname], folder);
  await Deno.mkdir(`${folder}/gossamer`);
  const sources = ["cli.ts", "mod.ts", "actors", "storage", "deno.json", "deno.lock"];
  await copy(sources.map((name) => `${root}${name}`), `${folder}/gossamer`);

  const { npm } = JSON.parse(await Deno.readTextFile(`${root}deno.lock`));
  const { npmCache } = JSON.parse(await runToEnd(Deno.execPath(), ["info", "--json"]));
  for await (const registry of Deno.readDir(npmCache)) {
    const to = `${folder}/deno/npm/${registry.name}`;
    await Deno.mkdir(to, { recursive: true });
    const packages = Object.keys(npm).map((name) => name.slice(0, name.lastIndexOf("@")));
    await copy(packages.map((name) => `${npmCache}/${registry.name}/${name}`), to);
  }
}

soakTest({
  name:
    "the lines of the README attach the server in one machine with Linux: an ext4 survives them and a kill of the server",
  ignore: !hasKernelClient(),
  fn: async () => {
    const files = await Deno.makeTempDir({ prefix: "gossamer-guest-" });
    try {
      await stageServer(files);
      const told = await runGuest({
        script: new URL("readme.sh", import.meta.url),
        modules: ["nbd"],
        programs: [Deno.execPath(), "nbd-client", "mkfs.ext4", "fsck.ext4"],
        files: new URL(`file://${files}/`),
        cpus: 2,
        memoryMib: 1536,
        limitSeconds: hangSeconds,
      });
      // Over TCP, over the Unix socket, again after the restart, and over two connections.
      assertEquals(told, "5\n");
    } finally {
      await Deno.remove(files, { recursive: true });
    }
  },
});
