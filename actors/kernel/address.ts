/**
 * Addresses and messages: the vocabulary of the kernel.
 *
 * A message is plain data with a `type`. A request is a message that is answered once; the type of its answer
 * is part of its own type, so `const mapping = yield* ask(metadata, lookup)` is typed without a cast.
 */

declare const accepts: unique symbol;

/** Where messages of type `M` can be sent. An address that accepts more also serves where less is needed. */
export type Address<M extends Message> = number & { readonly [accepts]: (message: M) => void };

declare const awaits: unique symbol;

/** The task that waits for an answer; an answer to a task that has moved on is dropped. */
export interface ReplyTo {
  readonly [awaits]?: true;
}

/** What an actor receives: plain data, told apart by `type`. */
export interface Message {
  readonly type: string;
}

/** A message that is answered with one `Reply`. The kernel fills in `replyTo` when the request is sent. */
export interface Request<Reply> extends Message {
  replyTo: ReplyTo;
  /** Never present: it carries the type of the answer. */
  readonly reply?: Reply;
}

/** The type of the answer to a request. */
export type ReplyOf<Q> = Q extends { readonly reply?: infer Reply } ? Exclude<Reply, undefined> : never;

/** What `replyTo` holds until the request is sent. */
export const unasked: ReplyTo = Object.freeze({});

/** An actor: a state, and a `receive` that runs to completion. */
export interface Actor<M extends Message> {
  receive(message: M): void;
}
