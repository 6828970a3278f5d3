/** The dump beside thin_dump 0.9's, byte for byte. */
import { assertEquals } from "@std/assert";
import { makeImage, withBlock } from "../support/metadata_image.ts";
import { checkImage, dumpImage } from "../support/metadata_reader.ts";
import { hasThinTools, mapAtOnce, restoreImage, runOnImage } from "../support/thin_tools.ts";
import { Anatomy } from "./anatomy.ts";
import { kernelCorpora, mixedXml, mutationBase, sharingCorpora, toolCorpora } from "./corpora.ts";
import { mutations } from "./mutations.ts";

const ignore = !hasThinTools("0.9");

Deno.test({
  name: "dump equals thin_dump 0.9 byte for byte, however the metadata was made",
  ignore,
  fn: async () => {
    const differing = await mapAtOnce(
      [...sharingCorpora(), ...kernelCorpora(), ...toolCorpora()],
      4,
      async ({ name, image }) => {
        const bytes = image();
        const theirs = await runOnImage("thin_dump", "0.9", bytes);
        const ours = dumpImage(bytes);
        assertEquals(theirs.status, 0);
        return ours.end.kind === "whole" && ours.text === theirs.stdout ? [] : [name];
      },
    );
    assertEquals(differing.flat(), []);
  },
});

Deno.test({
  name: "dump equals thin_dump 0.9 or fails as it does on each damage, but for what thin_dump misreads",
  ignore,
  fn: async () => {
    const anatomy = new Anatomy(mutationBase());
    const differing = await mapAtOnce(mutations, 8, async ({ name, change }) => {
      const image = change(anatomy);
      const theirs = await runOnImage("thin_dump", "0.9", image);
      const ours = dumpImage(image);
      if (ours.end.kind === "damaged") return theirs.status === 0 ? [`${name}: we fail`] : [];
      if (theirs.status !== 0) return [`${name}: thin_dump fails`];
      return ours.text === theirs.stdout ? [] : [`${name}: the texts differ`];
    });
    assertEquals(differing.flat(), [
      // Not thin metadata to the kernel, so nothing we would call its contents.
      "superblock magic: we fail",
      "superblock block number: we fail",
      // Values begin elsewhere than the kernel would look.
      "node max_entries 249: we fail",
      // Reached a second time, a node is passed over by thin_dump without a word.
      "node that is its own child: we fail",
      "leaf pointed to twice by one node: we fail",
    ]);
  },
});

Deno.test({
  name: "dump prints 64-bit numbers whole",
  ignore,
  fn: async () => {
    const devices = [{ id: 1, leaves: [[]] }];
    const image = makeImage({ metadataBlocks: 64, dataBlocks: 1000, devices });
    const details = new Anatomy(image).superblock.detailsRoot;
    const large = withBlock(image, details, (view) => view.setBigUint64(1040, 0xfedc_ba98_7654_3210n, true));
    const theirs = (await runOnImage("thin_dump", "0.9", large)).stdout;
    assertEquals(theirs.includes(`mapped_blocks="${0xfedc_ba98_7654_3210n}"`), true);
    assertEquals(dumpImage(large).text, theirs);
  },
});

Deno.test({
  name: "what is dumped restores to metadata that dumps the same",
  ignore,
  fn: () => {
    const first = dumpImage(restoreImage(mixedXml(5, 12, 60), "0.9", 512)).text;
    const restored = restoreImage(first, "0.9", 512);
    assertEquals(checkImage(restored).problems, []);
    assertEquals(dumpImage(restored).text, first);
  },
});
