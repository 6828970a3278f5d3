/**
 * The files of an existing pool directory: locks, devices, catalogue. Making one is pool_files_init.ts.
 *
 * A pool directory holds `catalog.json` and, unless they are elsewhere, `metadata.img` and `data.img`. Only the catalogue
 * makes it a pool: it appears last, by a rename, so a half-made pool is never taken for one.
 */
import fs from "node:fs";
import { type Catalogue, type PoolSettings } from "../../storage/catalogue.ts";
import { UserError } from "../../storage/base/errors.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { formatSize } from "../../storage/base/sizes.ts";
import { CatalogueFile } from "./catalogue_file.ts";
import { CatalogueCopies, type FoundCatalogue } from "./catalogue_copies.ts";
import { syncDirectoryOf } from "./durable_names.ts";
import { deviceKinds } from "./device_kinds.ts";
import { DiskCalm } from "./disk_calm.ts";
import { openFailure } from "./file_errors.ts";
import { openLocked } from "./file_lock.ts";
import type { Libc } from "./libc.ts";
import type { FileCalls } from "./file_calls.ts";
import type { DeviceKinds, DeviceUse, HeldLock, HostCached, OpenDevice } from "./open_device.ts";
import { requirePermission } from "./permissions.ts";
import { pathIn, type PoolPaths, poolPaths } from "./pool_paths.ts";

/** Names of the files that a pool has in its directory by default. */
export const defaultMetadataName = "metadata.img";
export const defaultDataName = "data.img";

/** True if the directory holds a finished pool; whether it can be opened is another question. */
export function isPool(directory: string): boolean {
  requirePermission("read", directory);
  return hasCatalogue(poolPaths(directory));
}

/** Whether there is a catalogue, or what is left of one that was lost. */
export function hasCatalogue(paths: PoolPaths): boolean {
  // The second copy appears after the first, so what is being made has none.
  return fs.existsSync(paths.catalogue) || fs.existsSync(paths.secondCatalogue);
}

/** How {@linkcode PoolFiles.open} opens. */
export interface OpenPoolOptions {
  /** Shared locks, and no byte is written to any file. Default false. */
  readonly readOnly?: boolean;
  readonly libc?: Libc | undefined;
  /** What makes the calls on the devices that wait for the disk; by default, threads. */
  readonly calls?: FileCalls | undefined;
}

/** The catalogue that holds, and what the user may want to know about how it was found. */
export interface SettledPool {
  readonly catalogue: Catalogue;
  /** Sentences for the log; usually none. */
  readonly notes: readonly string[];
}

/** The locked files of a pool. */
export class PoolFiles {
  readonly paths: PoolPaths;
  readonly settings: PoolSettings;
  readonly metadata: OpenDevice;
  readonly data: OpenDevice;
  /** Texts that are the same for all paths of one device; undefined if this host keeps no pages of one of them. */
  readonly identities: { readonly metadata: string; readonly data: string } | undefined;
  readonly readOnly: boolean;
  /** The open files that have the locks, where they are known. */
  readonly lockFds: readonly number[];
  readonly #copies: CatalogueCopies;
  #catalogueFile: CatalogueFile | undefined;
  readonly #held: DisposableStack;

  private constructor(parts: FileParts) {
    this.paths = parts.paths;
    this.settings = parts.copies.settings;
    this.metadata = parts.metadata;
    this.data = parts.data;
    this.readOnly = parts.readOnly;
    this.lockFds = parts.locks.flatMap(({ fd }) => fd ?? []);
    this.#copies = parts.copies;
    this.identities = parts.identities;
    this.#held = parts.held;
  }

  /**
   * Locks and opens a pool. Afterwards the caller reads the superblock, and calls {@linkcode settle} and {@linkcode requireSizes}
   * with what it says. Throws {@linkcode UserError}, with nothing left open.
   */
  static open(directory: string, options: OpenPoolOptions = {}, kinds = deviceKinds): PoolFiles {
    const readOnly = options.readOnly ?? false;
    const paths = poolPaths(directory);
    requirePermission("read", directory);
    if (!readOnly) requirePermission("write", directory);
    requirePool(paths);
    using held = new DisposableStack();
    const own = held.use(openLocked(directory, !readOnly, inUse(directory)));
    // Read under the lock: without it another process could change it.
    const copies = held.use(new CatalogueCopies(paths));
    const devices = devicePaths(directory, copies.settings, kinds);
    const locks = [own, ...lockDevices(held, devices, !readOnly)];
    const use = { readOnly, isMaking: false, libc: options.libc, calls: options.calls };
    const { metadata, data } = openDevices(held, devices, use);
    const identities = identitiesOf(devices, metadata, data);
    return new PoolFiles({ paths, copies, metadata, data, identities, readOnly, locks, held: held.move() });
  }

  /**
   * Decides which catalogue holds by the superblock's trans_id and, unless the pool is read-only, brings the file to that state.
   * Throws {@linkcode UserError} if the two do not belong together; nothing is written then.
   *
   * @param log hears later when there is no second copy of the catalogue any more
   * @param readOnly true if nothing may be written though the files were opened for that
   */
  settle(
    transactionId: bigint,
    log?: (sentence: string) => void,
    readOnly = this.readOnly,
  ): SettledPool {
    const found = this.#copies.settle(transactionId);
    const { catalogue, dropped, keptBytes, whyCopy } = found;
    const notes: string[] = [];
    if (whyCopy !== undefined) notes.push(whyCopy);
    if (dropped !== undefined) {
      notes.push("A change of the pool was interrupted before it was committed, so it did not happen.");
    }
    if (readOnly) return { catalogue, notes };
    const file = openCatalogueFile(this.#held, this.paths, found, log);
    this.#catalogueFile = file;
    file.startAt(keptBytes, dropped !== undefined);
    if (!file.setAside(catalogue.contentBytes)) {
      notes.push(
        "The host is full: the room that removing needs could not be set aside. Until there is some, nothing is created.",
      );
    }
    return { catalogue, notes };
  }

  /** Undefined before the catalogue is settled, and if the pool is open read-only. */
  get catalogueFile(): CatalogueFile | undefined {
    return this.#catalogueFile;
  }

  /** Refuses files that are shorter than the metadata says. Throws {@linkcode UserError}. */
  requireSizes(metadataBytes: number, dataBytes: number): void {
    requireSize("metadata", this.metadata, metadataBytes);
    requireSize("data", this.data, dataBytes);
  }

  /** The devices of which this host keeps pages in memory. */
  get cached(): { metadata: HostCached | undefined; data: HostCached | undefined } {
    return { metadata: this.metadata.cached, data: this.data.cached };
  }

  /** Resolves when nothing that was asked of the devices is under way. */
  async idle(): Promise<void> {
    await this.metadata.idle();
    // The last: what metadata answers may have the data device do more.
    await this.data.idle();
  }

  /** Closes and unlocks the files. Nothing may be under way that changes them: others may open them at once. */
  close(): void {
    this.#held.dispose();
  }
}

interface FileParts {
  readonly paths: PoolPaths;
  readonly copies: CatalogueCopies;
  readonly metadata: OpenDevice;
  readonly data: OpenDevice;
  readonly readOnly: boolean;
  readonly identities: PoolFiles["identities"];
  readonly locks: readonly HeldLock[];
  readonly held: DisposableStack;
}

/** The devices that the settings of a pool name, and where their kinds are found. */
export interface DevicePaths {
  readonly metadata: string;
  readonly data: string;
  readonly kinds: DeviceKinds;
}

/** The devices of a pool in this directory. */
export function devicePaths(
  directory: string,
  settings: PoolSettings,
  kinds: DeviceKinds = deviceKinds,
): DevicePaths {
  return {
    metadata: pathIn(directory, settings.metadataPath),
    data: pathIn(directory, settings.dataPath),
    kinds,
  };
}

/** Locks the two devices until `held` is disposed. Throws {@linkcode UserError}. */
export function lockDevices(
  held: DisposableStack,
  paths: DevicePaths,
  isExclusive: boolean,
): readonly HeldLock[] {
  const { metadata, data, kinds } = paths;
  const [metadataKind, dataKind] = [kinds.kindOf(metadata), kinds.kindOf(data)];
  metadataKind.requireAccess(metadata, isExclusive);
  dataKind.requireAccess(data, isExclusive);
  const metadataLock = held.use(metadataKind.lock(metadata, isExclusive));
  const key = dataKind.deviceKeyOf(data);
  if (metadataKind === dataKind && key !== undefined && key === metadataKind.deviceKeyOf(metadata)) {
    throw new UserError(
      `Cannot use "${metadata}" as metadata and "${data}" as data: they are the same file. Name two.`,
    );
  }
  return [metadataLock, held.use(dataKind.lock(data, isExclusive))];
}

/** Opens the two devices; `held` closes them. Throws {@linkcode UserError}. */
export function openDevices(
  held: DisposableStack,
  paths: DevicePaths,
  use: Omit<DeviceUse, "role" | "calm">,
): { metadata: OpenDevice; data: OpenDevice } {
  const calm = new DiskCalm();
  const open = (role: DeviceUse["role"]) =>
    held.adopt(
      paths.kinds.kindOf(paths[role]).open(paths[role], { ...use, role, calm }),
      (device) => device.close(),
    );
  const devices = { metadata: open("metadata"), data: open("data") };
  requireSize("metadata", devices.metadata, metadataBlockSizeBytes);
  return devices;
}

/** See {@linkcode PoolFiles.identities}. */
export function identitiesOf(paths: DevicePaths, ...devices: OpenDevice[]): PoolFiles["identities"] {
  const [metadata, data] = [paths.metadata, paths.data].map((path) =>
    paths.kinds.kindOf(path).deviceKeyOf(path)
  );
  if (metadata === undefined || data === undefined) return undefined;
  return devices.every(({ cached }) => cached !== undefined) ? { metadata, data } : undefined;
}

/**
 * Opens the catalogue for appending; `held` closes it. If the second copy was used, it takes the name of the first, which needs no
 * room on the host; a second copy is made again behind it. If we stop between the two, the first one is whole, and alone.
 */
function openCatalogueFile(
  held: DisposableStack,
  paths: PoolPaths,
  { whyCopy }: FoundCatalogue,
  log?: (sentence: string) => void,
): CatalogueFile {
  try {
    if (whyCopy !== undefined) {
      fs.renameSync(paths.secondCatalogue, paths.catalogue);
      syncDirectoryOf(paths.catalogue);
    }
    return held.adopt(new CatalogueFile(paths, log), (file) => file.close());
  } catch (error) {
    throw openFailure(paths.catalogue, error);
  }
}

function requirePool(paths: PoolPaths): void {
  const directory = JSON.stringify(paths.directory);
  let info: fs.Stats | undefined;
  try {
    info = fs.statSync(paths.directory, { throwIfNoEntry: false });
  } catch (error) {
    throw openFailure(paths.directory, error);
  }
  if (info === undefined) {
    throw new UserError(
      `Cannot open the pool ${directory}: the directory does not exist. Make one with \`init\`, or name another with --pool.`,
    );
  }
  if (!info.isDirectory()) {
    throw new UserError(
      `Cannot open the pool ${directory}: it is not a directory. Name the pool's directory with --pool.`,
    );
  }
  if (hasCatalogue(paths)) return;
  if (fs.existsSync(paths.unfinished)) {
    throw new UserError(
      `Cannot open the pool ${directory}: making it was interrupted. Make it again with \`init\`.`,
    );
  }
  throw new UserError(
    `Cannot open the pool ${directory}: there is no pool in it (no "catalog.json"). Make one with \`init\`, or name another with --pool.`,
  );
}

function requireSize(what: string, device: OpenDevice, neededBytes: number): void {
  if (device.sizeBytes >= neededBytes) return;
  throw new UserError(
    `The ${what} "${device.path}" is truncated: it has ${device.sizeBytes} bytes, and the pool needs ${neededBytes} ` +
      `(${formatSize(neededBytes)}). Bring back the whole file.`,
  );
}

/** The message for a pool that another process has open. */
export function inUse(directory: string): string {
  return `Cannot open the pool "${directory}": another process has it open. Stop that one first.`;
}
