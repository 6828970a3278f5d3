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
  /**
   * Metadata blocks that could be used when an operation was last refused that no commit under way could help; undefined if
   * none was since more came.
   */
  #atRefusal: number | undefined;
  /** The watch was told that a commit lets blocks be used, and not yet that it has ended. */
  #isComing = false;

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

  /**
   * An operation found no metadata block. True if a commit lets blocks be used which it lacks: each change of a block takes
   * another one, and the one before is free when the commit is durable. The watch is told before the answer, so that the
   * bio does not fail meanwhile. Of the refusal itself it is told only for a command: a bio tries again, and tells it itself.
   */
  noteRefusal(operation: Operation, isCommitting: boolean): boolean {
    const engine = this.#engine;
    const isComing = engine.metadataQuarantined > 0 && (engine.isDirty || isCommitting);
    const isCommand = operation.type === "change";
    // A removal that finds none says nothing of the others: it may use the headroom too.
    if (isCommand || !isComing && operation.type === "insert") this.#atRefusal = engine.metadataAvailable;
    if (this.#peers === undefined) return isComing;
    const { space } = this.#peers;
    if (isComing && !this.#isComing) this.#kernel.tell(space, { type: "metadataComing" });
    this.#isComing ||= isComing;
    if (isCommand) this.#kernel.tell(space, { type: "spaceRefused", need: "metadata" });
    return isComing;
  }

  /** The commit that let blocks be used has ended, or there is none any more. */
  nothingComes(): void {
    if (!this.#isComing) return;
    this.#isComing = false;
    if (this.#peers !== undefined) this.#kernel.tell(this.#peers.space, { type: "metadataCame" });
  }

  /** A commit is durable, or a held one was released. What was refused before may be possible. */
  tellSpace(): void {
    this.nothingComes();
    if (this.#atRefusal === undefined || this.#engine.metadataAvailable <= this.#atRefusal) return;
    this.#atRefusal = undefined;
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
