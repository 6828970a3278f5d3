/**
 * The rewrite of the catalogue's journal, as one line.
 *
 * Only while the last line of the journal is durable in the superblock, or was never followed by a commit: between
 * commands, or in a command before its line is appended. Commands that change something wait meanwhile; everything else
 * continues between the pieces. If we stop at any step, the start finds the old or the new journal, whole, and both have the
 * same content (edge/catalogue_file.ts).
 */
import { type IoResult } from "../../storage/device/port.ts";
import type { AdminPeers } from "./admin_peers.ts";
import type { Steps } from "../kernel/task.ts";

/** Rewrites the journal; if that fails, the old one stays. */
export function* rewriteCatalogue({ pool, journal }: AdminPeers): Steps<IoResult> {
  for (let isFirst = true;; isFirst = false) {
    const piece = yield* pool.piece(isFirst);
    if (piece.kind === "refused") return { kind: "ioError", reason: piece.reason };
    if (piece.kind === "end") return yield* journal.finishRewrite(piece.contentBytes);
    const written = yield* journal.rewrite(piece.text, isFirst);
    if (written.kind !== "ok") return written;
  }
}

/** The same between commands. A failure is logged; the rewrite is tried again when the journal has become longer. */
export function* rewriteTask(peers: AdminPeers): Steps<void> {
  const result = yield* rewriteCatalogue(peers);
  // A full host is not logged here: the commands that need room say so.
  if (result.kind === "ioError") peers.log(`The catalogue could not be written anew: ${result.reason}.`);
  peers.kernel.tell(peers.pool.address, { type: "rewriteEnded" });
}
