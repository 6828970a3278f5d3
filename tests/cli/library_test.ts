/**
 * The library as a program uses it: what is thrown, and that a pool can be served again and again. Each test runs over every
 * border (actors/edge/border.ts), because a program must not see where the pool's actors are.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { openLibc } from "../../actors/edge/libc.ts";
import type { OpenBorder } from "../../actors/edge/border.ts";
import { type OpenOptions, PoolLink } from "../../actors/edge/pool_link.ts";
import { initPool, Pool, UserError } from "../../mod.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { allBorders } from "../support/cloned_border.ts";

// Once for the process, and before the first test, so that no test is said to leak it.
openLibc();

/** Opens a pool as `openPool` does, over this border. */
async function openOver(border: OpenBorder, directory: string, options?: OpenOptions): Promise<Pool> {
  return new Pool(await PoolLink.open(directory, options, border));
}

/** A test for each border. */
function overAllBorders(name: string, run: (border: OpenBorder) => Promise<void>): void {
  for (const [where, border] of allBorders) Deno.test(`${name} (${where})`, () => run(border));
}

async function inPool(
  border: OpenBorder,
  test: (pool: Pool, folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-library-" });
  try {
    const directory = `${folder}/pool`;
    await initPool({ directory, dataSizeBytes: 64 << 20, metadataSizeBytes: 2 << 20 });
    const pool = await openOver(border, directory);
    try {
      await test(pool, folder);
    } finally {
      await pool.close();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

overAllBorders(
  "what a program asks wrongly is thrown as a sentence, and the pool goes on",
  (border) =>
    inPool(border, async (pool) => {
      for (const sizeBytes of [0, -1, 1.5, NaN, Infinity, 2 ** 53, 2 ** 60]) {
        const error = await assertRejects(() => pool.create("a", sizeBytes), UserError);
        assertMatch(error.message, /^Cannot create "a": a .*\.$/);
      }
      for (const name of ["", "a@s", "../a", "-a"]) {
        await assertRejects(() => pool.create(name, 512), UserError);
      }
      await assertRejects(() => pool.resize("a@s", 512), UserError, "no such volume");
      await assertRejects(() => pool.snapshot("a"), UserError, "where a snapshot is needed");
      await assertRejects(() => pool.remove(["a"]), UserError, "no such volume");
      await pool.create("a", 2 ** 53 - 512);
      await pool.resize("a", 1);
      assertEquals((await pool.list()).map(({ name, size_bytes }) => [name, size_bytes]), [["a", 512]]);
    }),
);

overAllBorders(
  "a pool that was served can be served again at once, on the same sockets",
  (border) =>
    inPool(border, async (pool, folder) => {
      const path = `${folder}/nbd.sock`;
      await pool.create("a", 1 << 20);
      for (let index = 0; index < 3; index += 1) {
        const server = await pool.serve({ listen: [`unix:${path}`] });
        const client = await RawClient.attach({ path }, "a");
        await client.write(0, new Uint8Array(512).fill(index));
        await client.disconnect();
        await server.stop();
        // What stopping set in motion has ended by now, or it would take the next server's socket away.
        const next = await pool.serve({ listen: [`unix:${path}`] });
        await new Promise((resolve) => setTimeout(resolve, 50));
        assert(Deno.statSync(path).isSocket);
        await next.stop();
      }
      assertEquals((await pool.status()).transaction_id, 1);
    }),
);

overAllBorders(
  "a server that is stopped twice is stopped once, and its pool goes on",
  (border) =>
    inPool(border, async (pool, folder) => {
      const server = await pool.serve({ listen: [`unix:${folder}/n.sock`] });
      await Promise.all([server.stop(), server.stop()]);
      await server.stop();
      assertEquals((await pool.status()).attached, 0);
    }),
);

overAllBorders(
  "what is asked of a pool that was closed is refused with a sentence, and not left without an answer",
  (border) =>
    inPool(border, async (pool) => {
      await pool.close();
      await assertRejects(() => pool.list(), UserError, "is closed. Open it again");
      await assertRejects(() => pool.serve(), UserError, "is closed. Open it again");
    }),
);

overAllBorders(
  "an address that cannot be bound leaves none of the others bound",
  (border) =>
    inPool(border, async (pool, folder) => {
      const path = `${folder}/nbd.sock`;
      const listen = [`unix:${path}`, "unix:/no/such/folder/x.sock"];
      await assertRejects(() => pool.serve({ listen }), UserError, "Cannot listen on the socket /no/such");
      assertEquals([...Deno.readDirSync(folder)].map((entry) => entry.name), ["pool"]);
      assert(![...Deno.readDirSync(`${folder}/pool`)].some((entry) => entry.name.endsWith(".sock")));
    }),
);

overAllBorders(
  "a log that throws or rejects at every line harms neither the pool nor its clients",
  async (border) => {
    const folder = await Deno.makeTempDir({ prefix: "gossamer-library-" });
    try {
      for (const log of [() => assert(false, "the log is full"), () => Promise.reject(new Error("full"))]) {
        const directory = await Deno.makeTempDir({ dir: folder });
        await initPool({ directory, dataSizeBytes: 64 << 20, metadataSizeBytes: 2 << 20, log });
        const pool = await openOver(border, directory, { log });
        await pool.create("a", 1 << 20);
        const path = `${folder}/n.sock`;
        const server = await pool.serve({ listen: [`unix:${path}`] });
        for (let count = 0; count < 3; count += 1) {
          const client = await RawClient.attach({ path }, "a");
          await client.write(0, new Uint8Array(512).fill(count));
          await client.disconnect();
        }
        await server.stop();
        await pool.close();
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
);

overAllBorders(
  "fork gives names, a rollback the snapshot that it kept, and remove returns when the space is back",
  (border) =>
    inPool(border, async (pool) => {
      await pool.create("base", 1 << 20);
      await pool.snapshot("base@s");
      assertEquals(await pool.fork("base@s", { count: 2, name: "vm%02d" }), ["vm01", "vm02"]);
      assertEquals(await pool.fork("base"), ["base-fork-1"]);
      assertEquals(await pool.rollback("base@s"), "base@before-rollback-1");
      await assertRejects(() => pool.fork("base", { name: "%s" }), UserError, "no pattern of names");
      await pool.remove(["vm01", "vm02", "base"]);
      assertEquals((await pool.status()).removing, 0);
      await pool.remove(["base-fork-1"], { wait: false });
      const names = (await pool.list()).map(({ name }) => name);
      assertEquals(names, ["base@before-rollback-1", "base@s"]);
    }),
);
