/** What `serve` binds, prints, leaves and refuses, and what clients see of commands given meanwhile. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { NBD_CMD_FLAG_FUA } from "../../actors/nbd/wire/constants.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { Lines, PoolOnDisk } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { cliArguments, commandLine } from "./command_line.ts";

const block = 65536;
const small = ["--data-size", "64M", "--metadata-size", "2M"];

/** `serve` in some folder, with words of the test's own. */
class Serving {
  readonly stdout: Lines;
  readonly stderr: Lines;
  readonly child: Deno.ChildProcess;

  constructor(args: readonly string[], cwd: string) {
    this.child = new Deno.Command(Deno.execPath(), {
      args: cliArguments(args),
      cwd,
      env: { NO_COLOR: "1", GOSSAMER_POOL: "" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.stdout = new Lines(this.child.stdout);
    this.stderr = new Lines(this.child.stderr);
  }

  /** Waits for so many lines on stdout, or the end, and gives the first so many. */
  async printed(lines: number): Promise<string[]> {
    await this.stdout.met((text) => text.split("\n").length > lines);
    return this.stdout.text.trimEnd().split("\n").slice(0, lines);
  }

  async end(signal?: Deno.Signal): Promise<number> {
    if (signal !== undefined) this.child.kill(signal);
    const [status] = await Promise.all([this.child.status, this.stdout.ended, this.stderr.ended]);
    return status.code;
  }
}

async function inFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-serve-" });
  try {
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const modeOf = (path: string) => (Deno.statSync(path).mode ?? 0) & 0o777;
const namesIn = (path: string) => [...Deno.readDirSync(path)].map((entry) => entry.name).sort();
const poolFiles = ["catalog.json", "catalog.spare", "data.img", "intent.journal", "metadata.img"];

/** A port that nobody else uses just now. */
function busyPort(): { port: number } & Disposable {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return { port: (listener.addr as Deno.NetAddr).port, [Symbol.dispose]: () => listener.close() };
}

Deno.test("serve makes what is missing, prints a line for each address, drains at SIGTERM and leaves only the pool", () =>
  inFolder(async (folder) => {
    const addresses = [
      "--listen",
      "tcp:127.0.0.1:0",
      "--listen",
      `unix:${folder}/n.sock`,
      "--listen",
      "unix:m.sock",
    ];
    const serving = new Serving(
      ["serve", ...small, "--create", "a=1M", "--create", "b=1000", ...addresses],
      folder,
    );
    const lines = await serving.printed(4);
    const [, port] = /^listening nbd:\/\/127\.0\.0\.1:(\d+)$/.exec(lines[0]!) ?? [];
    assert(Number(port) > 0, lines[0]);
    assertEquals(lines.slice(1), [
      `listening nbd+unix:///?socket=${folder}/n.sock`,
      "listening nbd+unix:///?socket=m.sock",
      `listening nbd+unix:///?socket=${folder}/pool/nbd.sock`,
    ]);
    assertEquals([
      modeOf(`${folder}/pool`),
      modeOf(`${folder}/n.sock`),
      modeOf(`${folder}/pool/control.sock`),
      modeOf(`${folder}/pool/nbd.sock`),
    ], [
      0o700,
      0o600,
      0o600,
      0o600,
    ]);
    for (const name of poolFiles) assertEquals(modeOf(`${folder}/pool/${name}`), 0o600);
    assertEquals(namesIn(`${folder}/pool`), [...poolFiles, "control.sock", "nbd.sock"].sort());
    const client = await RawClient.attach({ hostname: "127.0.0.1", port: Number(port) }, "a");
    await client.write(0, new Uint8Array(10).fill(1));
    assertEquals(await serving.end("SIGTERM"), 0);
    client.close();
    assertMatch(
      serving.stderr.text,
      /^[^\n]*every user of this host[^\n]*\n"b": note: [^\n]* rounded up to 1024, a multiple of 512\n[^\n]* attached to "a"\nstopping; [^\n]*\n[^\n]* left "a"\n$/,
    );
    assertEquals([namesIn(folder), namesIn(`${folder}/pool`)], [["pool"], poolFiles]);

    const again = new Serving(
      ["serve", "--create", "a=2M", "--create", "b=1024", "--data-size", "1G", "--listen", "unix:n.sock"],
      folder,
    );
    await again.printed(1);
    await again.printed(2);
    assertEquals(
      again.stderr.text,
      'The pool is there already: --data-size has no effect.\n"a" is there already, with 1 MiB; it stays as it is.\n',
    );
    const reader = await RawClient.attach({ path: `${folder}/n.sock` }, "a");
    assertEquals(await reader.read(0, 11), new Uint8Array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]));
    reader.close();
    assertEquals(await again.end("SIGINT"), 0);
  }));

Deno.test("where an address cannot be bound, one sentence, status 1, and nothing is left behind", () =>
  inFolder(async (folder) => {
    using busy = busyPort();
    const cases: readonly (readonly [listen: string, says: RegExp])[] = [
      [`tcp:127.0.0.1:${busy.port}`, /Address already in use/],
      ["tcp:no-such-host.invalid:0", /Cannot listen on nbd:\/\/no-such-host\.invalid:0/],
      ["unix:no/such/folder.sock", /Cannot listen on the socket no\/such\/folder\.sock/],
      [`unix:${"n".repeat(120)}`, /longer than 107 bytes/],
    ];
    for (const [listen, says] of cases) {
      const args = ["serve", ...small, "--create", "a=1M", "--listen", "unix:ok.sock", "--listen", listen];
      const { status, stdout, stderr } = await commandLine(args, folder);
      assertEquals([status, stdout], [1, ""], stderr);
      assertMatch(stderr, says);
      assertMatch(stderr, /^[^\n]+\.\n$/);
      assertEquals(namesIn(folder), []);
    }
    // With a pool that is there, no volume is made either.
    await commandLine(["init", ...small], folder);
    const { status } = await commandLine(["serve", "--create", "a=1M", "--listen", cases[0]![0]], folder);
    assertEquals(status, 1);
    assertEquals((await commandLine(["list", "--json"], folder)).stdout, '{"volumes":[]}\n');
    assertEquals(namesIn(`${folder}/pool`), poolFiles);
  }));

Deno.test("a pool under a long path is served without its socket, with a warning, and commands reach it all the same", () =>
  inFolder(async (folder) => {
    const long = `${folder}/${"long-".repeat(20)}`;
    await Deno.mkdir(long);
    const serving = new Serving(["serve", ...small], long);
    const lines = await serving.printed(1);
    // Port 10809 may be somebody else's here; then there is nothing to see but that.
    if (lines[0] !== "") {
      assertEquals(lines, ["listening nbd://127.0.0.1:10809"]);
      assertMatch(
        serving.stderr.text,
        /^Cannot listen on [^\n]*107 bytes\. [^\n]*\n[^\n]*127\.0\.0\.1:10809 has no TLS[^\n]*\n$/,
      );
      assertEquals((await commandLine(["create", "a", "1M"], long)).status, 0);
      assertEquals(namesIn(`${long}/pool`), [...poolFiles, "control.sock"].sort());
      assertEquals(await serving.end("SIGTERM"), 0);
    } else {
      assertMatch(serving.stderr.text, /10809: Address already in use/m);
      assertEquals(await serving.end(), 1);
    }
  }));

Deno.test("one process has a pool: a second server and offline changes are refused, readers share", async () => {
  await using pool = await PoolOnDisk.make(...small);
  await pool.verb("create", "a", "1M");
  const server = await pool.serve();
  const inUse = /^Cannot open the pool "[^"]+": another process has it open\. Stop that one first\.\n$/;
  for (const more of [[], ["--read-only"]]) {
    const { status, stderr } = await pool.cli([
      "serve",
      "--lock-wait",
      "0",
      "--listen",
      "tcp:127.0.0.1:0",
      ...more,
    ]);
    assertEquals(status, 1);
    assertMatch(stderr, inUse);
  }
  assertEquals((await pool.cli(["serve", "--lock-wait", "0", "--block-size", "128K"])).status, 1);
  await server.stop();
  const wrong = await pool.cli(["serve", "--block-size", "128K", "--listen", "tcp:127.0.0.1:0"]);
  assertEquals(wrong.status, 1);
  assertMatch(wrong.stderr, /it was made with blocks of 64 KiB/);

  const before = await Deno.readFile(pool.metadataPath);
  const reading = await pool.serve(["--read-only"]);
  const second = await Promise.all(
    [["list"], ["status"], ["check"], ["rm", "-n", "a"]].map((args) => pool.cli(args)),
  );
  assertEquals(second.map((result) => result.status), [0, 0, 0, 0]);
  const change = await pool.cli(["create", "b", "1M", "--lock-wait", "0"]);
  assertEquals(change.status, 1);
  assertMatch(change.stderr, inUse);
  const client = await RawClient.attach({ path: reading.socket }, "a");
  const { error } = await client.perform({ type: 1, offsetBytes: 0, payload: new Uint8Array(512) });
  assertEquals(error, 1);
  client.close();
  await reading.stop();
  assertEquals(await Deno.readFile(pool.metadataPath), before);
});

Deno.test({
  name: "after kill -9 the next command opens the pool, and the next server replaces the sockets",
  ignore: !hasThinTools("0.9") || !hasThinTools("1.x"),
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    const server = await pool.serve(["--create", "a=1M"]);
    const client = await RawClient.attach({ path: server.socket }, "a");
    await client.write(0, new Uint8Array(block).fill(1), NBD_CMD_FLAG_FUA);
    await pool.verb("snapshot", "a@s");
    await server.kill();
    client.close();
    assert(Deno.statSync(server.socket).isSocket);
    assert(Deno.statSync(`${pool.directory}/control.sock`).isSocket);
    assertEquals((await pool.list()).map((volume) => volume.name), ["a", "a@s"]);
    await pool.verb("create", "b", "1M");
    const again = await pool.serve();
    const reader = await RawClient.attach({ path: again.socket }, "a@s");
    assertEquals(await reader.read(0, block), new Uint8Array(block).fill(1));
    await reader.disconnect();
    assertEquals((await pool.status()).mode, "write");
    await again.stop();
    await pool.requireSound();
  },
});

Deno.test("the default export is the only volume that is no snapshot, and snapshots outlive their volume", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve(["--create", "a=1M"]);
  const address = { path: server.socket };
  const a = await RawClient.attach(address, "");
  await a.write(0, new Uint8Array(512).fill(1));
  await pool.verb("snapshot", "a@s");
  await a.disconnect();
  const only = await RawClient.attach(address, "");
  assertEquals(only.facts?.sizeBytes, 1 << 20);
  await only.disconnect();
  await pool.verb("create", "b", "2M");
  await assertRejects(() => RawClient.attach(address, ""), Error, "NBD_REP_ERR_UNKNOWN");
  await pool.verb("rm", "a");
  const other = await RawClient.attach(address, "");
  assertEquals(other.facts?.sizeBytes, 2 << 20);
  assertEquals((await listExports(address)).sort(), ["a@s", "b"]);
  await other.disconnect();
  await pool.verb("create", "a", "4M");
  const snapshot = await RawClient.attach(address, "a@s");
  assertEquals(await snapshot.read(0, 512), new Uint8Array(512).fill(1));
  await snapshot.disconnect();
  await pool.verb("rename", "a", "c");
  assertEquals((await listExports(address)).sort(), ["a@s", "b", "c"]);
  await server.stop();
});

async function listExports(address: { path: string }): Promise<string[]> {
  const client = await RawClient.connect(address);
  await client.greet();
  const names = await client.list();
  client.close();
  return names;
}

Deno.test("snapshots of one command are one instant for a client that writes two volumes in lock-step", async () => {
  await using pool = await PoolOnDisk.make(...small);
  const server = await pool.serve(["--create", "a=1M", "--create", "b=1M"]);
  const address = { path: server.socket };
  const [a, b] = [await RawClient.attach(address, "a"), await RawClient.attach(address, "b")];
  let stopping = false;
  const numberAt = (data: Uint8Array) => new DataView(data.buffer, data.byteOffset).getUint32(0);
  const writing = (async () => {
    for (let number = 1; !stopping; number += 1) {
      const payload = new Uint8Array(512);
      new DataView(payload.buffer).setUint32(0, number);
      await a.write(1000, payload);
      await b.write(1000, payload);
    }
  })();
  const count = 6;
  for (let index = 0; index < count; index += 1) {
    await pool.verb(
      "snapshot",
      ...(index % 2 === 0 ? [`a@${index}`, `b@${index}`] : [`b@${index}`, `a@${index}`]),
    );
  }
  stopping = true;
  await writing;
  let last = 0;
  for (let index = 0; index < count; index += 1) {
    const numbers: number[] = [];
    for (const name of ["a", "b"]) {
      const client = await RawClient.attach(address, `${name}@${index}`);
      numbers.push(numberAt(await client.read(1000, 512)));
      await client.disconnect();
    }
    assert(numbers[0] === numbers[1] || numbers[0] === numbers[1]! + 1, `snapshot ${index} holds ${numbers}`);
    assert(numbers[0]! > last, "time passes between commands");
    last = numbers[0]!;
  }
  await a.disconnect();
  await b.disconnect();
  await server.stop();
});

/** What `serve` prints and complains about until it listens at these addresses, beside `nbd.sock` in the pool. */
async function servedAt(folder: string, ...args: string[]): Promise<{ stdout: string[]; stderr: string }> {
  const listens = args.filter((arg) => arg === "--listen").length;
  const serving = new Serving(["serve", ...small, ...args], folder);
  await serving.printed(listens);
  assertEquals(await serving.end("SIGTERM"), 0);
  return { stdout: serving.stdout.text.trimEnd().split("\n"), stderr: serving.stderr.text };
}

Deno.test("serve says of each TCP address without TLS which programs can read and write there", () =>
  inFolder(async (folder) => {
    const anyUser =
      /^nbd:\/\/\S+ has no TLS: every user of this host can read and write every volume there\. /m;
    const anyHost =
      /^Warning: nbd:\/\/0\.0\.0\.0:\d+ has no TLS: whatever reaches it over the network can read and write /m;
    const socket = await servedAt(folder, "--listen", "unix:n.sock");
    assertEquals(socket.stderr, "stopping; a second signal ends the server at once\n");
    const loopback = await servedAt(folder, "--listen", "tcp:127.0.0.1:0", "--listen", "tcp:localhost:0");
    assertEquals(loopback.stderr.match(new RegExp(anyUser, "gm"))?.length, 2, loopback.stderr);
    const network = await servedAt(folder, "--listen", "tcp:0.0.0.0:0");
    assertMatch(network.stderr, anyHost);
    const reading = await servedAt(folder, "--read-only", "--listen", "tcp:127.0.0.1:0");
    assertMatch(reading.stderr, /every user of this host can read every volume there/);
  }));

Deno.test("--listen removes the TCP address that is there by default, and nbd.sock in the pool stays, once", () =>
  inFolder(async (folder) => {
    const own = `listening nbd+unix:///?socket=${folder}/pool/nbd.sock`;
    const named = await servedAt(folder, "--listen", "unix:n.sock");
    assertEquals(named.stdout, ["listening nbd+unix:///?socket=n.sock", own]);
    const itself = await servedAt(folder, "--listen", "unix:pool/nbd.sock");
    assertEquals(itself.stdout, ["listening nbd+unix:///?socket=pool/nbd.sock"]);
    assert(!itself.stderr.includes("nbd.sock"), itself.stderr);
    // A file in its place is not ours to remove.
    await Deno.writeTextFile(`${folder}/pool/nbd.sock`, "precious");
    const without = await servedAt(folder, "--listen", "unix:n.sock");
    assertEquals(without.stdout, ["listening nbd+unix:///?socket=n.sock"]);
    assertMatch(
      without.stderr,
      /^Cannot listen on the socket \S+nbd\.sock: a file of that name exists[^\n]*left out\.$/m,
    );
    assertEquals(await Deno.readTextFile(`${folder}/pool/nbd.sock`), "precious");
  }));
