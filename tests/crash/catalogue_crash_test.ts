/** Power cuts between any two calls that the catalogue's file makes of the host. */
import { assert, assertEquals } from "@std/assert";
import { CatalogueFile } from "../../actors/edge/catalog_file.ts";
import {
  type CatalogueChange,
  catalogueFrom,
  settleCatalogue,
  type VolumeRecord,
} from "../../storage/catalog.ts";
import { lineOfChanges, lineOfSnapshot, readJournal } from "../../storage/catalog_journal.ts";
import type { IoDone } from "../../storage/device/port.ts";
import { thinId } from "../../storage/ids.ts";
import { Random } from "../testing_world.ts";
import { RecordingFiles } from "./recording_files.ts";

const settings = { blockSizeBytes: 65536, metadataPath: "m", dataPath: "d" };

/** A record long enough that its line takes several sectors. */
function volume(number: number): VolumeRecord {
  return {
    uid: `uid${number}-${"x".repeat(20)}`,
    name: `v${number}`,
    thinId: thinId(number),
    sizeBytes: 65536,
    readOnly: false,
    origin: null,
    owner: null,
    created: null,
  };
}

/** The change that becomes transaction `id`: it makes eight volumes. */
function changeTo(id: number): CatalogueChange[] {
  return Array.from({ length: 8 }, (_, index) => ({ put: volume(8 * id + index) }));
}

function lineTo(id: number): string {
  return lineOfChanges(BigInt(id), changeTo(id));
}

/** Names of the volumes after the transaction. */
function namesAt(id: number): string {
  return Array.from({ length: 8 * id }, (_, index) => `v${index + 8}`).sort().join(" ");
}

/** A pool's journal and the transaction of its metadata, while they are used. */
class Journaled {
  readonly random = new Random(7);
  /** What the superblock on the disk may say. */
  transactions: readonly number[] = [];
  cuts = 0;
  events = 0;

  constructor(readonly path: string) {}

  /** Cuts the power now, many times over. */
  cutAll(files: RecordingFiles): void {
    this.events += 1;
    for (let round = 0; round < 40; round += 1) {
      const text = files.cut(this.random);
      for (const id of this.transactions) {
        this.cuts += 1;
        const { catalogue } = settleCatalogue(readJournal(text), BigInt(id));
        const names = [...catalogue.volumes()].map((record) => record.name).sort().join(" ");
        assertEquals(names, namesAt(id), `transaction ${id} of ${JSON.stringify(text)}`);
      }
    }
  }
}

function promised(operation: (done: IoDone) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    operation((result) => result.kind === "ok" ? resolve() : reject(new Error(result.kind)));
  });
}

/** What the program does from an open to the next: settle, compact, change, take back, change. */
async function useJournal(journaled: Journaled, last: number): Promise<void> {
  const { path } = journaled;
  const recorded: { files?: RecordingFiles } = {};
  using files = new RecordingFiles(
    path,
    () => recorded.files !== undefined && journaled.cutAll(recorded.files),
  );
  recorded.files = files;
  journaled.transactions = [last];
  const { catalogue, dropped, isCompact } = settleCatalogue(
    readJournal(Deno.readTextFileSync(path)),
    BigInt(last),
  );
  const file = new CatalogueFile(path, undefined);
  if (dropped !== undefined) file.dropLastLine();
  if (!isCompact) assert(file.compact(catalogue.snapshotLine()));
  for (let id = last + 1; id <= last + 2; id += 1) {
    await promised((done) => file.append(lineTo(id), done));
    // The change is refused after all, and another one takes its number.
    await promised((done) => file.retract(done));
    await promised((done) => file.append(lineTo(id), done));
    // The metadata is committed: the superblock says one or the other, then this one.
    journaled.transactions = [id - 1, id];
    journaled.cutAll(files);
    journaled.transactions = [id];
  }
  file.close();
}

Deno.test("a power cut between any two calls of the host leaves a catalogue that belongs to the metadata", async () => {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-catalogue-" });
  try {
    const path = `${folder}/catalog.json`;
    const first = catalogueFrom({ transactionId: 0n, settings, nextThinId: 8, volumes: [] });
    assertEquals(
      first.snapshotLine(),
      lineOfSnapshot({ transactionId: 0n, settings, nextThinId: 8, volumes: [] }),
    );
    await Deno.writeTextFile(path, first.snapshotLine());
    const journaled = new Journaled(path);
    await useJournal(journaled, 0);
    // Starts that find a line that never held: whole, and torn.
    await Deno.writeTextFile(path, lineTo(3), { append: true });
    await useJournal(journaled, 2);
    await Deno.writeTextFile(path, lineTo(5).slice(0, 700), { append: true });
    await useJournal(journaled, 4);
    // 3 times: 2 changes of 3 steps each of write and flush, and 2 starts of several more.
    assert(journaled.events >= 48, `only ${journaled.events} events`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
