import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { Defect } from "./base/assert.ts";
import { type Catalogue, type CatalogueChange, type VolumeRecord } from "./catalogue.ts";
import { catalogueFrom, settleCatalogue, type SettledCatalogue } from "./catalogue_open.ts";
import { Journal, journalLines, lineOfChanges, readJournal } from "./catalogue_journal.ts";
import { UserError } from "./base/errors.ts";
import { thinId, thinIdMax } from "./base/ids.ts";
import { journalLineBytesMax } from "./base/limits.ts";

const settings = { blockSizeBytes: 65536, metadataPath: "metadata.img", dataPath: "data.img" };

function volume(uid: string, id: number, rest: Partial<VolumeRecord> = {}): VolumeRecord {
  return {
    uid,
    name: uid,
    thinId: thinId(id),
    sizeBytes: 1 << 20,
    readOnly: false,
    origin: null,
    owner: null,
    created: "2026-01-02T03:04:05Z",
    ...rest,
  };
}

function snapshot(uid: string, id: number, name: string, owner: string | null): VolumeRecord {
  return volume(uid, id, { name, owner, origin: owner, readOnly: true });
}

function catalogueOf(volumes: readonly VolumeRecord[], nextThinId = 0): Catalogue {
  return catalogueFrom({ transactionId: 7n, settings, nextThinId, volumes });
}

/** A journal that begins with `volumes` at transaction 7, and one line for each change. */
function journalOf(volumes: readonly VolumeRecord[], ...changes: readonly CatalogueChange[][]): string {
  const catalogue = catalogueOf(volumes);
  let text = catalogue.snapshotLine();
  for (const change of changes) {
    text += catalogue.stage(change);
    catalogue.commitStaged();
  }
  return text;
}

function settle(text: string, transactionId: bigint): SettledCatalogue {
  return settleCatalogue(readJournal(text), transactionId);
}

function refusal(text: string, transactionId: bigint): string {
  return assertThrows(() => settle(text, transactionId), UserError).message;
}

const namesOf = (catalogue: Catalogue) => [...catalogue.volumes()].map((record) => record.name).sort();

Deno.test("a journal read back is the catalogue that wrote it", () => {
  const records = [
    volume("a", 1, { created: null, trimFromBytes: 512 }),
    snapshot("b", 2, "a@1", "a"),
    volume("gone", thinIdMax, { deleting: true, name: "a" }),
  ];
  const { catalogue, dropped, keptBytes } = settle(journalOf(records), 7n);
  assertEquals([...catalogue.volumes()], records);
  assertEquals(catalogue.settings, settings);
  assertEquals(catalogue.transactionId, 7n);
  assertEquals(dropped, undefined);
  assertEquals(keptBytes, journalOf(records).length);
});

Deno.test("changes are applied in order, and a compacted journal holds the same", () => {
  const text = journalOf(
    [volume("a", 1)],
    [{ put: volume("b", 2) }],
    [{ remove: "a" }, { put: volume("c", 1, { name: "a" }) }],
  );
  const { catalogue, keptBytes } = settle(text, 9n);
  assertEquals(namesOf(catalogue), ["a", "b"]);
  assertEquals(catalogue.byName("a")?.uid, "c");
  assertEquals(keptBytes, text.length);
  const again = settle(catalogue.snapshotLine(), 9n);
  assertEquals([...again.catalogue.volumes()], [...catalogue.volumes()]);
  assertEquals(again.catalogue.freeThinIds(3), catalogue.freeThinIds(3));
});

Deno.test("a line that was never committed is dropped and told", () => {
  const text = journalOf([volume("a", 1)], [{ put: volume("b", 2) }], [{ put: volume("c", 3) }]);
  const { catalogue, dropped } = settle(text, 8n);
  assertEquals(namesOf(catalogue), ["a", "b"]);
  assertEquals(dropped, "change");
});

Deno.test("every beginning of an appended line leaves the old state, and the whole line lets the metadata decide", () => {
  const before = journalOf([volume("a", 1)]);
  const after = journalOf([volume("a", 1)], [{ put: volume("b", 2) }]);
  for (let length = before.length; length <= after.length; length += 1) {
    const text = after.slice(0, length);
    const { catalogue, dropped, keptBytes } = settle(text, 7n);
    assertEquals(namesOf(catalogue), ["a"]);
    const isWhole = length >= after.length - 1;
    assertEquals(dropped, length === before.length ? undefined : isWhole ? "change" : "torn");
    assertEquals(keptBytes, before.length);
    // The last one lacks no more than its newline.
    if (length < after.length - 1) {
      assertStringIncludes(refusal(text, 8n), "another program changed the pool");
    } else assertEquals(namesOf(settle(text, 8n).catalogue), ["a", "b"]);
  }
});

Deno.test("a last line with sectors that never reached the disk is torn", () => {
  const before = journalOf([volume("a", 1)]);
  const line = journalOf([volume("a", 1)], [{ put: volume("b", 2) }]).slice(before.length);
  for (const [begin, end] of [[0, 10], [20, 60], [0, line.length]] as const) {
    const holed = line.slice(0, begin) + "\0".repeat(end - begin) + line.slice(end);
    assertEquals(namesOf(settle(before + holed, 7n).catalogue), ["a"]);
  }
});

Deno.test("zeroes behind the last line are room for more, wherever the file is cut into pieces", () => {
  const text = journalOf([volume("a", 1)], [{ put: volume("b", 2) }]);
  for (const zeroes of [1, 511, 100_000]) {
    const bytes = new TextEncoder().encode(text + "\0".repeat(zeroes));
    for (const pieceBytes of [1, 7, 512, text.length, 1 << 20]) {
      const pieces = function* () {
        // The buffer is used again for the next piece, as when a file is read.
        const buffer = new Uint8Array(pieceBytes);
        for (let at = 0; at < bytes.length; at += pieceBytes) {
          const piece = bytes.subarray(at, at + pieceBytes);
          buffer.set(piece);
          yield buffer.subarray(0, piece.length);
        }
      };
      const settled = settleCatalogue(new Journal(journalLines(pieces())), 8n);
      assertEquals(namesOf(settled.catalogue), ["a", "b"]);
      assertEquals([settled.dropped, settled.keptBytes], [undefined, text.length]);
    }
    assertEquals(settle(text + "\0".repeat(zeroes) + "x", 8n).dropped, "torn");
  }
});

Deno.test("a catalogue knows how many bytes it takes as one line, at most, and not much more", () => {
  const records = Array.from({ length: 1000 }, (_, index) => volume(`uid-of-twenty-one-${index}`, index));
  const largest = volume("u".repeat(64), thinIdMax, {
    name: "n".repeat(127),
    sizeBytes: Number.MAX_SAFE_INTEGER - 511,
    readOnly: false,
    origin: "o".repeat(64),
    owner: null,
    created: "2026-01-02T03:04:05.678Z",
    deleting: true,
    trimFromBytes: Number.MAX_SAFE_INTEGER,
    singleWriter: true,
    ephemeral: true,
    lingerMs: Number.MAX_SAFE_INTEGER,
    expires: "2026-01-02T03:04:05.678901234Z",
    written: true,
    quotaBytes: Number.MAX_SAFE_INTEGER,
    reserveBytes: Number.MAX_SAFE_INTEGER,
  });
  for (
    const volumes of [
      [],
      records,
      [largest],
      Array(3).fill(0).map((_, at) => snapshot(`s${at}`, at, `v@${at}`, "v")),
    ]
  ) {
    const catalogue = catalogueOf(volumes);
    const { contentBytes } = catalogue;
    const lengthBytes = catalogue.snapshotLine().length;
    assert(lengthBytes <= contentBytes, `${lengthBytes} of ${contentBytes}`);
    assert(contentBytes <= 256 + 2 * lengthBytes, `${lengthBytes} of ${contentBytes}`);
    for (const record of volumes) catalogue.apply([{ remove: record.uid }]);
    assertEquals(catalogue.contentBytes, catalogueOf([]).contentBytes);
  }
});

Deno.test("a journal is read as its lines are asked for, and no line is kept", () => {
  const lines = 2000;
  const change: CatalogueChange[] = [{ put: volume("b", 2) }];
  let read = 0;
  const pieces = function* () {
    const encoder = new TextEncoder();
    yield encoder.encode(catalogueOf([]).snapshotLine());
    for (let line = 0; line < lines; line += 1) {
      read += 1;
      yield encoder.encode(lineOfChanges(BigInt(8 + line), change));
    }
  };
  const journal = new Journal(journalLines(pieces()));
  assertEquals(read, 0);
  for (let line = 1; line <= 10; line += 1) {
    assertEquals(journal.next()?.kind, "change");
    assertEquals(read, line);
  }
  const settled = settleCatalogue(new Journal(journalLines(pieces())), BigInt(7 + lines));
  assertEquals([settled.catalogue.count, settled.dropped], [1, undefined]);
});

Deno.test("a line longer than any of ours is refused before it is in memory", () => {
  const piece = new Uint8Array(1 << 20).fill(0x20);
  let pieces = 0;
  const endless = function* () {
    for (;;) {
      pieces += 1;
      yield piece;
    }
  };
  assertThrows(() => new Journal(journalLines(endless())), UserError, "longer than any line");
  assert(pieces <= (journalLineBytesMax >> 20) + 1);
});

for (const transactionId of [0n, 6n, 10n, (1n << 64n) - 1n]) {
  Deno.test(`metadata at transaction ${transactionId} does not belong to a journal of 7 to 9`, () => {
    const text = journalOf([volume("a", 1)], [{ put: volume("b", 2) }], [{ remove: "b" }]);
    assertStringIncludes(refusal(text, transactionId), "another program changed the pool");
  });
}

Deno.test("two lines beyond the metadata are not ours", () => {
  const text = journalOf([volume("a", 1)], [{ put: volume("b", 2) }], [{ remove: "b" }]);
  assertStringIncludes(refusal(text, 7n), "another program changed the pool");
  assertStringIncludes(refusal(text.slice(0, -20), 7n), "another program changed the pool");
});

Deno.test("a transaction id of 64 bits keeps every bit", () => {
  const transactionId = (1n << 64n) - 2n;
  const catalogue = catalogueFrom({ transactionId, settings, nextThinId: 0, volumes: [] });
  const text = catalogue.snapshotLine() + catalogue.stage([{ put: volume("a", 1) }]);
  assertEquals(settle(text, transactionId + 1n).catalogue.transactionId, (1n << 64n) - 1n);
  catalogue.commitStaged();
  assertThrows(() => catalogue.stage([{ remove: "a" }]), UserError, "largest value");
});

for (
  const [what, text, problem] of [
    ["an empty file", "", "line 1"],
    ["a torn first line", journalOf([]).slice(0, 40), "line 1"],
    ["a newer format", journalOf([]).replace("catalog 1", "catalog 3"), "catalog 3"],
    ["a garbled line in the middle", journalOf([], [{ put: volume("a", 1) }]) + "x\n{}\n", "line 3"],
    ["a field left out", journalOf([volume("a", 1)]).replace(`"thin_id":1,`, ""), `"thin_id" is missing`],
    ["a field too many", journalOf([volume("a", 1)]).replace(`"uid"`, `"x":1,"uid"`), `"x" is not known`],
    ["a line that is no object", journalOf([]) + "null\n", "line 2"],
    [
      "one uid twice",
      journalOf([volume("a", 1), volume("b", 2)]).replace(`"uid":"b"`, `"uid":"a"`),
      "two volumes",
    ],
    [
      "one name twice",
      journalOf([volume("a", 1), volume("b", 2)]).replace(`"name":"b"`, `"name":"a"`),
      `name "a"`,
    ],
    ["a bad name", journalOf([volume("a", 1)]).replace(`"name":"a"`, `"name":"a b"`), "name is malformed"],
    ["a bad id", journalOf([volume("a", 1)]).replace(`"thin_id":1`, `"thin_id":16777216`), "out of range"],
    ["a bad size", journalOf([volume("a", 1)]).replace("1048576", "1000"), "multiple of 512"],
    ["a missing line", journalOf([]) + `{"transaction_id":"9","changes":[]}\n`, "missing before it"],
  ] as const
) {
  Deno.test(`${what} is damage, told as a sentence`, () => {
    assertStringIncludes(refusal(text, 9n), problem);
  });
}

Deno.test("a staged change shows only once committed, and leaves no trace when abandoned", () => {
  const catalogue = catalogueOf([volume("a", 1), snapshot("s", 2, "a@s", "a")], 3);
  const before = catalogue.snapshotLine();
  const change = [
    { put: volume("a", 1, { name: "b" }) },
    { put: snapshot("s", 2, "b@s", "a") },
    { put: volume("c", 9) },
    { remove: "c" },
  ];
  catalogue.stage(change);
  assertEquals(JSON.parse(catalogue.snapshotLine()).volumes.length, 2);
  assertEquals(catalogue.byName("b"), undefined);
  catalogue.abandonStaged();
  assertEquals(catalogue.byName("a")?.uid, "a");
  assertEquals(catalogue.freeThinIds(1), [thinId(3)]);
  assertEquals(JSON.parse(catalogue.snapshotLine()), JSON.parse(before));
  catalogue.stage(change);
  catalogue.commitStaged();
  assertEquals(namesOf(catalogue), ["b", "b@s"]);
  assertEquals(catalogue.transactionId, 8n);
});

for (
  const [what, change] of [
    ["a second volume of a name", [{ put: volume("x", 5, { name: "a" }) }]],
    ["a second volume of a thin id", [{ put: volume("x", 1) }]],
    ["removing what is not there", [{ remove: "x" }]],
    ["a snapshot under another volume's name", [{ put: snapshot("x", 5, "b@s", "a") }]],
    ["renaming a volume without its snapshots", [{ put: volume("a", 1, { name: "b" }) }]],
    ["a writable snapshot", [{ put: volume("x", 5, { name: "a@x" }) }]],
    ["an owner of what is no snapshot", [{ put: volume("x", 5, { owner: "a" }) }]],
    ["a size of no whole sector", [{ put: volume("x", 5, { sizeBytes: 513 }) }]],
    ["a time without a zone", [{ put: volume("x", 5, { created: "2026-01-02T03:04:05" }) }]],
  ] as const
) {
  Deno.test(`${what} breaks a rule, and nothing is changed`, () => {
    const catalogue = catalogueOf([volume("a", 1), snapshot("s", 2, "a@s", "a")]);
    const before = JSON.parse(catalogue.snapshotLine());
    assertThrows(() => catalogue.stage([{ put: volume("other", 100) }, ...change]), Defect);
    assertEquals(JSON.parse(catalogue.snapshotLine()).volumes, before.volumes);
    assertEquals(catalogue.byName("other"), undefined);
  });
}

Deno.test("a snapshot outlives its volume, whose name is free at once", () => {
  const catalogue = catalogueOf([volume("a", 1), snapshot("s", 2, "a@s", "a")]);
  catalogue.stage([{ put: volume("a", 1, { deleting: true }) }]);
  catalogue.commitStaged();
  assertEquals(catalogue.byName("a"), undefined);
  assertEquals(catalogue.byName("a@s")?.uid, "s");
  assertEquals(catalogue.nameOf("a"), null);
  catalogue.stage([{ put: volume("new", 3, { name: "a" }) }]);
  catalogue.commitStaged();
  assertEquals(catalogue.snapshotsOf("new"), []);
  catalogue.stage([{ remove: "a" }]);
  catalogue.commitStaged();
  assertEquals(catalogue.byName("a")?.uid, "new");
  catalogue.stage([{ put: volume("new", 3, { name: "z" }) }]);
  catalogue.commitStaged();
  assertEquals(namesOf(catalogue), ["a@s", "z"]);
});

Deno.test("a thin id is not used again before all others were, and those in use are left out", () => {
  const catalogue = catalogueOf([volume("a", 0), volume("b", thinIdMax)], thinIdMax - 1);
  assertEquals(catalogue.freeThinIds(3), [thinIdMax - 1, 1, 2].map(thinId));
  catalogue.stage([{ put: volume("c", thinIdMax - 1) }]);
  catalogue.commitStaged();
  catalogue.stage([{ remove: "c" }]);
  catalogue.commitStaged();
  assertEquals(catalogue.freeThinIds(1), [thinId(1)]);
});

Deno.test("a change costs the same among 10,000 volumes", () => {
  const volumes = Array.from({ length: 10_000 }, (_, i) => volume(`v${i}`, i));
  const catalogue = catalogueOf(volumes, 10_000);
  const line = catalogue.stage([{ put: volume("one-more", 10_000) }]);
  catalogue.commitStaged();
  assert(line.length < 300, "the line holds the change only");
  const started = performance.now();
  for (let i = 0; i < 2000; i += 1) {
    catalogue.stage([{ put: volume(`v${i}`, i, { name: `w${i}` }) }]);
    catalogue.commitStaged();
  }
  // Copying 10,000 records each time would take minutes.
  assert(performance.now() - started < 2000, "2000 renames took more than 2 s");
  const text = catalogue.snapshotLine();
  assertEquals(settle(text, catalogue.transactionId).catalogue.count, 10_001);
});

Deno.test("a family is what origins tie together, through what is being deleted and through what is gone", () => {
  const catalogue = catalogueOf([
    volume("a", 1),
    snapshot("as", 2, "a@s", "a"),
    volume("c", 3, { origin: "as" }),
    volume("d", 4, { origin: "as" }),
    snapshot("ds", 5, "d@s", "d"),
    volume("other", 6),
  ]);
  const family = (uid: string) => catalogue.familyOf(uid).map((record) => record.uid).sort();
  const change = (...changes: CatalogueChange[]) => {
    catalogue.stage(changes);
    catalogue.commitStaged();
  };
  assertEquals(family("c"), ["a", "as", "c", "d", "ds"]);
  change({ put: { ...snapshot("as", 2, "a@s", "a"), deleting: true } });
  assertEquals(family("ds"), ["a", "as", "c", "d", "ds"]);
  change({ remove: "as" });
  assertEquals(family("ds"), ["c", "d", "ds"], "two clones of a snapshot that is gone are still relatives");
  assertEquals(family("a"), ["a"]);
  assertEquals(family("other"), ["other"]);
});
