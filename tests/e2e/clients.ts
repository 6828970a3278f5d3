/** The stock NBD clients as tests run them: Debian 12's as installed, Debian 13's as `.ci/nbd_tools_13.sh` unpacks them. */
import { Random } from "../support/world.ts";
import { assert } from "@std/assert";
import {
  isProgram,
  isTestable,
  programPath,
  python,
  requiredProgram,
  unpackedFolder,
} from "../support/programs.ts";
import { Lines, runToEnd } from "../support/server.ts";

/** The clients that come from both releases. */
export type Client = "nbdinfo" | "nbdcopy" | "nbdfuse" | "qemu-img" | "qemu-io";
/** Debian 12 has libnbd 1.14 and qemu 7.2, Debian 13 libnbd 1.22 and qemu 10, which ask for extended headers first. */
export type Release = 12 | 13;

const newClients = `${unpackedFolder("nbd-tools-13")}/bin`;

/** Whether a test that needs Debian 13's clients runs. */
export function hasNewClients(): boolean {
  return isTestable(isProgram(`${newClients}/nbdinfo_13`));
}

/** Runs a client that has to succeed and gives what it printed. */
export function run(client: Client, args: readonly string[], release: Release = 12): Promise<string> {
  return runToEnd(release === 12 ? requiredProgram(client) : `${newClients}/${client}_13`, args);
}

/** What a client prints as JSON. */
export async function runForJson<Answer>(
  client: Client,
  args: readonly string[],
  release: Release = 12,
): Promise<Answer> {
  return JSON.parse(await run(client, args, release));
}

/** Runs lines of Python in nbdsh, connected to `url`, and gives what they printed. The shell is `h`. */
export async function nbdsh(url: string, lines: readonly string[], release: Release = 12): Promise<string> {
  const interpreter = release === 12 ? python : `${newClients}/python_13`;
  // By module: the program nbdsh takes the first python3 in PATH, which may not be Debian's.
  return (await runToEnd(interpreter, ["-m", "nbd", "-u", url, ...lines.flatMap((line) => ["-c", line])]))
    .trim();
}

/** Runs a client that has to fail and gives what it complained about. */
export async function runToFailure(client: Client, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(requiredProgram(client), {
    args: [...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert(code !== 0, `${client} ${args.join(" ")} succeeded: ${said}`);
  return said;
}

/**
 * Whether a file system in user space can be mounted: by root itself, by anybody else through fusermount3. A container
 * may forbid it, in CI too, so a test that needs it is skipped wherever this is false.
 */
export function hasFuse(): boolean {
  try {
    Deno.openSync("/dev/fuse", { read: true, write: true }).close();
  } catch {
    return false;
  }
  const status = Deno.readTextFileSync("/proc/self/status");
  const mayMount = (set: string) => {
    const bits = new RegExp(`^${set}:\\s+([0-9a-f]+)$`, "m").exec(status)?.[1] ?? "0";
    return (BigInt(`0x${bits}`) & 1n << 21n) !== 0n;
  };
  return mayMount("CapEff") || mayMount("CapBnd") && programPath("fusermount3") !== undefined;
}

/** A program that serves until it is told to end. Dispose of it before the server that it is a client of. */
export class Daemon implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #said: Lines;
  #hasEnded = false;

  private constructor(path: string, args: readonly string[]) {
    this.#child = new Deno.Command(path, { args: [...args], stdin: "null", stdout: "null", stderr: "piped" })
      .spawn();
    this.#said = new Lines(this.#child.stderr);
    this.#child.status.then(() => this.#hasEnded = true);
  }

  /** Starts it and returns when `isReady`. */
  static async start(name: string, args: readonly string[], isReady: () => boolean): Promise<Daemon> {
    const daemon = new Daemon(requiredProgram(name), args);
    const deadline = Date.now() + 30_000;
    while (!isReady()) {
      if (daemon.#hasEnded || Date.now() > deadline) {
        await daemon[Symbol.asyncDispose]();
        throw new Error(`${name} ${args.join(" ")} did not become ready: ${daemon.#said.text}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return daemon;
  }

  get pid(): number {
    return this.#child.pid;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#hasEnded) this.#child.kill("SIGTERM");
    const lateMs = 20_000;
    const late = setTimeout(() => this.#child.kill("SIGKILL"), lateMs);
    await Promise.all([this.#child.status, this.#said.ended]);
    clearTimeout(late);
  }
}

/** Whether there is something at a path that is as long as it has to be. */
export function isThere(path: string, sizeBytes = 0): boolean {
  try {
    return Deno.statSync(path).size >= sizeBytes;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Puts bytes that are never zero, and differ from seed to seed, into a range of a file. */
export async function fillFile(
  path: string,
  range: { readonly offset: number; readonly length: number },
  seed: number,
): Promise<void> {
  const random = new Random(seed);
  const words = Uint32Array.from(
    { length: Math.ceil(range.length / 4) },
    () => 0x0101_0101 | random.below(2 ** 32),
  );
  using file = await Deno.open(path, { write: true, create: true });
  await file.seek(range.offset, Deno.SeekMode.Start);
  const bytes = new Uint8Array(words.buffer, 0, range.length);
  for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
}

/** Bytes of a file that the host has allotted. */
export function allottedBytes(path: string): number {
  return Deno.statSync(path).blocks! * 512;
}
