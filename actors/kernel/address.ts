/**
 * Addresses and messages: the vocabulary of the kernel.
 *
 * A message is plain data with a `type`. A request is a message that is answered once. Its type contains the type of its
 * answer, so `const mapping = yield* ask(metadata, lookup)` is typed without a cast.
 */

/** Slots for actors, and for tasks. With a generation it fits into an integer of 53 bits. */
export const slotsMax = 2 ** 20;

declare const accepts: unique symbol;

/** Where messages of type `M` can be sent. An address that accepts more types can be used where fewer are needed. */
export type Address<M extends Message> = number & { readonly [accepts]: (message: M) => void };

declare const awaits: unique symbol;

/** The task that waits for an answer. An answer to a task that no longer waits for it is dropped. */
export interface ReplyTo {
  readonly [awaits]?: true;
}

/** What an actor receives: plain data, distinguished by `type`. */
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
