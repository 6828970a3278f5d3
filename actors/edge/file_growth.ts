/**
 * Making a file larger that is a device in use, and asking a block device for its size anew.
 *
 * Steps: 1. the file gets the new length; with `isStored`, the host stores all of it. 2. The file is flushed. Only after that
 * may a superblock count on the new size. If we stop after step 1, the next start finds the old length or the new one; the
 * superblock has the old size, so both are right, and the next growth uses what is there. A growth that the host refuses
 * cuts the file back, so that its space is free again: nothing was written beyond the old end.
 */
import fs from "node:fs";
import { ioOk, type IoResult } from "../../storage/device/port.ts";
import { filePieceBytes } from "../limits.ts";
import { failureOf, failureOfErrno } from "./file_errors.ts";
import { measure } from "./file_handles.ts";
import { errno, type Libc } from "./libc.ts";
import { flushed } from "./sync_later.ts";
import { aTurn } from "./turns.ts";

/** The file or block device that grows. Its descriptor stays open until the growth has ended. */
export interface GrowingFile {
  readonly path: string;
  readonly fd: number;
  readonly isBlockDevice: boolean;
  readonly libc: Libc | undefined;
}

/** How a growth has ended, and what the device has then. */
export interface FileGrown {
  readonly result: IoResult;
  readonly sizeBytes: number;
}

/** Grows a file to `wantedBytes` at least. A block device has to be that large already. */
export async function growFile(
  file: GrowingFile,
  wantedBytes: number,
  isStored: boolean,
): Promise<FileGrown> {
  let presentBytes = 0;
  try {
    presentBytes = sizeOf(file);
    if (file.isBlockDevice) {
      return { result: largeEnough(presentBytes, wantedBytes), sizeBytes: presentBytes };
    }
    const sizeBytes = Math.max(presentBytes, wantedBytes);
    const result = await lengthenDurably(file, presentBytes, sizeBytes, isStored);
    if (result.kind === "ok") return { result, sizeBytes };
    fs.ftruncateSync(file.fd, presentBytes);
    return { result, sizeBytes: presentBytes };
  } catch (error) {
    return { result: failureOf(error, growing), sizeBytes: presentBytes };
  }
}

/** {@linkcode growFile} for a caller without promises: `ended` is called once, later. */
export function growLater(
  file: GrowingFile,
  wantedBytes: number,
  isStored: boolean,
  ended: (grown: FileGrown) => void,
): void {
  growFile(file, wantedBytes, isStored).then(
    ended,
    (error) => ended({ result: failureOf(error, growing), sizeBytes: 0 }),
  );
}

const growing = "making the file larger";

async function lengthenDurably(
  file: GrowingFile,
  presentBytes: number,
  sizeBytes: number,
  isStored: boolean,
): Promise<IoResult> {
  try {
    const lengthened = await lengthen(file, presentBytes, sizeBytes, isStored);
    return lengthened.kind === "ok" ? await flushed(file.fd, "flush of the larger file") : lengthened;
  } catch (error) {
    // What is thrown by a call of the host is its answer.
    return failureOf(error, growing);
  }
}

function sizeOf({ path, fd, isBlockDevice }: GrowingFile): number {
  return isBlockDevice ? measure(path).sizeBytes : fs.fstatSync(fd).size;
}

function largeEnough(presentBytes: number, wantedBytes: number): IoResult {
  if (presentBytes >= wantedBytes) return ioOk;
  return {
    kind: "ioError",
    reason:
      `the block device has ${presentBytes} bytes, and ${wantedBytes} were wanted; make it larger first`,
  };
}

async function lengthen(
  { fd, libc }: GrowingFile,
  presentBytes: number,
  sizeBytes: number,
  isStored: boolean,
): Promise<IoResult> {
  if (isStored) {
    const failure = await allocated(fd, sizeBytes, libc);
    if (failure === 0) return ioOk;
    // The host cannot set space aside, or cannot be asked: what is written is stored as well.
    if (failure === errno.notSupported) return await writeZeroes(fd, presentBytes, sizeBytes);
    return failureOfErrno(failure, growing);
  }
  if (sizeBytes > presentBytes) fs.ftruncateSync(fd, sizeBytes);
  return ioOk;
}

/** All of the file, since what was there may have holes: 0 or the errno. */
function allocated(fd: number, sizeBytes: number, libc: Libc | undefined): Promise<number> {
  if (libc === undefined) return Promise.resolve(errno.notSupported);
  return new Promise((resolve) => libc.allocateLater(fd, 0, sizeBytes, resolve));
}

/** On this thread, a piece in each turn of the event loop. */
async function writeZeroes(fd: number, beginBytes: number, endBytes: number): Promise<IoResult> {
  const zeroes = new Uint8Array(filePieceBytes);
  for (let at = beginBytes; at < endBytes;) {
    at += fs.writeSync(fd, zeroes, 0, Math.min(zeroes.length, endBytes - at), at);
    await aTurn();
  }
  return ioOk;
}
