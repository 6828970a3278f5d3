import { assert, assertEquals } from "@std/assert";
import { IntentMemory, testBinding } from "../tests/support/intent_memory.ts";
import { dblock, metadataBlockSizeBytes, thinId, vblock } from "./base/ids.ts";
import { intentHeaderBytes, packFileHeader } from "./intent_headers.ts";
import { findIntents } from "./intent_read.ts";
import { type Intent, IntentBuffer, intentRecordBytes, packIntent, unpackIntent } from "./intent_record.ts";

const segmentBytes = intentHeaderBytes + 20 * intentRecordBytes;

function superblock(fill: number): Uint8Array {
  return new Uint8Array(metadataBlockSizeBytes).fill(fill);
}

function insertAt(at: number): Intent {
  return {
    kind: "insert",
    thin: thinId(3),
    vblock: vblock(at),
    dblock: dblock(100 + at),
    replaced: undefined,
  };
}

/** Superblock 1 with changes 1 and 2, frozen as superblock 2 with change 3. */
function twoSegments(): IntentMemory {
  const file = new IntentMemory(segmentBytes);
  const journal = file.journal();
  journal.start(superblock(1));
  journal.append(insertAt(1));
  journal.append(insertAt(2));
  journal.freeze(superblock(2));
  journal.append(insertAt(3));
  journal.writeOut();
  return file;
}

function found({ bytes }: IntentMemory, on: number, binding = testBinding): readonly Intent[] | string {
  const result = findIntents(bytes, binding, superblock(on));
  return result.kind === "found" ? result.intents : result.kind;
}

Deno.test("a record is read as it was written, and in its place only", () => {
  const intents: Intent[] = [
    insertAt(2 ** 40),
    {
      kind: "insert",
      thin: thinId(0xff_ffff),
      vblock: vblock(0),
      dblock: dblock(0),
      replaced: dblock(2 ** 39),
    },
    { kind: "remove", thin: thinId(1), begin: vblock(5), end: vblock(2 ** 45) },
  ];
  for (const intent of intents) {
    const buffer = new IntentBuffer(2);
    const { bytes } = buffer;
    const place = { generation: 0xfedc_ba98_7654_3210n, sequence: 7 };
    packIntent(buffer, 40, intent, place);
    assertEquals(unpackIntent(bytes, 40, place), intent);
    assertEquals(unpackIntent(bytes, 40, { ...place, sequence: 8 }), undefined);
    assertEquals(unpackIntent(bytes, 40, { ...place, generation: 1n }), undefined);
    for (let at = 40; at < 40 + intentRecordBytes; at += 1) {
      bytes[at]! ^= 1;
      assertEquals(unpackIntent(bytes, 40, place), undefined, `byte ${at}`);
      bytes[at]! ^= 1;
    }
  }
});

Deno.test("the superblock decides which segments are replayed", () => {
  const file = twoSegments();
  assertEquals(found(file, 1), [insertAt(1), insertAt(2), insertAt(3)]);
  assertEquals(found(file, 2), [insertAt(3)]);
  assertEquals(found(file, 9), "none");
});

Deno.test("a superblock that differs in its last byte is another one", () => {
  const file = twoSegments();
  const other = superblock(1);
  other[metadataBlockSizeBytes - 1] = 7;
  assertEquals(findIntents(file.bytes, testBinding, other).kind, "none");
});

Deno.test("changes for another state of the metadata are told, and an empty journal is not", () => {
  const file = twoSegments();
  const result = findIntents(file.bytes, testBinding, superblock(9));
  assert(result.kind === "none" && result.why?.startsWith("its changes are for another state") === true);
  // As a start that was killed behind its first step leaves it.
  file.bytes.fill(0, intentHeaderBytes, 2 * intentHeaderBytes);
  assertEquals(findIntents(file.bytes, testBinding, superblock(9)), { kind: "none" });
  const empty = new IntentMemory(segmentBytes);
  empty.journal().start(superblock(1));
  assertEquals(findIntents(empty.bytes, testBinding, superblock(9)), { kind: "none" });
});

Deno.test("replay ends at the first record that does not follow", () => {
  const file = twoSegments();
  file.bytes[intentHeaderBytes + intentHeaderBytes + intentRecordBytes + 20]! ^= 1;
  assertEquals(found(file, 1), [insertAt(1)], "and nothing of the segment that follows");
  assertEquals(found(file, 2), [insertAt(3)]);
});

Deno.test("a segment that follows another one than that is not replayed after it", () => {
  const file = new IntentMemory(segmentBytes);
  const journal = file.journal();
  journal.start(superblock(1));
  journal.append(insertAt(1));
  journal.freeze(superblock(2));
  journal.durable();
  journal.append(insertAt(2));
  journal.freeze(superblock(3));
  journal.append(insertAt(3));
  journal.writeOut();
  assertEquals(found(file, 2), [insertAt(2), insertAt(3)]);
  assertEquals(found(file, 3), [insertAt(3)]);
  assertEquals(found(file, 1), "none", "its segment was given up");
});

Deno.test("another boot, another file or a void journal has nothing to replay", () => {
  const file = twoSegments();
  for (const key of ["bootId", "data", "metadata", "file"] as const) {
    assertEquals(found(file, 1, { ...testBinding, [key]: "other" }), "none", key);
  }
  assertEquals(findIntents(file.bytes, undefined, superblock(1)), { kind: "none" });
  file.bytes.set(packFileHeader({ isVoid: true, segmentBytes, binding: testBinding }));
  assertEquals(found(file, 1), "none");
});

Deno.test("a newer format is told, whatever its header holds", () => {
  const file = twoSegments();
  file.bytes[8] = 2;
  assertEquals(findIntents(file.bytes, testBinding, superblock(1)), { kind: "newer", format: 2 });
});

Deno.test("a file that is short, empty or damaged has nothing to replay", () => {
  const { bytes } = twoSegments();
  for (const length of [0, 100, intentHeaderBytes, intentHeaderBytes + segmentBytes]) {
    assertEquals(findIntents(bytes.slice(0, length), testBinding, superblock(1)).kind, "none");
  }
  for (const at of [0, 12, 16, 20, 24, 300]) {
    const damaged = bytes.slice();
    damaged[at]! ^= 1;
    assertEquals(findIntents(damaged, testBinding, superblock(1)).kind, "none", `byte ${at}`);
  }
});
