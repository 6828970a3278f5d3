/** The library: a pool as an object with a method for each thing that programs ask of it. mod.ts exports it. */
import { assert } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";
import { parseNamePattern } from "../../storage/base/name_pattern.ts";
import { parseName, parsePattern, parseSnapshotName, parseVolumeName } from "../../storage/base/names.ts";
import type {
  AdminCommand,
  AdminResult,
  LifetimeOptions,
  PoolSizes,
  PoolSpace,
  PoolStatus,
  TreeListing,
  VolumeListing,
} from "../control/admin_command.ts";
import { defaultBlockSizeBytes } from "../../storage/base/sizes.ts";
import { makePool } from "./make_pool.ts";
import { type OpenOptions, PoolLink } from "./pool_link.ts";
import type { DumpWriter } from "./pool_offline.ts";
import { type PoolServer, type ServeOptions, servePool } from "./serve.ts";

/** What {@linkcode initPool} makes. */
export interface InitPoolOptions {
  /** The directory to make. */
  readonly directory: string;
  /** A multiple of 64 KiB up to 1 GiB; 64 KiB by default. */
  readonly blockSizeBytes?: number | undefined;
  /** The free space of the host's file system by default. */
  readonly dataSizeBytes?: number | undefined;
  /** By default twice what dm-thin recommends for the data, at least 16 MiB. */
  readonly metadataSizeBytes?: number | undefined;
  /** A file or block device to use instead of `data.img` in the directory. */
  readonly dataPath?: string | undefined;
  /** A file or block device to use instead of `metadata.img` in the directory. */
  readonly metadataPath?: string | undefined;
  /** Called with a sentence for each event that may be unexpected. What it throws is dropped. */
  readonly log?: ((sentence: string) => unknown) | undefined;
}

/** What {@linkcode Pool.fork} makes. */
export interface ForkOptions {
  /** How many; 1 by default. */
  readonly count?: number;
  /** Their names, such as `vm-%03d`; by default `VOLUME-fork-%d`, without the numbers that are taken. */
  readonly name?: string;
  /** Remove each when its client is gone. */
  readonly ephemeral?: boolean;
  /** Milliseconds that an ephemeral one stays when its client was lost. */
  readonly lingerMs?: number;
  /** Milliseconds after which they are removed, once no client is attached. */
  readonly ttlMs?: number;
}

/** Makes an empty pool. Throws {@linkcode UserError}; nothing is left behind then. */
export async function initPool(options: InitPoolOptions): Promise<void> {
  await makePool({ ...options, blockSizeBytes: options.blockSizeBytes ?? defaultBlockSizeBytes });
}

/** Opens a pool for this process alone, or shared and read-only. Throws {@linkcode UserError}. */
export async function openPool(directory: string, options: OpenOptions = {}): Promise<Pool> {
  return new Pool(await PoolLink.open(directory, options));
}

/** An open pool. Names are `VOLUME` or `VOLUME@SNAPSHOT`; what cannot be done is thrown as a {@linkcode UserError}. */
export class Pool implements AsyncDisposable {
  readonly #link: PoolLink;

  /** Use {@linkcode openPool}. */
  constructor(link: PoolLink) {
    this.#link = link;
  }

  /** Resolves with the error if an invariant of the program breaks. After that the pool does nothing. */
  get defect(): Promise<unknown> {
    return this.#link.defect;
  }

  /** Carries out any command. A refusal is a result (`kind: "refused"`) and is not thrown. */
  command(command: AdminCommand): Promise<AdminResult> {
    return this.#link.command(command);
  }

  /** Makes an empty volume of so many bytes, rounded up to 512; with `singleWriter`, for one client at a time. */
  async create(
    name: string,
    sizeBytes: number,
    options: LifetimeOptions & { readonly singleWriter?: boolean } = {},
  ): Promise<void> {
    await this.#do({ verb: "create", name: parseVolumeName(name), sizeBytes, ...options });
  }

  /** Takes read-only snapshots, all at one point in time. */
  async snapshot(...names: string[]): Promise<void> {
    await this.#do({ verb: "snapshot", names: names.map((name) => parseSnapshotName(name).name) });
  }

  /** Makes a writable volume that shares every block with a volume or snapshot. */
  async clone(source: string, name: string, lifetime: LifetimeOptions = {}): Promise<void> {
    await this.#do({
      verb: "clone",
      source: parseName(source).name,
      name: parseVolumeName(name),
      ...lifetime,
    });
  }

  /**
   * Makes many clones of a volume or snapshot in one transaction, all or none; returns their names. `name` has one `%d` or
   * `%0Nd` if there are several.
   */
  async fork(source: string, options: ForkOptions = {}): Promise<readonly string[]> {
    const { count = 1, name, ephemeral = false, lingerMs = null, ttlMs = null } = options;
    const pattern = name === undefined ? null : parseNamePattern(name);
    const settings = { count, name: pattern, ephemeral, lingerMs, ttlMs };
    const result = await this.#do({ verb: "fork", source: parseName(source).name, ...settings });
    assert(result.kind === "forked", "fork answers with the forks");
    return result.volumes.map((volume) => volume.name);
  }

  /**
   * Gives a volume the content and size that its snapshot has. Returns the name of the snapshot under which what it had is
   * kept. Where clients are attached, it needs `force`.
   */
  async rollback(snapshot: string, options: { readonly force?: boolean } = {}): Promise<string> {
    const { force = false } = options;
    const result = await this.#do({ verb: "rollback", snapshot: parseSnapshotName(snapshot).name, force });
    assert(result.kind === "rolledBack", "a rollback answers with what it kept");
    return result.kept;
  }

  /** Renames a volume, and its snapshots with it, or a snapshot. */
  async rename(from: string, to: string): Promise<void> {
    await this.#do({ verb: "rename", from: parseName(from).name, to: parseName(to).name });
  }

  /**
   * Makes a volume larger or smaller; bytes beyond a smaller end are lost. Where clients are attached, making it smaller
   * needs `force`.
   */
  async resize(name: string, sizeBytes: number, options: { readonly force?: boolean } = {}): Promise<void> {
    const { force = false } = options;
    await this.#do({ verb: "resize", name: parseName(name).name, sizeBytes, force });
  }

  /** Bounds the bytes that a volume maps; those of its snapshots do not count. Null: no bound. */
  async quota(name: string, quotaBytes: number | null): Promise<void> {
    await this.#do({ verb: "quota", name: parseVolumeName(name), quotaBytes });
  }

  /** Keeps so many bytes, less those that it maps alone, free for a volume. Null: none. */
  async reserve(name: string, reserveBytes: number | null): Promise<void> {
    await this.#do({ verb: "reserve", name: parseVolumeName(name), reserveBytes });
  }

  /** Removes volumes and snapshots, all or none; returns when their space is back, or with `wait: false` when the names are gone. */
  async remove(
    names: readonly string[],
    options: { readonly force?: boolean; readonly wait?: boolean } = {},
  ): Promise<void> {
    const parsed = names.map((name) => parseName(name).name);
    const { force = false, wait = true } = options;
    await this.#do({ verb: "rm", names: parsed, dryRun: false, force, wait });
  }

  /**
   * Makes the data, the metadata or both larger, in bytes; what is left out stays. Data is rounded down to whole blocks.
   * Block devices must be that large already. Returns the sizes that the pool has then.
   */
  async grow(sizes: { readonly dataBytes?: number; readonly metadataBytes?: number }): Promise<PoolSizes> {
    const sizeOf = (bytes: number | undefined) => bytes === undefined ? null : { bytes, added: false };
    const [data, metadata] = [sizeOf(sizes.dataBytes), sizeOf(sizes.metadataBytes)];
    const result = await this.#do({ verb: "grow", data, metadata });
    assert(result.kind === "grown", "grow answers with sizes");
    return result.sizes;
  }

  /**
   * Volumes and snapshots in natural order: all, or those of the names and patterns given. Exclusive and shared bytes may be
   * of a while ago (`figures_age_ms`) in a large pool, unless they are to be `exact`.
   */
  async list(
    options: { readonly names?: readonly string[]; readonly exact?: boolean } = {},
  ): Promise<readonly VolumeListing[]> {
    const { names = [], exact = false } = options;
    const result = await this.#do({ verb: "list", names: names.map(parsePattern), exact });
    assert(result.kind === "volumes", "list answers with volumes");
    return result.volumes;
  }

  /** Volumes and snapshots, each behind what it was made from. */
  async tree(options: { readonly exact?: boolean } = {}): Promise<readonly TreeListing[]> {
    const result = await this.#do({ verb: "tree", exact: options.exact ?? false });
    assert(result.kind === "tree", "tree answers with volumes");
    return result.volumes;
  }

  /** How full data, metadata and the host are, and what removing each volume would free. */
  async df(options: { readonly exact?: boolean } = {}): Promise<PoolSpace> {
    const result = await this.#do({ verb: "df", exact: options.exact ?? false });
    assert(result.kind === "df", "df answers with the space");
    return result.space;
  }

  /** The pool's state and space. */
  async status(): Promise<PoolStatus> {
    const result = await this.#do({ verb: "status" });
    assert(result.kind === "status", "status answers with a status");
    return result.status;
  }

  /** What is wrong with the metadata, a sentence each; nothing if it is sound. */
  async check(): Promise<readonly string[]> {
    const result = await this.#do({ verb: "check" });
    assert(result.kind === "checked", "check answers with findings");
    return result.problems;
  }

  /** The metadata as thin_dump prints it, a piece at a time: each when `write` has taken the one before. */
  async dump(write: DumpWriter): Promise<void> {
    const result = await this.#link.dump(write);
    if (result.kind === "refused") throw new UserError(result.reason);
  }

  /** Serves every volume and snapshot over NBD, and the control socket. Throws {@linkcode UserError} if an address cannot be bound or its certificates not be used. */
  serve(options: ServeOptions = {}): Promise<PoolServer> {
    return servePool(this.#link, options);
  }

  /** Commits and closes. Stop its server first. */
  close(): Promise<void> {
    return this.#link.close();
  }

  /** As {@linkcode close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #do(command: AdminCommand): Promise<AdminResult> {
    const result = await this.command(command);
    if (result.kind === "refused") throw new UserError(result.reason);
    return result;
  }
}
