/**
 * Invariants, always on. A failed one is a defect: the kernel stops delivery and the pool fails (invariant I10 of actors/ARCHITECTURE.md).
 * Messages are constants: a template string would cost thirty times the check itself.
 */

/** A broken invariant: never caught and continued from. */
export class Defect extends Error {
  override readonly name = "Defect";
}

/** Throws {@linkcode Defect} unless `condition` holds. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Defect(message);
}

/** The default arm of an exhaustive `switch`. */
export function unreachable(_value: never): never {
  throw new Defect("unreachable case");
}

/** The value, which the caller knows to be there. Throws {@linkcode Defect} if it is not. */
export function present<T>(value: T | undefined | null, message: string): T {
  if (value === undefined || value === null) throw new Defect(message);
  return value;
}
