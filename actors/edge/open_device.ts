/** What opening, closing and locking a pool needs of a device, beside what its actors need (storage/device/port.ts). */
import type { DevicePort } from "../../storage/device/port.ts";
import type { FileCalls } from "./file_calls.ts";
import type { DiskCalm } from "./disk_calm.ts";
import type { Libc } from "./libc.ts";

/** An open device of a pool. */
export interface OpenDevice extends DevicePort {
  /** As the settings name it, for sentences. */
  readonly path: string;
  /** The same device, if this host keeps pages of it in memory; otherwise undefined. */
  readonly cached: HostCached | undefined;
  /** Resolves when nothing that was asked of the device is under way. */
  idle(): Promise<void>;
  /** Closes it once what is pending has answered; nothing may be asked of the device after. */
  close(): void;
}

/** A device of which this host keeps pages in memory, which may differ from what its disk has (disk_state.ts). */
export interface HostCached extends Pick<OpenDevice, "path" | "sizeBytes" | "read" | "flush"> {
  /**
   * Has the host drop its clean pages. Answers how many stayed, undefined if that is not known. Nothing may be under way.
   */
  letGo(): Promise<number | undefined>;
  /** The first bytes as the disk has them; undefined where they cannot be read past the page cache. */
  readPastCache(lengthBytes: number): Uint8Array | undefined;
  /** Whether it was closed with {@linkcode noteFlushed} and has not been written since. */
  readonly isNotedFlushed: boolean;
  /** To be called after a flush of all writes: the next start then keeps the page cache. */
  noteFlushed(): void;
}

/** What a device is opened for. */
export interface DeviceUse {
  readonly role: "metadata" | "data";
  /** No byte of it is written. */
  readonly readOnly: boolean;
  /** A pool is being made: no client waits, so a write may wait for the disk on this thread. */
  readonly isMaking: boolean;
  readonly libc: Libc | undefined;
  /** Whether the disks are calm: one for both devices of a pool, as they may lie on one disk. */
  readonly calm: DiskCalm;
  /** What makes the calls that wait for the disk; undefined: threads. */
  readonly calls?: FileCalls | undefined;
}

/** A lock that keeps other processes out until it is disposed of. */
export interface HeldLock extends Disposable {
  /** The open file that has the lock; undefined where that is not known. */
  readonly fd?: number | undefined;
}

/** One kind of device. Every function throws {@linkcode UserError}, with nothing left open. */
export interface DeviceKind {
  /** Refuses what Deno would ask the user about. */
  requireAccess(path: string, isExclusive: boolean): void;
  /** A text that is the same for all paths of one device; undefined if there is no device at this path. */
  deviceKeyOf(path: string): string | undefined;
  /** Keeps other processes out until it is disposed; a shared lock if it is not exclusive. */
  lock(path: string, isExclusive: boolean): HeldLock;
  open(path: string, use: DeviceUse): OpenDevice;
}

/** Finds the kind of each device that the settings of a pool name. */
export interface DeviceKinds {
  kindOf(path: string): DeviceKind;
}
