/**
 * `rescan` and `--auto-grow` on block devices: files that grow as a block device does, which only its owner makes larger. The
 * calls by which a kernel tells the size of a real one are not tried here.
 */
import { assertEquals } from "@std/assert";
import { assert } from "../../storage/base/assert.ts";
import { thinId } from "../../storage/base/ids.ts";
import type { AdminResult } from "../control/admin_command.ts";
import type { AutoGrowRule } from "../control/auto_grow.ts";
import { keepsIntents, leaveIntents, leftInserts } from "../../tests/support/left_intents.ts";
import { deviceKinds } from "./device_kinds.ts";
import { growLater } from "./file_growth.ts";
import { openLibc } from "./libc.ts";
import { makePool } from "./make_pool.ts";
import type { DeviceKinds, OpenDevice } from "./open_device.ts";
import { PoolProcess } from "./pool_process.ts";
import fs from "node:fs";

const MiB = 1 << 20;

/** A file as a block device: its size is what it was at the opening, or at the last growth. */
function asBlockDevice(path: string, device: OpenDevice): OpenDevice {
  const fd = fs.openSync(path, "r+");
  let { sizeBytes } = device;
  return {
    path: device.path,
    get sizeBytes() {
      return sizeBytes;
    },
    local: device.local,
    cached: device.cached,
    read: (target, offsetBytes, done) => device.read(target, offsetBytes, done),
    write: (buffer, offsetBytes, done) => device.write(buffer, offsetBytes, done),
    zero: (offsetBytes, lengthBytes, done) => device.zero(offsetBytes, lengthBytes, done),
    copy: (fromBytes, toBytes, lengthBytes, done) => device.copy(fromBytes, toBytes, lengthBytes, done),
    flush: (done, isAlone) => device.flush(done, isAlone),
    grow: (wantedBytes, isStored, done) => {
      const measured = { path: `/proc/self/fd/${fd}`, fd, isBlockDevice: true, libc: openLibc() };
      growLater(measured, wantedBytes, isStored, (grown) => {
        if (grown.result.kind === "ok") sizeBytes = Math.max(sizeBytes, grown.sizeBytes);
        done(grown.result);
      });
      return "pending";
    },
    idle: () => device.idle(),
    close: () => {
      fs.closeSync(fd);
      device.close();
    },
  };
}

const kinds: DeviceKinds = {
  kindOf: (path) => {
    const kind = deviceKinds.kindOf(path);
    return {
      requireAccess: (path, isExclusive) => kind.requireAccess(path, isExclusive),
      deviceKeyOf: (path) => kind.deviceKeyOf(path),
      lock: (path, isExclusive) => kind.lock(path, isExclusive),
      open: (path, use) => asBlockDevice(path, kind.open(path, use)),
    };
  },
};

/** Sizes before and after, as `grow` and `rescan` answer them, in MiB. */
function sizesOf(result: AdminResult): number[] {
  assert(result.kind === "grown", "the pool was grown");
  const { before, sizes } = result;
  return [before, sizes].flatMap((at) => [at.data_total_bytes / MiB, at.metadata_total_bytes / MiB]);
}

/** Bytes of the data that the pool uses, in MiB. `status` measures, so what grows by itself then may. */
async function dataMiB(pool: PoolProcess): Promise<number> {
  const result = await pool.command({ verb: "status" });
  assert(result.kind === "status", "a pool can be looked at");
  return result.status.data_total_bytes / MiB;
}

Deno.test({
  name: "on block devices grow and auto-grow use what is there, ask for more, and rescan takes it",
  ignore: !keepsIntents,
  fn: async () => {
    const directory = Deno.makeTempDirSync({ prefix: "gossamer-block-" });
    try {
      await makePool({
        directory,
        blockSizeBytes: 1 << 16,
        dataSizeBytes: 8 * MiB,
        metadataSizeBytes: 2 * MiB,
      });
      const made = await PoolProcess.open(directory);
      await made.command({ verb: "create", name: "v", sizeBytes: 64 * MiB });
      await made.close();
      // 7 MiB of 8 are used.
      await leaveIntents(directory, leftInserts(thinId(1), 112));
      const data = `${directory}/data.img`;
      Deno.truncateSync(data, 10 * MiB);

      const logged: string[] = [];
      const rule: AutoGrowRule = { device: "data", atPercent: 60, stepBytes: 2 * MiB, maxBytes: 64 * MiB };
      const pool = await PoolProcess.open(directory, {
        log: (sentence) => void logged.push(sentence),
        guard: { warnAtPercents: [], autoGrow: [rule] },
      }, kinds);
      // It grows by itself to the end of the device, and not beyond.
      for (
        let tries = 0;
        tries < 100 && !logged.some((text) => text.includes("make it larger first"));
        tries += 1
      ) {
        await dataMiB(pool);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assertEquals(await dataMiB(pool), 10);
      assertEquals(logged.filter((text) => text.includes("by itself")), [
        "The pool's data has grown by itself: 8 MiB -> 10 MiB.",
        "The pool's data is nearly full and does not grow by itself: The pool was not grown: the data could not be made " +
        "larger: the block device has 10485760 bytes, and 12582912 were wanted; make it larger first.",
      ]);
      // Its owner makes both devices larger, below the pool.
      Deno.truncateSync(data, 32 * MiB);
      Deno.truncateSync(`${directory}/metadata.img`, 3 * MiB);
      assertEquals(sizesOf(await pool.command({ verb: "rescan" })), [10, 2, 32, 3]);
      assertEquals(sizesOf(await pool.command({ verb: "rescan" })), [32, 3, 32, 3]);
      await pool.close();
      const later = await PoolProcess.open(directory, {}, kinds);
      assertEquals([await dataMiB(later), await later.command({ verb: "check" })], [
        32,
        { kind: "checked", problems: [], notes: [], waiting: 0 },
      ]);
      await later.close();
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  },
});
