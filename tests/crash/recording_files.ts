/**
 * Records what the program does to the files of one directory, as the host's file system sees it: writes, truncations and
 * flushes of each inode, names that come and go, flushes of the directory. A power cut then leaves any part of what was
 * not flushed.
 */
import fs from "node:fs";
import { basename, dirname } from "node:path";
import { present } from "../../storage/base/assert.ts";
import type { Random } from "../support/world.ts";

/** The functions that the program may use, and that are watched. */
const watched = [
  "openSync",
  "writeSync",
  "ftruncateSync",
  "fdatasyncSync",
  "linkSync",
  "renameSync",
  "rmSync",
] as const;

/** What is known of one inode. */
interface Inode {
  durable: Uint8Array;
  /** Contents one after another since the last flush; the last is what memory holds. */
  readonly since: Uint8Array[];
}

/** See the head of this file. Between construction and disposal it sees all that happens in `directory`. */
export class RecordingFiles implements Disposable {
  readonly #directory: string;
  readonly #inodes = new Map<number, Inode>();
  /** The inodes that each name meant since the directory was flushed, one after another; undefined: no file. */
  readonly #names = new Map<string, (number | undefined)[]>();
  readonly #restore: (() => void)[] = [];

  /** @param onEvent called after every change or flush */
  constructor(directory: string, onEvent: (event: string) => void) {
    this.#directory = directory;
    for (const name of fs.readdirSync(directory)) {
      const inode = fs.statSync(`${directory}/${name}`).ino;
      this.#names.set(name, [inode]);
      this.#inodes.set(inode, {
        durable: new Uint8Array(fs.readFileSync(`${directory}/${name}`)),
        since: [],
      });
    }
    this.#watch(onEvent);
  }

  /**
   * What each name may mean after a power cut now: any of its inodes since the directory was flushed, whatever the other
   * names mean, with the content that was flushed or any part of what came since.
   */
  cut(random: Random): Map<string, { readonly inode: number; readonly bytes: Uint8Array }> {
    const contents = new Map<number, Uint8Array>();
    const left = new Map<string, { readonly inode: number; readonly bytes: Uint8Array }>();
    for (const [name, inodes] of this.#names) {
      const inode = inodes[random.below(inodes.length)];
      if (inode === undefined) continue;
      const bytes = contents.get(inode) ?? this.#cutInode(inode, random);
      contents.set(inode, bytes);
      left.set(name, { inode, bytes });
    }
    return left;
  }

  #cutInode(number: number, random: Random): Uint8Array {
    const inode = present(this.#inodes.get(number), "an inode that was seen");
    const contents = [inode.durable, ...inode.since];
    const at = random.below(contents.length);
    const before = contents[at]!;
    const after = contents[at + 1];
    return after === undefined ? before : torn(before, after, random);
  }

  [Symbol.dispose](): void {
    for (const restore of this.#restore) restore();
  }

  #watch(onEvent: (event: string) => void): void {
    for (const name of watched) {
      const original = fs[name] as (...args: unknown[]) => unknown;
      this.#replace(name, (...args: unknown[]) => {
        const result = original(...args);
        if (this.#note(name, args)) onEvent(name);
        return result;
      });
    }
    const fdatasync = fs.fdatasync;
    this.#replace("fdatasync", (fd: number, done: (error: Error | null) => void) => {
      fdatasync(fd, (error) => {
        if (error === null && this.#note("fdatasyncSync", [fd])) onEvent("fdatasync");
        done(error);
      });
    });
  }

  #replace(name: string, by: unknown): void {
    const original: unknown = Reflect.get(fs, name);
    Reflect.set(fs, name, by);
    this.#restore.push(() => Reflect.set(fs, name, original));
  }

  /** True if it was about a file that is watched, or the directory. */
  #note(name: (typeof watched)[number], args: readonly unknown[]): boolean {
    const paths = args.filter((path) =>
      typeof path === "string" && dirname(path) === this.#directory
    ) as string[];
    if (name === "openSync" || name === "linkSync" || name === "renameSync" || name === "rmSync") {
      for (const path of paths) this.#rename(path);
      return paths.length > 0 && !(name === "openSync" && args[1] !== "w+");
    }
    const fd = args[0] as number;
    const stat = fs.fstatSync(fd);
    if (stat.isDirectory()) {
      for (const inodes of this.#names.values()) inodes.splice(0, inodes.length - 1);
      return true;
    }
    const inode = this.#inodes.get(stat.ino);
    if (inode === undefined) return false;
    if (name === "fdatasyncSync") {
      inode.durable = inode.since.at(-1) ?? inode.durable;
      inode.since.length = 0;
    } else inode.since.push(contentOf(fd, stat.size));
    return true;
  }

  /** A name means another file now, or none. */
  #rename(path: string): void {
    const name = basename(path);
    const inode = fs.statSync(path, { throwIfNoEntry: false })?.ino;
    const inodes = this.#names.get(name) ?? [undefined];
    this.#names.set(name, inodes);
    if (inodes.at(-1) !== inode) inodes.push(inode);
    if (inode !== undefined && !this.#inodes.has(inode)) {
      this.#inodes.set(inode, { durable: new Uint8Array(0), since: [] });
    }
  }
}

function contentOf(fd: number, sizeBytes: number): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  for (let at = 0; at < sizeBytes;) at += fs.readSync(fd, bytes, at, sizeBytes - at, at);
  return bytes;
}

/** Some of the way from one content to the next: any length in between, and what is new sector by sector. */
function torn(before: Uint8Array, after: Uint8Array, random: Random): Uint8Array {
  const [short, long] = before.length < after.length ? [before, after] : [after, before];
  const bytes = long.slice(0, short.length + random.below(long.length - short.length + 1));
  for (let begin = 0; begin < bytes.length; begin += 512) {
    if (random.below(2) === 0) continue;
    // The sector did not reach the disk: what was there before, and zeroes behind the old end.
    const end = Math.min(begin + 512, bytes.length);
    bytes.fill(0, begin, end);
    bytes.set(before.subarray(begin, Math.min(end, before.length)), begin);
  }
  return bytes;
}
