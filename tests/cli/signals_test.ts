/** What signals do to a server: it ends in order, reads its certificates again, or goes on. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { NBD_OPT_STARTTLS } from "../../actors/nbd/wire/constants.ts";
import { hasOpenssl, makeCertificates } from "../support/certificates.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { dial } from "../nbd/raw_socket.ts";
import { join, option, u32 } from "../nbd/wire_bytes.ts";
import { PoolOnDisk } from "../support/server.ts";

const small = ["--data-size", "64M", "--metadata-size", "2M"];
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const socketsIn = (path: string) =>
  [...Deno.readDirSync(path)].map((entry) => entry.name).filter((name) => name.endsWith(".sock"));

for (const signal of ["SIGHUP", "SIGQUIT"] as const) {
  Deno.test(`${signal} drains a server, and leaves neither sockets nor lost writes behind`, async () => {
    await using pool = await PoolOnDisk.make(...small);
    const server = await pool.serve(["--create", "a=1M"]);
    const client = await RawClient.attach({ path: server.socket }, "a");
    await client.write(0, new Uint8Array(512).fill(1));
    await server.stop(signal);
    client.close();
    assertStringIncludes(server.stderr, "stopping; a second signal ends the server at once\n");
    assertEquals(socketsIn(pool.directory), []);
    const again = await pool.serve();
    const reader = await RawClient.attach({ path: again.socket }, "a");
    assertEquals(await reader.read(0, 512), new Uint8Array(512).fill(1));
    await reader.disconnect();
    await again.stop();
  });
}

Deno.test("a SIGHUP after the signal that stops a server does not end it at once", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve(["--create", "a=1M"]);
  const client = await RawClient.attach({ path: server.socket }, "a");
  server.signal("SIGTERM");
  server.signal("SIGHUP");
  await server.stop("SIGHUP");
  client.close();
  assertEquals(socketsIn(pool.directory), []);
});

/** Inodes of the TCP sockets that a process listens on. */
function listening(pid: number): string[] {
  const inodes = new Set<string>();
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    try {
      const [, inode] = /^socket:\[(\d+)\]$/.exec(Deno.readLinkSync(`/proc/${pid}/fd/${name}`)) ?? [];
      if (inode !== undefined) inodes.add(inode);
    } catch {
      // It was closed meanwhile.
    }
  }
  const lines = ["tcp", "tcp6"].flatMap((table) =>
    Deno.readTextFileSync(`/proc/${pid}/net/${table}`).split("\n").map((line) => line.trim().split(/\s+/))
  );
  return lines.filter((fields) => fields[3] === "0A" && inodes.has(fields[9]!)).map((fields) => fields[9]!);
}

Deno.test("SIGUSR1 opens no inspector, neither at once nor later, and SIGUSR2 does nothing", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve(["--create", "a=1M"]);
  assertEquals(listening(server.pid), []);
  server.signal("SIGUSR1");
  // Deno begins to listen to the signal half a second after its start.
  await sleep(1000);
  server.signal("SIGUSR1");
  server.signal("SIGUSR2");
  await sleep(300);
  assertEquals(listening(server.pid), []);
  const client = await RawClient.attach({ path: server.socket }, "a");
  await client.write(0, new Uint8Array(512).fill(1));
  await client.disconnect();
  assert(!server.stderr.includes("Debugger"), server.stderr);
  await server.stop();
});

/** A client inside TLS that knows this authority alone. */
async function secured(port: number, authority: string): Promise<RawClient> {
  const conn = await dial({ hostname: "127.0.0.1", port });
  const read = async (length: number) => {
    const buffer = new Uint8Array(length);
    for (let at = 0; at < length;) at += await conn.read(buffer.subarray(at)) ?? length;
  };
  await read(18);
  await conn.write(join(u32(3), option(NBD_OPT_STARTTLS)));
  await read(20);
  const caCerts = [await Deno.readTextFile(`${authority}/ca-cert.pem`)];
  const tls = await Deno.startTls(conn as Deno.TcpConn, { hostname: "localhost", caCerts });
  const client = new RawClient(tls, 10_000);
  try {
    await client.go("a");
    return client;
  } catch (error) {
    client.close();
    throw error;
  }
}

Deno.test({
  name:
    "SIGHUP reads the certificates again: new connections get the new ones, old ones go on, bad ones change nothing",
  ignore: !hasOpenssl(),
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    for (const name of ["old", "new"]) await Deno.mkdir(pool.path(name));
    const old = await makeCertificates(pool.path("old"));
    const renewed = await makeCertificates(pool.path("new"));
    const used = pool.path("tls");
    await Deno.mkdir(used);
    const put = async (from: string, names: readonly string[]) => {
      for (const name of names) await Deno.copyFile(`${from}/${name}`, `${used}/${name}`);
    };
    const all = ["ca-cert.pem", "server-cert.pem", "server-key.pem"];
    await put(old.server, all);
    const tls = ["--tls", "require", "--tls-certificates", used];
    const server = await pool.serve(["--create", "a=1M", "--listen", "tcp:127.0.0.1:0", ...tls]);
    const port = Number(/127\.0\.0\.1:(\d+)$/m.exec(server.stdout)?.[1]);
    const before = await secured(port, old.server);

    // A certificate without its key, as in the midst of a renewal.
    await put(renewed.server, ["server-cert.pem"]);
    server.signal("SIGHUP");
    assert(await server.complained((text) => text.includes("were read before stay in use.")), server.stderr);
    assertStringIncludes(server.stderr, "server-key.pem is not the key of server-cert.pem");
    await (await secured(port, old.server)).disconnect();

    await put(renewed.server, all);
    server.signal("SIGHUP");
    assert(await server.complained((text) => text.includes("were read again")), server.stderr);
    await (await secured(port, renewed.server)).disconnect();
    await assertRejects(() => secured(port, old.server));
    await before.write(0, new Uint8Array(512).fill(1));
    assertEquals(await before.read(0, 512), new Uint8Array(512).fill(1));
    await before.disconnect();
    await server.stop();
  },
});
