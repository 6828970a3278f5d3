/**
 * The kinds of device that a pool can have. A new kind is one more entry of the table, and one more case of
 * {@linkcode deviceKinds}. Nothing else in the opening and serving of a pool knows what its devices are. Making a pool does:
 * it makes files itself (pool_files_init.ts).
 */
import fs from "node:fs";
import { FileDevice } from "./file_device.ts";
import { openLocked } from "./file_lock.ts";
import type { DeviceKind, DeviceKinds } from "./open_device.ts";
import { requirePermission } from "./permissions.ts";

/** The name of a kind. */
export type DeviceKindName = "file";

const kinds: Readonly<Record<DeviceKindName, DeviceKind>> = {
  /** A file or a block device of this host. */
  file: {
    requireAccess: (path, isExclusive) => {
      requirePermission("read", path);
      if (isExclusive) requirePermission("write", path);
    },
    deviceKeyOf: (path) => {
      const info = fs.statSync(path, { throwIfNoEntry: false });
      return info === undefined ? undefined : `${info.dev} ${info.ino}`;
    },
    lock: (path, isExclusive) =>
      openLocked(
        path,
        isExclusive,
        `Cannot open "${path}": another pool, or another program, has it locked. Stop that one first.`,
      ),
    open: (path, { role, readOnly, isMaking, libc, calm, calls }) =>
      FileDevice.open(path, {
        readOnly,
        libc,
        calm,
        calls,
        readsColdBeside: true,
        writesBeside: !isMaking,
        waitsForShortFlushes: role === "data",
        givesSegments: role === "data",
      }),
  },
};

/** The kinds of a pool's settings (FORMAT.md): there every device is named by a path, so each is a file. */
export const deviceKinds: DeviceKinds = { kindOf: () => kinds.file };
