/** The checker's verdict beside both real thin_checks', on good metadata and on every damage of mutations.ts. */
import { assert, assertEquals } from "@std/assert";
import { present } from "../../storage/base/assert.ts";
import { leavesOf, makeImage, run } from "../support/metadata_image.ts";
import { checkImage } from "../support/metadata_reader.ts";
import {
  hasThinTools,
  mapAtOnce,
  restoreImage,
  runOnImage,
  type ThinToolsVersion,
} from "../support/thin_tools.ts";
import { Anatomy } from "./anatomy.ts";
import { kernelCorpora, mutationBase, mutationBaseXml, sharingCorpora, toolCorpora } from "./corpora.ts";
import { mutations } from "./mutations.ts";

const ignore = !hasThinTools("0.9") || !hasThinTools("1.x");
const toolsAtOnce = 32;

async function refuses(version: ThinToolsVersion, image: Uint8Array): Promise<boolean> {
  return (await runOnImage("thin_check", version, image, ["-q"])).status !== 0;
}

Deno.test({
  name: "check finds nothing wrong with good metadata, as thin_check 0.9 and 1.x",
  ignore,
  fn: async () => {
    const corpora = [...sharingCorpora(), ...kernelCorpora(), ...toolCorpora()];
    const found = await mapAtOnce(corpora, 8, async ({ name, image }) => {
      const bytes = image();
      const refusedBy = [await refuses("0.9", bytes), await refuses("1.x", bytes)];
      return [name, refusedBy, checkImage(bytes).problems];
    });
    assertEquals(found, corpora.map(({ name }) => [name, [false, false], []]));
  },
});

Deno.test("check finds nothing odd in metadata that the kernel wrote", () => {
  for (const { name, image } of kernelCorpora()) {
    const { problems, notes } = checkImage(image());
    assertEquals([name, problems, notes], [name, [], []]);
  }
});

/** Who refuses an image: the letters of the tools, then those of the row that no tool stands for, then we. */
async function verdicts(image: Uint8Array, expectation: string): Promise<string> {
  const [by09, by1x] = await Promise.all([refuses("0.9", image), refuses("1.x", image)]);
  const untested = expectation.replace(/[91]/g, "");
  const ours = checkImage(image).problemCount > 0 ? "refused" : "accepted";
  return `${by09 ? "9" : ""}${by1x ? "1" : ""}${untested} ours:${ours}`;
}

async function compare(image: Uint8Array): Promise<void> {
  const anatomy = new Anatomy(image);
  assertEquals(checkImage(image).problems, []);
  const found = await mapAtOnce(mutations, toolsAtOnce, async ({ name, change, refusedBy }) => {
    return `${name}: ${await verdicts(change(anatomy), refusedBy)}`;
  });
  const expected = mutations.map(({ name, refusedBy }) => {
    return `${name}: ${refusedBy} ours:${refusedBy === "" ? "accepted" : "refused"}`;
  });
  assertEquals(found, expected);
}

Deno.test({
  name:
    "check refuses each damage that thin_check 0.9, 1.x or the kernel refuses, and no other: shared nodes",
  ignore,
  fn: () => compare(mutationBase()),
});

Deno.test({
  name:
    "check refuses each damage that thin_check 0.9, 1.x or the kernel refuses, and no other: thin_restore 0.9",
  ignore,
  fn: () => compare(restoreImage(mutationBaseXml(), "0.9", 64)),
});

Deno.test({
  name: "check counts the mappings of a held metadata snapshot, as thin_check 1.x",
  ignore,
  fn: async () => {
    const corpus = sharingCorpora().find(({ name }) => name === "held metadata snapshot");
    const anatomy = new Anatomy(present(corpus, "the corpus is there").image());
    // Data block 12,000 is mapped by a device of the snapshot only.
    const freed = anatomy.withCount(anatomy.dataBitmap(0), 12_000, 0);
    assertEquals(await refuses("1.x", freed), true);
    const problems = checkImage(freed).problems;
    assertEquals(problems.length, 1);
    assert(problems[0]?.startsWith("Data block 12000: 1 references were found"), problems[0]);
  },
});

Deno.test({
  name: "check refuses a data block mapped twice by the only device, as thin_check 1.x",
  ignore,
  fn: async () => {
    const leaves = leavesOf([...run(0, 50, 100), ...run(200, 50, 100)]);
    const image = makeImage({ metadataBlocks: 64, dataBlocks: 1000, devices: [{ id: 1, leaves }] });
    assertEquals(await refuses("1.x", image), true);
    assertEquals(checkImage(image).problemCount > 0, true);
  },
});

Deno.test({
  name: "check names every metadata block in use whose bytes went bad, as thin_check 0.9 and 1.x refuse them",
  ignore,
  fn: async () => {
    const corpus = sharingCorpora().find(({ name }) => name === "held metadata snapshot");
    const anatomy = new Anatomy(present(corpus, "the corpus is there").image());
    const used = anatomy.usedBlocks();
    const missed = await mapAtOnce(used, toolsAtOnce, async (block) => {
      const image = anatomy.withFlippedByte(block, 3000);
      const name = block === 0 ? "metadata block 0" : `Metadata block ${block} (`;
      const isNamed = checkImage(image).problems.some((problem) => problem.includes(name));
      const bothAgree = await refuses("0.9", image) || await refuses("1.x", image);
      return isNamed && bothAgree ? [] : [block];
    });
    assertEquals(missed.flat(), []);
  },
});
