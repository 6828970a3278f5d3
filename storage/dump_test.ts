import { assert, assertEquals } from "@std/assert";
import { leavesOf, makeImage, type Mapping, run } from "../tests/support/metadata_image.ts";
import { dumpImage } from "../tests/support/metadata_reader.ts";
import { dumpMetadata } from "./dump.ts";
import { metadataBlockSizeBytes } from "./base/ids.ts";

const description = { metadataBlocks: 64, dataBlocks: 2000 };

Deno.test("dump writes devices, single mappings and runs as thin_dump does", () => {
  const leaf: Mapping[] = [[3, 10, 1], [4, 11, 1], [5, 12, 2], [9, 13, 2]];
  const devices = [{ id: 0, leaves: [leaf] }, { id: 5, leaves: [[]] }];
  assertEquals(
    dumpImage(makeImage({ ...description, devices })).text,
    `<superblock uuid="" time="9" transaction="1311768467463790320" flags="0" version="2" data_block_size="128" nr_data_blocks="2000">
  <device dev_id="0" mapped_blocks="4" transaction="3" creation_time="1" snap_time="2">
    <range_mapping origin_begin="3" data_begin="10" length="2" time="1"/>
    <single_mapping origin_block="5" data_block="12" time="2"/>
    <single_mapping origin_block="9" data_block="13" time="2"/>
  </device>
  <device dev_id="5" mapped_blocks="0" transaction="3" creation_time="1" snap_time="2">
  </device>
</superblock>
`,
  );
});

Deno.test("dump continues a run from one leaf into the next", () => {
  const devices = [{ id: 1, leaves: leavesOf(run(0, 100, 900)) }];
  const { text } = dumpImage(makeImage({ ...description, devices }));
  assertEquals(text.match(/_mapping /g)?.length, 1);
  assert(text.includes(`origin_begin="0" data_begin="100" length="900"`));
});

Deno.test("dump hands its text out in pieces", () => {
  const scattered = Array.from({ length: 2000 }, (_, index): Mapping => [index * 2, index, 1]);
  const image = makeImage({ ...description, devices: [{ id: 1, leaves: leavesOf(scattered) }] });
  const dumping = dumpMetadata();
  const lengths: number[] = [];
  let step = dumping.next();
  while (step.done !== true) {
    if (step.value.kind === "text") lengths.push(step.value.text.length);
    const begin = step.value.kind === "read" ? step.value.block * metadataBlockSizeBytes : 0;
    step = dumping.next(image.subarray(begin, begin + metadataBlockSizeBytes));
  }
  assert(lengths.length > 4);
  assert(Math.max(...lengths) < 64 * 1024);
});

Deno.test("dump ends with a sentence at a block that cannot be read", () => {
  const image = makeImage({ ...description, devices: [{ id: 1, leaves: leavesOf(run(0, 100, 900)) }] });
  const whole = dumpImage(image);
  assertEquals(whole.end, { kind: "whole" });
  const { end } = dumpImage(image, new Set([3]));
  assertEquals(end, {
    kind: "damaged",
    sentence: "Metadata block 3 (the mapping tree of thin device 1) is damaged: it cannot be read.",
  });
});
