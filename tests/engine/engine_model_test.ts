/** The engine against a plain model; at the end the real thin_checks look at what it left. */
import { assert, assertEquals } from "@std/assert";
import { hasThinTools, runOnImage, type ThinToolsVersion } from "../support/thin_tools.ts";
import { Model } from "./engine_model.ts";
import type { ModelOptions } from "./model_options.ts";

async function assertToolsAccept(image: Uint8Array, version: ThinToolsVersion): Promise<void> {
  const result = await runOnImage("thin_check", version, image);
  assertEquals(result.status, 0, `thin_check ${version}: ${result.stderr}`);
}

const plenty: ModelOptions = {
  seed: 1,
  metadataBlocks: 2000,
  dataBlocks: 40_000,
  vblocks: 4000,
  devicesMax: 8,
  cacheBlocks: 4,
  operations: 400,
  churn: 0,
  flips: 0.05,
  growth: 0,
  growthBlocksMax: 0,
};

Deno.test("random operations with faults leave what the model says, and every count right", () => {
  let greatestCount = 0;
  for (let seed = 1; seed <= 4; seed++) {
    const model = new Model({ ...plenty, seed });
    model.run();
    greatestCount = Math.max(greatestCount, model.greatestCount);
  }
  assert(greatestCount > 3, "counts passed three");
});

Deno.test("what others have left is called own only where no crash brings them back", () => {
  let left = 0;
  for (let seed = 1; seed <= 8; seed++) {
    const model = new Model({ ...plenty, seed, vblocks: 600, devicesMax: 3, cacheBlocks: 40, churn: 0.1 });
    model.run();
    left += model.left;
  }
  assert(left > 40, `only ${left} blocks were left`);
});

Deno.test("when metadata is scarce operations are refused whole, and deletion goes on", () => {
  let refused = 0;
  for (let seed = 1; seed <= 6; seed++) {
    const metadataBlocks = 40 + 10 * seed;
    const model = new Model({ ...plenty, seed, metadataBlocks, operations: 200, vblocks: 20_000 });
    model.run();
    model.deleteEverything();
    refused += model.refused;
  }
  assert(refused > 0, "metadata space ran out");
});

Deno.test("devices that grow among other operations keep every mapping, whatever a crash leaves", () => {
  let grown = 0;
  for (let seed = 1; seed <= 4; seed++) {
    const model = new Model({ ...plenty, seed, dataBlocks: 3000, growth: 0.05, growthBlocksMax: 20_000 });
    model.run();
    grown += model.grown;
  }
  assert(grown > 20, `the devices grew ${grown} times only`);
});

Deno.test("scarce metadata that grows by a few blocks at a time is never promised more than it can commit", () => {
  let grown = 0;
  for (let seed = 1; seed <= 6; seed++) {
    const sizes = { metadataBlocks: 40 + 5 * seed, dataBlocks: 16_300, vblocks: 20_000, operations: 200 };
    const model = new Model({ ...plenty, ...sizes, seed, growth: 0.2, growthBlocksMax: 60 });
    model.run();
    model.deleteEverything();
    grown += model.grown;
  }
  assert(grown > 50, `the devices grew ${grown} times only`);
});

for (const version of ["0.9", "1.x"] as const) {
  Deno.test({
    name: `thin_check ${version} accepts the metadata after random operations`,
    ignore: !hasThinTools(version),
    fn: async () => {
      for (let seed = 11; seed <= 13; seed++) {
        const model = new Model({
          ...plenty,
          seed,
          metadataBlocks: seed === 13 ? 128 : 2000,
          ...(seed === 11 ? { growth: 0.05, growthBlocksMax: 20_000 } : {}),
          ...(seed === 12 ? { churn: 0.1, vblocks: 600, devicesMax: 3 } : {}),
          operations: 250,
        });
        model.run();
        await assertToolsAccept(model.driver.image, version);
      }
    },
  });
}
