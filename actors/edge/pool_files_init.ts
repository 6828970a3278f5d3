/**
 * Making a pool directory, in steps. A crash may come after each of them:
 * 1. lock the directory; a note, `unfinished.json`, names the files that are about to be made in it;
 * 2. make them: the metadata whole (a full host must not break a commit), the data sparse;
 * 3. the caller writes and flushes empty metadata;
 * 4. the catalogue appears by a rename, and with it the pool; the note goes.
 * If we stop before 4 is durable, there is no pool, and the next `init` removes what the note names and begins anew. If we
 * stop between the rename and the removal of the note, the note is ignored, as there is a catalogue.
 */
import fs from "node:fs";
import { dirname, resolve } from "node:path";
import { assert } from "../../storage/base/assert.ts";
import type { Catalogue, PoolSettings } from "../../storage/catalogue.ts";
import { UserError } from "../../storage/base/errors.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { formatSize } from "../../storage/base/sizes.ts";
import { syncDirectory, syncDirectoryOf, writeDurably } from "./durable_names.ts";
import { FileDevice } from "./file_device.ts";
import { codeOf, openFailure } from "./file_errors.ts";
import { openLocked } from "./file_lock.ts";
import { type IntentsBeside, linkIntents } from "./import_intents.ts";
import { errno, type Libc } from "./libc.ts";
import {
  defaultDataName,
  defaultMetadataName,
  devicePaths,
  hasCatalogue,
  identitiesOf,
  inUse,
  lockDevices,
  openDevices,
  type PoolFiles,
} from "./pool_files.ts";
import { pathIn, type PoolPaths, poolPaths } from "./pool_paths.ts";
import type { OpenDevice } from "./open_device.ts";
import { requirePermission } from "./permissions.ts";
import { existingBytes, requireBlockSize, type SizesAsked, sizesFor } from "./pool_sizes.ts";
import { filePieceBytes } from "../limits.ts";

/** What to make. Sizes are bytes; what is left out is derived from the host. */
export interface InitOptions extends SizesAsked {
  /** A file (made if missing) or block device instead of one in the directory. */
  readonly dataPath?: string | undefined;
  /** A file (made if missing) or block device instead of one in the directory; it must not hold metadata. */
  readonly metadataPath?: string | undefined;
  readonly libc?: Libc | undefined;
  /** Gets sentences about what the user may not expect. */
  readonly log?: ((sentence: string) => void) | undefined;
}

/** What to make a pool directory around: metadata and data of dm-thin, used where they are. */
export interface AdoptOptions {
  readonly directory: string;
  /** As the superblock says. */
  readonly blockSizeBytes: number;
  readonly dataPath: string;
  readonly metadataPath: string;
  readonly libc?: Libc | undefined;
}

/** A pool that is being made. Ends with {@linkcode finish} or {@linkcode abandon}, which close it. */
export class UnfinishedPool {
  readonly settings: PoolSettings;
  readonly metadata: OpenDevice;
  readonly data: OpenDevice;
  /** The part of the data device that the pool is to use: whole blocks. Of adopted devices, all of it. */
  readonly dataSizeBytes: number;
  /** Of adopted devices: as those of the pool that it becomes. */
  readonly identities: PoolFiles["identities"];
  readonly #site: Site;
  readonly #held: DisposableStack;

  constructor(
    site: Site,
    devices: { readonly metadata: OpenDevice; readonly data: OpenDevice },
    dataSizeBytes: number,
    held: DisposableStack,
    identities?: PoolFiles["identities"],
  ) {
    this.settings = site.settings;
    this.metadata = devices.metadata;
    this.data = devices.data;
    this.dataSizeBytes = dataSizeBytes;
    this.identities = identities;
    this.#site = site;
    this.#held = held;
  }

  /**
   * Its intent journal is the one of another name from now on, if it becomes a pool. If we stop before that, the note in the
   * directory says that what is here is of no use, and the journal has its first name.
   */
  takeIntents(beside: IntentsBeside): void {
    const { intents } = this.#site.paths;
    linkIntents(beside, intents);
    this.#site.made.push(intents);
  }

  /** Makes it a pool. The metadata must be durable. Throws {@linkcode UserError}; the caller then abandons it. */
  finish(catalogue: Catalogue): void {
    try {
      // The first start makes the second copy.
      writeDurably(this.#site.paths.catalogue, catalogue.snapshotLine());
    } catch (error) {
      throw writeFailure(this.#site.paths.catalogue, error);
    }
    fs.rmSync(this.#site.paths.unfinished, { force: true });
    this.#held.dispose();
  }

  /** Removes what was made. Files and devices that were there before stay, with whatever the caller wrote to them. */
  abandon(): void {
    // Before unlocking: another process could begin to make a pool of the same files.
    clear(this.#site);
    this.#held.dispose();
  }
}

/**
 * Makes the files of a new pool, locked and open, with no metadata in them yet. Throws {@linkcode UserError}, and then leaves
 * nothing behind.
 */
export function initPoolFiles(options: InitOptions): UnfinishedPool {
  requireBlockSize(options.blockSizeBytes);
  return prepare(options, (site, held) => {
    const sizes = sizesFor(options, site.settings);
    const metadataPath = pathIn(options.directory, site.settings.metadataPath);
    const dataPath = pathIn(options.directory, site.settings.dataPath);
    // A full host must not break a commit. Writes to the data may be refused.
    makeIfMissing(site, metadataPath, (fd) => void options.libc?.overwriteInPlace(fd));
    makeIfMissing(site, dataPath);
    // Locked before they are changed: they may belong to another pool.
    const paths = devicePaths(options.directory, site.settings);
    lockDevices(held, paths, true);
    requireEmpty(metadataPath);
    if (holdsData(dataPath)) {
      options.log?.(
        `"${dataPath}" held data before: what it holds is lost block by block as volumes are written.`,
      );
    }
    lengthen(metadataPath, sizes.metadataBytes);
    lengthen(dataPath, sizes.dataBytes);
    const { libc } = options;
    const devices = openDevices(held, paths, { readOnly: false, isMaking: true, libc });
    const { metadata } = devices;
    if (metadata instanceof FileDevice && !metadata.isBlockDevice) allocateWhole(metadata, libc);
    return new UnfinishedPool(site, devices, sizes.dataBytes, held);
  });
}

/** Locks and opens existing metadata and data, to make a pool directory around them. Throws {@linkcode UserError}. */
export function adoptPoolFiles(options: AdoptOptions): UnfinishedPool {
  requireBlockSize(options.blockSizeBytes);
  return prepare(options, (site, held) => {
    const paths = devicePaths(options.directory, site.settings);
    lockDevices(held, paths, true);
    const devices = openDevices(held, paths, { readOnly: false, isMaking: true, libc: options.libc });
    const { metadata, data } = devices;
    return new UnfinishedPool(site, devices, data.sizeBytes, held, identitiesOf(paths, metadata, data));
  });
}

/** The place of a pool that is being made, and the files made so far. */
interface Site {
  readonly paths: PoolPaths;
  readonly settings: PoolSettings;
  /** Absolute paths of the files made; they are removed if making the pool fails. */
  readonly made: string[];
  readonly madeDirectory: boolean;
}

/** Step 1, then `make`; cleans up if either fails. */
function prepare(
  options: InitOptions | AdoptOptions,
  make: (site: Site, held: DisposableStack) => UnfinishedPool,
): UnfinishedPool {
  const { directory } = options;
  const paths = poolPaths(directory);
  requirePermission("read", directory);
  requirePermission("write", directory);
  const site: Site = {
    paths,
    settings: settingsOf(options),
    made: [],
    madeDirectory: makeDirectory(directory),
  };
  const held = new DisposableStack();
  let isOurs = false;
  try {
    held.use(openLocked(directory, true, inUse(directory)));
    requireNoPool(paths);
    isOurs = true;
    removeUnfinished(site);
    writeNote(site);
    return make(site, held);
  } catch (error) {
    if (isOurs) clear(site);
    held.dispose();
    throw error;
  }
}

/** Makes the directory with mode 0700. An empty directory that exists gets that mode too. */
function makeDirectory(directory: string): boolean {
  try {
    if (fs.existsSync(directory)) {
      if (fs.readdirSync(directory).length === 0) fs.chmodSync(directory, 0o700);
      return false;
    }
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
    const parent = dirname(directory);
    // Without permission to read the parent, the name becomes durable later, when the host writes it.
    if (Deno.permissions.querySync({ name: "read", path: parent }).state === "granted") syncDirectory(parent);
    return true;
  } catch (error) {
    throw writeFailure(directory, error);
  }
}

function requireNoPool(paths: PoolPaths): void {
  if (!hasCatalogue(paths)) return;
  throw new UserError(
    `Cannot make a pool in "${paths.directory}": there is one already. Name another directory with --pool.`,
  );
}

/** Removes what an interrupted `init` made in the directory. The note names all of it: it was durable before the files. */
function removeUnfinished(site: Site): void {
  if (!fs.existsSync(site.paths.unfinished)) return;
  const text = fs.readFileSync(site.paths.unfinished, "utf8");
  for (const name of [defaultMetadataName, defaultDataName]) {
    if (text.includes(JSON.stringify(name))) fs.rmSync(pathIn(site.paths.directory, name), { force: true });
  }
}

/** The note names the files that will be made in the directory, and none that exists already. */
function writeNote(site: Site): void {
  const names = [site.settings.metadataPath, site.settings.dataPath].filter((path) =>
    !path.startsWith("/") && !fs.existsSync(pathIn(site.paths.directory, path))
  );
  try {
    writeDurably(site.paths.unfinished, `${JSON.stringify({ made_by_init: names })}\n`);
  } catch (error) {
    throw writeFailure(site.paths.unfinished, error);
  }
}

/** Removes what was made, the note last: if we stop before, the next `init` finds the rest by it. */
function clear(site: Site): void {
  fs.rmSync(site.paths.catalogue, { force: true });
  for (const path of site.made) fs.rmSync(path, { force: true });
  fs.rmSync(site.paths.unfinished, { force: true });
  if (site.madeDirectory && fs.readdirSync(site.paths.directory).length === 0) {
    fs.rmdirSync(site.paths.directory);
  }
}

function settingsOf(options: InitOptions | AdoptOptions): PoolSettings {
  return {
    blockSizeBytes: options.blockSizeBytes,
    // A pool directory may be moved, so files in it are named without it. Paths given by the user become absolute.
    metadataPath: options.metadataPath === undefined ? defaultMetadataName : absolute(options.metadataPath),
    dataPath: options.dataPath === undefined ? defaultDataName : absolute(options.dataPath),
  };
}

function absolute(path: string): string {
  if (path.startsWith("/")) return path;
  requirePermission("read", ".");
  return resolve(path);
}

/** Whether the host stores anything in the file. False for a block device, for which that is not known. */
function holdsData(path: string): boolean {
  const { isFile, blocks } = Deno.statSync(path);
  return isFile && (blocks ?? 0) > 0;
}

function makeIfMissing(site: Site, path: string, prepare: (fd: number) => void = () => {}): void {
  requirePermission("write", path);
  if (fs.existsSync(path)) return;
  try {
    const fd = fs.openSync(path, "wx", 0o600);
    site.made.push(path);
    prepare(fd);
    fs.closeSync(fd);
    syncDirectoryOf(path);
  } catch (error) {
    throw writeFailure(path, error);
  }
}

/** Makes a file as long as needed without storing anything. A block device must be long enough already. */
function lengthen(path: string, sizeBytes: number): void {
  const presentBytes = existingBytes(path) ?? 0;
  if (presentBytes >= sizeBytes) return;
  try {
    if (!fs.statSync(path).isFile()) {
      throw new UserError(
        `Cannot use ${
          formatSize(sizeBytes)
        } of "${path}": it has ${presentBytes} bytes. Give a smaller size.`,
      );
    }
    fs.truncateSync(path, sizeBytes);
  } catch (error) {
    throw writeFailure(path, error);
  }
}

/** Metadata is made only if the first block is all zeroes, as in Linux (drivers/md/dm-thin-metadata.c). */
function requireEmpty(path: string): void {
  const block = new Uint8Array(metadataBlockSizeBytes);
  try {
    using file = Deno.openSync(path);
    file.readSync(block);
  } catch (error) {
    throw openFailure(path, error);
  }
  if (block.every((byte) => byte === 0)) return;
  throw new UserError(
    `Cannot make metadata in "${path}": its first block is not empty. Use it as it is with \`import\`, or overwrite its ` +
      "first 4096 bytes with zeroes if nothing in it is needed.",
  );
}

/** Has the host store every block of the file, so that no commit can meet a full host. */
function allocateWhole(metadata: FileDevice, libc: Libc | undefined): void {
  const failure = metadata.allocate();
  if (failure === 0) return;
  if (libc !== undefined && failure !== errno.notSupported) {
    throw allocationFailure(metadata, failure === errno.noSpace || failure === errno.overQuota);
  }
  const zeroes = new Uint8Array(filePieceBytes);
  for (let begin = 0; begin < metadata.sizeBytes; begin += zeroes.length) {
    const piece = zeroes.subarray(0, Math.min(zeroes.length, metadata.sizeBytes - begin));
    const written = metadata.write(piece, begin);
    assert(written !== "pending", "what makes a pool waits for its disks");
    if (written.kind !== "ok") throw allocationFailure(metadata, written.kind === "noSpace");
  }
}

function allocationFailure(metadata: FileDevice, isFull: boolean): UserError {
  const reason = isFull ? "the host has not so much space" : "the host cannot store it";
  return new UserError(
    `Cannot set aside ${formatSize(metadata.sizeBytes)} for the metadata in "${metadata.path}": ${reason}. ` +
      "Make room, or give a smaller --metadata-size.",
  );
}

/** A sentence for a file or directory that cannot be made or written. */
function writeFailure(path: string, error: unknown): UserError {
  assert(error instanceof Error, "what is thrown is an error");
  switch (codeOf(error)) {
    case "ENOSPC":
    case "EDQUOT":
      return new UserError(`Cannot write "${path}": the host is full. Make room and try again.`);
    case "EFBIG":
      return new UserError(
        `Cannot make "${path}" so large: the host's file system does not allow it. Give a smaller --data-size.`,
      );
    case "ENOTDIR":
      return new UserError(`Cannot write "${path}": a part of the path is not a directory. Check the path.`);
    default:
      return openFailure(path, error);
  }
}
