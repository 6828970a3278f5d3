/**
 * Refusals: logs what the pool cannot do for its clients at the moment, one line when it begins and one when it is over.
 *
 * Owns: the kinds of refusal that are in force. An actor that refuses a request sends `refused` each time, and `served` when
 * it serves such a request again. The first `refused` writes a line. The second line is written when nothing of the kind was
 * refused for `refusalQuietMs` and something was served since. So a state that changes with every request writes at most two
 * lines in that time.
 *
 * Not here: damaged metadata and a failed commit, which the pool actor logs. They do not end while the process runs.
 *
 * Failure policy: none. No actor waits for this one.
 */
import { assert, unreachable } from "../../storage/base/assert.ts";
import type { Actor, Address, Message } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { refusalQuietMs, retiredBlocksMax, retiredBlocksSaidMax } from "../limits.ts";

/** What may be refused. */
export type Refusal =
  /** Data blocks, metadata blocks, or blocks of the host for the data device are used up. */
  | "dataFull"
  | "metadataFull"
  | "hostFull"
  /** The data device answers reads or writes with errors. */
  | "dataRead"
  | "dataWrite"
  /** No line can be written to the catalogue. */
  | "catalogue";

/** From an actor that refuses requests: one was refused. */
export interface Refused extends Message {
  readonly type: "refused";
  readonly what: Refusal;
  /** What was tried and how it failed, for the kinds that can fail in more than one way. */
  readonly detail?: string;
}

/** From the actor that sent `refused`: such a request was served again. Sent once after a refusal. */
export interface Served extends Message {
  readonly type: "served";
  readonly what: Refusal;
}

/** From the allocator: a free data block could not be written, and is not used until the pool is opened again. */
export interface BlockRetired extends Message {
  readonly type: "blockRetired";
  readonly offsetBytes: number;
  /** The number of such blocks, with this one. */
  readonly blocks: number;
}

/** From its own timer. */
interface QuietTick extends Message {
  readonly type: "quietTick";
}

export type RefusalsMessage = Refused | Served | BlockRetired | QuietTick;

interface InForce {
  count: number;
  lastDetail: string;
  lastMs: number;
  isServed: boolean;
}

export class Refusals implements Actor<RefusalsMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<RefusalsMessage>;
  readonly #log: (sentence: string) => void;
  readonly #inForce = new Map<Refusal, InForce>();

  constructor(kernel: Kernel, self: Address<RefusalsMessage>, log: (sentence: string) => void) {
    this.#kernel = kernel;
    this.#self = self;
    this.#log = log;
  }

  receive(message: RefusalsMessage): void {
    switch (message.type) {
      case "refused":
        return this.#refused(message);
      case "served": {
        const refusal = this.#inForce.get(message.what);
        if (refusal !== undefined) refusal.isServed = true;
        return;
      }
      case "blockRetired":
        return this.#blockRetired(message);
      case "quietTick":
        return this.#leaveQuiet();
      default:
        return unreachable(message);
    }
  }

  #refused({ what, detail = "" }: Refused): void {
    const nowMs = this.#kernel.clock.now();
    const before = this.#inForce.get(what);
    if (before !== undefined) {
      before.count += 1;
      before.lastDetail = detail;
      before.lastMs = nowMs;
      before.isServed = false;
      return;
    }
    if (this.#inForce.size === 0) this.#armTick();
    this.#inForce.set(what, { count: 1, lastDetail: detail, lastMs: nowMs, isServed: false });
    this.#log(beginOf(what, detail));
  }

  /** Ends the refusals that were served since and did not happen again for `refusalQuietMs`. */
  #leaveQuiet(): void {
    const nowMs = this.#kernel.clock.now();
    for (const [what, refusal] of this.#inForce) {
      if (!refusal.isServed || nowMs - refusal.lastMs < refusalQuietMs) continue;
      this.#inForce.delete(what);
      this.#log(endOf(what, refusal));
    }
    if (this.#inForce.size > 0) this.#armTick();
  }

  #armTick(): void {
    this.#kernel.tellLater(refusalQuietMs, this.#self, { type: "quietTick" });
  }

  #blockRetired({ offsetBytes, blocks }: BlockRetired): void {
    assert(blocks <= retiredBlocksMax, "more blocks are retired than allowed");
    if (blocks <= retiredBlocksSaidMax) {
      this.#log(
        `The free data block at byte ${offsetBytes} of the data device cannot be written: it is not used until the pool ` +
          "is opened again. Check the disk.",
      );
    } else if (blocks === retiredBlocksSaidMax + 1) {
      this.#log(
        "More free data blocks cannot be written. They are not used either, and not reported one by one.",
      );
    }
    if (blocks === retiredBlocksMax) {
      this.#log(
        `${blocks} free data blocks cannot be written. That is as many as are set aside: any further one stays in use.`,
      );
    }
  }
}

function beginOf(what: Refusal, detail: string): string {
  switch (what) {
    case "dataFull":
      return `The pool is full (mode out-of-data-space): writes that need space ${detail}, until something is trimmed or removed, or the pool grows.`;
    case "metadataFull":
      return "The metadata is full (mode out-of-metadata-space): new volumes and snapshots may be refused, and writes that " +
        `need new mappings ${detail}, until something is trimmed or removed, or the pool grows.`;
    case "hostFull":
      return "The host has no space for the data device (mode out-of-data-space): writes that need some " +
        `${detail}, until there is room on the host.`;
    case "dataRead":
      return `The data device fails, ${detail}. Clients get an I/O error for what lies there. Check the disk and the host's log.`;
    case "dataWrite":
      return `The data device fails, ${detail}. Clients get an I/O error for such writes. Check the disk and the host's log.`;
    case "catalogue":
      return `The catalogue cannot be written: ${detail}. Changes of volumes are refused until it can.`;
    default:
      return unreachable(what);
  }
}

function endOf(what: Refusal, { count, lastDetail }: InForce): string {
  const quiet = `none has failed for ${refusalQuietMs / 1000} s`;
  switch (what) {
    case "dataFull":
      return "The pool is no longer full: writes that need space succeed.";
    case "metadataFull":
      return "The metadata is no longer full: writes, new volumes and snapshots succeed.";
    case "hostFull":
      return "The host has space for the data device again: writes succeed.";
    case "dataRead":
      return `Reads of the data device succeed again: ${quiet}. ${
        times(count)
      }, the last time ${lastDetail}.`;
    case "dataWrite":
      return `Writes to the data device succeed again: ${quiet}. ${
        times(count)
      }, the last time ${lastDetail}.`;
    case "catalogue":
      return "The catalogue can be written again.";
    default:
      return unreachable(what);
  }
}

function times(count: number): string {
  return count === 1 ? "It failed once" : `It failed ${count} times`;
}
