/** A held volume, on each side of the border. */
import { assertEquals } from "@std/assert";
import { allBorders } from "../../tests/support/cloned_border.ts";
import { openLibc } from "./libc.ts";
import { initPool } from "./library.ts";
import { PoolLink } from "./pool_link.ts";
import { servePool } from "./serve.ts";

// Once for the process, and before the first test, so that no test is said to leak it.
openLibc();

for (const [where, border] of allBorders) {
  Deno.test(`a hold ends well though a command has removed its volume (${where})`, async () => {
    const folder = await Deno.makeTempDir({ prefix: "gossamer-held-" });
    try {
      const directory = `${folder}/pool`;
      await initPool({ directory, dataSizeBytes: 16 << 20, metadataSizeBytes: 2 << 20 });
      const link = await PoolLink.open(directory, {}, border);
      const server = await servePool(link, { listen: [] });
      const held = await server.hold({ sizeBytes: 1 << 20 });
      if (held.kind !== "held") throw new Error(JSON.stringify(held));
      await link.command({ verb: "rm", names: [held.name], dryRun: false, force: false });
      assertEquals(await server.release(held.uid), { kind: "done" });
      assertEquals([...Deno.readDirSync(directory)].filter(({ name }) => name.startsWith("run-")), []);
      await server.stop();
      await link.close();
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
