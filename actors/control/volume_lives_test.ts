/** Throw-away volumes in simulated time: when the pool removes them by itself, and when not. */
import { assertEquals } from "@std/assert";
import { makeTestingFiles, testingBlockSizeBytes as bs, TestingPool } from "../../tests/support/pool.ts";
import { Recorder } from "../../tests/support/stand_ins.ts";
import type { LifeOptions } from "./admin_command.ts";
import type { PoolNotice } from "./export_messages.ts";

/** A pool with the volume "a", and what clients do to it. */
class Lives {
  readonly pool: TestingPool;
  #uid = "";

  constructor(life: LifeOptions, files = makeTestingFiles()) {
    this.pool = new TestingPool(files);
    this.pool.admin({ verb: "create", name: "a", sizeBytes: 4 * bs, ...life });
  }

  attach(): Recorder<PoolNotice> {
    const client = new Recorder<PoolNotice>(this.pool.kernel, "client");
    this.pool.kernel.tell(this.pool.pool.address, { type: "attach", name: "a", client: client.address });
    this.pool.drain();
    const [notice] = client.take();
    if (notice?.type === "attached") this.#uid = notice.info.uid;
    return client;
  }

  write(): void {
    this.pool.kernel.tell(this.pool.pool.address, { type: "wrote", uid: this.#uid });
    this.pool.drain();
  }

  leave(client: Recorder<PoolNotice>, isClean: boolean): void {
    const message = { type: "detach", uid: this.#uid, client: client.address, isClean } as const;
    this.pool.kernel.tell(this.pool.pool.address, message);
    this.pool.drain();
  }

  pass(ms: number): void {
    for (let passedMs = 0; passedMs < ms; passedMs += 1000) {
      this.pool.clock.advance(Math.min(1000, ms - passedMs));
      this.pool.drain();
    }
  }

  get isThere(): boolean {
    const result = this.pool.admin({ verb: "list" });
    return result.kind === "volumes" && result.volumes.some(({ name }) => name === "a");
  }
}

Deno.test("an ephemeral volume goes with the clean disconnect of its last client", () => {
  const lives = new Lives({ ephemeral: true });
  const [first, second] = [lives.attach(), lives.attach()];
  lives.write();
  lives.leave(first, true);
  assertEquals(lives.isThere, true);
  lives.leave(second, true);
  assertEquals(lives.isThere, false);
});

Deno.test("an ephemeral volume that no client has written to stays, however its clients leave", () => {
  const lives = new Lives({ ephemeral: true });
  lives.leave(lives.attach(), true);
  lives.leave(lives.attach(), false);
  lives.pass(3_600_000);
  assertEquals(lives.isThere, true);
});

Deno.test("an ephemeral volume whose client was lost stays for its linger time, and longer if one comes back", () => {
  const lives = new Lives({ ephemeral: true, lingerMs: 60_000 });
  const lost = lives.attach();
  lives.write();
  lives.leave(lost, false);
  lives.pass(58_000);
  assertEquals(lives.isThere, true);
  const back = lives.attach();
  lives.pass(600_000);
  lives.leave(back, false);
  lives.pass(58_000);
  assertEquals(lives.isThere, true);
  lives.pass(3_000);
  assertEquals(lives.isThere, false);
});

Deno.test("without a linger time of its own it stays for ten minutes", () => {
  const lives = new Lives({ ephemeral: true });
  const lost = lives.attach();
  lives.write();
  lives.leave(lost, false);
  lives.pass(598_000);
  assertEquals(lives.isThere, true);
  lives.pass(3_000);
  assertEquals(lives.isThere, false);
});

Deno.test("a restart begins the linger time of what was written to, and of nothing else", () => {
  for (const isWritten of [true, false]) {
    const files = makeTestingFiles();
    const before = new Lives({ ephemeral: true, lingerMs: 60_000 }, files);
    before.attach();
    if (isWritten) before.write();
    const after = new Lives({}, before.pool.files);
    after.pass(58_000);
    assertEquals(after.isThere, true);
    after.pass(3_000);
    assertEquals(after.isThere, !isWritten);
  }
});

Deno.test("a volume that expires goes in time, written or not, and waits for its client", () => {
  const alone = new Lives({ ttlMs: 90_000 });
  alone.pass(88_000);
  assertEquals(alone.isThere, true);
  alone.pass(3_000);
  assertEquals(alone.isThere, false);
  const used = new Lives({ ttlMs: 90_000 });
  const client = used.attach();
  used.pass(600_000);
  assertEquals(used.isThere, true);
  used.leave(client, false);
  assertEquals(used.isThere, false);
});

Deno.test("a volume that is neither ephemeral nor expires stays", () => {
  const lives = new Lives({});
  const client = lives.attach();
  lives.write();
  lives.leave(client, true);
  lives.pass(3_600_000);
  assertEquals(lives.isThere, true);
});
