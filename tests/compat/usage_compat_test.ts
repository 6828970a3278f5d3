/** Mapped and exclusive blocks beside thin_ls. */
import { assertEquals } from "@std/assert";
import { usageLines, usageOfImage } from "../support/metadata_reader.ts";
import { hasThinTools, mapAtOnce, runOnImage } from "../support/thin_tools.ts";
import { Anatomy } from "./anatomy.ts";
import { kernelCorpora, mutationBase, sharingCorpora, toolCorpora } from "./corpora.ts";

const ignore = !hasThinTools("0.9");

async function thinLs(image: Uint8Array): Promise<string[]> {
  const args = ["--no-headers", "-o", "DEV,MAPPED_BLOCKS,EXCLUSIVE_BLOCKS"];
  const lines = (await runOnImage("thin_ls", "0.9", image, args)).stdout.split("\n");
  return lines.map((line) => line.trim().replaceAll(/ +/g, " ")).filter((line) => line !== "");
}

Deno.test({
  name: "usage equals thin_ls, by the space maps and by recounting",
  ignore,
  fn: async () => {
    const differing = await mapAtOnce(
      [...sharingCorpora(), ...kernelCorpora(), ...toolCorpora()],
      4,
      async ({ name, image }) => {
        const bytes = image();
        const theirs = (await thinLs(bytes)).join();
        const quick = usageLines(usageOfImage(bytes)).join();
        const recounted = usageLines(usageOfImage(bytes, { recount: true })).join();
        return quick === theirs && recounted === theirs ? [] : [name];
      },
    );
    assertEquals(differing.flat(), []);
  },
});

Deno.test({
  name: "usage by recounting equals thin_ls even when a crash left counts too high",
  ignore,
  fn: async () => {
    const anatomy = new Anatomy(mutationBase());
    const bitmap = anatomy.dataBitmap(0);
    // Data block 5,000 belongs to one fork alone.
    const leaked = anatomy.withCount(bitmap, anatomy.blockWithCount(bitmap, 1, 5000), 2);
    const theirs = await thinLs(leaked);
    assertEquals(usageLines(usageOfImage(leaked, { recount: true })), theirs);
    assertEquals(usageLines(usageOfImage(leaked)).join() === theirs.join(), false);
  },
});
