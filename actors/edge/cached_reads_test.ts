import { assertEquals } from "@std/assert";
import fs from "node:fs";
import { programPath, requiredProgram } from "../../tests/support/programs.ts";
import { CachedReads } from "./cached_reads.ts";
import { FileDevice } from "./file_device.ts";
import { readInto } from "../../storage/device/port.ts";

/** A file whose content the host has on its disk only; undefined where that cannot be had, or told. */
function coldFile(): { readonly directory: string; readonly path: string } | undefined {
  const directory = Deno.makeTempDirSync({ prefix: "gossamer-test-" });
  const path = `${directory}/data.img`;
  Deno.writeFileSync(path, new Uint8Array(1 << 20).fill(7, 0, 3 << 18));
  const fd = fs.openSync(path, "r");
  const canTell = CachedReads.of(fd) !== undefined;
  fs.closeSync(fd);
  const drop = [`of=${path}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"];
  new Deno.Command(requiredProgram("dd"), { args: drop, stderr: "null" }).outputSync();
  if (canTell) return { directory, path };
  Deno.removeSync(directory, { recursive: true });
  return undefined;
}

const cold = programPath("dd") === undefined ? undefined : coldFile();

Deno.test({
  name: "what the host has not in its page cache is read on another thread, and then at once",
  ignore: cold === undefined,
  fn: async () => {
    const device = FileDevice.open(cold!.path, { readsColdBeside: true });
    const buffer = new Uint8Array(4096);
    const later = Promise.withResolvers<unknown>();
    assertEquals(readInto(device, buffer, 1 << 19, later.resolve), "pending");
    assertEquals(await later.promise, { kind: "ok" });
    assertEquals(buffer, new Uint8Array(4096).fill(7));
    assertEquals(readInto(device, buffer.fill(0), 1 << 19, later.resolve), { kind: "ok" });
    assertEquals(buffer, new Uint8Array(4096).fill(7));
    const copied = Promise.withResolvers<unknown>();
    // Not from the beginning: when the file was opened its first byte was read, and the host reads ahead.
    assertEquals(device.copy(1 << 18, 3 << 18, 1 << 16, copied.resolve), "pending");
    device.close();
    assertEquals(await copied.promise, { kind: "ok" });
    assertEquals(
      Deno.readFileSync(cold!.path).subarray(3 << 18, (3 << 18) + (1 << 16)),
      new Uint8Array(1 << 16).fill(7),
    );
    Deno.removeSync(cold!.directory, { recursive: true });
  },
});
