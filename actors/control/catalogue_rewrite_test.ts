/** A rewrite of the journal replaces it when every piece is written, and not otherwise. */
import { assertEquals } from "@std/assert";
import type { IoResult } from "../../storage/device/port.ts";
import { ScriptedPeers } from "../../tests/support/scripted_peers.ts";
import type { FinishRewrite, RewritePiece } from "./catalogue_journal.ts";
import { rewriteCatalogue, rewriteTask } from "./catalogue_rewrite.ts";
import type { AskPiece } from "./pool_messages.ts";

const pieces = [{ kind: "piece", text: "a" }, { kind: "piece", text: "b" }];

Deno.test("the pieces are written in order, and the new journal replaces the old one after the last", () => {
  const peers = new ScriptedPeers().answer("askPiece", ...pieces);
  assertEquals(peers.run(rewriteCatalogue(peers.peers)), { kind: "ok" });
  assertEquals(peers.order, [
    "askPiece",
    "rewritePiece",
    "askPiece",
    "rewritePiece",
    "askPiece",
    "finishRewrite",
  ]);
  assertEquals(peers.sent<AskPiece>("askPiece").map(({ isFirst }) => isFirst), [true, false, false]);
  assertEquals(peers.sent<RewritePiece>("rewritePiece").map(({ piece, isFirst }) => [piece, isFirst]), [
    ["a", true],
    ["b", false],
  ]);
  assertEquals(peers.sent<FinishRewrite>("finishRewrite")[0]?.contentBytes, 100);
});

Deno.test("a piece that cannot be written leaves the old journal in its place", () => {
  const failed: IoResult = { kind: "ioError", reason: "a bad block" };
  const peers = new ScriptedPeers().answer("askPiece", ...pieces).answer("rewritePiece", failed);
  assertEquals(peers.run(rewriteCatalogue(peers.peers)), failed);
  assertEquals(peers.order, ["askPiece", "rewritePiece"]);
});

Deno.test("a pool that takes no changes any more is not written down", () => {
  const peers = new ScriptedPeers().answer("askPiece", { kind: "refused", reason: "the pool has failed" });
  assertEquals(peers.run(rewriteCatalogue(peers.peers)), { kind: "ioError", reason: "the pool has failed" });
  assertEquals(peers.order, ["askPiece"]);
});

Deno.test("a rewrite between commands logs an error, and the pool goes on with the next command", () => {
  const peers = new ScriptedPeers().answer("finishRewrite", { kind: "ioError", reason: "a bad block" });
  peers.run(rewriteTask(peers.peers));
  assertEquals(peers.logged, ["The catalogue could not be written anew: a bad block."]);
  assertEquals(peers.order.at(-1), "rewriteEnded");
});

Deno.test("a full host is not logged by a rewrite, because the commands that need room say so", () => {
  const peers = new ScriptedPeers().answer("finishRewrite", { kind: "noSpace" });
  peers.run(rewriteTask(peers.peers));
  assertEquals([peers.logged, peers.order.at(-1)], [[], "rewriteEnded"]);
});
