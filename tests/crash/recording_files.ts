/**
 * Records what the program does to one file by name, as the host's file system sees it: writes, truncations and flushes of
 * each inode, renames, flushes of the directory. A power cut then leaves any part of what was not flushed.
 */
import fs from "node:fs";
import { present } from "../../storage/assert.ts";
import type { Random } from "../testing_world.ts";

/** The functions that the program may use, and that are watched. */
const watched = [
  "openSync",
  "writeSync",
  "writeFileSync",
  "ftruncateSync",
  "fdatasyncSync",
  "fsyncSync",
  "renameSync",
] as const;

/** What is known of one inode. */
interface Inode {
  durable: Uint8Array;
  /** Contents one after another since the last flush; the last is what memory holds. */
  readonly since: Uint8Array[];
}

/** See the head of this file. Between construction and disposal it sees all that happens to `path`. */
export class RecordingFiles implements Disposable {
  readonly #path: string;
  readonly #inodes = new Map<number, Inode>();
  #durableName: number;
  /** Inodes that the name came to mean since the directory was flushed. */
  readonly #renamed: number[] = [];
  readonly #restore: (() => void)[] = [];

  /** @param onEvent called after every change or flush */
  constructor(path: string, onEvent: (event: string) => void) {
    this.#path = path;
    this.#durableName = fs.statSync(path).ino;
    this.#inodes.set(this.#durableName, { durable: new Uint8Array(fs.readFileSync(path)), since: [] });
    this.#watch(onEvent);
  }

  /** What the name may mean after a power cut now: its inode old or new, its content flushed or any part of what came since. */
  cut(random: Random): string {
    const inodes = [this.#durableName, ...this.#renamed];
    const inode = present(this.#inodes.get(inodes[random.below(inodes.length)]!), "an inode that was seen");
    const contents = [inode.durable, ...inode.since];
    const at = random.below(contents.length);
    const before = contents[at]!;
    const after = contents[at + 1];
    return new TextDecoder().decode(after === undefined ? before : torn(before, after, random));
  }

  [Symbol.dispose](): void {
    for (const restore of this.#restore) restore();
  }

  #watch(onEvent: (event: string) => void): void {
    for (const name of watched) {
      const original = fs[name] as (...args: unknown[]) => unknown;
      const seen = (...args: unknown[]) => {
        const result = original(...args);
        if (this.#note(name, args)) onEvent(name);
        return result;
      };
      this.#replace(fs, name, seen);
    }
    const fdatasync = fs.fdatasync;
    this.#replace(fs, "fdatasync", (fd: number, done: (error: Error | null) => void) => {
      fdatasync(fd, (error) => {
        if (error === null && this.#note("fdatasyncSync", [fd])) onEvent("fdatasync");
        done(error);
      });
    });
    const openSync = Deno.openSync;
    this.#replace(Deno, "openSync", (path: string, options?: Deno.OpenOptions) => {
      const file = openSync(path, options);
      const syncSync = file.syncSync.bind(file);
      file.syncSync = () => {
        syncSync();
        if (path !== this.#path.slice(0, this.#path.lastIndexOf("/"))) return;
        this.#durableName = this.#renamed.at(-1) ?? this.#durableName;
        this.#renamed.length = 0;
        onEvent("flush of the directory");
      };
      return file;
    });
  }

  #replace(object: object, name: string, by: unknown): void {
    const original: unknown = Reflect.get(object, name);
    Reflect.set(object, name, by);
    this.#restore.push(() => Reflect.set(object, name, original));
  }

  /** True if it was about a file that is watched. */
  #note(name: (typeof watched)[number], args: readonly unknown[]): boolean {
    if (name === "openSync") {
      if (args[0] !== `${this.#path}.new`) return false;
      this.#inodes.set(fs.statSync(args[0] as string).ino, { durable: new Uint8Array(0), since: [] });
      return true;
    }
    if (name === "renameSync") {
      if (args[1] !== this.#path) return false;
      this.#renamed.push(fs.statSync(this.#path).ino);
      return true;
    }
    const inode = this.#inodes.get(fs.fstatSync(args[0] as number).ino);
    if (inode === undefined) return false;
    if (name === "fdatasyncSync" || name === "fsyncSync") {
      inode.durable = inode.since.at(-1) ?? inode.durable;
      inode.since.length = 0;
    } else inode.since.push(this.#contentOf(inode));
    return true;
  }

  /** The handle that wrote may not be able to read. */
  #contentOf(inode: Inode): Uint8Array {
    const newPath = `${this.#path}.new`;
    const isNew = fs.existsSync(newPath) && this.#inodes.get(fs.statSync(newPath).ino) === inode;
    return new Uint8Array(fs.readFileSync(isNew ? newPath : this.#path));
  }
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
