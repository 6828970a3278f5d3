/** `deno task bench:scale`: how costs grow with mappings and with volumes. See README.md beside this file. */
import { volumesMax } from "../../actors/limits.ts";
import { UsageError } from "../../storage/base/errors.ts";
import { type Grammar, type Options, runProgram } from "../support/command_options.ts";
import { requireFio } from "./fio.ts";
import { versions } from "./peers.ts";
import { Place } from "./place.ts";
import { machine } from "./proc.ts";
import { mappingsMax, scaleImage, type Shape } from "./scale_image.ts";
import { type Figures, measureScale } from "./scale_pool.ts";
import { short, table } from "./table.ts";

const mappingsPerVolume = 16;

interface Column {
  readonly title: string;
  readonly figures: Figures;
}

function tableOf(title: string, columns: readonly Column[]): string {
  const names = [...new Set(columns.flatMap(({ figures }) => [...figures.keys()]))];
  const rows = names.map((name) => [
    name,
    ...columns.map(({ figures }) => figures.has(name) ? short(figures.get(name)!) : "-"),
  ]);
  return table([title, ...columns.map((column) => column.title)], rows);
}

const grammar: Grammar = {
  usage: `usage: deno task bench:scale [OPTION...]

Measures one pool for each number of mappings, and one for each number of volumes, and prints two tables.

  --mappings A,B     mappings of one volume (100000,1600000,16000000); --mappings= for none
  --volumes A,B      volumes of 16 mappings (1,100,10000); --volumes= for none
  --seconds S        seconds of each run of fio (3)
  --json             figures as JSON on stdout`,
  flags: ["json"],
  values: ["mappings", "volumes", "seconds"],
  takesWords: false,
};

/** Three are made while one is measured. */
const volumesMeasuredMax = volumesMax - 3;

async function main(options: Options): Promise<void> {
  const mappings = options.counts("mappings", [100_000, 1_600_000, 16_000_000], mappingsMax);
  const volumes = options.counts("volumes", [1, 100, 10_000], volumesMeasuredMax);
  const seconds = options.positive("seconds", 3, 3600);
  if (mappings.length === 0 && volumes.length === 0) {
    throw new UsageError("There is nothing to measure: give --mappings or --volumes some numbers.");
  }
  requireFio();
  await using place = await Place.make();
  const facts = [machine(place.folder), ...await versions()];
  console.error(facts.join("\n"));
  const measure = async (title: string, shape: Shape): Promise<Column> => {
    console.error(`\n${title}`);
    const image = await scaleImage(shape, console.error);
    const figures = await measureScale(place, image, shape, seconds, console.error);
    return { title, figures };
  };
  const byMappings: Column[] = [];
  for (const count of mappings) {
    byMappings.push(await measure(`${short(count)} mappings`, { devices: 1, mappingsPerDevice: count }));
  }
  const byVolumes: Column[] = [];
  for (const count of volumes) {
    const shape = { devices: count, mappingsPerDevice: mappingsPerVolume };
    byVolumes.push(await measure(`${count} volumes`, shape));
  }
  if (options.has("json")) {
    const plain = (columns: readonly Column[]) =>
      columns.map(({ title, figures }) => ({ title, figures: Object.fromEntries(figures) }));
    console.log(JSON.stringify({ facts, mappings: plain(byMappings), volumes: plain(byVolumes) }));
    return;
  }
  if (byMappings.length > 0) console.log(`\n${tableOf("one volume", byMappings)}`);
  if (byVolumes.length > 0) console.log(`\n${tableOf("16 mappings in each", byVolumes)}`);
}

await runProgram(grammar, main);
