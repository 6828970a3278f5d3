/**
 * The commit of the metadata: what one writes, and what each part learns when it begins and when it is durable.
 *
 * A commit has two ends. At its beginning all parts go on to the next transaction, in which every block of the commit is
 * copied before it is changed. What the commit freed can be used again only when its superblock is durable: if we stop before
 * that, the pool goes on from the commit before, whose blocks must be as they were.
 */
import type { DeviceTable } from "./device_table.ts";
import type { Superblock } from "./format/superblock.ts";
import type { MetadataOperation } from "./metadata_operation.ts";
import type { RecentlyUnshared } from "./recently_unshared.ts";
import type { DataSpaceMap } from "./space_map_data.ts";
import type { MetadataSpaceLayout } from "./space_map_layout.ts";
import type { SuperblockState } from "./superblock_state.ts";
import type { CommitPlan, HeldCommit, Transaction } from "./transaction.ts";

/** The parts of the metadata that take part in a commit. */
export interface CommitParts {
  readonly transaction: Transaction;
  readonly layout: MetadataSpaceLayout;
  readonly data: DataSpaceMap;
  readonly devices: DeviceTable;
  readonly recentlyUnshared: RecentlyUnshared;
  readonly superblock: SuperblockState;
  readonly operation: MetadataOperation;
}

/** See the head of this file. */
export class MetadataCommit {
  readonly #parts: CommitParts;

  constructor(parts: CommitParts) {
    this.#parts = parts;
  }

  /**
   * Plans the commit of all changes since the last one, and starts the next transaction. It reads nothing from the
   * device: the paths that it needs were shadowed when the changes were made, and the metadata space map is in memory.
   */
  begin(): CommitPlan {
    const { transaction, layout, data, devices, recentlyUnshared, operation } = this.#parts;
    let metadataSpaceMap: Superblock["metadataSpaceMap"];
    operation.begin();
    try {
      devices.flush();
      data.flush();
      metadataSpaceMap = layout.move(); // last: it encodes the counts that the steps before it change
    } catch (error) {
      layout.rollback();
      operation.rollback();
      throw error;
    }
    operation.succeed();
    layout.endTransaction();
    devices.endTransaction();
    data.endTransaction();
    recentlyUnshared.freeze();
    const blocks = transaction.freeze();
    const superblock = this.#parts.superblock.freeze({
      dataSpaceMap: data.root,
      metadataSpaceMap,
      mappingRoot: devices.mappingRoot,
      detailsRoot: devices.detailsRoot,
    });
    operation.isDirty = false;
    return { blocks, superblock };
  }

  /** The superblock of the commit under way is durable: the blocks that this commit freed may be allocated. */
  durable(): void {
    const { transaction, recentlyUnshared, superblock } = this.#parts;
    superblock.commitDurable();
    transaction.durable();
    recentlyUnshared.durable();
  }

  /**
   * Keeps the blocks of the last durable commit from reuse, so that they can be read from the device until the release.
   */
  hold(): HeldCommit {
    const { superblock, transaction: { space, durableNumber } } = this.#parts;
    const held = space.hold();
    return {
      superblock: superblock.durableBytes(),
      transaction: durableNumber,
      release: () => space.unhold(held),
    };
  }
}
