/** A control connection that holds a volume: each way in which it ends, and how many there may be. */
import { assertEquals, assertMatch } from "@std/assert";
import type { HeldContent, HeldVolume } from "../control/admin_command.ts";
import { controlHoldsMax } from "../limits.ts";
import { AskedHold } from "./asked_hold.ts";
import { type ControlTimes, controlTimes } from "./control_clients.ts";
import { ControlServer } from "./control_server.ts";

/** A control server whose volumes are names in a list. */
class Holds implements AsyncDisposable {
  readonly path: string;
  readonly asked: HeldContent[] = [];
  readonly held = new Set<string>();
  readonly server: ControlServer;
  readonly #folder = Deno.makeTempDirSync({ prefix: "gossamer-hold-" });
  #changed = Promise.withResolvers<void>();

  /** @param times of the server's clients, where the test waits for longer */
  constructor(times: Partial<ControlTimes> = {}) {
    this.path = `${this.#folder}/c.sock`;
    const listener = Deno.listen({ transport: "unix", path: this.path });
    this.server = new ControlServer(listener, {
      log: () => {},
      command: () => Promise.resolve({ kind: "done" }),
      dump: () => Promise.resolve({ kind: "done" }),
      hold: (content) => Promise.resolve(this.#hold(content)),
      release: (uid) => {
        this.held.delete(uid);
        this.#changed.resolve();
        return Promise.resolve({ kind: "done" });
      },
    }, { ...controlTimes, ...times });
  }

  #hold(content: HeldContent): HeldVolume {
    const uid = `u${this.asked.push(content)}`;
    this.held.add(uid);
    return { kind: "held", uid, name: `run-${uid}`, socketPath: "/p/run 1.sock" };
  }

  async ask(content: HeldContent = { source: "base" }): Promise<AskedHold> {
    const hold = await AskedHold.begin(this.path, content, 5000);
    if (hold instanceof AskedHold) return hold;
    throw new Error(`no volume but ${JSON.stringify(hold)}`);
  }

  async leftAre(count: number): Promise<void> {
    while (this.held.size !== count) {
      await this.#changed.promise;
      this.#changed = Promise.withResolvers();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

Deno.test("a volume is held for longer than a request may take, and is gone when its client has released it", async () => {
  await using holds = new Holds({ requestMs: 500, answerMs: 500 });
  const [clone, empty] = [await holds.ask({ source: "base@ready" }), await holds.ask({ sizeBytes: 4096 })];
  assertEquals(holds.asked, [{ source: "base@ready" }, { sizeBytes: 4096 }]);
  assertEquals(clone.at, { uri: "nbd+unix:///run-u1?socket=/p/run%201.sock", unixsocket: "/p/run 1.sock" });
  await new Promise((resolve) => setTimeout(resolve, 700));
  assertEquals([...holds.held], ["u1", "u2"]);
  await clone.release();
  assertEquals([...holds.held], ["u2"]);
  assertEquals(await clone.lost(), undefined);
  await empty.release();
  await holds.server.holdsEnded();
  assertEquals(holds.server.holds, 0);
});

Deno.test("a volume goes when the connection of its client breaks, and the client is told when the server ends it", async () => {
  await using holds = new Holds();
  const broken = await Deno.connect({ transport: "unix", path: holds.path });
  const body = '{"size_bytes":512}';
  const head = `POST /v1/run HTTP/1.1\r\nHost: pool\r\nContent-Length: ${body.length}\r\n\r\n`;
  await broken.write(new TextEncoder().encode(head + body));
  await broken.read(new Uint8Array(1000));
  const told = await holds.ask();
  assertEquals(holds.held.size, 2);
  broken.close();
  await holds.leftAre(1);
  await holds.server.close();
  assertEquals([await told.lost(), holds.held.size], ["The server has been stopped.", 0]);
  await told.release();
});

Deno.test("more volumes than can be held are refused, and leave room for commands; so is a request for none or two", async () => {
  await using holds = new Holds();
  const all = await Promise.all(Array.from({ length: controlHoldsMax }, () => holds.ask()));
  assertMatch(
    JSON.stringify(await AskedHold.begin(holds.path, { sizeBytes: 512 }, 5000)),
    /holds 24 volumes/,
  );
  await all[0]!.release();
  await (await holds.ask()).release();
  const bad = { source: "base", size_bytes: 1 } as unknown as HeldContent;
  assertMatch(JSON.stringify(await AskedHold.begin(holds.path, bad, 5000)), /and not both/);
  for (const hold of all.slice(1)) await hold.release();
});
