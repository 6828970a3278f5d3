/** A pool that Linux fills, in a VM: ext4 waits for space, goes on when there is some, and is whole. */
import { assertEquals } from "@std/assert";
import { AttachedPool, hasKernelClient } from "./attached.ts";
import { soakTest } from "../support/server.ts";

for (const [cure, what] of [["grow", "it has grown"], ["remove", "a snapshot is removed"]] as const) {
  soakTest({
    name: `ext4 on a pool that is full hangs, goes on when ${what}, and fsck finds it clean`,
    ignore: !hasKernelClient(),
    fn: async () => {
      await using attached = await AttachedPool.make("128M", "64M", "--no-space-timeout", "0");
      const told = await attached.run({ script: "full.sh", args: [cure] });
      assertEquals(told, ["mode out-of-data-space"]);
      assertEquals((await attached.pool.status()).mode, "write");
      await attached.end();
    },
  });
}
