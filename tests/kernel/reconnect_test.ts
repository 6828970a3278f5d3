/**
 * Survival of a restart with a client that comes back by itself. The kernel's does not, `nbd-client -persist` or not;
 * qemu's does, and repeats what was under way.
 */
import { assert, assertEquals } from "@std/assert";
import { hasProgram, requiredProgram } from "../support/programs.ts";
import { PoolOnDisk, runToEnd } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { volumeNamed } from "./guest_pool.ts";

const ignore = !hasProgram("qemu-io") || !hasThinTools("0.9") || !hasThinTools("1.x");

// Requests that begin and end within blocks of the pool, each written once.
const requestBytes = 12 * 1024;
const requestsCount = 1200;
/** So slow that there is something to kill on a fast disk too. */
const requestsPerSecond = 200;

/** A command of qemu-io for each request, each with a pattern of its own. */
function commands(verb: "write" | "read"): string[] {
  return Array.from({ length: requestsCount }, (_, index) => index)
    .flatMap((index) => ["-c", `${verb} -q -P ${1 + index % 255} ${index * requestBytes} ${requestBytes}`]);
}

/** The throttle lies above the client. Without a cache every write has FUA, as here nobody flushes before a kill. */
function clientArgs(socket: string): string[] {
  const throttle = "driver=throttle,throttle-group=slow";
  const client = "file.driver=nbd,file.export=disk,file.reconnect-delay=30";
  const server = `file.server.type=unix,file.server.path=${socket}`;
  return [
    ...["--object", `throttle-group,id=slow,x-iops-total=${requestsPerSecond}`],
    ...["-t", "writethrough", "--image-opts", [throttle, client, server].join(",")],
  ];
}

Deno.test({
  name:
    "a client that reconnects, qemu's, writes on over two kills of the server, and nothing that it wrote is lost",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "4M");
    let server = await pool.serve(["--create", "disk=32M"]);
    const qemuIo = requiredProgram("qemu-io");
    const writing = runToEnd(qemuIo, [...commands("write"), ...clientArgs(server.socket)]);
    let hasEnded = false;
    const written = Promise.allSettled([writing.finally(() => hasEnded = true)]);
    for (const share of [0.2, 0.6]) {
      const bytes = share * requestsCount * requestBytes;
      while (volumeNamed(await pool.list(), "disk").mapped_bytes < bytes) {
        assert(!hasEnded, "qemu-io has ended before the server was killed");
      }
      await server.kill();
      server = await pool.serve();
    }
    assertEquals(await written, [{ status: "fulfilled", value: "" }]);
    assertEquals(server.stderr.split('attached to "disk"').length - 1, 1, server.stderr);

    const read = await runToEnd(qemuIo, [...commands("read"), "-f", "raw", server.url("disk")]);
    assertEquals(read, "");
    await server.stop();
    await pool.requireSound();
  },
});
