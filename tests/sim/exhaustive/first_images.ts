/** The devices that every run of a scenario begins with. */
import { metadataBlockSizeBytes } from "../../../storage/base/ids.ts";
import { readInto } from "../../../storage/device/port.ts";
import { poisoned } from "../../crash/stamps.ts";
import { makeTestingFiles, testingBlockSizeBytes as blockBytes } from "../../support/pool.ts";
import { grows, growthBlocks, type Scenario } from "./scenario.ts";

const metadataBlocks = 64;

const firstImagesMade = new Map<string, { readonly data: Uint8Array; readonly metadata: Uint8Array }>();

/** The devices of a new pool; its free data blocks hold what no client may ever see. */
export function firstImages(
  scenario: Scenario,
): { readonly data: Uint8Array; readonly metadata: Uint8Array } {
  const { dataBlocks } = scenario;
  const added = grows(scenario) ? growthBlocks : { data: 0, metadata: 0 };
  const key = `${dataBlocks} ${added.data}`;
  let images = firstImagesMade.get(key);
  if (images === undefined) {
    const files = makeTestingFiles(dataBlocks, metadataBlocks);
    const metadata = new Uint8Array((metadataBlocks + added.metadata) * metadataBlockSizeBytes);
    readInto(files.metadata, metadata.subarray(0, metadataBlocks * metadataBlockSizeBytes), 0, () => {});
    images = { data: poisoned((dataBlocks + added.data) * blockBytes), metadata };
    firstImagesMade.set(key, images);
  }
  return images;
}
