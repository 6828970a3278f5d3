import fs from "node:fs";
import { assert, assertEquals } from "@std/assert";
import { ringEntries } from "../../limits.ts";
import { addressOf } from "../memory_address.ts";
import { operation, syncData, Uring } from "./uring.ts";

const opened = Uring.open();
const ignore = typeof opened === "string";
if (typeof opened !== "string") opened.close();

/** A ring, and a file of a test. */
async function withRing(use: (ring: Uring, fd: number) => void): Promise<void> {
  const path = await Deno.makeTempFile();
  const fd = fs.openSync(path, "r+");
  const ring = Uring.open();
  if (typeof ring === "string") throw new Error(ring);
  try {
    use(ring, fd);
  } finally {
    ring.close();
    fs.closeSync(fd);
    await Deno.remove(path);
  }
}

/** Waits until so many completions were reaped. */
function reapAll(ring: Uring, isOver: () => boolean): void {
  while (!isOver()) {
    ring.enter(1000);
    ring.reap();
  }
}

/** Has the ring write or read a buffer at an offset. */
function transfer(
  ring: Uring,
  fd: number,
  kind: "read" | "write",
  buffer: Uint8Array,
  offset: number,
  done: (result: number) => void,
): void {
  const { length: lengthBytes } = buffer;
  ring.push(
    { operation: operation[kind], fd, address: addressOf(buffer), lengthBytes, offset },
    done,
    buffer,
  );
}

Deno.test({
  name: "what the ring writes it reads, beyond 4 GiB too, and fdatasync answers 0",
  ignore,
  fn: () =>
    withRing((ring, fd) => {
      const offset = 5 * 2 ** 30 + 512;
      const results: number[] = [];
      transfer(ring, fd, "write", Uint8Array.of(1, 2, 3), offset, (result) => results.push(result));
      reapAll(ring, () => results.length === 1);
      const found = new Uint8Array(4);
      transfer(ring, fd, "read", found, offset, (result) => results.push(result));
      ring.push({ operation: operation.fsync, fd, flags: syncData }, (result) => results.push(result));
      reapAll(ring, () => results.length === 3);
      assertEquals(results.toSorted(), [0, 3, 3]);
      assertEquals([...found], [1, 2, 3, 0]);
    }),
});

Deno.test({
  name: "more operations than the queue has places are handed over and told of once each",
  ignore,
  fn: () =>
    withRing((ring, fd) => {
      const told = new Set<number>();
      const count = 3 * ringEntries + 7;
      for (let index = 0; index < count; index += 1) {
        transfer(ring, fd, "read", new Uint8Array(1), 0, () => told.add(index));
      }
      reapAll(ring, () => told.size === count);
    }),
});

Deno.test({
  name: "an operation that fails answers its errno negated",
  ignore,
  fn: () =>
    withRing((ring) => {
      let status = 0;
      transfer(ring, 1 << 20, "read", new Uint8Array(1), 0, (result) => status = result);
      reapAll(ring, () => status !== 0);
      assertEquals(status, -9);
    }),
});

Deno.test({
  name: "an operation that waits is cancelled, and a wait without completions ends in time",
  ignore,
  fn: () =>
    withRing((ring) => {
      const time = BigInt64Array.of(3600n, 0n);
      const address = addressOf(new Uint8Array(time.buffer));
      let status = 0;
      const waiting = { operation: operation.timeout, fd: -1, address, lengthBytes: 1 };
      const slot = ring.push(waiting, (result) => status = result, time);
      const beginMs = performance.now();
      ring.enter(5);
      assert(performance.now() - beginMs >= 4);
      assertEquals([ring.hasCompletions, status], [false, 0]);
      ring.cancel(slot);
      reapAll(ring, () => status !== 0);
      assertEquals(status, -125);
      reapAll(ring, () => !ring.hasCompletions);
    }),
});
