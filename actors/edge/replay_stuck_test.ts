/** A replay of the intent journal that cannot be finished, for each cause: the pool opens read-only, and later it is replayed. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { assert } from "../../storage/base/assert.ts";
import { dblock, type ThinId, thinId, vblock } from "../../storage/base/ids.ts";
import type { IoDone, IoResult, ReadDone, ReadTarget } from "../../storage/device/port.ts";
import type { Intent } from "../../storage/intent_record.ts";
import type { PoolStatus } from "../control/admin_command.ts";
import { deviceKinds } from "./device_kinds.ts";
import { makePool } from "./make_pool.ts";
import type { DeviceKinds, OpenDevice } from "./open_device.ts";
import { PoolProcess } from "./pool_process.ts";
import { keepsIntents, leaveIntents, leftInserts } from "../../tests/support/left_intents.ts";
import { runCommand } from "./run_command.ts";

const MiB = 1 << 20;
const ignore = !keepsIntents;
const full: IoResult = { kind: "noSpace" };
const broken: IoResult = { kind: "ioError", reason: "a fault of the test" };

/** A pool with a volume `v`, whose killed server has left changes. */
class Scratch {
  readonly directory = Deno.makeTempDirSync({ prefix: "stuck-" });
  /** What the devices answer in place of what they would do, by role and operation. */
  fault: (role: string, operation: string, offsetBytes: number) => IoResult | undefined = () => undefined;
  readonly logged: string[] = [];

  [Symbol.dispose](): void {
    Deno.removeSync(this.directory, { recursive: true });
  }

  static async with(
    intents: (thin: ThinId) => readonly Intent[],
    clones = 0,
  ): Promise<Scratch> {
    const scratch = new Scratch();
    const { directory } = scratch;
    await makePool({
      directory,
      blockSizeBytes: 1 << 16,
      dataSizeBytes: 128 * MiB,
      metadataSizeBytes: 2 * MiB,
    });
    const pool = await PoolProcess.open(directory);
    await pool.command({ verb: "create", name: "v", sizeBytes: 2 ** 40 });
    if (clones > 0) {
      const lifetime = { ephemeral: false, lingerMs: null, ttlMs: null };
      await pool.command({ verb: "fork", source: "v", count: clones, name: "v-%d", ...lifetime });
    }
    await pool.close();
    await leaveIntents(directory, intents(thinId(1)));
    return scratch;
  }

  /** Devices that fail as {@linkcode fault} says. */
  get kinds(): DeviceKinds {
    return {
      kindOf: (path) => {
        const kind = deviceKinds.kindOf(path);
        const open: typeof kind.open = (path, use) =>
          faulty(kind.open(path, use), (operation, offset) => this.fault(use.role, operation, offset));
        return {
          requireAccess: (path, isExclusive) => kind.requireAccess(path, isExclusive),
          deviceKeyOf: (path) => kind.deviceKeyOf(path),
          lock: (path, isExclusive) => kind.lock(path, isExclusive),
          open,
        };
      },
    };
  }

  open(readOnly = false): Promise<PoolProcess> {
    const log = (sentence: string) => void this.logged.push(sentence);
    return PoolProcess.open(this.directory, { log, readOnly }, this.kinds);
  }

  /** The status of the pool as it opens now, and what it answers to a change. */
  async look(): Promise<{ status: PoolStatus; refusal: string; mapped: number }> {
    const pool = await this.open();
    const status = await pool.command({ verb: "status" });
    const created = await pool.command({ verb: "create", name: "w", sizeBytes: 1 << 20 });
    pool.noteHostLacks();
    await pool.close();
    assert(status.kind === "status", "a pool can be looked at");
    return {
      status: status.status,
      refusal: created.kind === "refused" ? created.reason : created.kind,
      mapped: status.status.data_used_bytes,
    };
  }

  get journalBytes(): Uint8Array {
    return Deno.readFileSync(`${this.directory}/intent.journal`);
  }
}

function faulty(
  device: OpenDevice,
  faultOf: (operation: string, offsetBytes: number) => IoResult | undefined,
): OpenDevice {
  const cached = device.cached;
  return {
    path: device.path,
    get sizeBytes() {
      return device.sizeBytes;
    },
    local: device.local,
    cached,
    read: (target: ReadTarget, offsetBytes: number, done: ReadDone) =>
      faultOf("read", offsetBytes) ?? device.read(target, offsetBytes, done),
    write: (buffer: Uint8Array, offsetBytes: number, done: IoDone) =>
      faultOf("write", offsetBytes) ?? device.write(buffer, offsetBytes, done),
    zero: (offsetBytes: number, lengthBytes: number, done: IoDone) =>
      device.zero(offsetBytes, lengthBytes, done),
    copy: (from: number, to: number, lengthBytes: number, done: IoDone) =>
      device.copy(from, to, lengthBytes, done),
    flush: (done: IoDone, isAlone?: boolean) => faultOf("flush", 0) ?? device.flush(done, isAlone),
    grow: (sizeBytes, isStored, done) => device.grow!(sizeBytes, isStored, done),
    idle: () => device.idle(),
    close: () => device.close(),
  };
}

const inserts = (count: number) => (thin: ThinId) => leftInserts(thin, count);

const stuckBy: readonly { cause: string; fault: Scratch["fault"]; isShown: boolean }[] = [
  {
    cause: "the host has no room for a metadata block",
    fault: (role, operation, at) => role === "metadata" && operation === "write" && at > 0 ? full : undefined,
    isShown: true,
  },
  {
    cause: "a metadata block cannot be written",
    fault: (role, operation, at) =>
      role === "metadata" && operation === "write" && at > 0 ? broken : undefined,
    isShown: true,
  },
  {
    cause: "the superblock cannot be written",
    fault: (role, operation, at) =>
      role === "metadata" && operation === "write" && at === 0 ? broken : undefined,
    isShown: true,
  },
];

for (const { cause, fault, isShown } of stuckBy) {
  Deno.test({
    name: `a replay is stuck as ${cause}: the pool opens read-only, the journal stays, and is replayed later`,
    ignore,
    fn: async () => {
      using scratch = await Scratch.with(inserts(3));
      const before = scratch.journalBytes;
      scratch.fault = fault;
      const { status, refusal, mapped } = await scratch.look();
      assertEquals([status.mode, status.intent_journal_waiting], ["read-only", 3]);
      assertMatch(status.trouble!, /^3 changes of the intent journal ".*" could not be committed \(/);
      assertStringIncludes(status.reason!, "open the pool again.");
      assertStringIncludes(refusal, "The pool takes no changes: 3 changes of the intent journal");
      assertEquals(mapped, isShown ? 3 << 16 : 0);
      assertEquals(scratch.logged.filter((text) => text.includes("could not be committed")).length, 1);
      assertEquals(scratch.journalBytes, before);
      scratch.fault = () => undefined;
      const cured = await scratch.look();
      assertEquals([cured.status.mode, cured.status.intent_journal_waiting], ["write", 0]);
      assertEquals([cured.refusal, cured.mapped], ["done", 3 << 16]);
    },
  });
}

Deno.test({
  name:
    "a replay without metadata space opens read-only as of the last commit, and grow --metadata replays it",
  ignore,
  // The C library stays open.
  sanitizeResources: false,
  fn: async () => {
    // Each is the first change of a clone of its own, which needs a metadata block for its root.
    const changes = 600;
    using scratch = await Scratch.with(
      (first) =>
        Array.from({ length: changes }, (_, at): Intent => ({
          kind: "insert",
          thin: thinId(first + 1 + at),
          vblock: vblock(0),
          dblock: dblock(at),
          replaced: undefined,
        })),
      changes,
    );
    const before = scratch.journalBytes;
    const { status, mapped } = await scratch.look();
    assertEquals([status.mode, status.intent_journal_waiting, mapped], ["read-only", changes, 0]);
    assertStringIncludes(status.reason!, "grow --metadata +SIZE");
    assertEquals(scratch.journalBytes, before);
    const metadata = { bytes: 6 * MiB, added: true };
    const grown = await runCommand(scratch.directory, { verb: "grow", data: null, metadata }, () => {
      throw new Error("no text");
    });
    assert(grown.kind === "grown", `grow answers with sizes, not ${JSON.stringify(grown)}`);
    assertEquals(grown.before.metadata_total_bytes, 2 * MiB);
    assertEquals(grown.sizes.metadata_total_bytes, 8 * MiB);
    const cured = await scratch.look();
    assertEquals([cured.status.mode, cured.mapped], ["write", changes * 65536]);
    assertEquals(cured.status.metadata_total_bytes, 8 * MiB);
  },
});

Deno.test({
  name: "a replay that cannot read a metadata block opens read-only as of the last commit",
  ignore,
  fn: async () => {
    using scratch = await Scratch.with(inserts(3));
    // What a start without a replay reads can be read.
    const journal = `${scratch.directory}/intent.journal`;
    const before = scratch.journalBytes;
    const readable = new Set<number>();
    scratch.fault = (role, operation, at) => {
      if (role === "metadata" && operation === "read") readable.add(at);
      return undefined;
    };
    Deno.renameSync(journal, `${journal}.away`);
    await (await scratch.open(true)).close();
    Deno.renameSync(`${journal}.away`, journal);
    scratch.fault = (role, operation, at) =>
      role === "metadata" && operation === "read" && !readable.has(at) ? broken : undefined;
    const { status, mapped } = await scratch.look();
    assertEquals([status.mode, status.intent_journal_waiting, mapped], ["read-only", 3, 0]);
    assertMatch(status.trouble!, /reading metadata block \d+: .*what is read is the last commit/);
    assertEquals(scratch.journalBytes, before);
    scratch.fault = () => undefined;
    assertEquals((await scratch.look()).mapped, 3 << 16);
  },
});

Deno.test({
  name: "a replay whose data flush fails removes the journal, says so, and the pool is as of its last commit",
  ignore,
  fn: async () => {
    using scratch = await Scratch.with(inserts(3));
    // The flush of the opening is asked of the device itself, so this is that of the replay's commit.
    scratch.fault = (role, operation) => role === "data" && operation === "flush" ? full : undefined;
    const { status, mapped } = await scratch.look();
    assertEquals([status.mode, status.intent_journal_waiting, mapped], ["read-only", 0, 0]);
    assertStringIncludes(status.trouble!, "That journal was removed, as bytes that it leads to may be lost");
    scratch.fault = () => undefined;
    const later = await scratch.look();
    assertEquals([later.status.mode, later.mapped], ["write", 0]);
  },
});

Deno.test({
  name: "a journal that cannot be read stays, and the pool opens read-only",
  ignore,
  fn: async () => {
    using scratch = await Scratch.with(inserts(3));
    const journal = `${scratch.directory}/intent.journal`;
    Deno.renameSync(journal, `${journal}.away`);
    Deno.mkdirSync(journal);
    const { status, refusal } = await scratch.look();
    assertEquals(status.mode, "read-only");
    assertStringIncludes(refusal, "cannot be read: EISDIR");
    Deno.removeSync(journal);
    Deno.renameSync(`${journal}.away`, journal);
    assertEquals((await scratch.look()).mapped, 3 << 16);
  },
});
