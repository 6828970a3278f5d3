/** For tests: a disk that fails or stalls when it is told to, with the host's page cache before it; see faulty_disk.py. */
import { assertEquals } from "@std/assert";
import { isProgram, isTestable, programPath, python } from "./programs.ts";
import { PythonChild } from "./python_child.ts";

/** Whether a test that needs such a disk runs. */
export function hasFaultyDisk(): boolean {
  let hasDevice = true;
  try {
    Deno.openSync("/dev/fuse", { read: true, write: true }).close();
  } catch {
    // Absent, or not for this user: then fusermount3 cannot either.
    hasDevice = false;
  }
  return isTestable(hasDevice && programPath("fusermount3") !== undefined && isProgram(python));
}

/** Dispose of it when nothing uses its files any more. */
export class FaultyDisk implements AsyncDisposable {
  readonly #child: PythonChild;

  private constructor(readonly folder: string, words: readonly string[]) {
    this.#child = new PythonChild(new URL("faulty_disk.py", import.meta.url), [folder, ...words]);
  }

  /** `words` are those of the program, after the folder. */
  static async mount(...words: string[]): Promise<FaultyDisk> {
    const disk = new FaultyDisk(await Deno.makeTempDir({ prefix: "gossamer-disk-" }), words);
    assertEquals(await disk.#child.nextLine(), "mounted");
    return disk;
  }

  /** Has the disk carry out a command. */
  async tell(command: string): Promise<string> {
    return await this.#child.ask(command);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // It unmounts at the end of its input.
    await this.#child.close();
    await Deno.remove(this.folder);
  }
}
