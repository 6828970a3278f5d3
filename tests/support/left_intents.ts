/** For tests: changes that a killed server has left in the intent journal of a pool. */
import { assertEquals } from "@std/assert";
import { newIntentJournal } from "../../actors/edge/intents_open.ts";
import { openLibc } from "../../actors/edge/libc.ts";
import { PoolFiles } from "../../actors/edge/pool_files.ts";
import { readSuperblock } from "../../actors/edge/stored_superblock.ts";
import { dblock, type ThinId, vblock } from "../../storage/base/ids.ts";
import type { Intent } from "../../storage/intent_record.ts";

/** Whether this host keeps a journal at all. */
export const keepsIntents = openLibc() !== undefined;

/** Leaves changes, as if they had been acknowledged after the last commit of a pool that no process has open. */
export async function leaveIntents(directory: string, intents: readonly Intent[]): Promise<void> {
  using held = new DisposableStack();
  const files = held.adopt(PoolFiles.open(directory, { libc: openLibc() }), (files) => files.close());
  const journal = newIntentJournal(held, files, { waiting: 0, trouble: null }, () => {});
  assertEquals(journal.state.kind, "kept");
  journal.start(await readSuperblock(files.metadata.path, files.metadata));
  for (const intent of intents) journal.append(intent);
  journal.writeOut();
}

/** So many new mappings of a thin device. */
export function leftInserts(thin: ThinId, count: number): readonly Intent[] {
  return Array.from({ length: count }, (_, at): Intent => ({
    kind: "insert",
    thin,
    vblock: vblock(at),
    dblock: dblock(at),
    replaced: undefined,
  }));
}
