/** What waits for each actor stays within the sum of what may have messages for it. */
import { assert, assertEquals } from "@std/assert";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../tests/support/pool.ts";
import { RandomPolicy } from "../tests/support/world.ts";
import { defaultKnobs } from "./knobs.ts";
import { mailboxes, mailboxOf, mailboxSums } from "./mailboxes.ts";

Deno.test("every actor of a pool has a sum of its own", () => {
  const pool = new TestingPool(makeTestingFiles());
  pool.admin({ verb: "create", name: "a", sizeBytes: bs });
  pool.attach("a").write(0, new Uint8Array(bs));
  const names = [...pool.kernel.mailboxHighWater().keys()].filter((name) => name !== "client");
  assert(names.length > 8);
  assertEquals(names.filter((name) => mailboxOf(name, mailboxes) === undefined), []);
});

Deno.test("requests that come all at once fill no mailbox beyond its sum", () => {
  for (const policy of [undefined, new RandomPolicy(1), new RandomPolicy(2)]) {
    const knobs = { ...defaultKnobs, biosPerVolumeMax: 16 };
    const pool = new TestingPool(makeTestingFiles(64), {
      knobs,
      ...(policy === undefined ? {} : { policy }),
    });
    pool.admin({ verb: "create", name: "a", sizeBytes: 32 * bs });
    const a = pool.attach("a");
    const requests = 400;
    for (let at = 0; at < requests; at += 1) {
      const offsetBytes = (at % 32) * bs;
      if (at % 5 === 0) a.submit("discard", offsetBytes, bs);
      else a.submit("write", offsetBytes, 512, { data: new Uint8Array(512), fua: at % 3 === 0 });
    }
    pool.drain();
    const bounds = mailboxSums({ clients: 1, requests, commands: 1, knobs });
    const beyond = [...pool.kernel.mailboxHighWater()].filter(([name, most]) =>
      most > (mailboxOf(name, bounds) ?? Infinity)
    );
    assertEquals(beyond, []);
    assert(pool.kernel.mailboxHighWater().get("volume a")! >= requests);
  }
});
