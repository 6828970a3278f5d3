/** A pool whose host, data and metadata are full at once: what removes something always works. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { askControl } from "../../actors/edge/control.ts";
import type { AdminCommand, AdminResult } from "../../mod.ts";
import { NBD_CMD_WRITE, NBD_ENOSPC } from "../../actors/nbd/wire/constants.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { PoolOnDisk, type ServerProcess, soak } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { SmallHost } from "../torture/host.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const blockBytes = 64 * KiB;
const ignore = !SmallHost.isPossible() || !hasThinTools("0.9") || !hasThinTools("1.x");

/** A pool on a small host, its server, and its commands. */
class FullPool {
  constructor(readonly pool: PoolOnDisk, readonly server: ServerProcess) {}

  async command(asked: AdminCommand): Promise<AdminResult> {
    const path = `${this.pool.directory}/control.sock`;
    const result = await askControl(path, asked, () => Promise.resolve("taken"));
    if (result === undefined) throw new Error("the server is gone");
    return result;
  }

  create(name: string): Promise<AdminResult> {
    return this.command({ verb: "create", name, sizeBytes: MiB });
  }

  /** Must work. */
  async remove(name: string): Promise<void> {
    const result = await this.command({ verb: "rm", names: [name], dryRun: false, force: false, wait: true });
    assertEquals(result, { kind: "done" }, `rm ${name}`);
  }

  async dataUsed(): Promise<number> {
    const result = await this.command({ verb: "status" });
    if (result.kind !== "status") throw new Error(`status answered ${result.kind}`);
    return result.status.data_used_bytes;
  }

  /** Writes whole blocks of a volume, then a flush; answers how many there was space for. */
  async fillVolume(name: string, blocks: number): Promise<number> {
    const client = await RawClient.attach({ path: this.server.socket }, name);
    const payload = new Uint8Array(blockBytes).fill(7);
    let written = 0;
    for (; written < blocks; written += 1) {
      const reply = await client.perform({ type: NBD_CMD_WRITE, offsetBytes: written * blockBytes, payload });
      if (reply.error === NBD_ENOSPC) break;
      assertEquals(reply.error, 0);
    }
    await client.flush();
    await client.disconnect();
    return written;
  }
}

/** Creates volumes until the metadata is full; their names. */
async function fillMetadata(full: FullPool): Promise<string[]> {
  const names: string[] = [];
  for (;;) {
    const name = `small${names.length}`;
    const result = await full.create(name);
    if (result.kind === "refused") {
      assertMatch(result.reason, /the metadata is full; remove volumes or snapshots/);
      return names;
    }
    names.push(name);
    assert(names.length < 5000, "the metadata is never full");
  }
}

/** Creates what can be created and removes it, else one of the victims; says how often it was refused. */
async function createAndRemove(full: FullPool, cycles: number, victims: string[]): Promise<number> {
  let refusals = 0;
  for (let cycle = 0; cycle < cycles; cycle += 1) {
    const result = await full.create(`v${cycle}`);
    if (result.kind === "done") {
      await full.remove(`v${cycle}`);
      continue;
    }
    assert(result.kind === "refused" && /full|no space/.test(result.reason), JSON.stringify(result));
    refusals += 1;
    const victim = victims.pop();
    if (victim !== undefined) await full.remove(victim);
  }
  return refusals;
}

for (
  const permissions of [["-A"], [
    "--allow-read",
    "--allow-write",
    "--allow-net",
    "--allow-env",
    "--allow-sys",
  ]]
) {
  Deno.test({
    name: `removing works with host, data and metadata full at once, as often as it may be${
      permissions.length > 1 ? ", without --allow-ffi too" : ""
    }`,
    ignore,
    fn: async () => {
      await using pool = await PoolOnDisk.folder();
      await using host = await SmallHost.mount(pool.folder, 24 * MiB);
      await pool.verb("init", "--data-size=8M", "--metadata-size=2M");
      await pool.verb("create", "large", "1G");
      const server = await pool.serve(["--error-if-no-space"], { permissions });
      const full = new FullPool(pool, server);
      assertEquals(await full.fillVolume("large", 1000), 8 * MiB / blockBytes, "the data is full");
      const victims = await fillMetadata(full);
      host.fill();
      // The journal is written anew after some 350 of them.
      const cycles = soak ? 20_000 : 600;
      const refusals = await createAndRemove(full, cycles, victims);
      assert(refusals > 0, "nothing was full");
      assertEquals(await full.dataUsed(), 8 * MiB);
      await full.remove("large");
      assertEquals(await full.dataUsed(), 0, "the space came back");
      for (const name of victims) await full.remove(name);
      await host.leaveRoom();
      assertEquals(await full.create("again"), { kind: "done" });
      assertEquals(await full.fillVolume("again", 16), 16);
      await server.stop();
      await pool.requireSound();
    },
  });
}

Deno.test({
  name:
    "on a full host volumes are created until their removal would lack room, and then all removed by one command",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    await using host = await SmallHost.mount(pool.folder, 24 * MiB);
    await pool.verb("init", "--data-size=8M", "--metadata-size=8M");
    const server = await pool.serve();
    const full = new FullPool(pool, server);
    assertEquals(await full.create("first"), { kind: "done" });
    host.fill();
    const names = ["first"];
    let refusal = "";
    for (; refusal === ""; assert(names.length < 3000, "nothing is ever refused")) {
      // A name as long as it may be, so that fewer will do.
      const name = `v${names.length}`.padEnd(127, "x");
      const result = await full.create(name);
      if (result.kind === "refused") refusal = result.reason;
      else names.push(name);
    }
    assertMatch(refusal, /the host is full, and what room there is in the catalogue is kept for removing/);
    assertMatch((await refusalOf(full, names[0]!)).reason, /the host is full/);
    const removed = await full.command({ verb: "rm", names, dryRun: false, force: false, wait: true });
    assertEquals(removed, { kind: "done" }, `all ${names.length} are removed at once`);
    assertEquals(await full.create("again"), { kind: "done" });
    await host.leaveRoom();
    await server.stop();
    await pool.requireSound();
  },
});

/** A snapshot is refused as a new volume is. */
async function refusalOf(full: FullPool, name: string): Promise<{ readonly reason: string }> {
  const result = await full.command({ verb: "snapshot", names: [`${name}@${"s".repeat(127)}`] });
  if (result.kind !== "refused") throw new Error(`a snapshot was ${result.kind}`);
  return result;
}
