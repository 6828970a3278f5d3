/**
 * Writing the catalogue's journal anew, as one line.
 *
 * Only while the last line of the journal is durable in the superblock, or was never followed by a commit: so between
 * commands, or in a command before its line is appended. The commands that change something wait meanwhile; all else goes on
 * between the pieces. If we stop anywhere, the journal that is found says the same (edge/catalogue_file.ts).
 */
import { type IoResult } from "../../storage/device/port.ts";
import type { AdminPeers } from "./admin_peers.ts";
import type { Steps } from "../kernel/task.ts";

/** Writes the journal anew; if that fails, it stays as it was. */
export function* rewriteCatalogue({ pool, journal }: AdminPeers): Steps<IoResult> {
  for (let isFirst = true;; isFirst = false) {
    const piece = yield* pool.piece(isFirst);
    if (piece.kind === "refused") return { kind: "ioError", reason: piece.reason };
    if (piece.kind === "end") return yield* journal.finishRewrite(piece.contentBytes);
    const written = yield* journal.rewrite(piece.text, isFirst);
    if (written.kind !== "ok") return written;
  }
}

/** The same between commands. A failure is said, and it is tried again when the journal has become longer still. */
export function* rewriteTask(peers: AdminPeers): Steps<void> {
  const result = yield* rewriteCatalogue(peers);
  // The host being full is no news, and the commands that need room say so.
  if (result.kind === "ioError") peers.log(`The catalogue could not be written anew: ${result.reason}.`);
  peers.kernel.tell(peers.pool.address, { type: "rewriteEnded" });
}
