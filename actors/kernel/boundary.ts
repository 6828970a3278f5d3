/**
 * The boundary between the kernel and what is outside of it: devices, sockets, files, streams, the host.
 *
 * A call to the outside may throw, reject or be late. That is not a defect: it becomes a typed result, or closes a socket. So
 * every `catch` around such a call, in an actor or an adapter, gets the reason from `reasonOutside`. It throws a broken
 * invariant of our own again, because that must stop the pool wherever it is caught.
 */
import { Defect } from "../../storage/base/assert.ts";

/** Why a call to the outside failed, for a sentence. Throws what was thrown if that is a {@linkcode Defect}. */
export function reasonOutside(thrown: unknown): string {
  if (thrown instanceof Defect) throw thrown;
  return thrown instanceof Error ? thrown.message : String(thrown);
}
