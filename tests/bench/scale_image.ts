/** Metadata with many mappings, made by thin_restore once and kept in the cache folder. */
import { unpackedFolder } from "../support/programs.ts";
import { runToEnd } from "../support/server.ts";
import { thinToolPath } from "../support/thin_tools.ts";

/** Bytes of a pool block. */
export const blockBytes = 65536;
const runBlocks = 16;
/** Multiplied by it, run numbers land far apart, and each on another as long as it divides their count not. */
const stride = 1_000_003;

/** More mappings of one device do not fit into the largest metadata that the format has. */
export const mappingsMax = 200_000_000;

/** So many devices, numbered from 1, each fully mapped by runs of 16 blocks whose data lie anywhere. */
export interface Shape {
  readonly devices: number;
  readonly mappingsPerDevice: number;
}

/** Data blocks of the pool: a quarter is free. */
export function dataBlocksOf({ devices, mappingsPerDevice }: Shape): number {
  return Math.ceil(devices * mappingsPerDevice * 1.25) + 200_000;
}

/** Bytes of the metadata device: leaves of thin_restore, of what comes, and both space maps. */
function metadataBytesOf(shape: Shape): number {
  const mappings = shape.devices * shape.mappingsPerDevice;
  return (Math.ceil(mappings / 50) + 4 * shape.devices + 16_384) * 4096;
}

async function writeXml(path: string, shape: Shape): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  const writer = file.writable.getWriter();
  const encoder = new TextEncoder();
  const runs = Math.ceil(shape.mappingsPerDevice / runBlocks);
  const runsInAll = runs * shape.devices;
  let lines = [
    `<superblock uuid="" time="1" transaction="1" flags="0" version="2" ` +
    `data_block_size="${blockBytes / 512}" nr_data_blocks="${dataBlocksOf(shape)}">`,
  ];
  for (let device = 0; device < shape.devices; device++) {
    lines.push(
      `<device dev_id="${device + 1}" mapped_blocks="${runs * runBlocks}" transaction="0" ` +
        `creation_time="0" snap_time="0">`,
    );
    for (let run = 0; run < runs; run++) {
      const slot = (device * runs + run) * stride % runsInAll;
      lines.push(
        `<range_mapping origin_begin="${run * runBlocks}" data_begin="${slot * runBlocks}" ` +
          `length="${runBlocks}" time="0"/>`,
      );
      if (lines.length < 10_000) continue;
      await writer.write(encoder.encode(lines.join("\n") + "\n"));
      lines = [];
    }
    lines.push("</device>");
  }
  lines.push("</superblock>\n");
  await writer.write(encoder.encode(lines.join("\n")));
  await writer.close();
}

/** The path of a metadata image of that shape, which nobody may change. */
export async function scaleImage(shape: Shape, say: (text: string) => void): Promise<string> {
  const folder = unpackedFolder("bench-scale");
  const path = `${folder}/${shape.devices}x${shape.mappingsPerDevice}.img`;
  if (await Deno.stat(path).then(() => true, () => false)) return path;
  const tool = thinToolPath("thin_restore", "1.x") ?? thinToolPath("thin_restore", "0.9");
  if (tool === undefined) {
    throw new Error("thin_restore is not installed; apt-get install thin-provisioning-tools.");
  }
  say(`making ${path} with ${tool}, once`);
  await Deno.mkdir(folder, { recursive: true });
  const xml = `${path}.${Deno.pid}.xml`;
  const fresh = `${path}.${Deno.pid}.new`;
  try {
    await writeXml(xml, shape);
    await Deno.writeFile(fresh, new Uint8Array(0));
    await Deno.truncate(fresh, metadataBytesOf(shape));
    await runToEnd(tool, ["-i", xml, "-o", fresh]);
    await Deno.rename(fresh, path);
  } finally {
    for (const left of [xml, fresh]) await Deno.remove(left).catch(() => {/* Renamed, or never made. */});
  }
  return path;
}
