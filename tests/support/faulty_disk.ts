/** For tests: a disk that fails or stalls when it is told to, with the host's page cache before it; see faulty_disk.py. */
import { assert, assertEquals } from "@std/assert";
import { isProgram, isTestable, programPath, python } from "./programs.ts";
import { Lines } from "./server.ts";

const encoder = new TextEncoder();

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
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #answers: Lines;
  readonly #errors: Lines;
  #answered = 0;

  private constructor(readonly folder: string, words: readonly string[]) {
    this.#child = new Deno.Command(python, {
      args: [new URL("faulty_disk.py", import.meta.url).pathname, folder, ...words],
      env: { PYTHONDONTWRITEBYTECODE: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#answers = new Lines(this.#child.stdout);
    this.#errors = new Lines(this.#child.stderr);
  }

  /** `words` are those of the program, after the folder. */
  static async mount(...words: string[]): Promise<FaultyDisk> {
    const disk = new FaultyDisk(await Deno.makeTempDir({ prefix: "gossamer-disk-" }), words);
    assertEquals(await disk.#answer(), "mounted");
    return disk;
  }

  /** Has the disk carry out a command. */
  async tell(command: string): Promise<string> {
    await this.#input.write(encoder.encode(`${command}\n`));
    return await this.#answer();
  }

  async #answer(): Promise<string> {
    const begin = this.#answered;
    const isThere = await this.#answers.met((text) => text.indexOf("\n", begin) >= 0);
    assert(isThere, `The disk ended: ${this.#errors.text}`);
    const end = this.#answers.text.indexOf("\n", begin);
    this.#answered = end + 1;
    return this.#answers.text.slice(begin, end);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // It unmounts at the end of its input.
    await this.#input.close().catch(() => {});
    await Promise.all([this.#child.status, this.#answers.ended, this.#errors.ended]);
    await Deno.remove(this.folder);
  }
}
