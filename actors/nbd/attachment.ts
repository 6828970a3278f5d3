/**
 * What a connection asks of the pool: one question at a time, the export that its client is attached to, and the detaching.
 * Not an actor but a part of NbdConnection's state (nbd/connection.ts).
 *
 * Each `attach` that the pool grants is followed by one `detach`. The connection may end only while no question is open: then
 * the pool sends it no message any more, because messages of one sender keep their order.
 */
import { assert } from "../../storage/base/assert.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { PoolMessage } from "../control/pool_messages.ts";
import type { PoolNotice } from "../control/export_messages.ts";
import type { Attached, PoolQuestion } from "./handshake.ts";
import { quoted } from "./wire/option.ts";

/** See the head of this file. */
export class Attachment {
  readonly #kernel: Kernel;
  readonly #connection: Address<PoolNotice>;
  readonly #pool: Address<PoolMessage>;
  readonly #peer: string;
  readonly #only: string | undefined;
  #isQuestionOpen = false;
  /** The export that the client asked for; the empty name stands for the only volume. */
  #asked = "";
  #attached: Attached | undefined;
  #isDisconnected = false;
  #hasToldWrites = false;

  /**
   * @param peer how a sentence names the client
   * @param only the uid of the only export that there is for the client; undefined: all are
   */
  constructor(
    kernel: Kernel,
    connection: Address<PoolNotice>,
    pool: Address<PoolMessage>,
    peer: string,
    only: string | undefined,
  ) {
    this.#peer = peer;
    this.#only = only;
    this.#kernel = kernel;
    this.#connection = connection;
    this.#pool = pool;
  }

  /** The pool owes an answer. */
  get isQuestionOpen(): boolean {
    return this.#isQuestionOpen;
  }

  get isAttached(): boolean {
    return this.#attached !== undefined;
  }

  /** Whether the client is attached to this volume. */
  isTo(uid: string): boolean {
    return this.#attached?.info.uid === uid;
  }

  ask(question: PoolQuestion): void {
    assert(!this.#isQuestionOpen, "asked the pool twice at once");
    this.#isQuestionOpen = true;
    const [client, only] = [this.#connection, this.#only];
    if (question.type === "listExports") return this.#kernel.tell(this.#pool, { ...question, client, only });
    if (question.type === "attach") this.#asked = question.name;
    this.#kernel.tell(this.#pool, { ...question, client, only, peer: this.#peer });
  }

  /** The pool has answered. */
  answered(): void {
    assert(this.#isQuestionOpen, "the pool answered what was not asked");
    this.#isQuestionOpen = false;
  }

  /** The client is attached, which {@linkcode detach} has to take back. */
  hold(attached: Attached): void {
    assert(this.#attached === undefined, "attached twice");
    this.#attached = attached;
  }

  /** The client has sent NBD_CMD_DISC. */
  disconnected(): void {
    this.#isDisconnected = true;
  }

  /** The client writes: the pool is told once, if it asked for that. */
  writes(): void {
    if (this.#hasToldWrites || this.#attached?.info.tellsWrites !== true) return;
    this.#hasToldWrites = true;
    this.#kernel.tell(this.#pool, { type: "wrote", uid: this.#attached.info.uid });
  }

  /** The export for the log, with the name it was asked by if that is another. */
  get sentence(): string {
    const name = this.#attached?.info.name ?? "";
    return quoted(name) + (this.#asked === name ? "" : ` by the name ${quoted(this.#asked)}`);
  }

  /** Detaches the client; answered by `detached`. Returns the export's name, undefined if the client is not attached. */
  detach(): string | undefined {
    const attached = this.#attached;
    if (attached === undefined) return undefined;
    assert(!this.#isQuestionOpen, "detached while the pool owes an answer");
    this.#attached = undefined;
    this.#isQuestionOpen = true;
    const { uid, name } = attached.info;
    const isClean = this.#isDisconnected;
    this.#kernel.tell(this.#pool, { type: "detach", uid, client: this.#connection, isClean });
    return name;
  }
}
