/** A pool whose start is refused: its files are closed, and nothing is asked of them any more. */
import { assertEquals, assertRejects } from "@std/assert";
import { UserError } from "../../storage/base/errors.ts";
import type { IoDone, IoResult } from "../../storage/device/port.ts";
import { deviceKinds } from "./device_kinds.ts";
import { makePool } from "./make_pool.ts";
import type { DeviceKinds, OpenDevice } from "./open_device.ts";
import { PoolProcess } from "./pool_process.ts";

const MiB = 1 << 20;
const broken: IoResult = { kind: "ioError", reason: "a fault of the test" };

/** Devices that note what changes them, write nothing, and answer in a later turn of the event loop. */
class Watched {
  readonly asked: string[] = [];
  #isClosed = false;

  /** Each flush of the data fails. */
  kinds(): DeviceKinds {
    return {
      kindOf: (path) => {
        const kind = deviceKinds.kindOf(path);
        return {
          requireAccess: (path, isExclusive) => kind.requireAccess(path, isExclusive),
          deviceKeyOf: (path) => kind.deviceKeyOf(path),
          lock: (path, isExclusive) => kind.lock(path, isExclusive),
          open: (path, use) => this.#watch(kind.open(path, use), use.role),
        };
      },
    };
  }

  #watch(device: OpenDevice, role: string): OpenDevice {
    const later = (operation: string, done: IoDone, result?: IoResult) => {
      this.asked.push(`${operation} ${role}${this.#isClosed ? " when closed" : ""}`);
      setTimeout(() => done(result ?? { kind: "ok" }), 5);
      return "pending" as const;
    };
    return {
      path: device.path,
      sizeBytes: device.sizeBytes,
      local: device.local,
      cached: device.cached,
      read: (target, offsetBytes, done) => device.read(target, offsetBytes, done),
      write: (_buffer, _offsetBytes, done) => later("write", done),
      zero: (_offsetBytes, _lengthBytes, done) => later("zero", done),
      copy: (_from, _to, _lengthBytes, done) => later("copy", done),
      flush: (done) => later("flush", done, role === "data" ? broken : undefined),
      idle: () => device.idle(),
      close: () => {
        this.#isClosed = true;
        device.close();
      },
    };
  }
}

Deno.test({
  name: "a pool whose start is refused asks nothing of the files that it has closed",
  // The C library stays open.
  sanitizeResources: false,
  fn: async () => {
    const folder = Deno.makeTempDirSync({ prefix: "gossamer-refused-" });
    try {
      // A pool whose metadata has a thin device that its catalogue does not know: the start has something to commit.
      const [directory, other] = [`${folder}/pool`, `${folder}/other`];
      const sizes = { blockSizeBytes: 1 << 16, dataSizeBytes: 8 * MiB, metadataSizeBytes: 2 * MiB };
      await makePool({ directory, ...sizes });
      await makePool({ directory: other, ...sizes });
      const made = await PoolProcess.open(other);
      await made.command({ verb: "create", name: "a", sizeBytes: MiB });
      await made.command({ verb: "create", name: "b", sizeBytes: MiB });
      await made.close();
      // As many transactions, without the devices.
      const same = await PoolProcess.open(directory);
      await same.command({ verb: "create", name: "a", sizeBytes: MiB });
      await same.command({ verb: "rename", from: "a", to: "b" });
      await same.close();
      Deno.copyFileSync(`${other}/metadata.img`, `${directory}/metadata.img`);
      const watched = new Watched();
      await assertRejects(
        () => PoolProcess.open(directory, {}, watched.kinds()),
        UserError,
        "the pool has failed",
      );
      await new Promise((resolve) => setTimeout(resolve, 30));
      // The write of needs_check is under way when the start is refused: its flush would be the next.
      assertEquals(watched.asked.at(-1), "write metadata");
      assertEquals(watched.asked.filter((asked) => asked.endsWith("when closed")), []);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  },
});
