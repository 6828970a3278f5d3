/**
 * fio fills a pool of 256 MiB in four ways, in each mode of waiting, until there is room again: what it had written is
 * there, and it goes on. For the soak.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { hasProgram, programPath } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, type ServerProcess, soakTest } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { runCommand } from "../../mod.ts";
import { SmallHost } from "../torture/host.ts";
import { RawClient } from "../nbd/raw_client.ts";
import { NBD_CMD_TRIM } from "../../actors/nbd/wire/constants.ts";
import { hostSpaceAskMs } from "../../actors/limits.ts";

const MiB = 1024 * 1024;
const ignore = !hasProgram("fio") || !hasThinTools("0.9") || !hasThinTools("1.x");

function fio(url: string, ...args: string[]): string[] {
  return [
    "--ioengine=nbd",
    `--uri=${url}`,
    "--name=fill",
    "--bs=64k",
    "--verify=crc32c",
    "--verify_fatal=1",
    "--verify_state_save=0",
    "--output-format=terse",
    ...args,
  ];
}

/** A served pool that lacks space for all of its volume `disk`. */
interface Tight {
  readonly pool: PoolOnDisk;
  readonly server: ServerProcess;
}

/** What is short. */
interface Way {
  readonly what: string;
  readonly ignore?: boolean;
  /** Of `disk`, which fio writes. */
  readonly diskBytes: number;
  /** Whether fio waits where the mode says so. */
  readonly waits: boolean;
  /** Makes what is short so; the pool's folder is empty. */
  make(pool: PoolOnDisk, options: readonly string[], resources: AsyncDisposableStack): Promise<ServerProcess>;
  /** Requires what is to be seen while nothing more fits. */
  requireFull(tight: Tight): Promise<void>;
  /** What gives room, for each mode another one. */
  readonly cures: readonly {
    readonly when: string;
    readonly cure: (tight: Tight) => Promise<unknown>;
    /** Where fio writes then; everything by default. */
    readonly range?: readonly [offset: number, bytes: number];
  }[];
}

const modes: readonly (readonly [name: string, options: readonly string[]])[] = [
  ["writes wait for ever", ["--no-space-timeout", "0"]],
  ["writes wait for two seconds", ["--no-space-timeout", "2"]],
  ["writes fail at once", ["--error-if-no-space"]],
];

/** Trims a range. */
async function trim({ server }: Tight, name: string, lengthBytes: number): Promise<void> {
  const client = await RawClient.attach({ path: server.socket }, name);
  const done = await client.perform({ type: NBD_CMD_TRIM, offsetBytes: 0, lengthBytes });
  assertEquals(done.error, 0);
  await client.disconnect();
}

/** Writes all of a volume that is there to be removed or trimmed. */
async function writeBallast(server: ServerProcess, size: string): Promise<void> {
  await runToEnd(
    programPath("fio")!,
    fio(server.url("ballast"), "--rw=write", "--do_verify=0", `--size=${size}`, "--iodepth=8"),
  );
}

/** Makes volumes until the metadata has no room for one more. They are not forked: these would share their empty tree. */
async function fillMetadata(pool: PoolOnDisk): Promise<void> {
  for (let volumes = 0;; volumes += 1) {
    assert(volumes < 5000, "the metadata is never full");
    const command = { verb: "create", name: `b${volumes}`, sizeBytes: MiB } as const;
    const result = await runCommand(pool.directory, command, () => Promise.resolve("taken"));
    if (result.kind === "done") continue;
    assert(result.kind === "refused" && /metadata is full/.test(result.reason), JSON.stringify(result));
    // So that fio has a little to begin with.
    await pool.verb("rm", "--wait", "b0", "b1", "b2", "b3");
    return;
  }
}

const data: Way = {
  what: "the data",
  diskBytes: 256 * MiB,
  waits: true,
  make: async (pool, options) => {
    await pool.verb("init", "--data-size=256M");
    const server = await pool.serve(["--create", "ballast=64M", "--create", "disk=256M", ...options]);
    await writeBallast(server, "64m");
    return server;
  },
  requireFull: async ({ pool }) => {
    const status = await pool.status();
    assertEquals([status.mode, status.data, status.data_used_bytes], [
      "out-of-data-space",
      "full",
      256 * MiB,
    ]);
  },
  cures: [
    { when: "it has grown", cure: ({ pool }) => pool.verb("grow", "+64M") },
    { when: "another volume is removed", cure: ({ pool }) => pool.verb("rm", "ballast") },
    { when: "another volume is trimmed", cure: (tight) => trim(tight, "ballast", 64 * MiB) },
  ],
};

const metadata: Way = {
  what: "the metadata",
  diskBytes: 64 * MiB,
  waits: true,
  make: async (pool, options) => {
    await pool.verb("init", "--data-size=256M", "--metadata-size=2M");
    const server = await pool.serve(["--create", "ballast=128M", "--create", "disk=64M", ...options]);
    await writeBallast(server, "128m");
    await fillMetadata(pool);
    return server;
  },
  requireFull: async ({ pool }) => {
    const status = await pool.status();
    assertEquals([status.mode, status.metadata], ["out-of-metadata-space", "full"]);
    assertEquals(status.metadata_used_bytes, status.metadata_total_bytes);
  },
  cures: [
    { when: "it has grown", cure: ({ pool }) => pool.verb("grow", "--metadata", "+2M") },
    {
      when: "other volumes are removed",
      cure: async ({ pool }) => {
        const names = (await pool.list()).map(({ name }) => name);
        await pool.verb("rm", ...names.filter((name) => /^b\d/.test(name)));
      },
    },
    { when: "another volume is trimmed", cure: (tight) => trim(tight, "ballast", 128 * MiB) },
  ],
};

const quota: Way = {
  what: "a volume's quota",
  diskBytes: 256 * MiB,
  waits: false,
  make: async (pool, options) => {
    await pool.verb("init", "--data-size=256M");
    const server = await pool.serve(["--create", "disk=256M", ...options]);
    await pool.verb("quota", "disk", "128M");
    return server;
  },
  requireFull: async ({ pool }) => {
    const status = await pool.status();
    assertEquals([status.mode, status.parked, status.data_used_bytes], ["write", 0, 128 * MiB]);
  },
  cures: [
    { when: "it is raised", cure: ({ pool }) => pool.verb("quota", "disk", "256M") },
    { when: "it is taken away", cure: ({ pool }) => pool.verb("quota", "disk", "none") },
    {
      when: "the volume is trimmed",
      cure: (tight) => trim(tight, "disk", 128 * MiB),
      range: [128 * MiB, 128 * MiB],
    },
  ],
};

const host: Way = {
  what: "a host's file system of 64 MiB",
  ignore: !SmallHost.isPossible(),
  diskBytes: 48 * MiB,
  waits: true,
  make: async (pool, options, resources) => {
    resources.use(await SmallHost.mount(pool.folder, 64 * MiB));
    await pool.verb("init", "--data-size=256M", "--metadata-size=2M");
    const server = await pool.serve(["--create", "ballast=32M", "--create", "disk=48M", ...options]);
    await writeBallast(server, "32m");
    return server;
  },
  requireFull: async ({ pool }) => {
    const status = await pool.status();
    assertEquals([status.mode, status.data], ["out-of-data-space", "host-full"]);
  },
  cures: [
    {
      when: "it has grown",
      cure: ({ pool }) => runToEnd("mount", ["-o", "remount,size=128M", pool.folder]),
    },
    { when: "another volume is removed", cure: ({ pool }) => pool.verb("rm", "ballast") },
    { when: "another volume is trimmed", cure: (tight) => trim(tight, "ballast", 32 * MiB) },
  ],
};

/** Fills the volume with one write at a time, so that the first ones are what was written; then what was written is there. */
async function fillToFailure(tight: Tight, way: Way): Promise<void> {
  const url = tight.server.url("disk");
  const args = fio(url, "--rw=write", `--size=${way.diskBytes}`, "--do_verify=0");
  const { code, stdout, stderr } = await new Deno.Command(programPath("fio")!, { args, stdin: "null" })
    .output();
  const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert(code !== 0, `fio succeeded: ${said}`);
  assertMatch(said, /No space left on device/);
  await way.requireFull(tight);
  const disk = (await tight.pool.list()).find(({ name }) => name === "disk");
  assert((disk?.mapped_bytes ?? 0) > 0, "something was written");
  await runToEnd(
    programPath("fio")!,
    fio(url, "--rw=read", `--size=${disk?.mapped_bytes}`, "--iodepth=16", "--verify_only"),
  );
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

for (const way of [data, metadata, quota, host]) {
  modes.forEach(([mode, options], at) => {
    const { when, cure, range = [0, way.diskBytes] } = way.cures[at]!;
    soakTest({
      name: `fio fills ${way.what} where ${mode}, goes on when ${when}, and finds all that it wrote`,
      ignore: ignore || way.ignore === true,
      fn: async () => {
        // Disposed of from the last to the first: the server is gone before a file system under it.
        await using resources = new AsyncDisposableStack();
        const pool = await PoolOnDisk.folder();
        resources.defer(() => pool[Symbol.asyncDispose]());
        const server = await way.make(pool, options, resources);
        resources.defer(() => server.kill());
        const tight = { pool, server };
        const url = server.url("disk");
        const write = [
          ...["--rw=randwrite", `--offset=${range[0]}`, `--size=${range[1]}`],
          ...["--iodepth=32", "--do_verify=1"],
        ];
        if (way.waits && at === 0) {
          let hasEnded = false;
          const filled = runToEnd(programPath("fio")!, fio(url, ...write)).finally(() => hasEnded = true);
          while ((await pool.status()).parked === 0) {
            assert(!hasEnded, "fio has ended, and no write had to wait");
            await sleep(500);
          }
          await way.requireFull(tight);
          await cure(tight);
          await filled;
        } else {
          await fillToFailure(tight, way);
          await cure(tight);
          await runToEnd(programPath("fio")!, fio(url, ...write));
        }
        // The host is asked for room each second; nothing is parked where writes fail at once, and fio may be faster.
        const endMs = performance.now() + 2 * hostSpaceAskMs;
        while ((await pool.status()).mode !== "write" && performance.now() < endMs) {
          await sleep(hostSpaceAskMs / 4);
        }
        assertEquals((await pool.status()).mode, "write");
        await server.stop();
        await pool.requireSound();
        const again = await pool.serve();
        resources.defer(() => again.kill());
        await runToEnd(programPath("fio")!, fio(again.url("disk"), ...write, "--verify_only"));
        await again.stop();
      },
    });
  });
}
