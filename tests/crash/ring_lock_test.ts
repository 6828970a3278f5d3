/** A server that was killed: what takes its lock next never sees the file change. */
import { assertEquals } from "@std/assert";
import { openLocked } from "../../actors/edge/file_lock.ts";
import { UserError } from "../../storage/base/errors.ts";
import { pause } from "../support/socket_pair.ts";
import { ignoreRing } from "../support/running_ring.ts";
import { soak } from "../support/server.ts";

const writeBytes = 2 << 20;
const fileBytes = 64 * writeBytes;

/** Kills a process with writes under way, and answers how many of the bytes that are looked at changed after its lock was free. */
async function killOnce(path: string): Promise<number> {
  const script = new URL("ring_writer.ts", import.meta.url).pathname;
  const args = ["run", "-A", "--no-check", "--quiet", script, path];
  const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped" }).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  await pause(5 + Math.random() * 60);
  child.kill("SIGKILL");
  using _lock = lockSoon(path);
  const before = marks(path);
  await child.status;
  await reader.cancel();
  await pause(150);
  const after = marks(path);
  return before.reduce((sum, mark, at) => sum + (mark === after[at] ? 0 : 1), 0);
}

/** Takes the lock as soon as it is free. */
function lockSoon(path: string): Disposable {
  for (;;) {
    try {
      return openLocked(path, true, "it is locked");
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
    }
  }
}

/** Bytes of the places that were handed over last. */
function marks(path: string): number[] {
  const marks: number[] = [];
  using file = Deno.openSync(path);
  const byte = new Uint8Array(1);
  for (let at = fileBytes - 1; at > fileBytes - 8 * writeBytes; at -= writeBytes) {
    file.seekSync(at, Deno.SeekMode.Start);
    file.readSync(byte);
    marks.push(byte[0]!);
  }
  return marks;
}

Deno.test({
  name: "after kill -9 with writes under way the lock outlives them",
  ignore: ignoreRing,
  fn: async () => {
    const path = await Deno.makeTempFile();
    try {
      await Deno.truncate(path, fileBytes);
      for (let kills = 0; kills < (soak ? 50 : 3); kills += 1) {
        const changed = await killOnce(path);
        assertEquals(changed, 0, "bytes changed after the lock was free");
      }
    } finally {
      await Deno.remove(path);
    }
  },
});
