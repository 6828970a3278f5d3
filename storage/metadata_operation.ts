/**
 * One operation that changes metadata: either it succeeds, or every part that it changed is rolled back. One at a time.
 *
 * Devices and data space map keep undo state of their own over blocks that the transaction restores. So they are rolled
 * back before it.
 */
import { assert } from "./base/assert.ts";
import { removalDivisor } from "./base/limits.ts";
import type { DeviceTable } from "./device_table.ts";
import { MetadataFault } from "./metadata_fault.ts";
import type { MetadataHeadroom } from "./metadata_headroom.ts";
import type { DataSpaceMap } from "./space_map_data.ts";
import type { SuperblockState } from "./superblock_state.ts";
import type { Transaction } from "./transaction.ts";

/** The parts that an operation changes. */
export interface OperationParts {
  readonly transaction: Transaction;
  readonly devices: DeviceTable;
  readonly data: DataSpaceMap;
  readonly superblock: SuperblockState;
  readonly headroom: MetadataHeadroom;
}

/** See the head of this file. */
export class MetadataOperation {
  readonly #parts: OperationParts;
  /** True once the metadata is loaded for writing. */
  isAllowed = false;
  /** Whether an operation has succeeded since this was last set to false. */
  isDirty = false;

  constructor(parts: OperationParts) {
    this.#parts = parts;
  }

  /** Ends by {@linkcode succeed} or {@linkcode rollback}. */
  begin(): void {
    assert(this.isAllowed, "only loaded metadata, opened for writing, is changed");
    const { transaction, devices, data, superblock } = this.#parts;
    transaction.begin();
    devices.begin();
    data.begin();
    superblock.begin();
  }

  succeed(): void {
    this.#parts.transaction.succeed();
    this.isDirty = true;
  }

  rollback(): void {
    const { transaction, devices, data, superblock } = this.#parts;
    data.rollback();
    devices.rollback();
    transaction.rollback();
    superblock.rollback();
  }

  /** Runs a change as one operation. If it throws, all is rolled back. */
  run(change: () => void): void {
    this.begin();
    try {
      change();
    } catch (error) {
      this.rollback();
      throw error;
    }
    this.succeed();
  }

  /**
   * Runs a removal, which may use the headroom. If space is too short even then (each mapping may be counted in another
   * bitmap, which must be copied), a smaller slice is tried, down to one mapping. So a removal can always free space,
   * commit by commit.
   */
  removeBySlices<Result>(entriesMax: number, remove: (entriesMax: number) => Result): Result {
    for (let entries = entriesMax;; entries = Math.ceil(entries / removalDivisor)) {
      this.begin();
      try {
        const result = remove(entries);
        this.#parts.headroom.admitFromHeadroom();
        this.succeed();
        return result;
      } catch (error) {
        this.rollback();
        const isSpace = error instanceof MetadataFault && error.fault.kind === "noMetadataSpace";
        if (!isSpace || entries === 1) throw error;
      }
    }
  }
}
