/**
 * `deno task bench:scale`: how costs grow with mappings and with volumes. See README.md beside this file.
 *
 *   --mappings A,B     mappings of one volume (100000,1600000,16000000)
 *   --volumes A,B      volumes of 16 mappings (1,100,10000)
 *   --seconds S        seconds of each run of fio (3)
 *   --json             figures as JSON on stdout
 */
import { parseArgs } from "@std/cli/parse-args";
import { versions } from "./peers.ts";
import { Place } from "./place.ts";
import { machine } from "./proc.ts";
import { scaleImage, type Shape } from "./scale_image.ts";
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

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, {
    boolean: ["json"],
    string: ["mappings", "volumes", "seconds"],
    unknown: (name: string) => {
      throw new Error(`There is no option ${name}; the head of tests/bench/scale.ts has them all.`);
    },
  }) as {
    readonly json: boolean;
    readonly mappings?: string;
    readonly volumes?: string;
    readonly seconds?: string;
  };
  const numbers = (text: string) => text.split(",").filter((each) => each !== "").map(Number);
  const mappings = numbers(flags.mappings ?? "100000,1600000,16000000");
  const volumes = numbers(flags.volumes ?? "1,100,10000");
  await using place = await Place.make();
  const facts = [machine(place.folder), ...await versions()];
  console.error(facts.join("\n"));
  const measure = async (title: string, shape: Shape): Promise<Column> => {
    console.error(`\n${title}`);
    const image = await scaleImage(shape, console.error);
    const figures = await measureScale(place, image, shape, Number(flags.seconds ?? 3), console.error);
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
  if (flags.json) {
    const plain = (columns: readonly Column[]) =>
      columns.map(({ title, figures }) => ({ title, figures: Object.fromEntries(figures) }));
    console.log(JSON.stringify({ facts, mappings: plain(byMappings), volumes: plain(byVolumes) }));
    return;
  }
  console.log(`\n${facts.join("\n")}`);
  if (byMappings.length > 0) console.log(`\n${tableOf("one volume", byMappings)}`);
  if (byVolumes.length > 0) console.log(`\n${tableOf("16 mappings in each", byVolumes)}`);
}

await main();
