/**
 * The boundary between the kernel and what is outside of it: devices, sockets, files, streams, the host.
 *
 * A call out may throw, reject or be late. None of that is a defect of ours: each becomes a typed result, or the last
 * word of a socket. So every `catch` around such a call, in an actor or an adapter, asks `reasonOutside` for the reason,
 * which lets one thing pass: a broken invariant of our own, which stops the pool wherever it is found.
 */
import { Defect } from "../../storage/base/assert.ts";

/** Why a call to the outside failed, for a sentence. Throws what was thrown if that is a {@linkcode Defect}. */
export function reasonOutside(thrown: unknown): string {
  if (thrown instanceof Defect) throw thrown;
  return thrown instanceof Error ? thrown.message : String(thrown);
}
