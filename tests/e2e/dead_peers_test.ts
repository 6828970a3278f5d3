/**
 * Clients behind a real link that goes down: they are gone within half a minute, and one that only takes nothing is not.
 * Server and clients are in network namespaces of their own, so that nothing of it reaches any other network.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { isTestable, programPath, python, requiredProgram } from "../support/programs.ts";
import { Lines, PoolOnDisk, runToEnd, type ServerProcess } from "../support/server.ts";

const ip = programPath("ip");

/** Whether this process may make a network namespace with a link to it. */
function mayMakeLinks(): boolean {
  if (ip === undefined) return isTestable(false);
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  const name = `gossamer-try-${Deno.pid}`;
  const run = (...args: string[]) =>
    new Deno.Command(ip, { args, stdout: "null", stderr: "null" }).outputSync().success;
  const isMade = run("netns", "add", name) &&
    run("-n", name, "link", "add", "name", "v0", "type", "veth", "peer", "name", "v1");
  run("netns", "del", name);
  return isMade;
}

/** A network namespace for the server, that only this test has. */
class Namespace implements AsyncDisposable {
  private constructor(readonly name: string) {}

  static async make(): Promise<Namespace> {
    const namespace = new Namespace(`gossamer-${Deno.pid}-server`);
    await ipRun("netns", "add", namespace.name);
    return namespace;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await ipRun("netns", "del", this.name).catch(() => {});
  }
}

async function ipRun(...args: string[]): Promise<void> {
  await runToEnd(requiredProgram("ip"), args);
}

/** A namespace for clients, and a link from there to the server's, which can be cut. */
class Link implements AsyncDisposable {
  readonly #name: string;
  readonly #net: string;

  private constructor(number: number) {
    this.#name = `gossamer-${Deno.pid}-${number}`;
    this.#net = `10.213.${number}`;
  }

  static async make(server: Namespace, number: number): Promise<Link> {
    const link = new Link(number);
    const ours = `clients${number}`;
    const atServer = (...args: string[]) => ipRun("-n", server.name, ...args);
    await ipRun("netns", "add", link.#name);
    await atServer("link", "add", ours, "type", "veth", "peer", "name", "theirs", "netns", link.#name);
    await atServer("addr", "add", `${link.ourAddress}/24`, "dev", ours);
    await atServer("link", "set", ours, "up");
    await ipRun("-n", link.#name, "addr", "add", `${link.#net}.2/24`, "dev", "theirs");
    await ipRun("-n", link.#name, "link", "set", "theirs", "up");
    return link;
  }

  /** The server's address on this link. */
  get ourAddress(): string {
    return `${this.#net}.1`;
  }

  /** A Python program on the other side, that prints a line when it is as far as it gets. */
  start(script: string): Deno.ChildProcess {
    const args = ["netns", "exec", this.#name, python, "-c", script];
    return new Deno.Command(requiredProgram("ip"), { args, stdout: "piped", stderr: "inherit" }).spawn();
  }

  /** Nothing passes any more, and no end is told. */
  async cut(): Promise<void> {
    await ipRun("-n", this.#name, "link", "set", "theirs", "down");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await ipRun("netns", "del", this.#name).catch(() => {});
  }
}

/** Attaches so many clients with raw sockets; `then` is what each does. */
function clientsScript(host: string, port: number, count: number, then: string): string {
  return `
import socket, struct, time
def attach():
    s = socket.socket(); s.connect((${JSON.stringify(host)}, ${port}))
    def get(n):
        data = b""
        while len(data) < n: data += s.recv(n - len(data))
        return data
    get(18)
    s.sendall(struct.pack(">I", 3))
    s.sendall(struct.pack(">8sII", b"IHAVEOPT", 7, 4 + 1 + 2) + struct.pack(">I", 1) + b"d" + struct.pack(">H", 0))
    while True:
        kind, length = struct.unpack(">8xIII", get(20))[1:]
        get(length)
        if kind == 1: return s
def read(s, length):
    s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, length))
clients = [attach() for _ in range(${count})]
for c in clients: ${then}
print("ready", flush=True)
time.sleep(600)
`;
}

/** Waits until all of a program's clients are attached. Its whole line is read, since the end of the pipe ends it. */
async function isReady(output: Lines): Promise<void> {
  assert(await output.met((text) => text === "ready\n"), "a client ended before it was attached");
}

async function attachedTo(
  server: ServerProcess,
  pool: PoolOnDisk,
  wanted: number,
  withinMs: number,
): Promise<number> {
  const begunMs = performance.now();
  while ((await pool.status()).attached > wanted) {
    assert(performance.now() - begunMs < withinMs, `clients are still attached: ${server.stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  return performance.now() - begunMs;
}

Deno.test({
  name: "clients behind a link that goes down are gone within 30 s, idle or not, and a paused one lives",
  ignore: !mayMakeLinks(),
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size", "64M", "--metadata-size", "4M");
    await using namespace = await Namespace.make();
    await using link = await Link.make(namespace, 0);
    await using other = await Link.make(namespace, 1);
    const listen = [link, other].flatMap(({ ourAddress }) => ["--listen", `tcp:${ourAddress}:0`]);
    const under = [requiredProgram("ip"), "netns", "exec", namespace.name];
    const server = await pool.serve([...listen, "--create", "d=32M"], { under });
    const on = ({ ourAddress }: Link, count: number, then: string) => {
      const port = Number(server.stdout.split(`nbd://${ourAddress}:`)[1]?.split("\n")[0]);
      return clientsScript(ourAddress, port, count, then);
    };
    // Each leaves a reply of 16 MiB in the midst, with a window that is closed.
    const children = [
      link.start(on(link, 3, "pass")),
      link.start(on(link, 3, "read(c, 16 << 20)")),
      other.start(on(other, 1, "read(c, 16 << 20)")),
    ];
    const outputs = children.map(({ stdout }) => new Lines(stdout));
    try {
      for (const output of outputs) await isReady(output);
      assertEquals((await pool.status()).attached, 7);
      await link.cut();
      const tookMs = await attachedTo(server, pool, 1, 40_000);
      assert(tookMs < 32_000, `it took ${tookMs} ms`);
      // Longer than it takes to find out who is gone, since the paused one has taken anything.
      await new Promise((resolve) => setTimeout(resolve, 5000));
      assertEquals((await pool.status()).attached, 1, server.stderr);
      assertMatch(server.stderr, /closing the connection from 10\.213\.\d+\.2:\d+: its host does not answer/);
      // Nothing of the dead holds the volume back.
      await pool.verb("rm", "d", "--force");
    } finally {
      for (const child of children) {
        try {
          child.kill("SIGKILL");
        } catch {
          // It has ended by itself, which the test complains of.
        }
        await child.status;
      }
      for (const output of outputs) await output.ended;
    }
    await server.stop();
  },
});
