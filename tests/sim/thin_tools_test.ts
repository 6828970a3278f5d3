/** The real tools over a sample of what simulated crashes leave: they share nothing with the checker that sees all. */
import { assert, assertEquals } from "@std/assert";
import { dumpImage } from "../support/metadata_reader.ts";
import { hasThinTools, mapAtOnce, runOnImage, type ThinToolsVersion } from "../support/thin_tools.ts";
import { World } from "./world.ts";

/** More than CI has time for: `GOSSAMER_SIM_IMAGES=2000`. */
const imagesMax = Number(Deno.env.get("GOSSAMER_SIM_IMAGES") ?? 120);
const lookedAtOneIn = 5;
const firstSeed = 500_000;

interface Image {
  readonly what: string;
  readonly metadata: Uint8Array;
}

function crashedImages(): readonly Image[] {
  const images: Image[] = [];
  for (let seed = firstSeed; images.length < imagesMax; seed += 1) {
    let crashes = 0;
    const look = (metadata: Uint8Array) => {
      crashes += 1;
      if ((crashes + seed) % lookedAtOneIn !== 0) return;
      images.push({ what: `seed ${seed}, crash ${crashes}`, metadata: metadata.slice() });
    };
    assertEquals(new World(seed, { look }).run().violation, undefined, `seed ${seed}`);
  }
  return images;
}

for (const version of ["0.9", "1.x"] as const) {
  Deno.test({
    name:
      `thin_check ${version} accepts the metadata after simulated crashes, and thin_dump shows the same as ours`,
    ignore: !hasThinTools(version),
    fn: () => assertToolsAgree(version),
  });
}

async function assertToolsAgree(version: ThinToolsVersion): Promise<void> {
  const problems = await mapAtOnce(
    crashedImages(),
    version === "0.9" ? 4 : 24,
    async ({ what, metadata }) => {
      const checked = await runOnImage("thin_check", version, metadata);
      const dumped = await runOnImage("thin_dump", version, metadata);
      if (checked.status !== 0) return `${what}: ${checked.stdout}${checked.stderr}`;
      // Our text is that of 0.9; 1.x writes some attributes in another way.
      if (version === "1.x") return dumped.status === 0 ? undefined : `${what}: ${dumped.stderr}`;
      return dumped.stdout === dumpImage(metadata).text ? undefined : `${what}: the dumps differ`;
    },
  );
  assertEquals(problems.filter((problem) => problem !== undefined), []);
  assert(problems.length >= imagesMax);
}
