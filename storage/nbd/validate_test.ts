import { assertEquals } from "@std/assert";
import {
  commandName,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_RESIZE,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EPERM,
} from "./constants.ts";
import type { NbdRequest } from "./request.ts";
import { exportFlags, validateRequest } from "./validate.ts";

const gibibyte = 2 ** 30;
const sizeBytes = 16 * gibibyte;
const fourGibibytesLess1 = 2 ** 32 - 1;
const readOnly = { sizeBytes, readOnly: true };

const replied = [
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_CMD_FLUSH,
  NBD_CMD_TRIM,
  NBD_CMD_CACHE,
  NBD_CMD_WRITE_ZEROES,
  NBD_CMD_BLOCK_STATUS,
];
const ranged = replied.filter((type) => type !== NBD_CMD_FLUSH);

Deno.test("the flags of an export are those of other servers", () => {
  assertEquals(exportFlags({ sizeBytes, readOnly: false }, { structured: false }), 0xd6d);
  assertEquals(exportFlags({ sizeBytes, readOnly: false }, { structured: true }), 0xded);
  assertEquals(exportFlags(readOnly, { structured: false }), 0x50f);
  assertEquals(exportFlags(readOnly, { structured: true }), 0x58f);
});

for (const type of ranged) {
  Deno.test(`${commandName(type)} up to the last byte is in order`, () => {
    assertEquals(errorOf({ type, offsetBytes: sizeBytes - 512, lengthBytes: 512 }), undefined);
    assertEquals(errorOf({ type, offsetBytes: 1, lengthBytes: 1 }), undefined);
  });

  const pastEnd = type === NBD_CMD_WRITE || type === NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC : NBD_EINVAL;
  Deno.test(`${commandName(type)} at, across and far beyond the end fails as it should`, () => {
    assertEquals(errorOf({ type, offsetBytes: sizeBytes, lengthBytes: 1 }), pastEnd);
    assertEquals(errorOf({ type, offsetBytes: sizeBytes - 512, lengthBytes: 513 }), pastEnd);
    assertEquals(errorOf({ type, offsetBytes: 2 ** 53 - 1, lengthBytes: 512 }), pastEnd);
    assertEquals(errorOf({ type, offsetBytes: Infinity, lengthBytes: 1024 }), pastEnd);
  });
}

Deno.test("length 0 is in order, but not as a block status", () => {
  for (const type of ranged) {
    const expected = type === NBD_CMD_BLOCK_STATUS ? NBD_EINVAL : undefined;
    assertEquals(errorOf({ type, lengthBytes: 0 }), expected);
    assertEquals(errorOf({ type, offsetBytes: sizeBytes, lengthBytes: 0 }), expected);
  }
});

Deno.test("a read-only export refuses what changes it, before anything else", () => {
  for (const type of replied) {
    const changes = [NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES].includes(type);
    assertEquals(errorOf({ type }, { exportInfo: readOnly }), changes ? NBD_EPERM : undefined);
    if (changes) assertEquals(errorOf({ type, flags: 0x8000 }, { exportInfo: readOnly }), NBD_EPERM);
  }
});

Deno.test("READ and WRITE carry at most 32 MiB", () => {
  for (const type of [NBD_CMD_READ, NBD_CMD_WRITE]) {
    assertEquals(errorOf({ type, lengthBytes: 2 ** 25 }), undefined);
    assertEquals(errorOf({ type, lengthBytes: 2 ** 25 + 1 }), NBD_EINVAL);
    assertEquals(errorOf({ type, lengthBytes: fourGibibytesLess1 }), NBD_EINVAL);
  }
});

Deno.test("commands without a payload go up to 4 GiB - 1", () => {
  for (const type of [NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS]) {
    assertEquals(errorOf({ type, offsetBytes: 512, lengthBytes: fourGibibytesLess1 }), undefined);
  }
});

Deno.test("FUA is accepted on every command and an unknown flag on none", () => {
  for (const type of replied) {
    assertEquals(errorOf({ type, flags: NBD_CMD_FLAG_FUA }), undefined);
    assertEquals(errorOf({ type, flags: 0x8000 }), NBD_EINVAL);
    assertEquals(errorOf({ type, flags: NBD_CMD_FLAG_PAYLOAD_LEN }), NBD_EINVAL);
  }
});

Deno.test("a flag is accepted only on the command it belongs to", () => {
  const homes = new Map([
    [NBD_CMD_FLAG_NO_HOLE, NBD_CMD_WRITE_ZEROES],
    [NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_WRITE_ZEROES],
    [NBD_CMD_FLAG_DF, NBD_CMD_READ],
    [NBD_CMD_FLAG_REQ_ONE, NBD_CMD_BLOCK_STATUS],
  ]);
  for (const [flags, home] of homes) {
    for (const type of replied) {
      assertEquals(
        errorOf({ type, flags }),
        type === home ? undefined : NBD_EINVAL,
        `${flags} on ${commandName(type)}`,
      );
    }
  }
});

Deno.test("DF needs structured replies", () => {
  const session = { structured: false, metaContextCount: 0 };
  assertEquals(errorOf({ type: NBD_CMD_READ, flags: NBD_CMD_FLAG_DF }, { session }), NBD_EINVAL);
});

Deno.test("FAST_ZERO together with NO_HOLE is not supported", () => {
  const flags = NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_NO_HOLE;
  assertEquals(errorOf({ type: NBD_CMD_WRITE_ZEROES, flags }), NBD_ENOTSUP);
  assertEquals(errorOf({ type: NBD_CMD_WRITE_ZEROES, flags, offsetBytes: sizeBytes }), NBD_ENOSPC);
});

Deno.test("a block status needs a selected context", () => {
  const session = { structured: true, metaContextCount: 0 };
  assertEquals(errorOf({ type: NBD_CMD_BLOCK_STATUS }, { session }), NBD_EINVAL);
});

Deno.test("FLUSH ignores its reserved fields and DISC is never wrong", () => {
  assertEquals(errorOf({ type: NBD_CMD_FLUSH, offsetBytes: Infinity, lengthBytes: 7 }), undefined);
  assertEquals(errorOf({ type: NBD_CMD_DISC, flags: 0xffff, offsetBytes: Infinity }), undefined);
});

Deno.test("unknown commands are invalid", () => {
  for (const type of [NBD_CMD_RESIZE, 9, 99, 0xffff]) assertEquals(errorOf({ type }), NBD_EINVAL);
});

function errorOf(
  fields: Partial<NbdRequest>,
  {
    exportInfo = { sizeBytes, readOnly: false },
    session = { structured: true, metaContextCount: 1 },
  } = {},
): number | undefined {
  const request: NbdRequest = {
    type: NBD_CMD_READ,
    flags: 0,
    cookieHigh: 0,
    cookieLow: 0,
    offsetBytes: 0,
    lengthBytes: 512,
    payloadBytes: 0,
    payload: undefined,
    ...fields,
  };
  return validateRequest(request, exportInfo, session)?.error;
}
