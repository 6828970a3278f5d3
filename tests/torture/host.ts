/** A host that is small and full at times: a tmpfs with the pool's files, and ballast in it that comes and goes. */
import { isThere } from "../e2e/clients.ts";
import { runToEnd } from "../support/server.ts";
import { programPath } from "../support/programs.ts";
import { Repeated, sleep } from "./repeated.ts";

/** Bytes of ballast written with one call. */
const pieceBytes = 1 << 16;

/** Dispose of it after everything that has files there. */
export class SmallHost implements AsyncDisposable {
  readonly path: string;
  #ballast: Repeated | undefined;
  /** How often the host was full. */
  timesFull = 0;

  private constructor(path: string) {
    this.path = path;
  }

  /** Whether this process may mount a tmpfs. */
  static isPossible(): boolean {
    return Deno.uid() === 0 && programPath("mount") !== undefined && mayMount();
  }

  /** Mounts it at a folder that exists and is empty. */
  static async mount(path: string, sizeBytes: number): Promise<SmallHost> {
    await runToEnd("mount", ["-t", "tmpfs", "-o", `size=${sizeBytes}`, "tmpfs", path]);
    return new SmallHost(path);
  }

  /** From now on it is full for `fullMs`, then has room for `roomMs`, and so on. */
  fillNowAndThen(fullMs: number, roomMs: number): void {
    const path = `${this.path}/ballast`;
    this.#ballast = new Repeated(async (stopped) => {
      await sleep(roomMs, stopped);
      const until = Date.now() + fullMs;
      // Again and again: what is trimmed and removed meanwhile is taken, too.
      while (Date.now() < until && !stopped.aborted) {
        fill(path);
        await sleep(20, stopped);
      }
      this.timesFull += 1;
      if (isThere(path)) await Deno.remove(path);
    });
  }

  /** It is full from now on, as often as something gives it room: call it again. */
  fill(): void {
    fill(`${this.path}/ballast`);
  }

  /** It has room from now on. */
  async leaveRoom(): Promise<void> {
    await this.#ballast?.stop();
    const path = `${this.path}/ballast`;
    if (isThere(path)) await Deno.remove(path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.leaveRoom();
    await runToEnd("umount", ["--lazy", this.path]);
  }
}

/** Appends to a file until the host has no room for another page. */
function fill(path: string): void {
  using file = Deno.openSync(path, { append: true, create: true });
  for (let piece = new Uint8Array(pieceBytes); piece.length >= 4096;) {
    try {
      file.writeSync(piece);
    } catch (error) {
      if (!String(error).includes("No space left")) throw error;
      piece = piece.subarray(0, piece.length / 2);
    }
  }
}

/** Root in a container may lack the right to mount (CAP_SYS_ADMIN). */
function mayMount(): boolean {
  const bits = /^CapEff:\s+([0-9a-f]+)$/m.exec(Deno.readTextFileSync("/proc/self/status"))?.[1] ?? "0";
  return (BigInt(`0x${bits}`) & 1n << 21n) !== 0n;
}
