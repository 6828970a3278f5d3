/**
 * The catalogue in memory: what dm-thin's metadata does not have, the names, sizes and origins of volumes. Its file is
 * the journal (catalogue_journal.ts).
 *
 * A change has two steps, which the transaction id ties to the metadata:
 * 1. {@linkcode Catalogue.stage} checks the change and returns the line to append to the journal.
 * 2. When the line is durable and the metadata is committed with the same id, {@linkcode Catalogue.commitStaged} applies the
 *    change here.
 * If we stop after the line is durable and before the commit is, the superblock has the old id, and the line is dropped
 * at the next start. If we stop after the commit, the superblock has the new id, and the line holds.
 */
import { assert } from "./base/assert.ts";
import { lineOfChangesSlices, piecesOfSnapshot } from "./catalogue_journal.ts";
import { transactionIdMax } from "./catalogue_fields.ts";
import {
  type CatalogueChange,
  type CatalogueContent,
  type PoolSettings,
  problemOfRecord,
  type VolumeRecord,
} from "./catalogue_records.ts";
import { UserError } from "./base/errors.ts";
import { CatalogueIndex } from "./catalogue_index.ts";
import type { Families } from "./families.ts";
import { type ThinId, thinId, thinIdMax } from "./base/ids.ts";
import { SliceEnd, type Slices, wholeOf } from "./slices.ts";

export type { CatalogueChange, CatalogueContent, PoolSettings, VolumeRecord };

/**
 * The catalogue. Names, uids and thin ids are unique. A record that is being deleted keeps its thin id, but not its
 * name.
 */
export class Catalogue {
  readonly settings: PoolSettings;
  #transactionId: bigint;
  #nextThinId: number;
  readonly #index = new CatalogueIndex();
  #staged: readonly CatalogueChange[] | undefined;
  #stagedContentBytes = 0;
  /** @param content without volumes; see {@linkcode catalogueFrom} */
  constructor(content: Omit<CatalogueContent, "volumes">) {
    this.settings = content.settings;
    this.#transactionId = content.transactionId;
    this.#nextThinId = content.nextThinId;
  }

  /** The superblock's trans_id that the catalogue belongs to. */
  get transactionId(): bigint {
    return this.#transactionId;
  }

  /** Number of records, including those that are being deleted. */
  get count(): number {
    return this.#index.byUid.size;
  }

  /** Bytes of {@linkcode snapshotLine} at most. The bounds of the journal depend on it. */
  get contentBytes(): number {
    return headBytesMax(this.settings) + this.#index.recordBytes;
  }

  /** A change is staged, and neither applied nor dropped. */
  get isStaged(): boolean {
    return this.#staged !== undefined;
  }

  /** The larger of {@linkcode contentBytes} with and without the staged change. */
  get stagedContentBytes(): number {
    assert(this.#staged !== undefined, "a change was staged");
    return Math.max(this.contentBytes, this.#stagedContentBytes);
  }

  /** All records, including those that are being deleted, in no particular order. */
  volumes(): Iterable<VolumeRecord> {
    return this.#index.byUid.values();
  }

  /** The records of volumes that are ephemeral or expire, including those that are being deleted. */
  throwAways(): Iterable<VolumeRecord> {
    return this.#index.throwAways.values();
  }

  /** The volume or snapshot of that name, unless it is being deleted. */
  byName(name: string): VolumeRecord | undefined {
    return this.#index.byName.get(name);
  }

  byUid(uid: string): VolumeRecord | undefined {
    return this.#index.byUid.get(uid);
  }

  byThinId(id: ThinId): VolumeRecord | undefined {
    return this.#index.byThinId.get(id);
  }

  /** The present name of `uid`; null if it is null, removed, or being deleted. */
  nameOf(uid: string | null): string | null {
    return this.#index.nameOf(uid);
  }

  /** The snapshots that follow a rename of the volume `uid`. */
  snapshotsOf(uid: string): VolumeRecord[] {
    return this.#index.snapshotsOf(uid);
  }

  /**
   * All records that are related to `uid` by `origin`, in both directions, with `uid` itself and with records that are
   * being deleted. Records made from the same removed origin are still related; the origin of a removed record is not
   * known.
   */
  familyOf(uid: string): VolumeRecord[] {
    return wholeOf(this.familySlices(uid, Infinity));
  }

  /** {@linkcode familyOf} in slices of `perSlice` records. Each slice is right for the time at which it runs. */
  familySlices(uid: string, perSlice: number): Slices<VolumeRecord[]> {
    return this.#index.familySlices(uid, perSlice);
  }

  /** Which thin devices may share blocks. */
  get families(): Families {
    return this.#index.families;
  }

  /**
   * Unused thin ids for new records, in the order in which the records are to be put; undefined if there are too few.
   */
  freeThinIds(count: number): ThinId[] | undefined {
    const free = [...this.unusedThinIds().take(count)];
    return free.length < count ? undefined : free;
  }

  /** Every unused thin id, in the order in which new records are to get them. */
  *unusedThinIds(): Generator<ThinId, void, undefined> {
    let candidate = this.#nextThinId;
    for (let tried = 0; tried <= thinIdMax; tried += 1) {
      // An id is used again only after all others: a backup program takes the same id for the same volume.
      if (!this.#index.byThinId.has(thinId(candidate))) yield thinId(candidate);
      candidate = following(candidate);
    }
  }

  /**
   * Checks a change, which is going to be transaction {@linkcode transactionId} + 1, and returns the line to append.
   * Nothing is changed before {@linkcode commitStaged}. A change that breaks a rule is a defect of the caller.
   */
  stage(changes: readonly CatalogueChange[]): string {
    return wholeOf(this.stageSlices(changes, Infinity));
  }

  /**
   * {@linkcode stage} in slices of `perSlice` changes. The changes are applied and undone again, so between two slices
   * the catalogue has a part of them. It must not be read before the last slice.
   */
  *stageSlices(changes: readonly CatalogueChange[], perSlice: number): Slices<string> {
    assert(this.#staged === undefined, "one change of the catalogue at a time");
    if (this.#transactionId === transactionIdMax) {
      throw new UserError(
        "Cannot change the pool: its transaction id has reached the largest value. Copy the volumes to a new pool.",
      );
    }
    const nextThinId = this.#nextThinId;
    const undo: Undo[] = [];
    const problem = yield* this.#applyAll(changes, undo, perSlice);
    this.#stagedContentBytes = this.contentBytes;
    const end = new SliceEnd(perSlice);
    for (const { uid, before } of undo.reverse()) {
      this.#index.set(uid, before);
      if (end.isDue()) yield;
    }
    this.#nextThinId = nextThinId;
    assert(problem === undefined, "a change keeps the rules of the catalogue");
    this.#staged = changes;
    return yield* lineOfChangesSlices(this.#transactionId + 1n, changes, perSlice);
  }

  /** Applies the staged change, after the metadata was committed with the next id. */
  commitStaged(): void {
    wholeOf(this.commitStagedSlices(Infinity));
  }

  /** {@linkcode commitStaged} in slices of `perSlice` changes. The catalogue must not be read before the last slice. */
  *commitStagedSlices(perSlice: number): Slices<void> {
    assert(this.#staged !== undefined, "a change was staged");
    const problem = yield* this.#applyAll(this.#staged, [], perSlice);
    assert(problem === undefined, "a staged change was checked");
    this.#transactionId += 1n;
    this.#staged = undefined;
  }

  /** Drops the staged change. Its line must be removed from the file before another line is appended. */
  abandonStaged(): void {
    assert(this.#staged !== undefined, "a change was staged");
    this.#staged = undefined;
  }

  /** The whole catalogue as the first line of a journal. */
  snapshotLine(): string {
    return [...this.snapshotPieces()].join("");
  }

  /** The same line in pieces, which may be taken in different turns. No change may be applied before the last piece. */
  *snapshotPieces(): Generator<string> {
    const [transactionId, settings, nextThinId] = [this.#transactionId, this.settings, this.#nextThinId];
    const needsSettings = this.#index.recordsWithSettings > 0;
    for (
      const piece of piecesOfSnapshot({ transactionId, settings, nextThinId }, this.volumes(), needsSettings)
    ) {
      assert(this.#transactionId === transactionId, "the catalogue is one state while it is written down");
      yield piece;
    }
  }

  /**
   * Applies a change from a journal, and increments the transaction id. Returns what is wrong with it, as words to
   * follow a colon; then the catalogue must not be used.
   */
  apply(changes: readonly CatalogueChange[]): string | undefined {
    const problem = wholeOf(this.#applyAll(changes, [], Infinity));
    if (problem === undefined) this.#transactionId += 1n;
    return problem;
  }

  /** Adds the records of the journal's first line. Returns what is wrong with them, as words to follow a colon. */
  load(volumes: readonly VolumeRecord[]): string | undefined {
    const nextThinId = this.#nextThinId;
    this.#index.keepsFamilies = false;
    const problem = wholeOf(this.#applyAll(volumes.map((volume) => ({ put: volume })), [], Infinity));
    this.#index.keepsFamilies = true;
    this.families.load(this.volumes());
    this.#nextThinId = nextThinId;
    if (problem === undefined && this.#index.byUid.size !== volumes.length) {
      return "a uid belongs to two volumes";
    }
    return problem;
  }

  *#applyAll(
    changes: readonly CatalogueChange[],
    undo: Undo[],
    perSlice: number,
  ): Slices<string | undefined> {
    const end = new SliceEnd(perSlice);
    for (const change of changes) {
      if (end.isDue()) yield;
      const uid = "put" in change ? change.put.uid : change.remove;
      const before = this.#index.byUid.get(uid);
      const problem = "put" in change ? this.#problemOfPut(change.put) : problemOfRemove(before);
      if (problem !== undefined) return problem;
      this.#index.set(uid, "put" in change ? change.put : undefined);
      undo.push({ uid, before });
      if ("put" in change && before?.thinId !== change.put.thinId) {
        this.#nextThinId = following(change.put.thinId);
      }
    }
    // During a rename the names of a volume and its snapshots may differ, but not at its end.
    return yield* this.#problemOfNames(changes, end);
  }

  #problemOfPut(record: VolumeRecord): string | undefined {
    const problem = problemOfRecord(record);
    if (problem !== undefined) return problem;
    const sameThinId = this.#index.byThinId.get(record.thinId);
    if (sameThinId !== undefined && sameThinId.uid !== record.uid) {
      return `thin id ${record.thinId} belongs to two volumes`;
    }
    if (record.deleting) return undefined;
    const sameName = this.#index.byName.get(record.name);
    if (sameName !== undefined && sameName.uid !== record.uid) {
      return `the name "${record.name}" belongs to two volumes`;
    }
    return undefined;
  }

  *#problemOfNames(changes: readonly CatalogueChange[], end: SliceEnd): Slices<string | undefined> {
    for (const change of changes) {
      if (end.isDue()) yield;
      if (!("put" in change)) continue;
      // A later step may have replaced the record.
      const record = this.#index.byUid.get(change.put.uid);
      if (record === undefined || record.deleting) continue;
      const ownerName = this.nameOf(record.owner);
      if (ownerName !== null && !record.name.startsWith(`${ownerName}@`)) {
        return misnamed(record.name, ownerName);
      }
      if (!this.#index.ownsSome(record.uid)) continue;
      for (const snapshot of this.snapshotsOf(record.uid)) {
        if (end.isDue()) yield;
        if (!snapshot.name.startsWith(`${record.name}@`)) return misnamed(snapshot.name, record.name);
      }
    }
    return undefined;
  }
}

interface Undo {
  readonly uid: string;
  readonly before: VolumeRecord | undefined;
}

/** Bytes of the first line without its volumes, at most. JSON escapes may make a path six times as long. */
function headBytesMax(settings: PoolSettings): number {
  return 256 + 6 * (settings.metadataPath.length + settings.dataPath.length);
}

function following(id: number): number {
  return id === thinIdMax ? 0 : id + 1;
}

function misnamed(snapshot: string, owner: string): string {
  return `the snapshot "${snapshot}" belongs to the volume "${owner}"`;
}

function problemOfRemove(record: VolumeRecord | undefined): string | undefined {
  return record === undefined ? "a volume that is not there is removed" : undefined;
}
