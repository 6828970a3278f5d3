/**
 * Tasks: declared generators whose every `yield*` is one request message and its typed reply.
 *
 * A task suspends only here: in {@linkcode ask}, {@linkcode join} or {@linkcode sleep}. A suspended task waits
 * for exactly one answer.
 */
import type { Address, ReplyOf, Request } from "./address.ts";

/** What a task yields to the kernel. */
export type Call =
  | { readonly kind: "ask"; readonly to: Address<Request<unknown>>; readonly request: Request<unknown> }
  | { readonly kind: "join"; readonly name: string; readonly children: readonly Steps<unknown>[] }
  | { readonly kind: "sleep"; readonly ms: number };

/** The steps of a task, or of a part of one; must be `yield*`-ed to happen at all. */
export type Steps<T> = Generator<Call, T, unknown>;

/** Sends the request and waits for its answer. */
export function* ask<Q extends Request<unknown>>(to: Address<Q>, request: Q): Steps<ReplyOf<Q>> {
  return (yield { kind: "ask", to: to as unknown as Address<Request<unknown>>, request }) as ReplyOf<Q>;
}

/** Runs the children at the same time and waits for all of them; the answers are in the children's order. */
export function* join<T>(name: string, children: readonly Steps<T>[]): Steps<T[]> {
  if (children.length === 0) return [];
  return (yield { kind: "join", name, children }) as T[];
}

/** Waits for at least `ms` milliseconds of the kernel's clock. */
export function* sleep(ms: number): Steps<void> {
  yield { kind: "sleep", ms };
}
