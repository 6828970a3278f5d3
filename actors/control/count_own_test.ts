import { assertEquals } from "@std/assert";
import { thinId } from "../../storage/base/ids.ts";
import { ScriptedPeers } from "../../tests/support/scripted_peers.ts";
import type { EndCount } from "../pool/allowance_messages.ts";
import { done } from "./admin_outcome.ts";
import { countReserved, reserveCounted } from "./count_own.ts";

const alone = thinId(1);
const shared = thinId(2);

/** What is counted for two volumes with reserves, of which one shares, where clients map 7 blocks of each. */
function countedWith(isChanging: boolean): { counted: unknown[]; order: string[] } {
  const registry = {
    kind: "registry",
    records: [alone, shared].map((id) => ({ thinId: id, deleting: false, reserveBytes: 2 ** 20 })),
    families: new Map([[alone, 1], [shared, 2], [thinId(3), 2]].map(([id, family]) => [id, family])),
    isChanging,
  };
  const peers = new ScriptedPeers()
    .answer("registry", registry, registry)
    .answer("facts", { dataOwed: 9 }, { dataOwed: 9 })
    .answer("device", { kind: "device", mappedBlocks: 7, highest: undefined });
  peers.run(countReserved({ ...peers.peers, countsByWalk: false }));
  return { counted: peers.sent<EndCount>("endCount").flatMap((end) => end.counted), order: peers.order };
}

Deno.test("a volume that shares with none owns all that it maps, and one that shares needs a walk", () => {
  assertEquals(countedWith(false).counted, [{ thin: alone, blocks: 7 }]);
});

Deno.test("while a change is staged no volume counts as one that shares with none: a snapshot may exist already", () => {
  assertEquals(countedWith(true).counted, []);
});

Deno.test("the families are asked for after metadata has begun to count, so that no snapshot is missed in between", () => {
  assertEquals(countedWith(false).order.slice(0, 5), [
    "facts",
    "registry",
    "beginCount",
    "facts",
    "registry",
  ]);
});

Deno.test("where the commit before a walk fails nothing is counted: the disk may have mappings that are gone", () => {
  const peers = new ScriptedPeers()
    .answer("registry", { kind: "registry", records: [{ thinId: alone, name: "a", deleting: false }] })
    .answer("commit", { kind: "poolFailed" });
  const result = peers.run(reserveCounted(peers.peers, "a", function* () {
    return done;
  }));
  assertEquals(peers.order, ["registry", "beginCount", "commit", "cancelCount", "dropUnused"]);
  assertEquals(result, { kind: "done" });
});
