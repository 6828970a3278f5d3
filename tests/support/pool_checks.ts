/** For tests: what they ask of a pool in memory, and what they compare. */
import { assertEquals } from "@std/assert";
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import type { TextOutMessage } from "../../actors/control/text_out.ts";
import type { Address } from "../../actors/kernel/address.ts";
import { testingBlockSizeBytes, type TestingPool } from "./pool.ts";
import { startCollecting } from "./stand_ins.ts";

/** Makes a volume of so many blocks. */
export function createVolume(pool: TestingPool, name: string, blocks: number): void {
  const created = pool.admin({ verb: "create", name, sizeBytes: blocks * testingBlockSizeBytes });
  assertEquals(created, { kind: "done" });
}

/** Gives a command without waiting for its end. The result is added to `results`, which are answered. */
export function begin(
  pool: TestingPool,
  command: AdminCommand,
  results: AdminResult[] = [],
  out?: Address<TextOutMessage>,
): AdminResult[] {
  startCollecting(pool.kernel, pool.pool.admin(command, out), results);
  return results;
}

/** Why a command was refused, as a sentence. */
export function reasonOf(result: AdminResult): string {
  return result.kind === "refused" ? result.reason : `not refused but ${result.kind}`;
}

/** The names of volumes and snapshots, as `list` has them. */
export function namesIn(pool: TestingPool): string[] {
  const result = pool.admin({ verb: "list" });
  if (result.kind !== "volumes") throw new Error(`list gives ${result.kind}`);
  return result.volumes.map(({ name }) => name);
}

/** Data blocks in use. */
export function usedBlocks(pool: TestingPool): number {
  const result = pool.admin({ verb: "status" });
  if (result.kind !== "status") throw new Error(`status gives ${result.kind}`);
  return result.status.data_used_bytes / testingBlockSizeBytes;
}

/** Fails unless `check` finds nothing. */
export function assertSound(pool: TestingPool): void {
  assertEquals(pool.admin({ verb: "check" }), { kind: "checked", problems: [], notes: [], waiting: 0 });
}
