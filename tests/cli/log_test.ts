/** A server whose standard error or output takes nothing: it serves all the same, and ends as it should. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { isTestable, programPath } from "../support/programs.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { cliArguments } from "./command_line.ts";

const small = ["--data-size", "64M", "--metadata-size", "2M"];

/** A server that a shell starts with redirections of the test's own. */
class Redirected implements AsyncDisposable {
  readonly folder: string;
  readonly child: Deno.ChildProcess;

  /** `script` runs in the folder and ends with `exec "$@"`. */
  private constructor(folder: string, script: string) {
    this.folder = folder;
    const args = cliArguments(["serve", ...small, "--create", "a=1M", "--listen", "unix:n.sock"]);
    this.child = new Deno.Command("bash", {
      args: ["-c", script, "bash", Deno.execPath(), ...args],
      cwd: folder,
      env: { NO_COLOR: "1", GOSSAMER_POOL: "" },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  static async start(script: string): Promise<Redirected> {
    const folder = await Deno.makeTempDir({ prefix: "gossamer-log-" });
    const { success } = await new Deno.Command("mkfifo", { args: [`${folder}/fifo`] }).output();
    assert(success);
    return new Redirected(folder, script);
  }

  /** Attaches as soon as the server listens. */
  async attach(): Promise<RawClient> {
    const endMs = Date.now() + 20_000;
    for (;;) {
      try {
        return await RawClient.attach({ path: `${this.folder}/n.sock` }, "a");
      } catch (error) {
        if (Date.now() > endMs) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  /** Clients that come, write, read and go, each of which is a line of the log or two. */
  async work(clients: number): Promise<void> {
    for (let count = 1; count <= clients; count += 1) {
      const client = await this.attach();
      await client.write(0, new Uint8Array(4096).fill(count));
      assertEquals(await client.read(0, 4096), new Uint8Array(4096).fill(count));
      await client.disconnect();
    }
  }

  /** Asks it to stop and requires that it ends well, and soon. */
  async stop(): Promise<void> {
    const beginMs = Date.now();
    this.child.kill("SIGTERM");
    assertEquals((await this.child.status).code, 0);
    assert(Date.now() - beginMs < 10_000, "the log delayed the end");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.child.status;
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Fills a pipe that the test keeps open, so that neither its end nor room in it comes. */
async function fillFifo(path: string): Promise<Deno.FsFile> {
  const kept = Deno.openSync(path, { read: true, write: true });
  const fill = ["-c", 'exec dd if=/dev/zero bs=1024 count=1024 oflag=nonblock of="$0" 2>/dev/null', path];
  await new Deno.Command("sh", { args: fill }).output();
  return kept;
}

/** What it takes away from a server that its standard error, or output, is this. */
const outputs: readonly (readonly [what: string, script: string])[] = [
  ["a pipe whose reader has gone", 'exec "$@" 2> >(exec true)'],
  ["/dev/full", 'exec "$@" 2>/dev/full'],
  ["closed", 'exec "$@" 2>&-'],
];

for (const [what, script] of outputs) {
  Deno.test(`a server whose standard error is ${what} serves, and ends with 0 when it is asked to`, async () => {
    await using server = await Redirected.start(script);
    await server.work(3);
    await server.stop();
  });
  Deno.test(`a server whose standard output is ${what} serves, and ends with 0 when it is asked to`, async () => {
    await using server = await Redirected.start(script.replace("2>", "1>"));
    await server.work(3);
    await server.stop();
  });
}

Deno.test("a server whose standard error and output are a full pipe that is never read serves, and ends with 0", async () => {
  await using server = await Redirected.start(
    'while [ ! -e full ]; do sleep 0.05; done; exec "$@" >fifo 2>&1',
  );
  using _kept = await fillFifo(`${server.folder}/fifo`);
  await Deno.writeTextFile(`${server.folder}/full`, "");
  await server.work(3);
  await server.stop();
});

Deno.test("a server whose standard error is a full pipe that does not block serves, and its lines come when it is read", async () => {
  // dd makes standard error non-blocking for all that share it, as another program may.
  await using server = await Redirected.start(
    'exec 2<>fifo; dd if=/dev/zero bs=1024 count=1024 oflag=nonblock 1>&2 2>/dev/null; exec "$@"',
  );
  await server.work(3);
  using reader = Deno.openSync(`${server.folder}/fifo`, { read: true });
  let text = "";
  while (!/(left "a"[^]*){3}/.test(text)) {
    const buffer = new Uint8Array(65536);
    text += new TextDecoder().decode(buffer.subarray(0, await reader.read(buffer) ?? 0)).replaceAll("\0", "");
  }
  assertEquals(text.match(/attached to "a"/g)?.length, 3);
  await server.stop();
});

/** Whether a test may mount a file system where only its children see it. */
function mayMount(): boolean {
  if (programPath("unshare") === undefined) return false;
  return new Deno.Command("unshare", {
    args: ["-m", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"],
    stdout: "null",
    stderr: "null",
  }).outputSync().success;
}

Deno.test({
  name:
    "a server whose log is on a full disk serves, and says how many lines were dropped when there is room again",
  ignore: !isTestable(mayMount()),
  fn: async () => {
    await using server = await Redirected.start(
      'mkdir log; exec unshare -m sh -c \'mount -t tmpfs -o size=64k none log; head -c 64k /dev/zero >log/fill; exec "$@" 2>>log/log\' sh "$@"',
    );
    await server.work(3);
    const log = `/proc/${server.child.pid}/root${server.folder}/log`;
    assertEquals(await Deno.readTextFile(`${log}/log`), "");
    await Deno.truncate(`${log}/fill`, 0);
    await server.work(1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assertStringIncludes(await Deno.readTextFile(`${log}/log`), "lines of the log were dropped.\n");
    await server.stop();
  },
});

Deno.test("a result that is not read to its end is no failure, and one that cannot be written is", async () => {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-log-" });
  try {
    const run = async (words: readonly string[], script: string) => {
      const { code, stderr } = await new Deno.Command("bash", {
        args: ["-c", script, "bash", Deno.execPath(), ...cliArguments(words)],
        cwd: folder,
        env: { NO_COLOR: "1", GOSSAMER_POOL: "" },
      }).output();
      return { code, stderr: new TextDecoder().decode(stderr) };
    };
    assertEquals((await run(["init", ...small], 'exec "$@"')).code, 0);
    for (const verb of ["list", "status", "check", "dump", "help"]) {
      assertEquals(await run([verb], 'exec "$@" 1> >(exec true)'), { code: 0, stderr: "" }, verb);
      const full = await run([verb], 'exec "$@" 1>/dev/full');
      assertEquals(full.code, 1, verb);
      assertStringIncludes(
        full.stderr,
        "Cannot write the result to standard output: No space left on device",
      );
      assertEquals(full.stderr.split("\n").length, 2, full.stderr);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
