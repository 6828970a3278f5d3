/** The table of shares follows the files: a pattern that fits none would move time to another share. */
import { assert, assertEquals } from "@std/assert";
import { readSources } from "../tidy/source.ts";
import { type Share, shareOfPath, shares, sharesByPath } from "./shares.ts";

const paths = readSources(new URL("../../", import.meta.url)).map(({ path }) => path);

Deno.test("each pattern of a share fits files that no pattern before it fits", () => {
  for (const [index, [pattern]] of sharesByPath.entries()) {
    const earlier = sharesByPath.slice(0, index);
    const isFound = paths.some((path) => pattern.test(path) && !earlier.some(([each]) => each.test(path)));
    assert(isFound, `${pattern} fits no file`);
  }
});

Deno.test("files that every request passes through count to the share of their name", () => {
  const expected: Readonly<Record<string, Share>> = {
    "actors/edge/direct_socket.ts": "socket",
    "actors/edge/file_writes.ts": "device",
    "actors/edge/intent_file.ts": "intent journal",
    "actors/nbd/transmission.ts": "codec",
    "actors/nbd/wire/request.ts": "codec",
    "actors/pool/data_allocator.ts": "allocator",
    "actors/pool/lock_region.ts": "locks",
    "actors/pool/metadata.ts": "lookup, metadata",
    "actors/volume/remap.ts": "volume",
    "storage/btree.ts": "lookup, metadata",
    "storage/intent_record.ts": "intent journal",
  };
  for (const [path, share] of Object.entries(expected)) {
    assert(paths.includes(path), `there is ${path}`);
    assertEquals(shareOfPath(path), share, path);
    assert(shares.includes(share), `${share} is printed`);
  }
});
