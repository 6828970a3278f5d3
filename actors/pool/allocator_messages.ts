/** The messages of the allocator of data blocks and the stubs that send them; the actor itself is in data_allocator.ts. */
import { assert } from "../../storage/base/assert.ts";
import type { DBlockRun } from "../../storage/block_set.ts";
import type { DBlock } from "../../storage/base/ids.ts";
import type { Address, Message, Request } from "../kernel/address.ts";
import { unasked } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import { ask, type Steps } from "../kernel/task.ts";
import type { AllocatorNotice } from "./commit_messages.ts";
import type { PassedDown, Reclaim } from "./data_quarantine.ts";
import type { GeometryNotice } from "./geometry_messages.ts";

/** The answer to {@linkcode Allocate}. `failed`: metadata could not be read. */
export type Allocation =
  | { readonly kind: "allocated"; readonly dblock: DBlock }
  | { readonly kind: "noDataSpace" }
  | { readonly kind: "failed" };

/** Lease a free data block. */
export interface Allocate extends Request<Allocation> {
  readonly type: "allocate";
}

/** The leased block is mapped now. */
export interface Keep extends Message {
  readonly type: "keep";
  readonly dblock: DBlock;
}

/** The leased block was not used. */
export interface GiveBackBlock extends Message {
  readonly type: "giveBack";
  readonly dblock: DBlock;
}

/** From the search task: the free blocks it found, and the block to continue from. */
export interface Found extends Message {
  readonly type: "found";
  readonly runs: readonly DBlockRun[];
  readonly next: DBlock;
  readonly failed: boolean;
}

/** The leased block could not be written: it is not leased again, unless `retiredBlocksMax` are retired already. */
export interface Retire extends Message {
  readonly type: "retire";
  readonly dblock: DBlock;
}

export type DataAllocatorMessage =
  | Allocate
  | Keep
  | GiveBackBlock
  | Retire
  | Reclaim
  | Found
  | PassedDown
  | GeometryNotice
  | AllocatorNotice;

/** The stubs of the allocator. */
export class AllocatorStub {
  constructor(readonly kernel: Kernel, readonly address: Address<DataAllocatorMessage>) {}

  /** Leases a block. Wrap it in a {@linkcode Lease}: a lease that is not ended is lost until the pool is opened again. */
  allocate(): Steps<Allocation> {
    const request: Allocate = { type: "allocate", replyTo: unasked };
    return ask(this.address, request);
  }

  /** See {@linkcode Reclaim}. */
  reclaim(): Steps<boolean> {
    const request: Reclaim = { type: "reclaim", replyTo: unasked };
    return ask(this.address, request);
  }
}

/** A leased block. The lease ends once: kept, retired, or given back when disposed of. */
export class Lease implements Disposable {
  #ended = false;

  constructor(readonly allocator: AllocatorStub, readonly dblock: DBlock) {}

  /** The block is mapped: metadata counts it from now on. */
  keep(): void {
    this.#end();
    this.allocator.kernel.tell(this.allocator.address, { type: "keep", dblock: this.dblock });
  }

  /** Writing to the block failed with this status. After an I/O error it is retired, so that it does not fail the next write too. */
  failed<Status extends string>(status: Status): Status {
    if (status !== "ioError") return status;
    this.#end();
    this.allocator.kernel.tell(this.allocator.address, { type: "retire", dblock: this.dblock });
    return status;
  }

  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#end();
    this.allocator.kernel.tell(this.allocator.address, { type: "giveBack", dblock: this.dblock });
  }

  #end(): void {
    assert(!this.#ended, "a lease ended twice");
    this.#ended = true;
  }
}
