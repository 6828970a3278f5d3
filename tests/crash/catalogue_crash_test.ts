/** Power cuts between any two calls that the catalogue's files make of the host. */
import fs from "node:fs";
import { assert, assertEquals } from "@std/assert";
import { assert as require } from "../../storage/base/assert.ts";
import { CatalogueFile } from "../../actors/edge/catalogue_file.ts";
import { CatalogueLines } from "../../actors/edge/catalogue_lines.ts";
import { openLibc } from "../../actors/edge/libc.ts";
import { poolPaths } from "../../actors/edge/pool_paths.ts";
import { type Catalogue, type CatalogueChange, type VolumeRecord } from "../../storage/catalogue.ts";
import { catalogueFrom, settleCatalogue } from "../../storage/catalogue_open.ts";
import { Journal, journalLines, lineOfChanges } from "../../storage/catalogue_journal.ts";
import type { IoDone } from "../../storage/device/port.ts";
import { UserError } from "../../storage/base/errors.ts";
import { thinId } from "../../storage/base/ids.ts";
import { Random } from "../support/world.ts";
import { RecordingFiles } from "./recording_files.ts";

// Loaded once for as long as the process runs, so before the test and not in it.
openLibc();

const settings = { blockSizeBytes: 65536, metadataPath: "m", dataPath: "d" };
const room = { contentBytes: 4096, usesHeadroom: false };

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

function namesOf(catalogue: Catalogue): string {
  return [...catalogue.volumes()].map((record) => record.name).sort().join(" ");
}

type Left = ReturnType<RecordingFiles["cut"]>;

/** A pool's journal and the transaction of its metadata, while they are used. */
class Journaled {
  readonly random = new Random(7);
  /** What the superblock on the disk may say. */
  transactions: readonly number[] = [];
  /** Directories as some of the cuts left them, and the transaction. */
  readonly left: { readonly files: Left; readonly transaction: number }[] = [];
  events = 0;
  /** Whether there must be a second copy: not while one is made. */
  isCopied = false;

  constructor(readonly directory: string) {}

  /** A copy that belongs to the metadata has the right names; one that has not is refused, and there is one except while a start or a rewrite makes it. */
  #requireCopy(bytes: Uint8Array | undefined, id: number): void {
    const names = copyAt(bytes, id);
    if (names !== undefined) assertEquals(names, namesAt(id), `the copy after event ${this.events}`);
    if (this.isCopied) assert(names !== undefined, `there is no copy after event ${this.events}`);
  }

  /** Cuts the power now, many times over. */
  cutAll(files: RecordingFiles): void {
    this.events += 1;
    for (let round = 0; round < 10; round += 1) {
      const left = files.cut(this.random);
      const bytes = left.get("catalog.json")?.bytes;
      require(bytes !== undefined, "the catalogue always has its name");
      for (const id of this.transactions) {
        const { catalogue } = settleCatalogue(new Journal(journalLines([bytes])), BigInt(id));
        assertEquals(namesOf(catalogue), namesAt(id), `transaction ${id} after event ${this.events}`);
        this.#requireCopy(left.get("catalog.spare")?.bytes, id);
      }
      if (round === 0 && this.events % 3 === 0) {
        this.left.push({ files: left, transaction: this.transactions[0]! });
      }
    }
  }
}

/** What the second copy holds for a transaction; undefined if it is refused. */
function copyAt(bytes: Uint8Array | undefined, id: number): string | undefined {
  try {
    return namesOf(
      settleCatalogue(new Journal(journalLines([bytes ?? new Uint8Array(0)])), BigInt(id)).catalogue,
    );
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}

function promised(operation: (done: IoDone) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    operation((result) => result.kind === "ok" ? resolve() : reject(new Error(JSON.stringify(result))));
  });
}

/** Opens the files as a start does. */
function open(directory: string, transaction: number): { file: CatalogueFile; catalogue: Catalogue } {
  const paths = poolPaths(directory);
  using lines = new CatalogueLines(paths.catalogue);
  const settled = settleCatalogue(new Journal(lines.texts), BigInt(transaction));
  const file = new CatalogueFile(paths);
  file.startAt(settled.keptBytes, settled.dropped !== undefined);
  assert(file.setAside(room.contentBytes));
  return { file, catalogue: settled.catalogue };
}

async function rewrite(file: CatalogueFile, catalogue: Catalogue): Promise<void> {
  const text = catalogue.snapshotLine();
  const half = text.length >> 1;
  // An attempt that failed left more than the one that succeeds writes.
  await promised((done) => file.rewrite(text + text, true, done));
  await promised((done) => file.rewrite(text.slice(0, half), true, done));
  await promised((done) => file.rewrite(text.slice(half), false, done));
  await promised((done) => file.finishRewrite(room.contentBytes, done));
}

/** What the program does from an open to the next: settle, change, take back, change, write anew, change. */
async function useJournal(journaled: Journaled, last: number): Promise<void> {
  const recorded: { files?: RecordingFiles } = {};
  using files = new RecordingFiles(
    journaled.directory,
    () => recorded.files !== undefined && journaled.cutAll(recorded.files),
  );
  recorded.files = files;
  journaled.transactions = [last];
  const { file, catalogue } = open(journaled.directory, last);
  journaled.isCopied = true;
  for (let id = last + 1; id <= last + 2; id += 1) {
    await promised((done) => file.append(lineTo(id), room, done));
    // The change is refused after all, and another one takes its number.
    await promised((done) => file.retract(done));
    // Sometimes there is no room for its line before the journal is written anew.
    if (id === last + 2) await rewriteOf(journaled, file, catalogue);
    await promised((done) => file.append(lineTo(id), room, done));
    // The metadata is committed: the superblock says one or the other, then this one.
    journaled.transactions = [id - 1, id];
    journaled.cutAll(files);
    journaled.transactions = [id];
    assertEquals(catalogue.apply(changeTo(id)), undefined);
    await rewriteOf(journaled, file, catalogue);
  }
  file.close();
  journaled.isCopied = false;
}

async function rewriteOf(journaled: Journaled, file: CatalogueFile, catalogue: Catalogue): Promise<void> {
  journaled.isCopied = false;
  await rewrite(file, catalogue);
  journaled.isCopied = true;
}

/** What a power cut left is opened, and goes on. */
async function goOn(folder: string, { files, transaction }: Journaled["left"][number]): Promise<void> {
  const directory = await Deno.makeTempDir({ dir: folder });
  const paths = new Map<number, string>();
  for (const [name, { inode, bytes }] of files) {
    const [path, other] = [`${directory}/${name}`, paths.get(inode)];
    // Two names of one file stay that.
    if (other === undefined) await Deno.writeFile(path, bytes);
    else await Deno.link(other, path);
    paths.set(inode, path);
  }
  let { file, catalogue } = open(directory, transaction);
  assertEquals(namesOf(catalogue), namesAt(transaction));
  const inodeOf = (name: string) => Deno.statSync(`${directory}/${name}`).ino;
  assert(inodeOf("catalog.spare") !== inodeOf("catalog.json"), "the journal is never its own second file");
  await rewrite(file, catalogue);
  await promised((done) => file.append(lineTo(transaction + 1), room, done));
  await promised((done) => file.retract(done));
  assertEquals(catalogue.apply(changeTo(transaction + 1)), undefined);
  await promised((done) => file.append(lineTo(transaction + 1), room, done));
  await rewrite(file, catalogue);
  file.close();
  ({ file, catalogue } = open(directory, transaction + 1));
  file.close();
  assertEquals(namesOf(catalogue), namesAt(transaction + 1));
  const names = [...Deno.readDirSync(directory)].map((entry) => entry.name).sort();
  assertEquals(names, ["catalog.json", "catalog.spare"]);
  await Deno.remove(directory, { recursive: true });
}

Deno.test("a power cut between any two calls of the host leaves a catalogue that belongs to the metadata", async () => {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-catalogue-" });
  const directory = await Deno.makeTempDir({ dir: folder });
  try {
    const path = `${directory}/catalog.json`;
    const first = catalogueFrom({ transactionId: 0n, settings, nextThinId: 8, volumes: [] });
    await Deno.writeTextFile(path, first.snapshotLine());
    const journaled = new Journaled(directory);
    await useJournal(journaled, 0);
    // Starts that find a line that never held: whole, and torn.
    await appendText(path, lineTo(3));
    await useJournal(journaled, 2);
    await appendText(path, lineTo(5).slice(0, 700));
    await useJournal(journaled, 4);
    // 3 times: 2 changes of 3 steps each of write and flush, and 3 times writing anew in some 10 calls.
    assert(journaled.events >= 120, `only ${journaled.events} events`);
    for (const left of journaled.left) await goOn(folder, left);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a restart in the midst of a swap writes no line into a file whose name a power cut may take back", async () => {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-catalogue-" });
  try {
    const first = catalogueFrom({ transactionId: 0n, settings, nextThinId: 8, volumes: [] });
    await Deno.writeTextFile(`${folder}/catalog.json`, first.snapshotLine());
    open(folder, 0).file.close();
    using files = new RecordingFiles(folder, () => {});
    const killed = open(folder, 0);
    await promised((done) => killed.file.rewrite(first.snapshotLine(), true, done));
    const held = holdDirectoryFlush();
    const swapped = promised((done) => killed.file.finishRewrite(room.contentBytes, done));
    await held.asked;
    // The process is killed here: the host's memory has the new name, its disk perhaps not.
    const { file } = open(folder, 0);
    await promised((done) => file.append(lineTo(1), room, done));
    const journaled = new Journaled(folder);
    journaled.transactions = [1];
    journaled.cutAll(files);
    file.close();
    held.letGo();
    await swapped;
    killed.file.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** Holds the next flush of a directory on another thread until `letGo`; `asked` resolves when it has come. */
function holdDirectoryFlush(): { readonly asked: Promise<void>; letGo(): void } {
  const asked = Promise.withResolvers<void>();
  const fdatasync = fs.fdatasync;
  let held: () => void = () => {};
  Reflect.set(fs, "fdatasync", (fd: number, done: (error: Error | null) => void) => {
    if (!fs.fstatSync(fd).isDirectory()) return fdatasync(fd, done);
    Reflect.set(fs, "fdatasync", fdatasync);
    held = () => fdatasync(fd, done);
    asked.resolve();
  });
  return { asked: asked.promise, letGo: () => held() };
}

/** Writes where the zeroes begin. */
async function appendText(path: string, text: string): Promise<void> {
  const bytes = await Deno.readFile(path);
  bytes.set(new TextEncoder().encode(text), bytes.lastIndexOf("\n".charCodeAt(0)) + 1);
  await Deno.writeFile(path, bytes);
}
