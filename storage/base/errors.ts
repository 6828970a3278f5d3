/**
 * Errors that the user can act on. Only the message is printed, no stack trace. It is one or two full sentences: what
 * was tried, why it failed, and what to do next.
 */

/** The command cannot be carried out: something is unknown, in use, damaged or not permitted. Exit status 1. */
export class UserError extends Error {
  /** Tells the class apart where `instanceof` cannot. */
  override readonly name: string = "UserError";
  /** Exit status of the process if the error is not handled. */
  readonly exitStatus: 1 | 2 = 1;
}

/** The command itself is wrong, for example a size or a name that does not parse. Exit status 2. */
export class UsageError extends UserError {
  /** Tells the class apart where `instanceof` cannot. */
  override readonly name = "UsageError";
  /** That of wrong usage. */
  override readonly exitStatus = 2;
}
