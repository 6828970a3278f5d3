import http from "node:http";
import { assert, assertEquals } from "@std/assert";
import { askControl } from "./control.ts";

Deno.test("an answer of one line of 48 MB, as of tens of thousands of volumes, is read in no more time than it has bytes", async () => {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/s`;
  const name = "n".repeat(48 << 20);
  const server = http.createServer((_request, response) => {
    response.end(JSON.stringify({ kind: "volumes", volumes: [{ name }] }));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    const begunMs = performance.now();
    const result = await askControl(path, { verb: "list" }, () => Promise.resolve("taken"));
    const tookMs = performance.now() - begunMs;
    assertEquals(
      JSON.stringify(result).length,
      JSON.stringify({ kind: "volumes", volumes: [{ name }] }).length,
    );
    // Looking through all that has come with each piece that comes takes half a minute.
    assert(tookMs < 5000, `it took ${tookMs} ms`);
  } finally {
    await new Promise((resolve) => server.close(resolve));
    await Deno.remove(directory, { recursive: true });
  }
});
