import { assertEquals } from "@std/assert";
import { createServer } from "node:net";
import { isProgram, isTestable, python } from "../../tests/support/programs.ts";
import { Kernel } from "../kernel/kernel.ts";
import type { Connected } from "../nbd/messages.ts";
import { DenoClock } from "./deno_clock.ts";
import { duplicate } from "./descriptors.ts";
import { InheritedSocket, listenAgain } from "./inherited_socket.ts";
import { openLibc } from "./libc.ts";
import { pause } from "./turns.ts";

const needsLibc = { ignore: openLibc() === undefined };

/** What the process has open, by descriptor. */
function openFiles(): Map<number, string> {
  const found = new Map<number, string>();
  for (const { name } of [...Deno.readDirSync("/proc/self/fd")]) {
    try {
      found.set(Number(name), Deno.readLinkSync(`/proc/self/fd/${name}`));
    } catch (error) {
      // The descriptor that the directory was read with.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return found;
}

/** The descriptors of sockets that were opened since. */
function socketsSince(before: ReadonlyMap<number, string>): number[] {
  return [...openFiles()].filter(([fd, name]) => !before.has(fd) && name.startsWith("socket:")).map(([fd]) =>
    fd
  );
}

/** Connects, and resets the connection before any server accepts it. */
const resetClient = `
import socket, struct, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
client.close()
`;
import { SocketGroup } from "./socket_group.ts";

Deno.test({
  name: "a TCP client that is gone when it is accepted takes no place of a local client",
  ignore: openLibc() === undefined || !isTestable(isProgram(python)),
  fn: async () => {
    const before = openFiles();
    const bound = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const fd = socketsSince(before)[0]!;
    const passed = duplicate(fd)!;
    await new Deno.Command(python, { args: ["-c", resetClient, `${bound.addr.port}`] }).output();
    const clock = new DenoClock();
    const kernel = new Kernel({ clock });
    const peers: (string | undefined)[] = [];
    const listener = kernel.spawn<Connected>("listener", 10, () => ({
      receive: ({ socket }) => {
        peers.push(socket.identity);
        socket.close();
      },
    }));
    const inherited = await InheritedSocket.open(passed);
    inherited.start(new SocketGroup(kernel), listener);
    (await Deno.connect({ port: bound.addr.port })).close();
    for (let times = 0; times < 200 && peers.length === 0; times += 1) await pause(10);
    await pause(20);
    inherited.closeAll();
    await inherited.released;
    bound.close();
    clock.close();
    assertEquals(peers, ["127.0.0.1"]);
  },
});

for (const kind of ["connected socket", "file"] as const) {
  Deno.test({
    name: `a ${kind}, on which no server can accept, is not left open`,
    ...needsLibc,
    fn: async () => {
      using bound = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const files = openFiles();
      using _client = await Deno.connect({ port: bound.addr.port });
      using _accepted = await bound.accept();
      using _file = Deno.openSync("/dev/null");
      const before = openFiles();
      const fd = kind === "file"
        ? [...before].find(([, name]) => name === "/dev/null")![0]
        : socketsSince(files)[0]!;
      const failures: Error[] = [];
      for (let times = 0; times < 3; times += 1) {
        const server = createServer();
        server.on("error", (error: Error) => void failures.push(error));
        listenAgain(server, fd);
      }
      await pause(20);
      assertEquals([failures.length, openFiles().size], [3, before.size]);
    },
  });
}
