/**
 * What the metadata actor tells its peers unasked: the allocator of blocks and commits, the pool of sizes and trouble, the space
 * watch of metadata blocks. Part of the Metadata actor.
 */
import type { Geometry } from "../../storage/base/geometry.ts";
import type { ThinMetadata } from "../../storage/thin_metadata.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { AllocatorNotice } from "./commit_messages.ts";
import type { ConnectMetadata, MetadataTrouble, Operation } from "./metadata_messages.ts";

export class MetadataNotices {
  readonly #kernel: Kernel;
  readonly #engine: ThinMetadata;
  #peers: ConnectMetadata | undefined;
  /** The geometry that the pool was last told. */
  #announced: Geometry | undefined;
  /** The least metadata blocks that were available when an operation was refused; undefined if none was since more came. */
  #availableAtRefusal: number | undefined;

  constructor(kernel: Kernel, engine: ThinMetadata) {
    this.#kernel = kernel;
    this.#engine = engine;
  }

  connect(peers: ConnectMetadata): void {
    this.#peers = peers;
  }

  /** Tells the pool its sizes, after loading and after a commit that changed them is durable. */
  announceGeometry(): void {
    const { geometry } = this.#engine;
    if (geometry === this.#announced) return;
    this.#announced = geometry;
    if (this.#peers !== undefined) this.#kernel.tell(this.#peers.pool, { type: "geometry", geometry });
  }

  trouble(what: MetadataTrouble["what"], reason: string): void {
    if (this.#peers === undefined) return;
    this.#kernel.tell(this.#peers.pool, { type: "metadataTrouble", what, reason });
  }

  /** An operation found no metadata block. Only of a command's is the space watch told: a bio tries again, and tells it itself. */
  noteRefusal(operation: Operation): void {
    this.#availableAtRefusal = Math.min(this.#engine.metadataAvailable, this.#availableAtRefusal ?? Infinity);
    if (operation.type !== "change" || this.#peers === undefined) return;
    this.#kernel.tell(this.#peers.space, { type: "spaceRefused", need: "metadata" });
  }

  /** A commit or a reader has given blocks back. If more are available, what was refused before may be possible. */
  tellSpace(): void {
    if (this.#availableAtRefusal === undefined) return;
    if (this.#engine.metadataAvailable <= this.#availableAtRefusal) return;
    this.#availableAtRefusal = undefined;
    if (this.#peers !== undefined) {
      this.#kernel.tell(this.#peers.space, { type: "spaceCame", need: "metadata" });
    }
  }

  /** Less may be kept for single devices than before, so others may have more. */
  tellAllowances(): void {
    if (this.#peers !== undefined) this.#kernel.tell(this.#peers.space, { type: "spaceCame", need: "data" });
  }

  tellFreed(): void {
    const runs = this.#engine.takeFreed();
    if (runs.length > 0) this.tellAllocator({ type: "freed", runs });
  }

  tellAllocator(message: AllocatorNotice): void {
    if (this.#peers !== undefined) this.#kernel.tell(this.#peers.allocator, message);
  }
}
