/** The raw client against nbdkit, so that a failure against our server is not the client's. */
import { assertEquals, assertRejects } from "@std/assert";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_SEND_DF,
  NBD_OPT_ABORT,
  NBD_OPT_GO,
  NBD_OPT_SET_META_CONTEXT,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_UNSUP,
  NBD_REP_META_CONTEXT,
} from "../../actors/nbd/wire/constants.ts";
import { u32 } from "./wire_bytes.ts";
import { hasProgram, programPath } from "../support/programs.ts";
import { metaContextRequest, RawClient } from "./raw_client.ts";
import type { ServerAddress } from "./raw_socket.ts";

const sizeBytes = 1024 * 1024;

nbdkitTest("the raw client reads back what it wrote, with simple replies", async (address) => {
  using client = await RawClient.attach(address, "", { structured: false });
  const payload = new Uint8Array(70_000).map((_, i) => i * 7);
  await client.write(1000, payload);
  await client.flush();
  assertEquals((await client.read(1000, payload.length)).toHex(), payload.toHex());
  await client.disconnect();
});

nbdkitTest("the raw client reads back what it wrote, with structured replies", async (address) => {
  using client = await RawClient.attach(address, "");
  assertEquals(client.facts?.sizeBytes, sizeBytes);
  assertEquals((client.facts?.flags ?? 0) & 0x81, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_DF);
  const payload = new Uint8Array(70_000).map((_, i) => i * 7);
  await client.write(1000, payload);
  const reply = await client.perform({ type: NBD_CMD_READ, offsetBytes: 1000, lengthBytes: payload.length });
  assertEquals(reply.data.toHex(), payload.toHex());
  assertEquals(reply.chunks.at(-1)?.isLast, true);
  await client.disconnect();
});

nbdkitTest("the raw client sees errors and keeps in step", async (address) => {
  using client = await RawClient.attach(address, "");
  const past = { offsetBytes: sizeBytes, lengthBytes: 512 };
  assertEquals((await client.perform({ type: NBD_CMD_READ, ...past })).error, NBD_EINVAL);
  assertEquals((await client.perform({ type: NBD_CMD_TRIM, ...past })).error, NBD_EINVAL);
  await assertRejects(() => client.write(sizeBytes, new Uint8Array(512)), Error, `error ${NBD_ENOSPC}`);
  assertEquals((await client.perform({ type: NBD_CMD_BLOCK_STATUS, lengthBytes: 512 })).error, NBD_EINVAL);
  assertEquals((await client.read(0, 1)).length, 1);
  assertEquals(client.inFlight, 0);
});

nbdkitTest("the raw client gathers replies of many requests in flight", async (address) => {
  using client = await RawClient.attach(address, "");
  const cookies = new Set<string>();
  for (let i = 0; i < 8; i++) {
    cookies.add((await client.sendCommand({ type: NBD_CMD_READ, lengthBytes: 4096 })).join());
  }
  assertEquals(client.inFlight, 8);
  for (let i = 0; i < 8; i++) cookies.delete((await client.receiveReply()).cookie.join());
  assertEquals(cookies.size, 0);
});

nbdkitTest("the raw client sends options stock clients do not", async (address) => {
  using client = await RawClient.connect(address);
  await client.greet();
  assertEquals(await client.outcome(0x7777, new Uint8Array(70_000)), NBD_REP_ERR_UNSUP);
  assertEquals(await client.outcome(NBD_OPT_GO, u32(0xffff_ffff)), NBD_REP_ERR_INVALID);
  await client.negotiateStructuredReplies();
  const context = metaContextRequest("", ["base:allocation"]);
  const replies = await client.negotiate(NBD_OPT_SET_META_CONTEXT, context);
  assertEquals(replies.map((reply) => reply.replyType), [NBD_REP_META_CONTEXT, NBD_REP_ACK]);
  assertEquals(await client.list(), [""]);
  assertEquals(await client.outcome(NBD_OPT_ABORT), NBD_REP_ACK);
  assertEquals(await client.isClosedByServer(), true);
});

nbdkitTest("the raw client sees the server close on a violation", async (address) => {
  using client = await RawClient.connect(address);
  await client.greet(0xff);
  assertEquals(await client.isClosedByServer(), true);
});

nbdkitTest("the raw client does not wait for ever", async (address) => {
  using client = await RawClient.connect(address, { timeoutMs: 50 });
  await client.receiveOpening();
  await assertRejects(() => client.receive(1), Error, "no answer within 50 ms");
});

/** Runs the test against nbdkit with an empty memory disk. */
function nbdkitTest(name: string, run: (address: ServerAddress) => Promise<void>): void {
  Deno.test({ name, ignore: !hasProgram("nbdkit"), fn: () => withNbdkit(run) });
}

async function withNbdkit(run: (address: ServerAddress) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/s`;
  const ready = `${folder}/pid`;
  const nbdkit = new Deno.Command(programPath("nbdkit") ?? "nbdkit", {
    args: [
      "--foreground",
      "--exit-with-parent",
      "--pidfile",
      ready,
      "--unix",
      path,
      "memory",
      `${sizeBytes}`,
    ],
    stderr: "null",
  }).spawn();
  try {
    await waitForFile(ready);
    await run({ path });
  } finally {
    nbdkit.kill();
    await nbdkit.status;
    await Deno.remove(folder, { recursive: true });
  }
}

/** nbdkit writes its pid file once it accepts connections. */
async function waitForFile(path: string): Promise<void> {
  for (let round = 0; round < 500; round++) {
    try {
      await Deno.stat(path);
      return;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("nbdkit did not start");
}
