import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UserError } from "./base/errors.ts";
import { thinId } from "./base/ids.ts";
import type { VolumeRecord } from "./catalogue.ts";
import { lineOfChanges, readJournal } from "./catalogue_journal.ts";
import { catalogueFrom, settleCatalogue } from "./catalogue_open.ts";
import { problemOfSettings, type VolumeSettings } from "./volume_settings.ts";

const poolSettings = { blockSizeBytes: 65536, metadataPath: "metadata.img", dataPath: "data.img" };

function volume(name: string, id: number, settings: VolumeSettings = {}): VolumeRecord {
  return {
    uid: name,
    name,
    thinId: thinId(id),
    sizeBytes: 1 << 20,
    readOnly: false,
    origin: null,
    owner: null,
    created: null,
    ...settings,
  };
}

const all: VolumeSettings = {
  singleWriter: true,
  ephemeral: true,
  lingerMs: 600_000,
  expires: "2026-12-01T00:00:00Z",
  written: true,
  quotaBytes: 1 << 30,
  reserveBytes: 1 << 20,
};

const catalogueOf = (volumes: readonly VolumeRecord[]) =>
  catalogueFrom({ transactionId: 7n, settings: poolSettings, nextThinId: 0, volumes });

Deno.test("every setting survives in the first line and in a change", () => {
  const records = [volume("a", 1, all), volume("b", 2)];
  const first = catalogueOf(records).snapshotLine();
  assertEquals([...settleCatalogue(readJournal(first), 7n).catalogue.volumes()], records);
  const text = catalogueOf([]).snapshotLine() + lineOfChanges(8n, records.map((put) => ({ put })));
  assertEquals([...settleCatalogue(readJournal(text), 8n).catalogue.volumes()], records);
});

Deno.test("a catalogue has the second format only while a volume has a setting", () => {
  const catalogue = catalogueOf([volume("a", 1)]);
  const format = () => JSON.parse(catalogue.snapshotLine()).format;
  assertEquals(format(), "gossamer catalog 1");
  catalogue.apply([{ put: volume("a", 1, { quotaBytes: 1 << 30 }) }]);
  assertEquals(format(), "gossamer catalog 2");
  catalogue.apply([{ put: volume("a", 1, { reserveBytes: 1 << 30 }) }, {
    put: volume("b", 2, { singleWriter: true }),
  }]);
  assertEquals(format(), "gossamer catalog 2");
  catalogue.apply([{ put: volume("a", 1) }, { remove: "b" }]);
  assertEquals(format(), "gossamer catalog 1");
});

for (
  const [name, settings, problem] of [
    ["a@s", { quotaBytes: 1 << 30 }, "which only a volume can have"],
    ["a", { lingerMs: 1 }, "lingers and is not ephemeral"],
    ["a", { written: true }, "written to and is not ephemeral"],
    ["a", { ephemeral: true, lingerMs: -1 }, "linger time"],
    ["a", { ephemeral: true, lingerMs: 0.5 }, "linger time"],
    ["a", { expires: "2026-12-01T00:00:00+01:00" }, "expires is malformed"],
    ["a", { expires: "2026-13-01T00:00:00Z" }, "expires is malformed"],
    ["a", { expires: `2026-12-01T00:00:00.${"0".repeat(99)}Z` }, "expires is malformed"],
    ["a", { quotaBytes: 0 }, "quota"],
    ["a", { reserveBytes: 0 }, "reserve"],
    ["a", { reserveBytes: 2 ** 60 }, "reserve"],
  ] as const
) {
  Deno.test(`"${name}" with ${JSON.stringify(settings).slice(0, 60)} breaks a rule`, () => {
    assertStringIncludes(problemOfSettings(name, settings) ?? "", problem);
  });
}

Deno.test("a damaged setting is told as a sentence, and an unknown one is never dropped", () => {
  const line = catalogueOf([volume("a", 1, all)]).snapshotLine();
  for (
    const [from, to, problem] of [
      [`"quota_bytes":1073741824`, `"quota_bytes":"1G"`, `"quota_bytes" is missing or malformed`],
      [`"single_writer":true`, `"single_writer":1`, `"single_writer" is missing or malformed`],
      [`"expires":"2026`, `"expires":"x`, "expires is malformed"],
      [`"written":true`, `"colour":true`, `"colour" is not known here`],
    ] as const
  ) {
    const text = line.replace(from, to);
    const { message } = assertThrows(() => settleCatalogue(readJournal(text), 7n), UserError);
    assertStringIncludes(message, problem);
  }
});
