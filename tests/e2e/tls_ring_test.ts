/** TLS where the pool is served by io_uring: a relay on the main side, of which nothing may stay behind. */
import { assertEquals } from "@std/assert";
import { hasOpenssl, makeCertificates } from "../support/certificates.ts";
import { hasPythonNbd, python } from "../support/programs.ts";
import { ignoreRing } from "../support/running_ring.ts";
import { PoolOnDisk, runToEnd, type ServerProcess, soak } from "../support/server.ts";

/** Of each of seven moments, with and without a reset. */
const clients = soak ? 112 : 14;

const program = new URL("vanishing_tls.py", import.meta.url).pathname;

/** The sockets that a server has open. */
function socketsOf({ pid }: ServerProcess): number {
  let count = 0;
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    try {
      if (Deno.readLinkSync(`/proc/${pid}/fd/${name}`).startsWith("socket:")) count += 1;
    } catch (error) {
      // It was closed after it was listed.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return count;
}

Deno.test({
  name: `${clients} clients that vanish at every moment of TLS leave no socket and no client on io_uring`,
  ignore: ignoreRing || !hasOpenssl() || !hasPythonNbd(),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=64M", "--metadata-size=2M");
    const { server: certificates } = await makeCertificates(pool.folder);
    const server = await pool.serve([
      ...["--io", "io_uring", "--listen", "tcp:127.0.0.1:0", "--create", "d=16M"],
      ...["--tls", "require", "--tls-certificates", certificates],
    ]);
    const port = /127\.0\.0\.1:(\d+)/.exec(server.stdout)![1]!;
    const vanish = (count: number) =>
      runToEnd(python, [program, port, "d", `${certificates}/ca-cert.pem`, String(count)]);
    const before = socketsOf(server);
    await vanish(clients);
    await settled(server, before);
    assertEquals(socketsOf(server), before);
    assertEquals(JSON.parse(await pool.verb("clients", "--json")).clients, []);
    await server.stop();
  },
});

/** Waits until there are no more sockets than so many, or for 10 s. */
async function settled(server: ServerProcess, sockets: number): Promise<void> {
  for (let waitedMs = 0; waitedMs < 10_000 && socketsOf(server) > sockets; waitedMs += 20) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
