/** A server that is killed amid commits loses nothing that it has acknowledged. For the soak. */
import { assert, assertEquals } from "@std/assert";
import { runCommand } from "../../mod.ts";
import { hasPythonNbd } from "../support/programs.ts";
import { PoolOnDisk, soakTest } from "../support/server.ts";
import { PythonChild } from "../support/python_child.ts";
import { hasThinTools, runThinTool } from "../support/thin_tools.ts";

const volumeBytes = 16 * 1024 * 1024;
const kills = 300;

/** What a round of `commit_kills.py` tells. */
interface Round {
  readonly acknowledged: number;
  /** Whether the flush was answered before the kill. */
  readonly flushed: boolean;
}

soakTest({
  name: `after each of ${kills} kills at random moments of commits all that was acknowledged is there`,
  ignore: !hasPythonNbd() || !hasThinTools("0.9") || !hasThinTools("1.x"),
  fn: async () => {
    const seed = Date.now() % 100_000;
    await using pool = await PoolOnDisk.make("--data-size=64M", "--metadata-size=4M");
    const raw = pool.path("acknowledged.raw");
    await Deno.writeFile(raw, new Uint8Array(volumeBytes));
    const script = new URL("commit_kills.py", import.meta.url);
    await using client = new PythonChild(script, [`${volumeBytes}`, `${seed}`]);
    const ask = async (...line: unknown[]) => JSON.parse(await client.ask(JSON.stringify(line)));
    const told = (kill: number) => `seed ${seed}, kill ${kill}`;
    const command = async (asked: Parameters<typeof runCommand>[1]) => {
      const result = await runCommand(pool.directory, asked, () => Promise.resolve("taken"));
      assertEquals(result.kind, "done", JSON.stringify(result));
    };

    let server = await pool.serve(["--create", `v=${volumeBytes}`]);
    let acknowledged = 0;
    let unanswered = 0;
    for (let kill = 0; kill < kills; kill += 1) {
      assertEquals(await ask("verify", server.url("v"), raw), [], told(kill));
      if (kill % 10 === 0) {
        // Blocks are shared from now on. The snapshot before has what was there when it was taken.
        if (kill > 0) {
          const before = `v@s${kill - 10}`;
          assertEquals(await ask("verify", server.url(before), pool.path("snapshot.raw")), [], told(kill));
          await command({ verb: "rm", names: [before], dryRun: false, force: false, wait: true });
        }
        await command({ verb: "snapshot", names: [`v@s${kill}`] });
        await Deno.copyFile(raw, pool.path("snapshot.raw"));
      }
      const round: Round = await ask("round", server.url("v"), raw, server.pid);
      await server.kill();
      acknowledged += round.acknowledged;
      if (!round.flushed) unanswered += 1;
      for (const version of ["0.9", "1.x"] as const) {
        const { status, stdout, stderr } = runThinTool("thin_check", version, [pool.metadataPath]);
        assertEquals(status, 0, `${told(kill)}: thin_check ${version}: ${stdout}${stderr}`);
      }
      server = await pool.serve();
    }
    assertEquals(await ask("verify", server.url("v"), raw), [], told(kills));
    await server.stop();
    await pool.requireSound();
    console.log(`${kills} kills, ${unanswered} before the flush was answered; ${acknowledged} acknowledged`);
    assert(unanswered >= kills / 4, `${unanswered} of ${kills} kills fell into a commit`);
  },
});
