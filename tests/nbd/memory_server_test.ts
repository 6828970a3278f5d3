/** Stock NBD clients in front of volumes in memory: the wire is right, whatever the pool behind it does. */
import { assertEquals } from "@std/assert";
import { nbdUrl } from "../../actors/edge/listen_address.ts";
import { hasProgram } from "../support/programs.ts";
import { MemoryServer } from "./memory_server.ts";

const MiB = 1024 * 1024;
const python = "/usr/bin/python3";
const hasNbdModule = await succeeds(python, "-c", "import nbd");

async function succeeds(program: string, ...args: string[]): Promise<boolean> {
  if (!hasProgram(program.split("/").at(-1) ?? program)) return false;
  return (await new Deno.Command(program, { args, stdout: "null", stderr: "null" }).output()).success;
}

/** What the program prints; throws if it fails. */
async function run(program: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args }).output();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`${program} failed: ${decoder.decode(stdout)}${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}

/** Runs the body with a server of `disk` (64 MiB) and `small@monday` (1 MiB, read-only). */
async function withServer(
  transport: "unix" | "tcp",
  body: (url: (exportName: string) => string, folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const address = transport === "unix"
    ? { transport, path: `${folder}/nbd.sock` } as const
    : { transport, hostname: "127.0.0.1", port: 0 } as const;
  const server = await MemoryServer.start(address);
  server.pool.add("disk", 64 * MiB);
  server.pool.add("small@monday", MiB, { readOnly: true });
  try {
    const url = nbdUrl(server.address);
    await body(
      (name) => url.includes("///") ? url.replace("///", `///${name}`) : `${url}/${name}`,
      folder,
    );
  } finally {
    await server.stop();
    await Deno.remove(folder, { recursive: true });
  }
}

for (const transport of ["unix", "tcp"] as const) {
  Deno.test({
    name: `nbdinfo lists the exports with what they can, over ${transport}`,
    ignore: !hasProgram("nbdinfo"),
    fn: () =>
      withServer(transport, async (url) => {
        const listed = JSON.parse(await run("nbdinfo", "--list", "--json", url("")));
        const facts = listed.exports.map((info: Record<string, unknown>) => [
          info["export-name"],
          info["export-size"],
          info["is_read_only"],
          info["can_trim"],
          info["can_multi_conn"],
          info["block_size_preferred"],
        ]);
        assertEquals(facts, [
          ["disk", 64 * MiB, false, true, true, 65536],
          ["small@monday", MiB, true, false, true, 65536],
        ]);
      }),
  });
}

Deno.test({
  name: "fio verifies what it wrote, small and large and at any sector",
  ignore: !hasProgram("fio"),
  fn: () =>
    withServer("unix", async (url, folder) => {
      const common = ["--ioengine=nbd", `--uri=${url("disk")}`, "--iodepth=32", "--verify=crc32c"];
      const more = ["--do_verify=1", "--verify_fatal=1", `--aux-path=${folder}`];
      await run("fio", "--name=small", ...common, ...more, "--rw=randrw", "--bs=4k", "--size=16m");
      const sizes = ["--bsrange=512-256k", "--blockalign=512", "--verify_interval=512", "--size=64m"];
      await run("fio", "--name=mixed", ...common, ...more, "--rw=randwrite", ...sizes);
    }),
});

Deno.test({
  name: "nbdcopy copies in and out over four connections",
  ignore: !hasProgram("nbdcopy"),
  fn: () =>
    withServer("unix", async (url, folder) => {
      const source = new Uint8Array(64 * MiB);
      for (let i = 0; i < 4096; i++) source[i * 8191] = 1 + i % 255;
      Deno.writeFileSync(`${folder}/in`, source);
      await run("nbdcopy", "--flush", `${folder}/in`, url("disk"));
      await run("nbdcopy", url("disk"), `${folder}/out`);
      await run("cmp", `${folder}/in`, `${folder}/out`);
    }),
});

Deno.test({
  name: "qemu-io reads the patterns it wrote, up to 32 MiB",
  ignore: !hasProgram("qemu-io"),
  fn: () =>
    withServer("unix", async (url) => {
      const commands = [
        "write -P 0xab 1M 64k",
        "read -P 0xab 1M 64k",
        "write -z -u 1M 32k",
        "read -P 0 1M 32k",
        "read -P 0xab 1081344 32k",
        "discard 1M 1M",
        "aio_write -P 1 4M 4k",
        "aio_flush",
        "flush",
        "read -P 1 4M 4k",
        "write -P 5 20M 32M",
        "read -P 5 20M 32M",
      ];
      await run("qemu-io", "-f", "raw", ...commands.flatMap((text) => ["-c", text]), url("disk"));
    }),
});

Deno.test({
  name: "libnbd sees holes in structured reads and the errors of the specification",
  ignore: !hasNbdModule,
  fn: () =>
    withServer("unix", async (url) => {
      const script = `
def chunk(data, offset, kind, error): print(offset, len(data), kind)
def attempt(what):
  try: print("ok", what())
  except nbd.Error as error: print(error.errno)
h.pwrite(b"x" * 1000, 70000)
h.pread_structured(262144, 0, chunk)
h.pread_structured(262144, 0, chunk, nbd.CMD_FLAG_DF)
h.set_strict_mode(0)
attempt(lambda: h.zero(65536, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE))
attempt(lambda: h.pread(512, 1 << 26))
attempt(lambda: h.pwrite(b"a" * 512, 1 << 26))
attempt(lambda: h.pwrite(b"a" * (33 << 20), 0))
attempt(lambda: h.pread((32 << 20) + 1, 0))
attempt(lambda: h.pread(5, 69998))
attempt(lambda: h.cache(1 << 20, 0))
attempt(lambda: h.pwrite(b"z", 0, nbd.CMD_FLAG_FUA))
attempt(lambda: h.trim(1 << 26, 0, nbd.CMD_FLAG_FUA))
attempt(lambda: h.flush())
`;
      const printed = await run(python, "-m", "nbd", "-u", url("disk"), "-c", script);
      assertEquals(printed.trim().split("\n"), [
        "0 65536 2",
        "65536 65536 1",
        "131072 131072 2",
        "0 262144 1",
        "ENOTSUP",
        "EINVAL",
        "ENOSPC",
        "EINVAL",
        "EINVAL",
        "ok bytearray(b'\\x00\\x00xxx')",
        "ok None",
        "ok None",
        "ok None",
        "ok None",
      ]);
    }),
});
