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
import { exportFlags, type Session, statusScope, validateRequest } from "./validate.ts";
import { join, u32, u64 } from "../../../tests/nbd/wire_bytes.ts";

const gibibyte = 2 ** 30;
const sizeBytes = 16 * gibibyte;
const fourGibibytesLess1 = 2 ** 32 - 1;
const readOnly = { sizeBytes, readOnly: true };

const simple: Session = { structured: false, extendedHeaders: false, metaContextCount: 0 };
const structured: Session = { structured: true, extendedHeaders: false, metaContextCount: 3 };
const extended: Session = { structured: true, extendedHeaders: true, metaContextCount: 3 };

const aRequest: NbdRequest = {
  type: NBD_CMD_READ,
  flags: 0,
  cookieHigh: 0,
  cookieLow: 0,
  offsetBytes: 0,
  offsetHigh: 0,
  offsetLow: 0,
  lengthBytes: 512,
  payloadBytes: 0,
  payload: undefined,
};

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
  assertEquals(exportFlags({ sizeBytes, readOnly: false }, simple), 0xd6d);
  assertEquals(exportFlags({ sizeBytes, readOnly: false }, structured), 0xded);
  assertEquals(exportFlags(readOnly, simple), 0x50f);
  assertEquals(exportFlags(readOnly, structured), 0x58f);
});

Deno.test("BLOCK_STATUS_PAYLOAD is offered with extended headers to who selected contexts", () => {
  assertEquals(exportFlags({ sizeBytes, readOnly: false }, extended), 0x1ded);
  assertEquals(exportFlags({ sizeBytes, readOnly: false }, { ...extended, metaContextCount: 0 }), 0xded);
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
  assertEquals(errorOf({ type: NBD_CMD_READ, flags: NBD_CMD_FLAG_DF }, { session: simple }), NBD_EINVAL);
});

Deno.test("FAST_ZERO together with NO_HOLE is not supported", () => {
  const flags = NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_NO_HOLE;
  assertEquals(errorOf({ type: NBD_CMD_WRITE_ZEROES, flags }), NBD_ENOTSUP);
  assertEquals(errorOf({ type: NBD_CMD_WRITE_ZEROES, flags, offsetBytes: sizeBytes }), NBD_ENOSPC);
});

Deno.test("a block status needs a selected context", () => {
  for (
    const session of [simple, { ...structured, metaContextCount: 0 }, { ...extended, metaContextCount: 0 }]
  ) {
    assertEquals(errorOf({ type: NBD_CMD_BLOCK_STATUS }, { session }), NBD_EINVAL);
  }
});

Deno.test("with extended headers a WRITE may have PAYLOAD_LEN or not, and others but a block status refuse it", () => {
  const flags = NBD_CMD_FLAG_PAYLOAD_LEN;
  for (const type of replied) {
    const fields = { type, flags, lengthBytes: 12, payloadBytes: 12 };
    const takesIt = type === NBD_CMD_WRITE || type === NBD_CMD_BLOCK_STATUS;
    assertEquals(errorOf(fields, { session: extended }), takesIt ? undefined : NBD_EINVAL, commandName(type));
  }
  assertEquals(errorOf({ type: NBD_CMD_WRITE }, { session: extended }), undefined);
});

Deno.test("commands without a payload go as far as the export with extended headers", () => {
  for (const type of [NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS]) {
    assertEquals(errorOf({ type, lengthBytes: sizeBytes }, { session: extended }), undefined);
    const beyond = type === NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC : NBD_EINVAL;
    assertEquals(errorOf({ type, lengthBytes: sizeBytes + 1 }, { session: extended }), beyond);
    assertEquals(errorOf({ type, lengthBytes: Infinity }, { session: extended }), beyond);
  }
  assertEquals(errorOf({ type: NBD_CMD_READ, lengthBytes: Infinity }, { session: extended }), NBD_EINVAL);
});

Deno.test("the payload of a block status is a length and one to all of the contexts", () => {
  const flags = NBD_CMD_FLAG_PAYLOAD_LEN;
  const outcomes = [0, 1, 4, 8, 11, 12, 13, 16, 20, 24].map((payloadBytes) =>
    errorOf({ type: NBD_CMD_BLOCK_STATUS, flags, lengthBytes: payloadBytes, payloadBytes }, {
      session: extended,
    })
  );
  const no = NBD_EINVAL;
  assertEquals(outcomes, [no, no, no, no, no, undefined, no, undefined, undefined, no]);
});

Deno.test("a block status is about what its header says and every context, or what its payload says", () => {
  assertEquals(scopeOf(undefined), { lengthBytes: 512, contextIds: [1, 2, 3] });
  assertEquals(scopeOf(join(u64(2 ** 33), u32(3), u32(1))), { lengthBytes: 2 ** 33, contextIds: [3, 1] });
});

Deno.test("a block status with unknown or repeated contexts, or a wrong range, is invalid", () => {
  for (const ids of [[0], [4], [2, 2], [1, 0xffff_ffff]]) {
    assertEquals(scopeOf(join(u64(512), ...ids.map(u32))), NBD_EINVAL);
  }
  for (const length of [u64(0), u64(sizeBytes + 1), join(u32(0xffff_ffff), u32(0xffff_ffff))]) {
    assertEquals(scopeOf(join(length, u32(1))), NBD_EINVAL);
  }
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
    session = structured,
  } = {},
): number | undefined {
  return validateRequest({ ...aRequest, ...fields }, exportInfo, session)?.error;
}

/** What a block status is about, or the error. */
function scopeOf(payload: Uint8Array | undefined) {
  const request: NbdRequest = { ...aRequest, type: NBD_CMD_BLOCK_STATUS, payload };
  const scope = statusScope(request, { sizeBytes, readOnly: false }, extended);
  return "error" in scope ? scope.error : scope;
}
