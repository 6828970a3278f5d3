/** TLS as stock clients see it: the server as a process, certificates of openssl, and no client in that should not be. */
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { readTlsKeys } from "../../actors/edge/tls_keys.ts";
import { UsageError } from "../../storage/base/errors.ts";
import { type Certificates, hasOpenssl, makeCertificates } from "../support/certificates.ts";
import { hasProgram, hasPythonNbd, python, requiredProgram } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, type ServerProcess } from "../support/server.ts";
import type { ToolResult } from "../support/thin_tools.ts";

const small = ["--data-size", "256M", "--metadata-size", "2M"];
const mib = 1 << 20;
const decoder = new TextDecoder();

/** A pool that is served with TLS on a port and a socket. */
class TlsPool implements AsyncDisposable {
  private constructor(
    readonly pool: PoolOnDisk,
    readonly certificates: Certificates,
    readonly server: ServerProcess,
    readonly port: number,
  ) {}

  static async serve(...options: string[]): Promise<TlsPool> {
    const pool = await PoolOnDisk.make(...small);
    try {
      const certificates = await makeCertificates(pool.folder);
      const server = await pool.serve(
        [
          ...["--listen", "tcp:127.0.0.1:0", "--create", "d=64M"],
          ...["--tls-certificates", certificates.server, ...options],
        ],
      );
      const port = Number(/127\.0\.0\.1:(\d+)$/m.exec(server.stdout)?.[1]);
      return new TlsPool(pool, certificates, server, port);
    } catch (error) {
      await pool[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The volume's URLs, for a client with these certificates: over TCP and over the Unix socket. */
  urls(certificates: string): readonly [tcp: string, unix: string] {
    const files = `tls-certificates=${certificates}`;
    return [
      `nbds://localhost:${this.port}/d?${files}`,
      `nbds+unix:///d?socket=${this.server.socket}&tls-hostname=localhost&${files}`,
    ];
  }

  /** The options that have qemu's tools speak TLS to the volume. */
  qemu(certificates: string): string[] {
    const credentials = `tls-creds-x509,id=tls,endpoint=client,dir=${certificates}`;
    const image = `driver=nbd,host=localhost,port=${this.port},export=d,tls-creds=tls`;
    return ["--object", credentials, "--image-opts", image];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool[Symbol.asyncDispose]();
  }
}

async function run(name: string, args: readonly string[]): Promise<ToolResult> {
  const path = name === python ? name : requiredProgram(name);
  const output = await new Deno.Command(path, {
    args: [...args],
    env: { PYTHONDONTWRITEBYTECODE: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const [stdout, stderr] = [decoder.decode(output.stdout), decoder.decode(output.stderr)];
  return { status: output.code, stdout, stderr };
}

/** A file of bytes that repeat nowhere near. */
function sampleFile(path: string): void {
  const bytes = new Uint8Array(64 * mib);
  for (let at = 0; at < bytes.length; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536));
  Deno.writeFileSync(path, bytes);
}

Deno.test({
  name: "libnbd and qemu read over TLS what they wrote over TLS, on TCP and on a Unix socket",
  ignore: !hasOpenssl() || !hasProgram("nbdcopy") || !hasProgram("nbdinfo") || !hasProgram("qemu-img"),
  fn: async () => {
    await using tls = await TlsPool.serve("--tls", "require", "--tls-verify-peer");
    const { pool, certificates: { client }, server } = tls;
    assertMatch(server.stdout, /^listening nbds:\/\/127\.0\.0\.1:\d+$/m);
    assertStringIncludes(server.stdout, `listening nbds+unix:///?socket=${server.socket}\n`);
    const [tcp, unix] = tls.urls(client);
    for (const url of [tcp, unix]) {
      assertMatch(await runToEnd(requiredProgram("nbdinfo"), [url]), /with TLS, using structured packets/);
    }
    const [one, other] = [pool.path("one.raw"), pool.path("other.raw")];
    sampleFile(one);
    await runToEnd(requiredProgram("nbdcopy"), ["--flush", one, tcp]);
    await runToEnd(requiredProgram("nbdcopy"), [unix, other]);
    await runToEnd("/usr/bin/cmp", [one, other]);
    const file = `driver=raw,file.driver=file,file.filename=${one}`;
    await runToEnd(requiredProgram("qemu-img"), ["compare", ...tls.qemu(client), file]);
    assertMatch(server.stderr, /^127\.0\.0\.1:\d+ \("alice"\) attached to "d", TLS$/m);
    await server.stop();
  },
});

Deno.test({
  name:
    "libnbd moves 32 MiB in one request over TLS, and a plain client beside it is served where TLS is allowed",
  ignore: !hasOpenssl() || !hasPythonNbd(),
  fn: async () => {
    await using tls = await TlsPool.serve("--tls", "allow");
    assertMatch(tls.server.stdout, /^listening nbd:\/\//m);
    const [url] = tls.urls(tls.certificates.uncertified);
    const plain = `nbd://localhost:${tls.port}/d`;
    const script = `
import nbd, os
data = os.urandom(32 << 20)
inside, outside = nbd.NBD(), nbd.NBD()
inside.set_uri_allow_local_file(True)
inside.connect_uri(${JSON.stringify(url)})
outside.connect_uri(${JSON.stringify(plain)})
assert inside.get_tls_negotiated() and not outside.get_tls_negotiated()
inside.pwrite(data, 512 + 1)
assert outside.pread(len(data), 512 + 1) == data
outside.pwrite(data[::-1], 0)
assert inside.pread(len(data), 0) == data[::-1]
inside.flush()
inside.shutdown()
outside.shutdown()
`;
    const done = await run(python, ["-c", script]);
    assertEquals([done.status, done.stderr], [0, ""]);
  },
});

Deno.test({
  name: "libnbd and qemu are refused with a certificate of another authority, without one, and without TLS",
  ignore: !hasOpenssl() || !hasProgram("nbdinfo") || !hasProgram("qemu-img") || !hasPythonNbd(),
  fn: async () => {
    await using tls = await TlsPool.serve("--tls", "require", "--tls-verify-peer");
    const { certificates: { foreign, uncertified, client }, server } = tls;
    for (const url of [...tls.urls(foreign), ...tls.urls(uncertified)]) {
      assertEquals((await run("nbdinfo", ["--size", url])).status, 1, url);
    }
    const plain = await run("nbdinfo", ["--size", `nbd://localhost:${tls.port}/d`]);
    assertEquals(plain.status, 1);
    assertStringIncludes(plain.stderr, "TLS");
    for (const directory of [foreign, uncertified]) {
      assertEquals((await run("qemu-img", ["info", ...tls.qemu(directory)])).status, 1, directory);
    }
    const script = `
import nbd
handle = nbd.NBD()
handle.set_export_name("d")
handle.set_tls(nbd.TLS_REQUIRE)
handle.set_tls_certificates(${JSON.stringify(foreign)})
try:
    handle.connect_tcp("localhost", "${tls.port}")
    print(handle.pread(1, 0))
except nbd.Error as error:
    print("refused")
`;
    assertEquals((await run(python, ["-c", script])).stdout, "refused\n");
    // Nobody of them was attached, and who may come still can.
    assertEquals(/attached to/.test(server.stderr), false, server.stderr);
    assertStringIncludes(server.stderr, "its certificate is not valid, or of another authority\n");
    assertStringIncludes(server.stderr, "it showed no certificate\n");
    assertEquals(
      await runToEnd(requiredProgram("nbdinfo"), ["--size", tls.urls(client)[0]]),
      `${64 * mib}\n`,
    );
    await server.stop();
    assertMatch(server.stderr, /^refused 127\.0\.0\.1:\d+: it did not ask for TLS$/m);
  },
});

Deno.test({
  name: "a TLS client that was killed costs the server no time afterwards",
  ignore: !hasOpenssl() || !hasPythonNbd(),
  fn: async () => {
    await using tls = await TlsPool.serve("--tls", "require");
    const script = `
import nbd, os, sys
handle = nbd.NBD()
handle.set_uri_allow_local_file(True)
handle.connect_uri(${JSON.stringify(tls.urls(tls.certificates.uncertified)[0])})
handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(32 << 20)), 0)
os.kill(os.getpid(), 9)
`;
    assertEquals((await run(python, ["-c", script])).status, 137);
    while (!tls.server.stderr.includes(' left "d"')) await new Promise((resolve) => setTimeout(resolve, 20));
    const before = ticksOf(tls.server.pid);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    // Of a hundred ticks, those of a pool that is idle.
    assert(ticksOf(tls.server.pid) - before < 20);
    await tls.server.stop();
  },
});

/** Processor time that a process has used, in hundredths of a second. */
function ticksOf(pid: number): number {
  const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1]!.split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

/** Serves with certificates that cannot be used; gives the sentence, after which no pool may be there. */
async function complaintAbout(pool: PoolOnDisk, certificates: string): Promise<string> {
  const args = ["serve", ...small, "--listen", "tcp:127.0.0.1:0", "--tls", "require", "--tls-verify-peer"];
  const { status, stdout, stderr } = await pool.cli([...args, "--tls-certificates", certificates]);
  assertEquals([status, stdout], [1, ""], stderr);
  assertMatch(stderr, /^Cannot use the TLS certificates in [^\n]+\n$/);
  const names = [...Deno.readDirSync(pool.folder)].map((entry) => entry.name);
  assertEquals(names.includes("pool"), false);
  return stderr;
}

Deno.test({
  name: "certificates that are missing or bad are named in one sentence, and no pool is made",
  ignore: !hasOpenssl(),
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    const { server, client } = await makeCertificates(pool.folder);
    const file = (name: string) => `${server}/${name}`;
    const nowhere = await complaintAbout(pool, pool.path("nowhere"));
    assertStringIncludes(nowhere, "ca-cert.pem, server-cert.pem and server-key.pem are missing");
    assertStringIncludes(nowhere, "Make the files with openssl");
    const key = Deno.readTextFileSync(file("server-key.pem"));
    Deno.copyFileSync(`${client}/client-key.pem`, file("server-key.pem"));
    assertStringIncludes(
      await complaintAbout(pool, server),
      "server-key.pem is not the key of server-cert.pem. Put the two there that belong together.\n",
    );
    Deno.writeTextFileSync(file("server-key.pem"), "secret");
    assertStringIncludes(await complaintAbout(pool, server), "server-key.pem is not a private key");
    Deno.removeSync(file("server-key.pem"));
    assertStringIncludes(await complaintAbout(pool, server), "server-key.pem is missing");
    Deno.writeTextFileSync(file("server-key.pem"), key);
    Deno.writeTextFileSync(file("ca-crl.pem"), "");
    const revoking = await complaintAbout(pool, server);
    assertMatch(revoking, /revocations, as in ca-crl\.pem, are not supported\. Remove it/);
    Deno.removeSync(file("ca-crl.pem"));
    Deno.writeTextFileSync(file("ca-cert.pem"), "trust me");
    assertStringIncludes(await complaintAbout(pool, server), "ca-cert.pem is not a certificate");
  },
});

Deno.test({
  name: "the README's lines make certificates that are served with, and a client's",
  ignore: !hasOpenssl(),
  fn: async () => {
    await using pool = await PoolOnDisk.folder();
    const readme = Deno.readTextFileSync(new URL("../../README.md", import.meta.url));
    const lines = /^```sh\n(\([^`]*openssl [^`]*)^```/m.exec(readme)![1]!;
    const verify = "openssl verify -CAfile tls/ca-cert.pem tls/client-cert.pem";
    await runToEnd("/bin/sh", ["-c", `set -e\ncd ${pool.folder}\n${lines}\n${verify}`]);
    const before = Deno.readTextFileSync(pool.path("tls/ca-key.pem"));
    assertEquals((await run("sh", ["-c", `cd ${pool.folder}\n${lines}`])).status, 1);
    assertEquals(Deno.readTextFileSync(pool.path("tls/ca-key.pem")), before);
    assertEquals([...Deno.readDirSync(pool.folder)].map((entry) => entry.name), ["tls"]);
    const certificates = pool.path("tls");
    readTlsKeys({ policy: "require", certificates, verifyPeer: true });
    assertThrows(
      () => readTlsKeys({ policy: "allow", certificates, verifyPeer: true }),
      UsageError,
      "Require TLS.",
    );
  },
});

Deno.test({
  name: "the README's lines of clients reach a volume over TLS, also after the server's files were renewed",
  ignore: !hasOpenssl() || !["nbdinfo", "qemu-img", "nbd-client"].every(hasProgram),
  fn: async () => {
    await using tls = await TlsPool.serve("--tls", "require", "--tls-verify-peer");
    const { pool, certificates: { client, foreign, server } } = tls;
    const readme = Deno.readTextFileSync(new URL("../../README.md", import.meta.url));
    const lines = /^```sh\n(nbdinfo "nbds:[^`]*)^```/m.exec(readme)![1]!;
    Deno.renameSync(client, pool.path("tls"));
    // What the server began with stays what it has.
    Deno.copyFileSync(`${foreign}/ca-cert.pem`, `${server}/ca-cert.pem`);
    const here = lines.replaceAll("10809", `${tls.port}`).replace("//localhost/", `//localhost:${tls.port}/`)
      .replace("export=disk0", "export=d").replace("/disk0?", "/d?");
    const said = await runToEnd("/bin/sh", ["-euc", `cd ${pool.folder}\n${here}`]);
    assertMatch(said, /with TLS, using structured packets[^]*virtual size: 64 MiB[^]*^d: thin volume$/m);
    await tls.server.stop();
  },
});

Deno.test({
  name: "TLS needs no permission but to read its certificates",
  ignore: !hasOpenssl() || !hasProgram("nbdinfo"),
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    const { server: certificates, client } = await makeCertificates(pool.folder);
    await pool.verb("create", "d", "1M");
    const tls = ["--tls", "require", "--tls-verify-peer", "--tls-certificates", certificates];
    const args = ["--read-only", "--listen", "tcp:127.0.0.1:0", ...tls];
    const net = "--allow-net=127.0.0.1";
    const without = { permissions: [`--allow-read=${pool.directory}`, net] };
    const refused = await pool.cli(["serve", ...args], without);
    assertEquals(refused.status, 1);
    assertStringIncludes(refused.stderr, `Add --allow-read=${certificates}.`);
    const permissions = [`--allow-read=${pool.directory},${certificates}`, net];
    const server = await pool.serveAt(args, { permissions });
    const port = /127\.0\.0\.1:(\d+)/.exec(server.stdout)![1];
    const url = `nbds://localhost:${port}/d?tls-certificates=${client}`;
    assertEquals(await runToEnd(requiredProgram("nbdinfo"), ["--size", url]), "1048576\n");
    await server.stop();
  },
});
