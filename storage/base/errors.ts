/**
 * Failures that the user can act on. The message is all that is printed, so it is one or two full sentences:
 * what was tried, why it failed, and the next step. Never a stack trace.
 */

/** Something the user asked for cannot be done: unknown, in use, damaged, not permitted. Exit status 1. */
export class UserError extends Error {
  /** Tells the class apart where `instanceof` cannot. */
  override readonly name: string = "UserError";
  /** What the process exits with if nothing else handles the error. */
  readonly exitStatus: 1 | 2 = 1;
}

/** The words of the command itself are wrong: a size or a name that does not parse. Exit status 2. */
export class UsageError extends UserError {
  /** Tells the class apart where `instanceof` cannot. */
  override readonly name = "UsageError";
  /** That of wrong usage. */
  override readonly exitStatus = 2;
}
