/** What a hold of an export makes of a server that refuses. That the volume stays and goes: tests/e2e/run_test.ts. */
import { assertRejects } from "@std/assert";
import { UserError } from "../../storage/base/errors.ts";
import {
  NBD_EIO,
  NBD_REP_ACK,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_MAGIC_HIGH,
  NBD_REP_MAGIC_LOW,
  NBD_SIMPLE_REPLY_MAGIC,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
} from "../nbd/wire/constants.ts";
import { ExportHold } from "./export_hold.ts";

function words(...values: number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * 4));
  values.forEach((value, at) => view.setUint32(at * 4, value));
  return new Uint8Array(view.buffer);
}

/** Attaches to a server that says this after its greeting, whatever it is asked. */
async function attachTo(...said: Uint8Array[]): Promise<void> {
  const folder = Deno.makeTempDirSync();
  const path = `${folder}/nbd.sock`;
  using listener = Deno.listen({ transport: "unix", path });
  const served = (async () => {
    using conn = await listener.accept();
    const greeting = [...words(NBDMAGIC_HIGH, NBDMAGIC_LOW, 0, 0), 0, 3];
    await conn.write(new Uint8Array([...greeting, ...said.flatMap((bytes) => [...bytes])]));
    await conn.closeWrite();
    while (await conn.read(new Uint8Array(256)).catch(() => null) !== null);
  })();
  try {
    await (await ExportHold.attach(path, "v")).release();
  } finally {
    await served;
    Deno.removeSync(folder, { recursive: true });
  }
}

function optionReply(type: number, dataBytes = 0): Uint8Array {
  return words(NBD_REP_MAGIC_HIGH, NBD_REP_MAGIC_LOW, 7, type, dataBytes);
}

Deno.test("an export is not held if the server refuses it", async () => {
  await assertRejects(() => attachTo(optionReply(NBD_REP_ERR_UNKNOWN)), UserError, "NBD_REP_ERR_UNKNOWN");
});

Deno.test("an export is not held if its TRIM fails, because it would not count as written to", async () => {
  const failed = words(NBD_SIMPLE_REPLY_MAGIC, NBD_EIO, 0, 0);
  await assertRejects(() => attachTo(optionReply(NBD_REP_ACK), failed), UserError, "NBD_EIO");
});

Deno.test("a reply that is longer than any information is refused before its bytes are waited for", async () => {
  await assertRejects(() => attachTo(optionReply(NBD_REP_ACK, 0xffff_ffff)), UserError, "4294967295 bytes");
});

Deno.test("a server of another protocol is refused", async () => {
  await assertRejects(() => attachTo(words(1, 2, 3, 4, 5)), UserError, "another magic number");
});
