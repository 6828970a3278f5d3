/** A disk stops for seconds, or fails: the clients that need it wait or are told, and no other is. */
import { assert, assertEquals } from "@std/assert";
import { FileDevice } from "../../actors/edge/file_device.ts";
import { openLibc } from "../../actors/edge/libc.ts";
import { ioOk, type IoResult, readInto } from "../../storage/device/port.ts";
import { FaultyDisk, hasFaultyDisk } from "../support/faulty_disk.ts";
import { hasPythonNbd, python } from "../support/programs.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";

interface Measured {
  readonly slowMs: number;
  readonly reads: number;
  readonly p999Ms: number;
  readonly maxMs: number;
}

// Once for the process, and never closed.
openLibc();

const stallMs = 1500;
const program = new URL("stalled_client.py", import.meta.url).pathname;

/** Makes two volumes with a block each on a disk, has the disk stop for a write, and measures reads beside it. */
async function measureReads(): Promise<Measured> {
  await using disk = await FaultyDisk.mount("written-through", `data.img=${64 << 20}`);
  await using pool = await PoolOnDisk.make("--metadata-size=4M", `--data=${disk.folder}/data.img`);
  for (const name of ["slow", "quick"]) await pool.verb("create", name, "1M");
  const server = await pool.serve();
  const client = async (what: "write" | "warm") =>
    JSON.parse(await runToEnd(python, [program, server.socket, "slow", "quick", what])) as Measured;
  // Both have their blocks then.
  await client("warm");
  await disk.tell(`delay write ${stallMs}`);
  const measured = await client("write");
  await disk.tell("heal");
  await server.stop();
  console.log(`beside a write of ${stallMs} ms: ${JSON.stringify(measured)}`);
  return measured;
}

const ignore = !hasFaultyDisk() || !hasPythonNbd();

Deno.test({
  name: "a write that the disk takes a second and a half for delays no reads of another client",
  ignore,
  fn: async () => {
    const { slowMs, maxMs } = await measureReads();
    assert(slowMs >= stallMs && maxMs < stallMs / 3, `reads took up to ${maxMs} ms`);
  },
});

Deno.test({
  name: "a flush that was expected to be short and is not is not waited for",
  ignore: !hasFaultyDisk(),
  fn: async () => {
    await using disk = await FaultyDisk.mount(`data.img=${1 << 20}`);
    const device = FileDevice.open(`${disk.folder}/data.img`, {
      libc: openLibc(),
      waitsForShortFlushes: true,
    });
    const flush = async () => {
      device.write(new Uint8Array(4096), 0);
      const beginMs = performance.now();
      const { promise, resolve } = Promise.withResolvers<IoResult>();
      const result = device.flush(resolve, true);
      const delayMs = performance.now() - beginMs;
      assertEquals(result === "pending" ? await promise : result, ioOk);
      return delayMs;
    };
    for (let round = 0; round < 30; round += 1) await flush();
    await disk.tell("delay fsync 500");
    const delayMs = await flush();
    device.close();
    assert(delayMs < 250, `this thread was delayed for ${delayMs} ms`);
  },
});

Deno.test({
  name: "a read that the disk fails after a second is not waited for, and its reason is told",
  ignore: !hasFaultyDisk(),
  fn: async () => {
    await using disk = await FaultyDisk.mount(`data.img=${1 << 20}`);
    const device = FileDevice.open(`${disk.folder}/data.img`, { libc: openLibc(), readsColdBeside: true });
    await disk.tell(`fail read data.img ${1 << 19} ${1 << 20}`);
    await disk.tell("delay read 1000");
    const { promise, resolve } = Promise.withResolvers<IoResult>();
    const begunMs = performance.now();
    assertEquals(readInto(device, new Uint8Array(4096), 3 << 18, resolve), "pending");
    let longestMs = performance.now() - begunMs;
    let turnMs = performance.now();
    const turns = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - turnMs);
      turnMs = performance.now();
    }, 10);
    const result = await promise;
    longestMs = Math.max(longestMs, performance.now() - turnMs);
    clearInterval(turns);
    device.close();
    assert(longestMs < 500, `this thread was delayed for ${longestMs} ms`);
    assertEquals(result, { kind: "ioError", reason: "read: Input/output error (os error 5)" });
  },
});

Deno.test({
  name: "a device that begins with a bad sector opens, and fails only what lies there",
  ignore: !hasFaultyDisk(),
  fn: async () => {
    await using disk = await FaultyDisk.mount(`data.img=${4 << 20}`);
    const path = `${disk.folder}/data.img`;
    await disk.tell("fail read data.img 0 4096");
    const device = FileDevice.open(path, { libc: openLibc(), readsColdBeside: true });
    const read = async (offsetBytes: number) => {
      const { promise, resolve } = Promise.withResolvers<IoResult>();
      const result = readInto(device, new Uint8Array(4096), offsetBytes, resolve);
      return (result === "pending" ? await promise : result).kind;
    };
    assertEquals([await read(0), await read(1 << 20)], ["ioError", "ok"]);
    device.close();
  },
});
