/**
 * Assertions, always on. One that fails is a defect: the actors' kernel stops delivering messages and the pool fails
 * (invariant I10 of actors/ARCHITECTURE.md). Messages are constants: building a template string costs thirty times the
 * check.
 */

/** A broken invariant. The pool does not go on after it. */
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

/** The value, which must be there. Throws {@linkcode Defect} if it is not. */
export function present<T>(value: T | undefined | null, message: string): T {
  if (value === undefined || value === null) throw new Defect(message);
  return value;
}
