/** READs whose volume has found views: when they are sent as they are, when not, and whose memory it takes. */
import { assert, assertEquals } from "@std/assert";
import { ioOk, type IoResult, type MappedSegment } from "../../storage/device/port.ts";
import { NBD_CMD_DISC, NBD_EIO } from "./wire/constants.ts";
import { command, read, type SimulatedClient } from "../../tests/nbd/simulated_client.ts";
import { testBlockBytes, TestServer } from "../../tests/nbd/simulated_server.ts";
import type { VolumeRequest } from "../volume/bio.ts";
import { borrowedBytesMax } from "../limits.ts";
import type { ClientRequest } from "./client_request.ts";

const block = testBlockBytes;
const MiB = 2 ** 20;

/** Bytes of one value, and where they were copied to. */
class FakeSegment implements MappedSegment {
  readonly kind = "mapped";
  readonly address = 0;
  result: IoResult = ioOk;
  readonly copies: Uint8Array[] = [];

  constructor(public drain: number, readonly lengthBytes: number, readonly value: number) {}

  copyTo(buffer: Uint8Array, beginBytes: number): IoResult {
    this.copies.push(buffer);
    buffer.fill(this.value, 0, this.lengthBytes - beginBytes);
    return this.result;
  }
}

/** A server whose volume holds requests, and its client. */
function serve(structured = false): { server: TestServer; client: SimulatedClient } {
  const server = new TestServer();
  const client = server.attach({ structured });
  server.disk.volume.holdRequests = true;
  return { server, client };
}

/** The request that the volume holds, which is answered with these views in the kernel's next run. */
function answer(
  server: TestServer,
  views: readonly (FakeSegment | undefined)[],
  drain = server.kernel.drains + 1,
): VolumeRequest {
  const request = server.disk.volume.waiting.shift()!;
  for (const [ordinal, view] of views.entries()) {
    if (view === undefined) continue;
    view.drain = drain;
    request.takeSegment!(ordinal, view);
  }
  server.kernel.post(request.client, { type: "requestsDone", requests: [request] });
  server.clock.runAllYields();
  return request;
}

const values = (bytes: Uint8Array) => [...new Set(bytes)];

Deno.test("views of this run are sent, and nothing is taken to read into", () => {
  const { server, client } = serve();
  client.say(read(1, 0, 2 * block));
  const views = [new FakeSegment(0, block, 1), new FakeSegment(0, block, 2)];
  const request = answer(server, views);
  assertEquals(client.takeReplies(new Map([[1, 2 * block]]))[0]?.payload.length, 2 * block);
  assertEquals(views.map(({ copies }) => copies.length), [1, 1]);
  assert(
    views.every(({ copies }) => copies[0]!.buffer !== request.data.buffer),
    "they were copied to be sent",
  );
});

Deno.test("if one view is of an earlier run all is asked again, without views", () => {
  const { server, client } = serve();
  client.say(read(1, 0, 2 * block));
  const [old, fresh] = [new FakeSegment(0, block, 1), new FakeSegment(0, block, 2)];
  const request = server.disk.volume.waiting[0]!;
  assertEquals(request.takesSegments, true);
  for (const [ordinal, segment] of [old, fresh].entries()) request.takeSegment!(ordinal, segment);
  old.drain = server.kernel.drains;
  fresh.drain = server.kernel.drains + 1;
  server.disk.volume.waiting.shift();
  server.kernel.post(request.client, { type: "requestsDone", requests: [request] });
  assertEquals([
    server.disk.volume.waiting.length,
    request.takesSegments,
    (request as ClientRequest).segments.length,
  ], [
    1,
    false,
    0,
  ]);
  assertEquals([old.copies.length, fresh.copies.length, client.takeReplies().length], [0, 0, 0]);
  server.finishAll();
  assertEquals(values(client.takeReplies(new Map([[1, 2 * block]]))[0]!.payload), [0]);
});

Deno.test("while a reply is under way, what is seen is taken in at once", () => {
  const { server, client } = serve();
  client.say(read(1, 0, block), read(2, block, block));
  client.reads = false;
  answer(server, [new FakeSegment(0, block, 1)]);
  const view = new FakeSegment(0, block, 2);
  const request = answer(server, [view]);
  assertEquals(view.copies.length, 1);
  assert(view.copies[0]!.buffer === request.data.buffer, "it was copied to be sent");
  client.takeSend();
  client.takeSend();
  const replies = client.takeReplies(new Map([[1, block], [2, block]]));
  assertEquals(replies.map(({ payload }) => values(payload)), [[1], [2]]);
});

Deno.test("a view that cannot be taken in is an error of its request alone", () => {
  const { server, client } = serve();
  client.say(read(1, 0, block), read(2, block, block), read(3, 0, 512));
  client.reads = false;
  answer(server, [new FakeSegment(0, block, 1)]);
  const broken = new FakeSegment(0, block, 2);
  broken.result = { kind: "ioError", reason: "a disk" };
  answer(server, [broken]);
  server.finishAll();
  client.takeSend();
  client.takeSend();
  const replies = client.takeReplies(new Map([[1, block], [3, 512]]));
  assertEquals(replies.map(({ cookie, error }) => [cookie, error]), [[1, 0], [2, NBD_EIO], [3, 0]]);
});

Deno.test("what is seen beside what was read is put there: the client paid for one of them", () => {
  const { server, client } = serve();
  client.say(read(1, 0, 2 * block));
  const request = server.disk.volume.waiting[0]!;
  request.takeData!().fill(5, block);
  const view = new FakeSegment(0, block, 4);
  answer(server, [view, undefined]);
  assert(
    view.copies.length === 1 && view.copies[0]!.buffer === request.data.buffer,
    "it has memory of its own",
  );
  const payload = client.takeReplies(new Map([[1, 2 * block]]))[0]!.payload;
  assertEquals([values(payload.subarray(0, block)), values(payload.subarray(block))], [[4], [5]]);
});

Deno.test("memory that was lent and not needed goes back before the reply is sent, and what it was lent for after", () => {
  const { server, client } = serve();
  const listener = server.actor!;
  // The memory that this one is read into is spare after it.
  client.say(read(2, 0, 4 * MiB));
  const taken = server.disk.volume.waiting[0]!;
  taken.takeData!().fill(1);
  server.finishAll();
  client.takeReplies(new Map([[2, 4 * MiB]]));
  assertEquals([listener.lentBytes, listener.spareBytes], [0, 4 * MiB]);
  client.say(read(3, 0, 4 * MiB));
  assertEquals([listener.lentBytes, listener.spareBytes], [4 * MiB, 0]);
  client.reads = false;
  answer(server, Array.from({ length: 64 }, () => new FakeSegment(0, block, 3)));
  assertEquals([listener.lentBytes, listener.spareBytes], [4 * MiB, 4 * MiB]);
  assert(listener.lentBytes + listener.spareBytes <= borrowedBytesMax, "more than the bound");
  client.takeSend();
  assertEquals([listener.lentBytes, listener.spareBytes], [0, 4 * MiB]);
  assertEquals(values(client.takeReplies(new Map([[3, 4 * MiB]]))[0]!.payload), [3]);
});

Deno.test("large READs wait until what was read before them has been sent, and then are seen; small ones do not", () => {
  const { server, client } = serve();
  const { waiting } = server.disk.volume;
  client.say(read(1, 0, MiB), read(2, 0, block), read(3, 0, block), read(4, 0, block - 512));
  assertEquals(waiting.map(({ lengthBytes }) => lengthBytes), [MiB, block - 512]);
  client.reads = false;
  answer(server, Array.from({ length: 16 }, () => new FakeSegment(0, block, 1)));
  server.finishOne();
  client.say(read(5, 0, block));
  assertEquals(waiting.length, 0);
  client.takeSend();
  const seen = waiting.map(({ lengthBytes, takesSegments }) => [lengthBytes, takesSegments]);
  assertEquals(seen, [[block, true], [block, true], [block, true]]);
  client.reads = true;
  client.takeSend();
  server.finishAll();
  const sizes = new Map([[1, MiB], [2, block], [3, block], [4, block - 512], [5, block]]);
  assertEquals(client.takeReplies(sizes).map(({ cookie }) => cookie), [1, 4, 2, 3, 5]);
});

Deno.test("a large READ waits while anything is being sent, unless the socket can be given no views", () => {
  for (const takesSegments of [true, false]) {
    const server = new TestServer();
    const client = server.attach({ structured: false, takesSegments });
    client.reads = false;
    client.say(read(1, 0, 512));
    server.disk.volume.holdRequests = true;
    client.say(read(2, 0, block));
    assertEquals(server.disk.volume.waiting.length, takesSegments ? 0 : 1);
    client.takeSend();
    assertEquals(server.disk.volume.waiting.map((request) => request.takesSegments), [takesSegments]);
  }
});

Deno.test("as many large READs as their replies may have bytes are read at once, and one that has more alone", () => {
  const { server, client } = serve();
  const { waiting } = server.disk.volume;
  const reads = Array.from({ length: 17 }, (_, at) => read(at, 0, block));
  client.say(...reads, read(17, 0, 4 * MiB));
  assertEquals(waiting.length, 16);
  for (let count = 16; count > 0; count -= 1) server.finishOne();
  assertEquals(waiting.map(({ lengthBytes }) => lengthBytes), [block]);
  server.finishOne();
  assertEquals(waiting.map(({ lengthBytes }) => lengthBytes), [4 * MiB]);
});

Deno.test("a large READ that fails makes way for the next", () => {
  const { server, client } = serve();
  const { waiting } = server.disk.volume;
  client.say(read(1, 0, MiB), read(2, 0, MiB), read(3, 0, MiB));
  for (const _ of [1, 2, 3]) {
    assertEquals(waiting.length, 1);
    waiting[0]!.status = "ioError";
    answer(server, []);
  }
  assertEquals(client.takeReplies().map(({ error }) => error), [NBD_EIO, NBD_EIO, NBD_EIO]);
});

Deno.test("what a client that has gone was seen is nobody's, and what it waited for is not read", () => {
  const { server, client } = serve();
  client.say(read(1, 0, block), read(2, 0, 4 * MiB), read(3, 0, block));
  assertEquals(server.actor!.lentBytes, 4 * MiB);
  client.reset();
  const view = new FakeSegment(0, block, 1);
  answer(server, [view]);
  assertEquals([view.copies.length, server.disk.volume.waiting.length], [0, 0]);
  assertEquals([server.actor!.clients, server.actor!.lentBytes], [0, 0]);
});

Deno.test("a client that takes its leave has what it waited for answered", () => {
  const { server, client } = serve();
  client.say(read(1, 0, MiB), read(2, 0, MiB), command(NBD_CMD_DISC, 3));
  server.finishAll();
  assertEquals(client.takeReplies(new Map([[1, MiB], [2, MiB]])).length, 2);
  assertEquals([client.closed, server.actor!.clients], [true, 0]);
});

Deno.test("a client that reads no replies keeps nothing in flight when its export goes, or when it has left", () => {
  for (const isLeaving of [false, true]) {
    const { server, client } = serve();
    const { disk, pool } = server;
    client.say(read(1, 0, MiB), read(2, 0, MiB));
    client.reads = false;
    server.finishOne();
    client.say(read(3, 0, block));
    assertEquals(disk.volume.waiting.length, 0, "the reply to the first is under way");
    if (isLeaving) client.say(command(NBD_CMD_DISC, 4));
    else pool.tellClients(disk, { type: "exportGone", uid: disk.info.uid });
    assertEquals(disk.volume.waiting.length, 2);
    server.finishAll();
    assertEquals(disk.clients.size, 0, "nobody is attached");
    client.takeSend();
    client.takeSend();
    const replies = client.takeReplies(new Map([[1, MiB], [2, MiB], [3, block]]));
    assertEquals(replies.map(({ cookie }) => cookie), [1, 2, 3]);
  }
});
