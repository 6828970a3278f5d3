/** The README's lines that look at a volume and use it as a file, run as they stand there. */
import { assertEquals } from "@std/assert";
import { hasProgram } from "../support/programs.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";
import { Daemon, hasFuse, isThere, run } from "./clients.ts";

const programs = ["nbdinfo", "nbdfuse", "qemu-img", "qemu-storage-daemon"];
const MiB = 1024 * 1024;

/** The commands of the README's block that begins with `nbdinfo --list`. */
function readmeCommands(address: string): string[] {
  const text = Deno.readTextFileSync(new URL("../../README.md", import.meta.url));
  const block = /^```sh\n(nbdinfo --list .*?)^```/ms.exec(text);
  if (block === null) throw new Error("The README has no block that begins with nbdinfo --list.");
  const port = address.split(":")[1]!;
  return block[1]!.replaceAll("\\\n", "").replaceAll("127.0.0.1:10809", address)
    .replaceAll("server.port=10809", `server.port=${port}`).trim().split("\n");
}

Deno.test({
  name: "the README's lines list exports, map a volume, and make a file of it that can be read and written",
  ignore: !programs.every(hasProgram) || !hasFuse(),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=128M");
    await pool.verb("create", "disk0", "64M");
    const server = await pool.serveAt(["--listen", "tcp:127.0.0.1:0"]);
    const commands = readmeCommands(/^listening nbd:\/\/(\S+)$/m.exec(server.stdout)![1]!);
    const file = pool.path("disk.img");
    assertEquals(commands.length, 6);
    for (const [index, command] of commands.entries()) {
      const [, foreground, ampersand] = /^(.*?)\s*(&?)\s*(?:#.*)?$/.exec(command)!;
      const shell = ["-euc", `cd "${pool.folder}"; exec ${foreground}`];
      if (ampersand === "") {
        await runToEnd("/bin/sh", shell);
        continue;
      }
      await using _daemon = await Daemon.start("sh", shell, () => isThere(file, 64 * MiB));
      const stamp = [
        "-euc",
        `yes ${index} | dd of="${file}" bs=4096 count=1 seek=${index} conv=notrunc,fsync`,
      ];
      await runToEnd("/bin/sh", stamp);
    }
    // Both programs wrote into the first block.
    const map = await run("nbdinfo", ["--map", /nbd:\S+/.exec(commands[1]!)![0]]);
    assertEquals(map.trim().split(/\s+/), ["0", "65536", "0", "data", "65536", "67043328", "3", "hole,zero"]);
    await server.stop();
  },
});
