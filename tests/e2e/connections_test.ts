/** Several libnbd connections to one volume of a real server: what CAN_MULTI_CONN promises, and what the log says of them. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { hasPythonNbd, python } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, type ServerProcess } from "../support/server.ts";

const ignore = !hasPythonNbd();
const small = ["--data-size", "64M", "--metadata-size", "2M"];

/** Runs Python with two connections, `a` and `b`, to the volume d; the server is process `server`. */
function withTwo(server: ServerProcess, script: string): Promise<string> {
  const begin = `
import nbd, os, signal
a, b = nbd.NBD(), nbd.NBD()
for connection in (a, b):
    connection.connect_uri(${JSON.stringify(server.url("d"))})
    assert connection.can_multi_conn()
server = ${server.pid}
`;
  return runToEnd(python, ["-c", begin + script]);
}

Deno.test({
  name:
    "a flush on one connection covers what was answered on another, also when the server is killed right after it",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    for (let round = 1; round <= 3; round++) {
      const server = await pool.serve(["--create", "d=16M"]);
      // Fresh blocks, so that without the commit their mappings would be gone with the process.
      await withTwo(
        server,
        `
for block in range(50):
    a.pwrite(bytes([${round}]) * 65536, (${round} * 50 + block) * 65536)
b.flush()
os.kill(server, signal.SIGKILL)
`,
      );
      await server.kill();
    }
    const server = await pool.serve();
    await withTwo(
      server,
      `
for block in range(50, 200):
    assert a.pread(65536, block * 65536) == bytes([block // 50]) * 65536, block
`,
    );
    await server.stop();
  },
});

Deno.test({
  name: "neighbouring bytes of a block that nobody had, written at once over two connections, all survive",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    const server = await pool.serve(["--create", "d=16M"]);
    await withTwo(
      server,
      `
for block in range(100):
    cookies = []
    for at in range(16):
        for connection in (a, b):
            byte = nbd.Buffer.from_bytearray(bytearray([1 if connection is a else 2]))
            offset = block * 65536 + 1000 + 2 * at + (connection is b)
            cookies.append((connection, connection.aio_pwrite(byte, offset)))
    for connection, cookie in cookies:
        while not connection.aio_command_completed(cookie):
            connection.poll(-1)
b.flush()
for block in range(100):
    assert a.pread(34, block * 65536 + 999) == b"\\0" + b"\\1\\2" * 16 + b"\\0", block
`,
    );
    await server.stop();
  },
});

Deno.test({
  name:
    "who attaches and leaves is logged with the volume's name, also when it was asked for by the empty one",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make(...small);
    const server = await pool.serve(["--create", "d=16M"]);
    const script = `import nbd; c = nbd.NBD(); c.connect_uri(${
      JSON.stringify(server.url(""))
    }); c.shutdown()`;
    await runToEnd(python, ["-c", script]);
    const client = `a client of ${server.socket}`;
    await server.stop();
    assertStringIncludes(server.stderr, `${client} attached to "d" by the name ""\n${client} left "d"\n`);
    assertEquals(server.stderr.includes("closing"), false);
  },
});
