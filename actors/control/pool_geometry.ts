/**
 * The geometry of the pool as the pool actor knows it, and the order in which the others are told. Not an actor but a part of
 * the pool's state.
 *
 * Metadata announces a geometry when the superblock that has it is durable (pool/geometry_messages.ts). So nothing here
 * counts on a size that a crash takes back: if we stop before that commit, the pool is opened with the old size, and no
 * mapping, no listing and no client has seen another.
 *
 * The order:
 *
 *  1. The metadata device and the data device, which compare it with what they have.
 *  2. The allocator. It is the only source of new data blocks, so from here on bios read and write beyond the old end.
 *  3. The pool itself: commands and clients that come after it see the new sizes.
 *
 * Not told: the data locks, whose regions do not depend on the size (pool/data_locks.ts); volumes and the clients attached to
 * them, which know the block size only, and that never changes.
 *
 * A growth is right at any time, also while blocks are leased, in quarantine or locked, and bios are in flight: all of these
 * name data blocks below the old end, whose numbers and places on the device stay. A bio that has found no
 * space finds a new block when it tries again, is parked until then, or is refused; each is right. Growth of the data tells the
 * space watch that space came (pool/data_allocator.ts), growth of the metadata too (pool/metadata.ts).
 */
import { assert, present } from "../../storage/base/assert.ts";
import { canBecome, dataBytesOf, type Geometry, metadataBytesOf } from "../../storage/base/geometry.ts";
import type { AdminPeers, PoolPeers } from "./admin_peers.ts";

/** See the head of this file. */
export class PoolGeometry {
  #geometry: Geometry | undefined;
  #peers: AdminPeers | undefined;

  constructor(readonly actors: PoolPeers) {}

  /** False until metadata has been loaded. */
  get isKnown(): boolean {
    return this.#geometry !== undefined;
  }

  /** The sizes of the pool. */
  get geometry(): Geometry {
    return present(this.#geometry, "the pool was asked for sizes that it does not know yet");
  }

  /** What admin tasks work with. */
  get peers(): AdminPeers {
    return present(this.#peers, "the pool works before it knows its geometry");
  }

  /** Takes the first geometry or a larger one, and tells the others. */
  take(geometry: Geometry): void {
    const before = this.#geometry;
    assert(before === undefined || canBecome(before, geometry), "the pool became smaller");
    const { kernel, metadataDevice, thin } = this.actors;
    kernel.tell(metadataDevice.address, { type: "deviceGeometry", usedBytes: metadataBytesOf(geometry) });
    kernel.tell(thin.data.address, { type: "deviceGeometry", usedBytes: dataBytesOf(geometry) });
    kernel.tell(thin.allocator.address, { type: "geometry", geometry });
    this.#geometry = geometry;
    this.#peers ??= withBlockSize(this.actors, geometry);
  }
}

/** What admin tasks work with in a pool of this geometry. Of it they use the block size only, which never changes. */
export function withBlockSize(actors: PoolPeers, { blockSizeBytes }: Geometry): AdminPeers {
  return { ...actors, thin: { ...actors.thin, blockSizeBytes } };
}
