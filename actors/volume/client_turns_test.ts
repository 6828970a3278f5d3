import { assertEquals } from "@std/assert";
import { defaultKnobs } from "../knobs.ts";
import { ClientTurns } from "./client_turns.ts";
import { SlowDevice } from "../../tests/support/devices.ts";
import {
  type ClientMessage,
  makeTestingFiles,
  testingBlockSizeBytes,
  TestingPool,
  TestingVolume,
} from "../../tests/support/pool.ts";

Deno.test("clients take turns, and each has its own order", () => {
  const turns = new ClientTurns<string>(100);
  const [a, b, c] = [{}, {}, {}];
  for (const item of ["a1", "a2", "a3", "a4"]) turns.push(a, item);
  turns.push(b, "b1");
  turns.push(c, "c1");
  turns.push(b, "b2");
  assertEquals(turns.clients, 3);
  turns.remove("a3");
  assertEquals(Array.from({ length: 7 }, () => turns.take()), [
    "a1",
    "b1",
    "c1",
    "a2",
    "b2",
    "a4",
    undefined,
  ]);
});

/** Two clients of one volume, whose reads end when the test says so. */
function twoClients() {
  const files = makeTestingFiles(64);
  const data = new SlowDevice(files.data);
  const pool = new TestingPool({ ...files, data });
  pool.admin({ verb: "create", name: "a", sizeBytes: 16 * testingBlockSizeBytes });
  const attached = pool.attach("a");
  attached.write(0, new Uint8Array(testingBlockSizeBytes).fill(1));
  data.slows = "read";
  // What both are told, in its order.
  const received: ClientMessage[] = [];
  const [greedy, modest] = ["greedy", "modest"].map((name) => {
    const client = pool.kernel.spawn<ClientMessage>(name, 65536, () => ({
      receive: (message) => void received.push(message),
    }));
    return new TestingVolume(pool, attached.address, attached.uid, client, received);
  });
  return { pool, data, greedy: greedy!, modest: modest!, received };
}

Deno.test("a client that fills its volume's admission delays another client's request by one bio", () => {
  const { pool, data, greedy, modest } = twoClients();
  for (let at = 0; at < defaultKnobs.biosPerVolumeMax + 100; at += 1) greedy.submit("read", 512, 512);
  const request = modest.submit("read", 0, 512);
  pool.drain();
  assertEquals([data.pendingCount, modest.isDone(request)], [defaultKnobs.biosPerVolumeMax, false]);
  data.finish(2);
  pool.drain();
  data.finishLast();
  data.finishLast();
  pool.drain();
  assertEquals(modest.isDone(request), true);
  data.finish(defaultKnobs.biosPerVolumeMax);
  pool.drain();
  assertEquals(data.pendingCount < 100, true);
  data.finish();
  pool.drain();
});

Deno.test("a client that asks for much block status delays another client's question by a few at most", () => {
  const { pool, greedy, modest, received } = twoClients();
  const source = { kind: "allocation" } as const;
  for (let at = 0; at < 100; at += 1) greedy.askStatus(source, 0, 4096);
  const question = modest.askStatus(source, 0, 4096);
  pool.drain();
  const before = received.findIndex((message) =>
    message.type === "statusDone" && message.request === question
  );
  assertEquals(
    [received.length, before >= 0 && before <= 2 * defaultKnobs.statusPerVolumeMax],
    [101, true],
    `${before} came before`,
  );
});
