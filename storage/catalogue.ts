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
import { lineOfChangesSlices, piecesOfSnapshot, recordCharsMax } from "./catalogue_journal.ts";
import { transactionIdMax } from "./catalogue_fields.ts";
import {
  type CatalogueChange,
  type CatalogueContent,
  type PoolSettings,
  problemOfRecord,
  type VolumeRecord,
} from "./catalogue_records.ts";
import { UserError } from "./base/errors.ts";
import { Families } from "./families.ts";
import { type ThinId, thinId, thinIdMax } from "./base/ids.ts";
import { hasSettings } from "./volume_settings.ts";
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
  readonly #byUid = new Map<string, VolumeRecord>();
  readonly #byName = new Map<string, VolumeRecord>();
  readonly #byThinId = new Map<ThinId, VolumeRecord>();
  /** Uids of the snapshots of each owner. The owner may be removed already. */
  readonly #ownedBy = new Map<string, Set<string>>();
  /** Uids of the volumes and snapshots made from each origin. The origin may be removed already. */
  readonly #madeFrom = new Map<string, Set<string>>();
  /** Those of the records that are ephemeral or expire. */
  readonly #throwAways = new Map<string, VolumeRecord>();
  #staged: readonly CatalogueChange[] | undefined;
  #recordBytes = 0;
  #recordsWithSettings = 0;
  #stagedContentBytes = 0;
  /** Which thin devices may share blocks. Not kept while the first line is loaded, whose records have no order. */
  readonly families = new Families();
  #keepsFamilies = true;

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
    return this.#byUid.size;
  }

  /** Bytes of {@linkcode snapshotLine} at most. The bounds of the journal depend on it. */
  get contentBytes(): number {
    return headBytesMax(this.settings) + this.#recordBytes;
  }

  /** The larger of {@linkcode contentBytes} with and without the staged change. */
  get stagedContentBytes(): number {
    assert(this.#staged !== undefined, "a change was staged");
    return Math.max(this.contentBytes, this.#stagedContentBytes);
  }

  /** All records, including those that are being deleted, in no particular order. */
  volumes(): Iterable<VolumeRecord> {
    return this.#byUid.values();
  }

  /** The records of volumes that are ephemeral or expire, including those that are being deleted. */
  throwAways(): Iterable<VolumeRecord> {
    return this.#throwAways.values();
  }

  /** The volume or snapshot of that name, unless it is being deleted. */
  byName(name: string): VolumeRecord | undefined {
    return this.#byName.get(name);
  }

  byUid(uid: string): VolumeRecord | undefined {
    return this.#byUid.get(uid);
  }

  byThinId(id: ThinId): VolumeRecord | undefined {
    return this.#byThinId.get(id);
  }

  /** The present name of `uid`; null if it is null, removed, or being deleted. */
  nameOf(uid: string | null): string | null {
    const record = uid === null ? undefined : this.#byUid.get(uid);
    return record === undefined || record.deleting ? null : record.name;
  }

  /** The snapshots that follow a rename of the volume `uid`. */
  snapshotsOf(uid: string): VolumeRecord[] {
    const snapshots: VolumeRecord[] = [];
    for (const ownedUid of this.#ownedBy.get(uid) ?? []) {
      const record = this.#byUid.get(ownedUid);
      if (record !== undefined && !record.deleting) snapshots.push(record);
    }
    return snapshots;
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
  *familySlices(uid: string, perSlice: number): Slices<VolumeRecord[]> {
    const family: VolumeRecord[] = [];
    const end = new SliceEnd(perSlice);
    // The loop also visits what it adds.
    const met = new Set([uid]);
    for (const relative of met) {
      if (end.isDue()) yield;
      for (const made of this.#madeFrom.get(relative) ?? []) {
        met.add(made);
        if (end.isDue()) yield;
      }
      const record = this.#byUid.get(relative);
      if (record === undefined) continue;
      family.push(record);
      if (record.origin !== null) met.add(record.origin);
    }
    return family;
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
      if (!this.#byThinId.has(thinId(candidate))) yield thinId(candidate);
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
      this.#set(uid, before);
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
    const needsSettings = this.#recordsWithSettings > 0;
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
    this.#keepsFamilies = false;
    const problem = wholeOf(this.#applyAll(volumes.map((volume) => ({ put: volume })), [], Infinity));
    this.#keepsFamilies = true;
    this.families.load(this.volumes());
    this.#nextThinId = nextThinId;
    if (problem === undefined && this.#byUid.size !== volumes.length) return "a uid belongs to two volumes";
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
      const before = this.#byUid.get(uid);
      const problem = "put" in change ? this.#problemOfPut(change.put) : problemOfRemove(before);
      if (problem !== undefined) return problem;
      this.#set(uid, "put" in change ? change.put : undefined);
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
    const sameThinId = this.#byThinId.get(record.thinId);
    if (sameThinId !== undefined && sameThinId.uid !== record.uid) {
      return `thin id ${record.thinId} belongs to two volumes`;
    }
    if (record.deleting) return undefined;
    const sameName = this.#byName.get(record.name);
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
      const record = this.#byUid.get(change.put.uid);
      if (record === undefined || record.deleting) continue;
      const ownerName = this.nameOf(record.owner);
      if (ownerName !== null && !record.name.startsWith(`${ownerName}@`)) {
        return misnamed(record.name, ownerName);
      }
      if (!this.#ownedBy.has(record.uid)) continue;
      for (const snapshot of this.snapshotsOf(record.uid)) {
        if (end.isDue()) yield;
        if (!snapshot.name.startsWith(`${record.name}@`)) return misnamed(snapshot.name, record.name);
      }
    }
    return undefined;
  }

  /** All changes of the maps are made here. */
  #set(uid: string, after: VolumeRecord | undefined): void {
    const before = this.#byUid.get(uid);
    if (before !== undefined) {
      this.#recordBytes -= recordCharsMax(before);
      if (hasSettings(before)) this.#recordsWithSettings -= 1;
      this.#byThinId.delete(before.thinId);
      if (!before.deleting) this.#byName.delete(before.name);
      if (before.owner !== null) untie(this.#ownedBy, before.owner, uid);
      if (before.origin !== null) untie(this.#madeFrom, before.origin, uid);
    }
    if (this.#keepsFamilies) this.#keepFamily(before, after);
    if (after === undefined) {
      this.#byUid.delete(uid);
      this.#throwAways.delete(uid);
      return;
    }
    this.#recordBytes += recordCharsMax(after);
    if (hasSettings(after)) this.#recordsWithSettings += 1;
    this.#byUid.set(uid, after);
    if (after.ephemeral !== undefined || after.expires !== undefined) this.#throwAways.set(uid, after);
    else this.#throwAways.delete(uid);
    this.#byThinId.set(after.thinId, after);
    if (!after.deleting) this.#byName.set(after.name, after);
    if (after.owner !== null) tie(this.#ownedBy, after.owner, uid);
    if (after.origin !== null) tie(this.#madeFrom, after.origin, uid);
  }

  #keepFamily(before: VolumeRecord | undefined, after: VolumeRecord | undefined): void {
    if (after !== undefined) {
      const origin = after.origin === null ? undefined : this.#byUid.get(after.origin);
      this.families.put(after, before, origin);
    } else if (before !== undefined) this.families.remove(before.thinId);
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

function tie(ties: Map<string, Set<string>>, to: string, uid: string): void {
  const tied = ties.get(to);
  if (tied === undefined) ties.set(to, new Set([uid]));
  else tied.add(uid);
}

function untie(ties: Map<string, Set<string>>, from: string, uid: string): void {
  const tied = ties.get(from);
  assert(tied !== undefined, "a record that is untied was tied");
  tied.delete(uid);
  if (tied.size === 0) ties.delete(from);
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
