/** The boundary again (boundary_test.ts), for what is stored: the host fails each of its calls in turn. */
import fs from "node:fs";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { CatalogueFile } from "../../actors/edge/catalogue_file.ts";
import { FileDevice } from "../../actors/edge/file_device.ts";
import { type Libc, openLibc } from "../../actors/edge/libc.ts";
import { poolPaths } from "../../actors/edge/pool_paths.ts";
import { ioOk, type IoResult } from "../../storage/device/port.ts";
import { useDevice } from "./outside.ts";
import { atEveryCall, type Faults } from "../support/faults.ts";

// Once for the whole process, so that no test is the one that has loaded it.
openLibc();

/** The functions of node:fs that a device and the catalogue call while they serve. */
const fsCalls = [
  "readSync",
  "writeSync",
  "fdatasync",
  "fdatasyncSync",
  "ftruncateSync",
  "fstatSync",
  "openSync",
  "closeSync",
  "linkSync",
  "renameSync",
  "rmSync",
] as const;

/** Has the host fail for as long as `run` takes. */
async function withFaultyHost(faults: Faults, run: () => Promise<void>): Promise<void> {
  const calls = fs as unknown as Record<string, (...args: unknown[]) => unknown>;
  const real = fsCalls.map((name) => [name, calls[name]!] as const);
  for (const [name, call] of real) calls[name] = (...args) => faults.call(() => call(...args));
  try {
    await run();
  } finally {
    for (const [name, call] of real) calls[name] = call;
  }
}

/** A C library whose every call may fail, as far as a device asks it. */
const fakeLibc = {
  punchHole: () => 0,
  punchHoleLater: (_fd: number, _offset: number, _length: number, done: (errno: number) => void) => {
    queueMicrotask(() => done(0));
  },
  allocate: () => 0,
  startWriteBack: () => {},
  seekData: (_fd: number, offsetBytes: number) => offsetBytes,
} as unknown as Libc;

Deno.test("a file device answers everything, at whichever call the host fails", async () => {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-boundary-" });
  try {
    const path = `${folder}/device`;
    await Deno.writeFile(path, new Uint8Array(1 << 20));
    for (const libc of [undefined, fakeLibc]) {
      const runs = await atEveryCall(["throws"], async (faults, what) => {
        const device = FileDevice.open(path, {
          libc: libc && faults.of(libc, ["seekData", "startWriteBack"]),
        });
        await withFaultyHost(faults, async () => {
          const answers = await useDevice(device);
          assertEquals(answers.length, 7, what);
        });
        await device.idle();
        device.close();
      });
      assert(runs > 8);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** One operation of the catalogue's file. */
function answered(operation: (done: (result: IoResult) => void) => void): Promise<IoResult> {
  return new Promise((resolve) => operation(resolve));
}

Deno.test("the catalogue's file answers everything, and takes no line it could lose, at whichever call the host fails", async () => {
  const room = { contentBytes: 100, usesHeadroom: false };
  const runs = await atEveryCall(["throws"], async (faults, what) => {
    const directory = await Deno.makeTempDir({ prefix: "gossamer-boundary-" });
    const paths = poolPaths(directory);
    await Deno.writeTextFile(paths.catalogue, "a line\n");
    const file = new CatalogueFile(paths);
    file.startAt(7, false);
    assert(file.setAside(room.contentBytes));
    const before = fs.statSync(paths.catalogue).ino;
    let last: IoResult = ioOk;
    let swapped: IoResult = ioOk;
    await withFaultyHost(faults, async () => {
      const appended = await answered((done) => file.append("one\n", room, done));
      if (appended.kind === "ok") await answered((done) => file.retract(done));
      const written = await answered((done) => file.rewrite("anew\n", true, done));
      if (written.kind === "ok") {
        swapped = await answered((done) => file.finishRewrite(room.contentBytes, done));
      }
      last = await answered((done) => file.append("two\n", room, done));
    });
    if (swapped.kind !== "ok" && fs.statSync(paths.catalogue).ino !== before) {
      assert(last.kind !== "ok", `${what}: a line was taken by a file whose name may be lost`);
    }
    if (last.kind === "ok") assertStringIncludes(Deno.readTextFileSync(paths.catalogue), "two\n", what);
    file.close();
    await Deno.remove(directory, { recursive: true });
  });
  assert(runs > 20);
});
