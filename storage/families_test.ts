import { assertEquals } from "@std/assert";
import { thinId } from "./base/ids.ts";
import { Catalogue, type CatalogueChange, type VolumeRecord } from "./catalogue.ts";

function record(
  uid: string,
  thin: number,
  origin: string | null,
  more: Partial<VolumeRecord> = {},
): VolumeRecord {
  return {
    uid,
    name: uid,
    thinId: thinId(thin),
    sizeBytes: 512,
    readOnly: false,
    origin,
    owner: null,
    created: "2026-01-01T00:00:00Z",
    ...more,
  };
}

function catalogueOf(...records: VolumeRecord[]): Catalogue {
  const settings = { blockSizeBytes: 65536, metadataPath: "m", dataPath: "d" };
  const catalogue = new Catalogue({ transactionId: 0n, settings, nextThinId: 100 });
  assertEquals(catalogue.load(records), undefined);
  return catalogue;
}

/** Thin ids by family, as "1,2 3". */
function families(catalogue: Catalogue): string {
  const thins = new Map<string, number[]>();
  for (const { thinId } of catalogue.volumes()) {
    const key = catalogue.families.byThin.get(thinId) ?? "none";
    thins.set(key, [...thins.get(key) ?? [], thinId]);
  }
  return [...thins.values()].map((family) => family.sort((a, b) => a - b).join(",")).sort().join(" ");
}

function change(catalogue: Catalogue, ...changes: CatalogueChange[]): void {
  catalogue.stage(changes);
  catalogue.commitStaged();
}

Deno.test("clones and snapshots are of the family of what they were made from, in any order of the records", () => {
  const records = [record("c", 3, "b"), record("b", 2, "a"), record("a", 1, null), record("x", 4, null)];
  assertEquals(families(catalogueOf(...records)), "1,2,3 4");
  assertEquals(families(catalogueOf(...records.toReversed())), "1,2,3 4");
});

Deno.test("relatives stay relatives when what they were made from is removed", () => {
  const catalogue = catalogueOf(record("a", 1, null), record("x", 9, null));
  change(catalogue, { put: record("s", 2, "a") });
  change(catalogue, { put: record("c", 3, "s") });
  change(catalogue, { remove: "s" });
  assertEquals(families(catalogue), "1,3 9");
});

Deno.test("where a removed volume has left clones, or another program made volumes, all are one family after a start", () => {
  const others = [record("a", 1, null), record("x", 9, null)];
  assertEquals(families(catalogueOf(...others, record("c", 3, "gone"))), "1,3,9");
  assertEquals(families(catalogueOf(...others, record("thin-3", 3, null, { created: null }))), "1,3,9");
});

Deno.test("what another program made joins all families, and a new volume has one of its own", () => {
  const catalogue = catalogueOf(record("a", 1, null), record("x", 9, null));
  change(catalogue, { put: record("thin-3", 3, null, { created: null }) });
  change(catalogue, { put: record("n", 4, null) });
  assertEquals(families(catalogue), "1,3,9 4");
});

Deno.test("a rollback keeps both thin devices in their family", () => {
  const a = record("a", 1, null);
  const catalogue = catalogueOf(a, record("s", 2, "a"), record("x", 9, null));
  const old = record("old", 1, null, { deleting: true });
  change(catalogue, { put: { ...a, thinId: thinId(5) } }, { put: old });
  assertEquals(families(catalogue), "1,2,5 9");
  change(catalogue, { remove: "old" });
  assertEquals(families(catalogue), "2,5 9");
});

Deno.test("a change that is staged and dropped leaves the families as they were", () => {
  const a = record("a", 1, null);
  const catalogue = catalogueOf(a, record("s", 2, "a"));
  const before = catalogue.families.byThin;
  catalogue.stage([{ put: { ...a, thinId: thinId(5) } }, {
    put: record("old", 1, null, { deleting: true }),
  }]);
  catalogue.abandonStaged();
  assertEquals(families(catalogue), "1,2");
  change(catalogue, { put: record("n", 7, null) });
  assertEquals([families(catalogue), before.has(thinId(7))], ["1,2 7", false]);
});

Deno.test("changes that are dropped again leave all families as they were", () => {
  const catalogue = catalogueOf(record("a", 1, null), record("s", 2, "a"), record("x", 9, null));
  const dropped: CatalogueChange[][] = [
    // A rollback: the volume gets another thin device, and a new snapshot keeps the one that it had.
    [{ put: record("a", 100, null) }, {
      put: record("kept", 1, "a", { owner: "a", name: "a@kept", readOnly: true }),
    }],
    [{ remove: "x" }],
    [{ put: record("n", 101, null) }, { put: record("m", 102, "n") }, { remove: "n" }],
  ];
  for (const changes of dropped) {
    catalogue.stage(changes);
    catalogue.abandonStaged();
    assertEquals(families(catalogue), "1,2 9");
  }
});
