/**
 * Tasks: declared generators whose every `yield*` is one request message and its typed reply.
 *
 * A task suspends only here: in {@linkcode ask}, {@linkcode join}, {@linkcode sleep} or {@linkcode rest}. A
 * suspended task waits for exactly one answer.
 */
import { assert } from "../../storage/base/assert.ts";
import type { Address, ReplyOf, Request } from "./address.ts";

/** What a task yields to the kernel. */
export type Call =
  | { readonly kind: "ask"; readonly to: Address<Request<unknown>>; readonly request: Request<unknown> }
  | { readonly kind: "join"; readonly name: string; readonly children: readonly Steps<unknown>[] }
  | { readonly kind: "sleep"; readonly ms: number }
  | { readonly kind: "rest" };

/** The steps of a task, or of a part of one. Without `yield*` they do not run. Every generator of calls is one. */
export interface Steps<T> {
  next(answer: unknown): IteratorResult<Call, T>;
  return(value: T): IteratorResult<Call, T>;
  [Symbol.iterator](): Steps<T>;
}

/**
 * Steps that are one request. Most steps are, so for speed this is not a generator: the object is its own call and its own
 * result. The first `next` returns it as the call; the second, with the answer, returns it as the result.
 */
class Ask<R> implements Steps<R> {
  readonly kind = "ask";
  done = false;
  value: unknown = this;
  #isAsked = false;

  constructor(readonly to: Address<Request<unknown>>, readonly request: Request<unknown>) {}

  next(answer: unknown): IteratorResult<Call, R> {
    assert(!this.done, "a request was answered twice");
    if (this.#isAsked) {
      this.done = true;
      this.value = answer;
    }
    this.#isAsked = true;
    return this as IteratorResult<Call, R>;
  }

  return(value: R): IteratorResult<Call, R> {
    return { done: true, value };
  }

  [Symbol.iterator](): Steps<R> {
    return this;
  }
}

/** Sends the request and waits for its answer. */
export function ask<Q extends Request<unknown>>(to: Address<Q>, request: Q): Steps<ReplyOf<Q>> {
  return new Ask(to as unknown as Address<Request<unknown>>, request);
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

/** For background work: waits until no actor and no other task is ready, or for the next drain. */
export function* rest(): Steps<void> {
  yield { kind: "rest" };
}
