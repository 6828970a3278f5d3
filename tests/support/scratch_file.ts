/** For tests of file devices: a file of their own, and what is in it. */
import { assert, assertEquals } from "@std/assert";
import { type DevicePort, ioOk, type IoResult, readInto } from "../../storage/device/port.ts";
import { openLibc } from "../../actors/edge/libc.ts";

export const libc = openLibc();
export const ignoreLibc = libc === undefined;
export const mib = 1 << 20;

interface Scratch {
  readonly directory: string;
  readonly path: string;
  [Symbol.dispose](): void;
}

/** A sparse file of `sizeBytes`, removed with its directory. */
export function scratchFile(sizeBytes: number): Scratch {
  const directory = Deno.makeTempDirSync({ prefix: "gossamer-test-" });
  const path = `${directory}/data.img`;
  using file = Deno.openSync(path, { createNew: true, write: true });
  file.truncateSync(sizeBytes);
  return {
    directory,
    path,
    [Symbol.dispose]: () => Deno.removeSync(directory, { recursive: true }),
  };
}

/** The result of an operation, whenever it comes; fails if `done` is called from inside the call. */
export function resultOf(
  start: (done: (result: IoResult) => void) => IoResult | "pending",
): Promise<IoResult> {
  const { promise, resolve } = Promise.withResolvers<IoResult>();
  let isInside = true;
  const result = start((later) => {
    assert(!isInside, "done was called from inside the call");
    resolve(later);
  });
  isInside = false;
  if (result !== "pending") resolve(result);
  return promise;
}

/** What a device has there. */
export function bytesAt(device: DevicePort, offsetBytes: number, lengthBytes: number): Uint8Array {
  const buffer = new Uint8Array(lengthBytes).fill(0xee);
  assertEquals(readInto(device, buffer, offsetBytes, () => {}), ioOk);
  return buffer;
}

export const allocatedBytes = (path: string) => (Deno.statSync(path).blocks ?? 0) * 512;
export const filled = (lengthBytes: number, value: number) => new Uint8Array(lengthBytes).fill(value);
