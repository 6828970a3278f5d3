/** Good metadata of many shapes: as thin_restore of both generations lays it out, and as only sharing can make it. */
import { gunzipSync } from "node:zlib";
import {
  type ImageDevice,
  type Leaf,
  leavesOf,
  makeImage,
  type Mapping,
  run,
} from "../support/metadata_image.ts";
import { hasThinTools, restoreImage, type ThinToolsVersion } from "../support/thin_tools.ts";

export interface Corpus {
  readonly name: string;
  readonly image: () => Uint8Array;
}

/** A small generator of numbers that are the same in every run. */
class Numbers {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  below(end: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * end);
  }
}

/** Thin_restore's XML for devices given as lists of runs [vblock, dblock, length, time]. */
export function poolXml(
  devices: ReadonlyMap<number, readonly (readonly [number, number, number, number])[]>,
  dataBlocks: number,
): string {
  let text = `<superblock uuid="" time="7" transaction="18446744073709551615" flags="0" version="2" ` +
    `data_block_size="384" nr_data_blocks="${dataBlocks}">\n`;
  for (const [id, runs] of devices) {
    const mapped = runs.reduce((sum, [, , length]) => sum + length, 0);
    text += `<device dev_id="${id}" mapped_blocks="${mapped}" transaction="${id * 3}" creation_time="1" ` +
      `snap_time="${id % 7}">\n`;
    for (const [vblock, dblock, length, time] of runs) {
      text += length === 1
        ? `<single_mapping origin_block="${vblock}" data_block="${dblock}" time="${time}"/>\n`
        : `<range_mapping origin_begin="${vblock}" data_begin="${dblock}" length="${length}" time="${time}"/>\n`;
    }
    text += "</device>\n";
  }
  return `${text}</superblock>\n`;
}

type Run = readonly [number, number, number, number];

/** Runs and holes, blocks shared by up to `devices` devices, and a block far out at the end of every device. */
export function mixedXml(seed: number, devices: number, runsEach: number): string {
  const numbers = new Numbers(seed);
  const all = new Map<number, Run[]>();
  const dataBlocks = 40_000;
  for (let at = 0; at < devices; at++) {
    const runs: Run[] = [];
    let vblock = numbers.below(5);
    for (let count = 0; count < runsEach; count++) {
      const length = 1 + numbers.below(3) * numbers.below(30);
      const dblock = numbers.below(count % 3 === 0 ? 500 : dataBlocks - length);
      runs.push([vblock, dblock, length, numbers.below(8)]);
      vblock += length + numbers.below(3);
    }
    runs.push([2 ** 40 + at, numbers.below(dataBlocks), 1, 3]);
    all.set(at === devices - 1 ? 16_777_215 : at * 2, runs);
  }
  return poolXml(all, dataBlocks);
}

/** Every nth mapping moved to a block of its own, as writes after a snapshot do. */
function diverged(leaf: Leaf, every: number, moved: number): Mapping[] {
  return leaf.map(([vblock, dblock, time], index) => {
    return index % every === 0 ? [vblock, moved + index, time + 1] : [vblock, dblock, time];
  });
}

/** Snapshots of one base that share its root, some of its leaves, or only data blocks; one device is empty. */
function sharingDevices(): ImageDevice[] {
  // There are holes between the runs: one leaf ends where one does.
  const base = [run(5, 100, 200, 1), ...leavesOf([...run(300, 400, 900, 2), ...run(70_000, 1500, 400, 2)])];
  const forks: ImageDevice[] = [];
  for (let fork = 0; fork < 4; fork++) {
    const leaves = base.map((leaf, index) =>
      index % 5 === fork ? diverged(leaf, 3, 5000 + fork * 1000) : leaf
    );
    forks.push({ id: 20 + fork, leaves });
  }
  return [
    { id: 0, leaves: base },
    { id: 1, leaves: base },
    { id: 2, leaves: base },
    ...forks,
    { id: 16_777_215, leaves: [[]] },
  ];
}

/** Devices since deleted, rewritten or snapshotted, as a metadata snapshot remembers them. */
function heldDevices(live: readonly ImageDevice[]): ImageDevice[] {
  const first = live[0]!;
  return [first, { id: 1, leaves: leavesOf(run(0, 12_000, 500, 1)) }, { id: 9, leaves: first.leaves }];
}

/** Images with shared nodes and held metadata snapshots; they need no tool. */
export function sharingCorpora(): Corpus[] {
  const devices = sharingDevices();
  const base = { metadataBlocks: 400, dataBlocks: 40_000 };
  const many = Array.from({ length: 400 }, (_, id) => ({ id: id * 3, leaves: [run(id, id * 4, 4, 1)] }));
  // Each leaf here has a parent of its own among 260 siblings, so the tree has three levels.
  const deep = leavesOf(run(0, 0, 260 * 126, 1));
  const twice = [{ id: 1, leaves: [[...run(0, 50, 100), ...run(200, 50, 100)]] }, {
    id: 2,
    leaves: [run(0, 300, 9)],
  }];
  return [
    { name: "shared nodes", image: () => makeImage({ ...base, devices }) },
    {
      name: "held metadata snapshot",
      image: () => makeImage({ ...base, devices, held: heldDevices(devices) }),
    },
    { name: "metadata snapshot just taken", image: () => makeImage({ ...base, devices, held: devices }) },
    {
      name: "metadata snapshot of everything deleted",
      image: () => makeImage({ ...base, devices: [], held: devices }),
    },
    { name: "400 devices", image: () => makeImage({ ...base, metadataBlocks: 500, devices: many }) },
    {
      name: "three levels, two metadata bitmaps",
      image: () =>
        makeImage({
          metadataBlocks: 16_500,
          dataBlocks: 40_000,
          devices: [{ id: 4, leaves: deep }, { id: 5, leaves: deep.slice(0, 259) }],
        }),
    },
    {
      name: "data blocks mapped twice by one of two devices",
      image: () => makeImage({ ...base, devices: twice }),
    },
  ];
}

function restoredCorpora(version: ThinToolsVersion): Corpus[] {
  const restored = (name: string, xml: string, blocks = 512): Corpus => {
    return { name: `${name}, restored by ${version}`, image: () => restoreImage(xml, version, blocks) };
  };
  return [
    restored("no device", poolXml(new Map(), 100)),
    restored("one empty device", poolXml(new Map([[1, []]]), 100)),
    restored("runs, holes and shared blocks", mixedXml(1, 7, 200)),
    restored("300 devices", mixedXml(2, 300, 4), 1024),
    restored(
      "one long device",
      poolXml(new Map([[3, [[0, 0, 60_000, 2], [60_001, 60_000, 5, 1]]]]), 70_000),
      1024,
    ),
  ];
}

/** Metadata as Linux 6.1 wrote it: snapshots, writes, discards and deletions around a metadata snapshot. */
export function kernelCorpora(): Corpus[] {
  return ["taken", "held", "released"].map((moment) => ({
    name: `kernel, metadata snapshot ${moment}`,
    image: () => {
      const file = new URL(`./data/kernel_snapshot_${moment}.img.gz`, import.meta.url);
      return new Uint8Array(gunzipSync(Deno.readFileSync(file)));
    },
  }));
}

/** Corpora of the versions of the tools that are here. */
export function toolCorpora(): Corpus[] {
  const versions: ThinToolsVersion[] = ["0.9", "1.x"];
  return versions.filter(hasThinTools).flatMap(restoredCorpora);
}

/** An image every row of the mutation table applies to. */
export function mutationBase(): Uint8Array {
  return makeImage({ metadataBlocks: 128, dataBlocks: 40_000, devices: sharingDevices() });
}

/** The same kind of image from thin_restore. */
export function mutationBaseXml(): string {
  const runs: Run[] = [[5, 100, 126, 1], [200, 300, 300, 2], [600, 30, 20, 3]];
  const fork: Run[] = [[0, 300, 50, 1], [80, 400, 20, 1]];
  const forkOfFork: Run[] = [[0, 300, 30, 1], [80, 4000, 20, 1]];
  return poolXml(new Map([[0, runs], [1, fork], [2, forkOfFork]]), 40_000);
}
