/**
 * The lifetimes of throw-away volumes: ephemeral ones, and those that expire. Not an actor but a part of PoolActor's state
 * (control/pool.ts).
 *
 * An ephemeral volume that a client has written to goes when its last client has disconnected (NBD_CMD_DISC). If that client was
 * lost, or the pool was opened with the volume there, it stays for its linger time, so that clients can come back. One that no
 * client has written to stays: a program that only asks for its size removes nothing. A volume that expires goes when its time has
 * come, written or not, as soon as no client is attached.
 *
 * A volume that is made to be held (`run`) is ephemeral, counts as written to from the start, and does not linger. While it is held
 * it stays, with clients or without; the end of the hold removes it under its clients. Holds are not written down: if we stop at any
 * point, the next start finds an ephemeral volume without a hold and without a client, and removes it.
 *
 * A removal is a command of the pool like any other, so a crash leaves the volume whole, or gone.
 */
import { assert } from "../../storage/base/assert.ts";
import type { ThinId } from "../../storage/base/ids.ts";
import type { Catalogue, VolumeRecord } from "../../storage/catalogue.ts";
import type { AdminCommand, AdminResult } from "./admin_command.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { heldVolumesMax, lingerMsDefault } from "../limits.ts";
import type { LifetimeCommand, PoolStub } from "./pool_messages.ts";

/** What the lifetimes of volumes depend on. */
export interface LifetimesContext {
  readonly kernel: Kernel;
  readonly catalogue: Catalogue;
  readonly pool: PoolStub;
  /** Whether a client is attached to the volume with this uid. */
  isAttached(uid: string): boolean;
  log(sentence: string): void;
}

/** See the head of this file. It is called only while the catalogue is whole. */
export class VolumeLifetimes {
  readonly #context: LifetimesContext;
  /** Since when an ephemeral volume has no client, by uid. */
  readonly #aloneSinceMs = new Map<string, number>();
  /** Ephemeral volumes that were written to; the catalogue knows it a moment later. */
  readonly #written = new Set<string>();
  /** Uids of the volumes that are held. */
  readonly #held = new Set<string>();
  /** A command is under way; the next one is decided on when it has ended. */
  #isUnderWay = false;

  constructor(context: LifetimesContext) {
    this.#context = context;
  }

  /** A client has written to the volume for the first time. */
  wrote(uid: string): void {
    if (this.#written.has(uid)) return;
    this.#written.add(uid);
    this.#begin({ verb: "written", uid }, []);
  }

  /**
   * The pool is open, and no client has been let in. To these thin devices clients had written when the process before was killed:
   * it may have had no time to note that.
   */
  opened(writtenThins: ReadonlySet<ThinId>): void {
    for (const { uid, thinId, ephemeral, written, deleting } of this.#context.catalogue.throwAways()) {
      const isUnnoted = ephemeral !== undefined && written !== true && !deleting;
      if (isUnnoted && writtenThins.has(thinId)) this.wrote(uid);
    }
  }

  /** A client is attached. */
  attached(uid: string): void {
    this.#aloneSinceMs.delete(uid);
  }

  /** The last client has left. */
  left(uid: string, isClean: boolean): void {
    const record = this.#context.catalogue.byUid(uid);
    if (record?.ephemeral === undefined) return;
    this.#aloneSinceMs.set(uid, isClean ? -Infinity : this.#context.kernel.clock.now());
  }

  /** A volume is being made to be held. Told before the catalogue has it, so that it is not removed in between. */
  hold(uid: string): void {
    assert(this.#held.size < heldVolumesMax, "more volumes are held than can be");
    this.#held.add(uid);
  }

  /** A command has ended: where it ends a hold, or made nothing that could be held, the hold is over. */
  commandEnded(command: AdminCommand | LifetimeCommand, result: AdminResult): void {
    const isOver = command.verb === "endHeld" || (command.verb === "makeHeld" && result.kind === "refused");
    if (isOver) this.#held.delete(command.uid);
  }

  /** Removes what is to go by now. */
  look(): void {
    if (this.#isUnderWay) return;
    const due: VolumeRecord[] = [];
    const { catalogue, kernel } = this.#context;
    const now = kernel.clock.wallTime();
    for (const known of [this.#written, this.#aloneSinceMs]) {
      for (const uid of known.keys()) if (catalogue.byUid(uid) === undefined) known.delete(uid);
    }
    for (const record of catalogue.throwAways()) {
      const isUsed = this.#held.has(record.uid) || this.#context.isAttached(record.uid);
      if (!record.deleting && !isUsed && this.#isOver(record, now)) due.push(record);
    }
    if (due.length === 0) return;
    this.#isUnderWay = true;
    this.#begin({ verb: "outlived", uids: due.map(({ uid }) => uid) }, due.map(({ name }) => name));
  }

  #isOver(record: VolumeRecord, now: string): boolean {
    // Both are UTC in the format of the clock port, so the order of the texts is that of the times.
    if (record.expires !== undefined && record.expires <= now) return true;
    const isWritten = record.written === true || this.#written.has(record.uid);
    if (record.ephemeral === undefined || !isWritten) return false;
    const nowMs = this.#context.kernel.clock.now();
    const sinceMs = this.#aloneSinceMs.get(record.uid);
    // Seen for the first time: the pool has been opened.
    if (sinceMs === undefined) this.#aloneSinceMs.set(record.uid, nowMs);
    return nowMs - (sinceMs ?? nowMs) >= (record.lingerMs ?? lingerMsDefault);
  }

  #begin(command: LifetimeCommand, names: readonly string[]): void {
    this.#context.kernel.start(`admin ${command.verb}`, lifetimeTask(this.#context, command, names));
  }

  /** A removal has ended, or was refused: it is tried again when it is looked for the next time. */
  ended(): void {
    assert(this.#isUnderWay, "a removal that ends has begun");
    this.#isUnderWay = false;
  }
}

function* lifetimeTask(
  { pool, kernel, log }: LifetimesContext,
  command: LifetimeCommand,
  names: readonly string[],
): Steps<void> {
  const { kind } = yield* pool.admin(command);
  if (command.verb === "written") return;
  if (kind === "done") log(`Removed, as nothing uses them any more: ${some(names)}.`);
  kernel.tell(pool.address, { type: "lifetimeCommandEnded" });
}

/** The first ten names, and how many more there are. */
function some(names: readonly string[]): string {
  const shown = names.slice(0, 10).map((name) => `"${name}"`).join(", ");
  return names.length <= 10 ? shown : `${shown} and ${names.length - 10} more`;
}
