/**
 * What crosses the border (actors/edge/border.ts) is plain data: the control API, a dump, clients, errors, the log and a
 * reload of certificates work in the same way over a border that copies every message.
 */
import { assertEquals, assertInstanceOf, assertMatch, assertRejects } from "@std/assert";
import { errorOf, type OpenBorder, plainOf } from "../../actors/edge/border.ts";
import { openLibc } from "../../actors/edge/libc.ts";
import { PoolLink } from "../../actors/edge/pool_link.ts";
import { servePool } from "../../actors/edge/serve.ts";
import { type AdminResult, type Command, initPool, runCommand, UsageError, UserError } from "../../mod.ts";
import { assert, Defect } from "../../storage/base/assert.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { hasOpenssl, makeCertificates } from "../support/certificates.ts";
import { allBorders, openClonedBorder } from "../support/cloned_border.ts";

// Once for the process, and before the first test, so that no test is said to leak it.
openLibc();

interface Place {
  readonly link: PoolLink;
  readonly directory: string;
  readonly folder: string;
  readonly log: string[];
  /** Gives a command to the control socket. */
  command(command: Command): Promise<AdminResult>;
}

function overAllBorders(name: string, run: (place: Place) => Promise<void>): void {
  for (const [where, border] of allBorders) Deno.test(`${name} (${where})`, () => inPool(border, run));
}

async function inPool(border: OpenBorder, run: (place: Place) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-border-" });
  try {
    const directory = `${folder}/pool`;
    await initPool({ directory, dataSizeBytes: 64 << 20, metadataSizeBytes: 2 << 20 });
    const log: string[] = [];
    const link = await PoolLink.open(directory, { log: (sentence) => log.push(sentence) }, border);
    try {
      const command = (command: Command) => runCommand(directory, command, () => Promise.resolve("taken"));
      await run({ link, directory, folder, log, command });
    } finally {
      await link.close();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

overAllBorders("the control API changes, lists, and shows the state and the clients", async (place) => {
  const { link, folder, command } = place;
  const path = `${folder}/n.sock`;
  const server = await servePool(link, { listen: [`unix:${path}`] });
  assertEquals(await command({ verb: "create", name: "a", sizeBytes: 1 << 20 }), { kind: "done" });
  assertEquals(await command({ verb: "snapshot", names: ["a@s"] }), { kind: "done" });
  const listed = await command({ verb: "list" });
  assert(listed.kind === "volumes", "volumes are answered");
  assertEquals(listed.volumes.map(({ name }) => name), ["a", "a@s"]);
  const refused = await command({ verb: "rollback", snapshot: "a@t" });
  assert(refused.kind === "refused", "refused are answered");
  const client = await RawClient.attach({ path }, "a");
  const status = await command({ verb: "status" });
  assert(status.kind === "status", "status are answered");
  assertEquals([status.status.mode, status.status.attached], ["write", 1]);
  const clients = await command({ verb: "clients" });
  assert(clients.kind === "clients", "clients are answered");
  assertEquals(clients.clients.map((each) => each.export), ["a"]);
  const kicked = await command({ verb: "kick", client: clients.clients[0]!.id, refuseMs: 0 });
  assertEquals(kicked, { kind: "done" });
  client.close();
  await server.stop();
});

overAllBorders(
  "a second close ends with the first, and commands after a close are refused",
  async (place) => {
    const { link, directory } = place;
    const first = link.close();
    const late = link.command({ verb: "create", name: "late", sizeBytes: 512 });
    await link.close();
    const again = await PoolLink.open(directory);
    const listed = await again.command({ verb: "list" });
    await again.close();
    assertEquals(listed, { kind: "volumes", volumes: [] });
    await first;
    assertEquals((await late).kind, "refused");
  },
);

overAllBorders("a dump comes a piece at a time, each after the one before was taken", async (place) => {
  const { link, directory } = place;
  for (let at = 0; at < 40; at += 1) {
    await link.command({ verb: "create", name: `v${at}`, sizeBytes: 1 << 20 });
  }
  const server = await servePool(link, { listen: [] });
  let text = "";
  let underWay = 0;
  const result = await runCommand(directory, { verb: "dump" }, async (piece) => {
    underWay += 1;
    assertEquals(underWay, 1);
    await new Promise((resolve) => setTimeout(resolve, 1));
    text += piece;
    underWay -= 1;
    return "taken";
  });
  assertEquals(result, { kind: "done" });
  assertMatch(text, /^<superblock[^]*<\/superblock>\s*$/);
  await server.stop();
  const full = () => Promise.reject(new Deno.errors.NotFound("the reader's own error"));
  await assertRejects(() => link.dump(full), Deno.errors.NotFound, "the reader's own error");
  assertEquals((await link.dump(() => Promise.resolve("gone"))).kind, "refused");
});

overAllBorders("a server's log lines arrive, and a pool that is in use is told as such", async (place) => {
  const { link, directory, log } = place;
  await Deno.mkdir(`${directory}/nbd.sock`);
  const server = await servePool(link, { listen: ["tcp:127.0.0.1:0"] });
  assertEquals(server.addresses.length, 1);
  assertMatch(log.join("\n"), /nbd\.sock: .*This one is left out\./);
  await server.stop();
  await assertRejects(() => PoolLink.open(directory), UserError, "has it open");
  const waiting = runCommand(directory, { verb: "list" }, () => Promise.resolve("taken"), {
    lockWaitMs: 5000,
  });
  await link.close();
  assertEquals((await waiting).kind, "volumes");
});

overAllBorders("a control socket that cannot be opened leaves no address bound", async (place) => {
  const { link, directory, folder, log } = place;
  await Deno.writeTextFile(`${directory}/control.sock`, "mine");
  const listen = [`unix:${folder}/n.sock`, "tcp:127.0.0.1:0"];
  await assertRejects(() => servePool(link, { listen }), UserError, "what is there is no socket");
  // Nothing is said of addresses that are not served in the end.
  assertEquals(log, []);
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["pool"]);
});

overAllBorders(
  "what breaks an invariant of the pool reaches the main side, and each caller",
  async (place) => {
    const { link } = place;
    const verb = "nonsense" as "list";
    const error = await assertRejects(() => link.command({ verb }), TypeError);
    const defect = await link.defect;
    assertInstanceOf(defect, TypeError);
    assertEquals(String(defect), String(error));
    await assertRejects(() => link.command({ verb: "list" }), TypeError, error.message);
  },
);

for (const [where, border] of allBorders) {
  Deno.test({
    name: `certificates that were read again are used for clients to come (${where})`,
    ignore: !hasOpenssl(),
    fn: () =>
      inPool(border, async ({ link, folder, log }) => {
        const certificates = await makeCertificates(folder);
        const tls = { policy: "require", certificates: certificates.server } as const;
        const server = await servePool(link, { listen: ["tcp:127.0.0.1:0"], tls });
        server.reloadCertificates();
        while (!log.some((line) => line.includes("were read again"))) {
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
        await Deno.remove(`${certificates.server}/server-key.pem`);
        server.reloadCertificates();
        assertMatch(log.at(-1)!, /server-key\.pem is missing\..*stay in use\.$/);
        await server.stop();
      }),
  });
}

Deno.test("an error that crosses the border keeps its class, its text and its code", () => {
  for (const error of [new UserError("a"), new UsageError("b"), new Defect("c"), new TypeError("d")]) {
    const copy = errorOf(structuredClone(plainOf(error)));
    assertEquals([copy.constructor, copy.message, copy.stack], [
      error.constructor,
      error.message,
      error.stack,
    ]);
  }
  assertInstanceOf(errorOf(plainOf(new Deno.errors.PermissionDenied("e"))), Deno.errors.PermissionDenied);
  const coded = Object.assign(new Error("f"), { code: "ENOENT" });
  assertEquals(Object.entries(errorOf(plainOf(coded))), [["code", "ENOENT"]]);
  assertEquals(errorOf(plainOf("thrown")).message, "thrown");
  assertEquals(errorOf(plainOf({ name: "constructor" })).constructor, Error);
});

Deno.test("a function or an object with state does not cross the copying border", () => {
  const border = openClonedBorder(() => {});
  try {
    for (const directory of [() => {}, new Map(), new UserError("x")] as unknown as string[]) {
      const noSpace = { kind: "error" } as const;
      const guard = { warnAtPercents: [], autoGrow: [] };
      const settings = {
        directory,
        readOnly: true,
        blockSizeBytes: undefined,
        lockWaitMs: 0,
        noSpace,
        guard,
        detectZeroes: false,
        countsByWalk: true,
      };
      let isThrown = false;
      try {
        border.send({ type: "open", number: 1, settings });
      } catch (error) {
        isThrown = error instanceof TypeError && error.message === "open.settings.directory is no plain data";
      }
      assertEquals(isThrown, true);
    }
  } finally {
    border.close();
  }
});
