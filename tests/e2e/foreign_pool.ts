/** Pools made from XML by thin_restore, with data whose every block says which one it is. */
import type { Random } from "../support/world.ts";

/** Consecutive virtual blocks mapped to consecutive data blocks. */
export interface Run {
  readonly vblock: number;
  readonly dblock: number;
  readonly blocks: number;
  readonly time: number;
}

export interface ForeignDevice {
  readonly id: number;
  /** When its last snapshot was taken: older mappings may be shared. */
  readonly snapTime: number;
  readonly runs: readonly Run[];
}

export interface ForeignPool {
  readonly blockSizeBytes: number;
  readonly dataBlocks: number;
  readonly devices: readonly ForeignDevice[];
}

/** The XML that thin_restore takes. */
export function xmlOf(pool: ForeignPool): string {
  const lines = [
    `<superblock uuid="" time="9" transaction="5" flags="0" version="2" ` +
    `data_block_size="${pool.blockSizeBytes / 512}" nr_data_blocks="${pool.dataBlocks}">`,
  ];
  for (const device of pool.devices) {
    const mapped = device.runs.reduce((sum, run) => sum + run.blocks, 0);
    lines.push(
      `<device dev_id="${device.id}" mapped_blocks="${mapped}" transaction="4" creation_time="1" ` +
        `snap_time="${device.snapTime}">`,
    );
    for (const { vblock, dblock, blocks, time } of device.runs) {
      lines.push(
        blocks === 1
          ? `<single_mapping origin_block="${vblock}" data_block="${dblock}" time="${time}"/>`
          : `<range_mapping origin_begin="${vblock}" data_begin="${dblock}" length="${blocks}" time="${time}"/>`,
      );
    }
    lines.push("</device>");
  }
  return [...lines, "</superblock>", ""].join("\n");
}

/** The shape of the pool that is tested: see the comments at each kind of device. */
export function makeForeignPool(random: Random, bigBlocks: number): ForeignPool {
  const devices: ForeignDevice[] = [];
  let dblockNext = 0;
  const takeRun = (vblock: number, blocks: number, time: number): Run => {
    // Now and then a gap in the data too, so that the data space map is not one run.
    if (random.chance(0.1)) dblockNext += 1 + random.below(3);
    const run = { vblock, dblock: dblockNext, blocks, time };
    dblockNext += blocks;
    return run;
  };
  const spread = (mapped: number, runMax: number, holeMax: number, begin = 0): Run[] => {
    const runs: Run[] = [];
    let vblock = begin + random.below(3);
    for (let left = mapped; left > 0;) {
      const blocks = Math.min(left, 1 + random.below(runMax));
      runs.push(takeRun(vblock, blocks, 1 + random.below(8)));
      vblock += blocks + 1 + random.below(holeMax);
      left -= blocks;
    }
    return runs;
  };
  // One device with very many mappings, in runs and singly, with holes between.
  devices.push({ id: 1, snapTime: 0, runs: [...spread(bigBlocks, 40, 6)] });
  // Seven that share blocks, more than the two bits of a bitmap can count; some say so by their times, some do not.
  const shared = spread(700, 30, 5).map((run) => ({ ...run, time: 2 }));
  for (let id = 2; id <= 8; id++) {
    devices.push({ id, snapTime: id <= 4 ? 5 : 0, runs: shared.slice(0, shared.length - id) });
  }
  // One that maps a few blocks very far out, and two with one block, and with none.
  const far = [0, 2 ** 20, 2 ** 32 - 5, 2 ** 34].map((vblock) => takeRun(vblock, 3, 1));
  devices.push({ id: 9, snapTime: 0, runs: far });
  devices.push({ id: 10, snapTime: 0, runs: [takeRun(0, 1, 1)] }, { id: 11, snapTime: 0, runs: [] });
  // Many small ones, with gaps among their numbers.
  for (let id = 1000; id < 1900; id += 3) devices.push({ id, snapTime: 0, runs: spread(5, 3, 4) });
  devices.push({ id: 0xfffffe, snapTime: 0, runs: spread(20, 3, 4) });
  return { blockSizeBytes: 65536, dataBlocks: dblockNext + 1000, devices };
}

/** Virtual blocks of a device with the data block each is mapped to, undefined for the holes between and around. */
export function* blocksOf(device: ForeignDevice): Generator<[vblock: number, dblock: number | undefined]> {
  let previous = -1;
  for (const run of device.runs) {
    // The first and the last block of a hole stand for all of it.
    if (run.vblock > previous + 1) yield [previous + 1, undefined];
    if (run.vblock > previous + 2) yield [run.vblock - 1, undefined];
    for (let index = 0; index < run.blocks; index++) yield [run.vblock + index, run.dblock + index];
    previous = run.vblock + run.blocks - 1;
  }
}

/** What a data block begins with. */
export function stampOf(dblock: number): number {
  return dblock + 1;
}

/** Makes the data file: sparse, with a stamp in each of these data blocks. */
export function writeData(path: string, pool: ForeignPool, dblocks: Iterable<number>): void {
  using file = Deno.openSync(path, { write: true, create: true });
  file.truncateSync(pool.dataBlocks * pool.blockSizeBytes);
  const stamp = new DataView(new ArrayBuffer(8));
  for (const dblock of dblocks) {
    stamp.setBigUint64(0, BigInt(stampOf(dblock)));
    file.seekSync(dblock * pool.blockSizeBytes, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array(stamp.buffer));
  }
}
