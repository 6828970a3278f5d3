/** A server that is killed again and again, below clients that reconnect: they see no failure, and nothing different. */
import { assertEquals } from "@std/assert";
import { hasProgram, hasPythonNbd, programPath, python } from "../support/programs.ts";
import { PoolOnDisk, runToEnd, soak } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { Random } from "../support/world.ts";

const ignore = !hasProgram("qemu-storage-daemon") || !hasProgram("fio") || !hasPythonNbd() ||
  !hasThinTools("0.9") || !hasThinTools("1.x");
const kills = soak ? 200 : 2;

/**
 * A libnbd client that connects anew whenever its server has died, and compares every block that was acknowledged. Every
 * tenth request is a flush, so that kills meet commits. It ends when its stdin does, and prints what is different.
 */
const libnbdClient = `
import nbd, random, select, sys, time
uri, blocks, rng = sys.argv[1], 64, random.Random(int(sys.argv[2]))
allowed = [{0} for _ in range(blocks)]
def connected():
    while True:
        try:
            h = nbd.NBD(); h.connect_uri(uri); return h
        except nbd.Error:
            time.sleep(0.05)
h, serial, problems = connected(), 0, 0
def verify():
    global problems
    for at in range(blocks):
        found = h.pread(65536, at * 65536)
        # A kill may end an overwrite that was not acknowledged between two pages: then the block has both values.
        if not set(found) <= allowed[at]:
            problems += 1
            print("block", at, "has", set(found), "not", allowed[at])
        allowed[at] = set(found)
while not select.select([sys.stdin], [], [], 0)[0]:
    at, kind = rng.randrange(blocks), rng.randrange(10)
    serial += 1
    value = 1 + serial % 255 if kind > 2 else 0
    before = set(allowed[at])
    try:
        if kind == 0: h.flush(); continue
        allowed[at].add(value)
        if kind == 1: h.trim(65536, at * 65536)
        elif kind == 2: h.zero(65536, at * 65536)
        else: h.pwrite(bytes([value]) * 65536, at * 65536)
        allowed[at] = {value}
    except nbd.Error:
        while True:
            h = connected()
            try: verify(); break
            except nbd.Error: pass
verify()
print("problems", problems)
`;

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

Deno.test({
  name:
    "fio through qemu's reconnecting client, and a libnbd client that reconnects, find all that was acknowledged after kills",
  ignore,
  fn: async () => {
    await using pool = await PoolOnDisk.make("--data-size=256M", "--metadata-size=4M");
    let server = await pool.serve(["--create", "disk=64M", "--create", "other=4M"]);
    const outside = `${pool.folder}/qemu.sock`;
    const nbd = `driver=nbd,node-name=disk,export=disk,reconnect-delay=120,server.type=unix,server.path=`;
    const daemon = new Deno.Command(programPath("qemu-storage-daemon")!, {
      args: [
        ...["--blockdev", nbd + server.socket],
        ...["--nbd-server", `addr.type=unix,addr.path=${outside}`],
        ...["--export", "type=nbd,id=e,node-name=disk,name=disk,writable=on"],
      ],
      stdin: "null",
    }).spawn();
    const client = new Deno.Command(python, {
      args: ["-c", libnbdClient, server.url("other"), "7"],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    let isOver = false;
    let runs = 0;
    const verifying = (async () => {
      for (; !isOver || runs === 0; runs += 1) {
        await runToEnd(programPath("fio")!, [
          "--ioengine=nbd",
          `--uri=nbd+unix:///disk?socket=${outside}`,
          ...["--name=verified", "--rw=randwrite", "--bsrange=4k-96k", "--iodepth=16", "--size=64M"],
          ...["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--verify_backlog=256"],
          ...[`--randseed=${1 + runs}`, "--output-format=terse"],
        ]);
      }
    })();
    try {
      const random = new Random(soak ? Date.now() % 100_000 : 11);
      for (let kill = 0; kill < kills; kill += 1) {
        // A kill before qemu is back would hit nothing: it tries again after 1, 2, 4, then 16 seconds, 120 in all.
        const isBack = server.complained((log) => log.includes('attached to "disk"'));
        await Promise.race([isBack.then(() => sleep(random.below(1500))), verifying]);
        await server.kill();
        server = await pool.serve();
      }
      isOver = true;
      await verifying;
      await client.stdin.close();
      const { stdout } = await client.output();
      assertEquals(new TextDecoder().decode(stdout), "problems 0\n");
    } finally {
      isOver = true;
      daemon.kill("SIGTERM");
      await daemon.status;
    }
    await server.stop();
    await pool.requireSound();
  },
});
