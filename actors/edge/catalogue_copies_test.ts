import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UserError } from "../../storage/base/errors.ts";
import { thinId } from "../../storage/base/ids.ts";
import { catalogueFrom } from "../../storage/catalogue_open.ts";
import { CatalogueCopies } from "./catalogue_copies.ts";
import { CatalogueFile } from "./catalogue_file.ts";
import { openLibc } from "./libc.ts";
import { isPool } from "./pool_files.ts";
import { type PoolPaths, poolPaths } from "./pool_paths.ts";

// Loaded once for as long as the process runs, so before the test and not in it.
openLibc();

const settings = { blockSizeBytes: 65536, metadataPath: "m", dataPath: "d" };
const room = { contentBytes: 4096, usesHeadroom: false };

/** A catalogue of one volume at transaction 1, with its copy; removed at the end. */
class Scratch {
  readonly directory = Deno.makeTempDirSync({ prefix: "gossamer-test-" });
  readonly paths: PoolPaths = poolPaths(this.directory);

  [Symbol.dispose](): void {
    Deno.removeSync(this.directory, { recursive: true });
  }

  async make(): Promise<void> {
    const catalogue = catalogueFrom({ transactionId: 0n, settings, nextThinId: 0, volumes: [] });
    const text = catalogue.snapshotLine();
    Deno.writeTextFileSync(this.paths.catalogue, text);
    const file = new CatalogueFile(this.paths);
    file.startAt(text.length, false);
    assert(file.setAside(room.contentBytes));
    const line = catalogue.stage([{
      put: {
        uid: "u",
        name: "disk0",
        thinId: thinId(0),
        sizeBytes: 512,
        readOnly: false,
        origin: null,
        owner: null,
        created: null,
      },
    }]);
    const { promise, resolve } = Promise.withResolvers<string>();
    file.append(line, room, (result) => resolve(result.kind));
    assertEquals(await promise, "ok");
    file.close();
  }

  /** The names at a transaction, and whether they come from the second copy. */
  read(transactionId = 1n): [string[], boolean] {
    using copies = new CatalogueCopies(this.paths);
    assertEquals(copies.settings, settings);
    const { catalogue, whyCopy } = copies.settle(transactionId);
    return [[...catalogue.volumes()].map(({ name }) => name), whyCopy !== undefined];
  }

  refusal(transactionId = 1n): string {
    return assertThrows(() => this.read(transactionId), UserError).message;
  }

  /** Changes the text of a file at one place. */
  replace(path: string, before: string, after: string): void {
    const text = Deno.readTextFileSync(path);
    assertStringIncludes(text, before);
    Deno.writeTextFileSync(path, text.replace(before, after));
  }
}

for (
  const [what, harm] of [
    ["missing", (path: string) => Deno.removeSync(path)],
    ["empty", (path: string) => Deno.truncateSync(path)],
    ["torn in the first line", (path: string) => Deno.truncateSync(path, 40)],
    ["cut off before its last change", (path: string) => {
      Deno.truncateSync(path, Deno.readTextFileSync(path).indexOf("\n") + 1);
    }],
    ["garbled in a later line", (path: string) => {
      const text = Deno.readTextFileSync(path);
      Deno.writeTextFileSync(path, text.replace(`{"put"`, `{"pot"`));
    }],
    ["not readable", (path: string) => {
      Deno.removeSync(path);
      Deno.mkdirSync(path);
    }],
  ] as const
) {
  Deno.test(`a catalogue that is ${what} is read from its second copy`, async () => {
    using scratch = new Scratch();
    await scratch.make();
    assertEquals(scratch.read(), [["disk0"], false]);
    harm(scratch.paths.catalogue);
    assertEquals(scratch.read(), [["disk0"], true]);
    assert(isPool(scratch.directory), "no other pool is made over it");
  });

  Deno.test(`a second copy that is ${what} does no harm`, async () => {
    using scratch = new Scratch();
    await scratch.make();
    harm(scratch.paths.secondCatalogue);
    assertEquals(scratch.read(), [["disk0"], false]);
  });

  Deno.test(`where both are ${what}, a sentence says so`, async () => {
    using scratch = new Scratch();
    await scratch.make();
    harm(scratch.paths.catalogue);
    harm(scratch.paths.secondCatalogue);
    const sentence = scratch.refusal();
    assert(!sentence.includes("catalog.spare"), sentence);
    assert(/Bring back|Bring it back|Check the file/.test(sentence), sentence);
  });
}

Deno.test("a catalogue of a newer format is refused, though there is a copy that could be read", async () => {
  using scratch = new Scratch();
  await scratch.make();
  scratch.replace(scratch.paths.catalogue, "gossamer catalog 1", "gossamer catalog 99");
  assertStringIncludes(scratch.refusal(), `"gossamer catalog 99"`);
});

Deno.test("a copy of a newer format is refused too, where the first one is lost", async () => {
  using scratch = new Scratch();
  await scratch.make();
  scratch.replace(scratch.paths.secondCatalogue, "gossamer catalog 1", "gossamer catalog 99");
  Deno.removeSync(scratch.paths.catalogue);
  assertStringIncludes(scratch.refusal(), `"gossamer catalog 99"`);
});

Deno.test("a copy that misses a change is not taken for one", async () => {
  using scratch = new Scratch();
  await scratch.make();
  Deno.removeSync(scratch.paths.catalogue);
  assertStringIncludes(scratch.refusal(2n), "belongs to transaction 1");
});

Deno.test("a copy around other devices is not used once those of the first are open", async () => {
  using scratch = new Scratch();
  await scratch.make();
  scratch.replace(scratch.paths.catalogue, `{"put"`, `{"pot"`);
  scratch.replace(scratch.paths.secondCatalogue, `"m"`, `"other"`);
  assertStringIncludes(scratch.refusal(), "damaged in line 2");
});

Deno.test("a start makes the second copy again, byte for byte", async () => {
  using scratch = new Scratch();
  await scratch.make();
  const { catalogue, secondCatalogue } = scratch.paths;
  for (const left of [undefined, "", "{}\n", Deno.readTextFileSync(catalogue).slice(0, 80)]) {
    if (left === undefined) Deno.removeSync(secondCatalogue);
    else Deno.writeTextFileSync(secondCatalogue, left);
    const file = new CatalogueFile(scratch.paths);
    file.startAt(Deno.readTextFileSync(catalogue).indexOf("\0"), false);
    assert(file.setAside(room.contentBytes));
    file.close();
    assertEquals(Deno.readTextFileSync(secondCatalogue), Deno.readTextFileSync(catalogue));
  }
});

Deno.test("a copy whose line cannot be taken back is gone before the next line", async () => {
  using scratch = new Scratch();
  await scratch.make();
  const said: string[] = [];
  const file = new CatalogueFile(scratch.paths, (sentence) => said.push(sentence));
  file.startAt(Deno.readTextFileSync(scratch.paths.catalogue).indexOf("\0"), false);
  assert(file.setAside(room.contentBytes));
  const answered = (operation: (done: (result: { kind: string }) => void) => void) =>
    new Promise<string>((resolve) => operation((result) => resolve(result.kind)));
  assertEquals(await answered((done) => file.append("a line\n", room, done)), "ok");
  const fs = (await import("node:fs")).default;
  const { writeSync } = fs;
  let calls = 0;
  Reflect.set(fs, "writeSync", (...args: Parameters<typeof writeSync>) => {
    calls += 1;
    if (calls === 1) throw Object.assign(new Error("EIO"), { code: "EIO" });
    return writeSync(...args);
  });
  try {
    assertEquals(await answered((done) => file.retract(done)), "ok");
  } finally {
    Reflect.set(fs, "writeSync", writeSync);
  }
  file.close();
  assertEquals(said.length, 1);
  assertStringIncludes(said[0] ?? "", `"catalog.json" is the only one`);
  assertThrows(() => Deno.statSync(scratch.paths.secondCatalogue), Deno.errors.NotFound);
});
