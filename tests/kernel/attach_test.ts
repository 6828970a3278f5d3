/** The Linux kernel's own NBD client on our volumes: attached by nbd-client in a VM, with file systems on them. */
import { assert, assertEquals } from "@std/assert";
import { AttachedPool, hasKernelClient, toldNumber } from "./attached.ts";
import { soakTest } from "../support/server.ts";

const mib = 1 << 20;

const ignore = !hasKernelClient();

/** 32 MiB were written between `before` and `full`, and removed and trimmed before `trimmed`. */
function requireSpaceBack(told: readonly string[]): void {
  const [before, full, trimmed] = ["before", "full", "trimmed"].map((when) =>
    toldNumber(told, `mapped ${when}`)
  );
  assert(full! - before! >= 31 * mib, `${full} bytes are mapped after 32 MiB were written, ${before} before`);
  assert(full! - trimmed! >= 31 * mib, `${trimmed} bytes are mapped after the trim, ${full} before`);
}

Deno.test({
  name:
    "Linux attaches over two connections: an ext4 tree survives a re-attach, fstrim gives space back, and a " +
    "snapshot taken while files are written has all that were durable",
  ignore,
  fn: async () => {
    await using attached = await AttachedPool.make("256M");
    requireSpaceBack(await attached.run({ script: "attach.sh" }));
    // Three to prepare, two at once, one after the re-attach.
    assertEquals(attached.attachments("disk", "disk@live", "fork"), [3 + 2 + 1, 1, 1], attached.log);
    await attached.end();
  },
});

soakTest({
  name:
    "Linux attaches over one connection: an xfs tree survives a re-attach, fstrim gives space back, and a " +
    "snapshot taken while files are written is mounted beside its volume and has all that were durable",
  ignore: !hasKernelClient("mkfs.xfs", "xfs_repair"),
  fn: async () => {
    await using attached = await AttachedPool.make("320M");
    const told = await attached.run({
      script: "xfs.sh",
      modules: ["xfs"],
      programs: ["mkfs.xfs", "xfs_repair"],
    });
    requireSpaceBack(told);
    assertEquals(attached.attachments("disk", "fork"), [2, 1], attached.log);
    await attached.end();
  },
});

/** How the device is attached over which the server is killed. None of these reconnects. */
const attachments: readonly (readonly [how: string, options: readonly string[]])[] = [
  ["one connection", []],
  ["a connection with -persist", ["-persist"]],
  ["two connections", ["-C", "2"]],
];

for (const [how, options] of attachments) {
  soakTest({
    name: `after the server was killed under an ext4 mounted over ${how} and came back, Linux attaches ` +
      "again, replays the journal, and every durable file is there",
    ignore: ignore,
    fn: async () => {
      await using attached = await AttachedPool.make("256M");
      const told = await attached.run({ script: "killed.sh", args: options });
      assert(toldNumber(told, "durable") >= 20);
      // Those to the server that came back.
      assertEquals(attached.attachments("disk"), [options[0] === "-C" ? 2 : 1], attached.log);
      await attached.end();
    },
  });
}

soakTest({
  name: "after a power cut Linux replays the journal of a mounted ext4, and every durable file is there",
  ignore: ignore,
  fn: async () => {
    await using attached = await AttachedPool.make("256M");
    const before = await attached.run({ script: "cut_power.sh" });
    const count = toldNumber(before, "durable");
    assert(count >= 20);
    const after = await attached.run({ script: "after_cut.sh", args: [count] });
    assertEquals(after, before.slice(0, -1));
    await attached.end();
  },
});
