/** The lean client at its shortest: that it asks for what it was told to, and tells of what goes wrong. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { hasProgram, requiredProgram } from "../support/programs.ts";
import { LeanClient } from "./lean.ts";
import { Child } from "./place.ts";

const exportBytes = 2 ** 20;
const blocks = exportBytes / 4096;
const ignore = !hasProgram("cc") || !hasProgram("nbdkit");

/** A folder with the client, and nbdkit with a log of what it was asked for. */
async function withServer(
  use: (client: LeanClient, uri: string, log: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-lean-" });
  const [socket, log] = [`${folder}/nbd.sock`, `${folder}/log`];
  const args = ["-f", "-U", socket, "--filter=log", "memory", String(exportBytes), `logfile=${log}`];
  try {
    const client = await LeanClient.make(folder);
    await using _server = await Child.start(requiredProgram("nbdkit"), args, socket);
    await use(client, `nbd+unix:///?socket=${socket}`, log);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test({
  name:
    "the lean client writes each block once, flushes after each, counts them, and names a server's refusal",
  ignore,
  fn: () =>
    withServer(async (client, uri, log) => {
      const job = { mode: "flush", uris: [uri], depth: 8, isOnce: true } as const;
      const figures = await client.run({ ...job, pids: [Deno.pid] });
      assertEquals(figures.requests, blocks);
      assert(figures.p50Us > 0 && figures.p50Us <= figures.p99Us && figures.p99Us <= figures.maxUs * 1.02);
      const asked = await Deno.readTextFile(log);
      const offsets = [...asked.matchAll(/ Write id=\d+ offset=0x([0-9a-f]+) /g)].map(([, at]) => at);
      assertEquals([offsets.length, new Set(offsets).size], [blocks, blocks]);
      assertEquals([...asked.matchAll(/ Flush id=/g)].length, blocks);
      await assertRejects(
        () => client.run({ ...job, spanBytes: 2 * exportBytes }),
        Error,
        "has only 1048576",
      );
    }),
});
