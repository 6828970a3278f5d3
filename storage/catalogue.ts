/**
 * The catalogue: what the metadata does not know about volumes (names, sizes, whose snapshot), in memory. How it
 * is written down is catalogue_journal.ts.
 *
 * A change goes in two steps, tied to the metadata by its transaction id: {@linkcode Catalogue.stage} checks the change
 * and gives the line to append; once that line is durable and the metadata is committed with the same id,
 * {@linkcode Catalogue.commitStaged} makes it true here. If we stop after the line is durable but before the commit,
 * the metadata's id at the next start says that the line does not hold; after the commit, that it does.
 */
import { assert } from "./base/assert.ts";
import {
  damaged,
  type Journal,
  lineOfChangesSlices,
  piecesOfSnapshot,
  recordCharsMax,
  transactionIdMax,
} from "./catalogue_journal.ts";
import {
  type CatalogueChange,
  type CatalogueContent,
  type PoolSettings,
  problemOfRecord,
  type VolumeRecord,
} from "./catalogue_records.ts";
import { UserError } from "./base/errors.ts";
import { type ThinId, thinId, thinIdMax } from "./base/ids.ts";
import { SliceEnd, type Slices, wholeOf } from "./slices.ts";

export type { CatalogueChange, CatalogueContent, PoolSettings, VolumeRecord };

/** The one in memory. Names, uids and thin ids are unique; a record that is being deleted keeps its thin id but no name. */
export class Catalogue {
  readonly settings: PoolSettings;
  #transactionId: bigint;
  #nextThinId: number;
  readonly #byUid = new Map<string, VolumeRecord>();
  readonly #byName = new Map<string, VolumeRecord>();
  readonly #byThinId = new Map<ThinId, VolumeRecord>();
  /** Uids of the snapshots of each owner, present or gone. */
  readonly #ownedBy = new Map<string, Set<string>>();
  /** Uids of what was made from each origin, present or gone. */
  readonly #madeFrom = new Map<string, Set<string>>();
  #staged: readonly CatalogueChange[] | undefined;
  #recordBytes = 0;
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

  /** How many records there are, those that are being deleted included. */
  get count(): number {
    return this.#byUid.size;
  }

  /** Bytes that {@linkcode snapshotLine} takes at most: what a journal's bounds are tied to. */
  get contentBytes(): number {
    return headBytesMax(this.settings) + this.#recordBytes;
  }

  /** The same with the staged change, or without it if that is more. */
  get stagedContentBytes(): number {
    assert(this.#staged !== undefined, "a change was staged");
    return Math.max(this.contentBytes, this.#stagedContentBytes);
  }

  /** All records, those that are being deleted included, in no order that means anything. */
  volumes(): Iterable<VolumeRecord> {
    return this.#byUid.values();
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

  /** The name that `uid` goes by today; null if it is null, gone, or being deleted. For `origin`. */
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
   * All records that what they were made from ties to `uid`, itself included, also those that are being deleted. Where a
   * record is gone, those made from it still name it, and so each other; what it was made from itself is forgotten.
   */
  familyOf(uid: string): VolumeRecord[] {
    return wholeOf(this.familySlices(uid, Infinity));
  }

  /** {@linkcode familyOf} in slices of `perSlice` records, each right for the time at which it was looked at. */
  *familySlices(uid: string, perSlice: number): Slices<VolumeRecord[]> {
    const family: VolumeRecord[] = [];
    const end = new SliceEnd(perSlice);
    // Grows while it is read.
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

  /** Unused thin ids for new records, in the order in which they are to be put; undefined if there are not so many. */
  freeThinIds(count: number): ThinId[] | undefined {
    const free = [...this.unusedThinIds().take(count)];
    return free.length < count ? undefined : free;
  }

  /** Every unused thin id, in the order in which new records are to get them. */
  *unusedThinIds(): Generator<ThinId, void, undefined> {
    let candidate = this.#nextThinId;
    for (let tried = 0; tried <= thinIdMax; tried += 1) {
      // Ids are used again only after all others were (an id seen twice by a backup program would mean the same volume).
      if (!this.#byThinId.has(thinId(candidate))) yield thinId(candidate);
      candidate = following(candidate);
    }
  }

  /**
   * Checks a change, which becomes transaction {@linkcode transactionId} + 1, and gives the line to append for it.
   * Nothing is changed before {@linkcode commitStaged}. A change that breaks a rule is a defect of the caller.
   */
  stage(changes: readonly CatalogueChange[]): string {
    return wholeOf(this.stageSlices(changes, Infinity));
  }

  /**
   * {@linkcode stage} in slices of `perSlice` changes. They are tried out, so between two slices the catalogue shows a part
   * of them: nothing may look at it before the last.
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

  /** The metadata is committed with the next id: the staged change is true. */
  commitStaged(): void {
    wholeOf(this.commitStagedSlices(Infinity));
  }

  /** {@linkcode commitStaged} in slices of `perSlice` changes. Nothing may look at the catalogue before the last. */
  *commitStagedSlices(perSlice: number): Slices<void> {
    assert(this.#staged !== undefined, "a change was staged");
    const problem = yield* this.#applyAll(this.#staged, [], perSlice);
    assert(problem === undefined, "a staged change was checked");
    this.#transactionId += 1n;
    this.#staged = undefined;
  }

  /** The staged change will not happen; its line must be taken back from the file before another is appended. */
  abandonStaged(): void {
    assert(this.#staged !== undefined, "a change was staged");
    this.#staged = undefined;
  }

  /** The whole catalogue as the first line of a journal. */
  snapshotLine(): string {
    return [...this.snapshotPieces()].join("");
  }

  /** The same line in pieces, of which each may be taken in a later turn. Nothing may be made true meanwhile. */
  *snapshotPieces(): Generator<string> {
    const [transactionId, settings, nextThinId] = [this.#transactionId, this.settings, this.#nextThinId];
    for (const piece of piecesOfSnapshot({ transactionId, settings, nextThinId }, this.volumes())) {
      assert(this.#transactionId === transactionId, "the catalogue is one state while it is written down");
      yield piece;
    }
  }

  /**
   * Applies a change that a journal holds: the transaction id goes up by one. Answers what is wrong with it, as words to
   * follow a colon, and the catalogue is then of no use any more.
   */
  apply(changes: readonly CatalogueChange[]): string | undefined {
    const problem = wholeOf(this.#applyAll(changes, [], Infinity));
    if (problem === undefined) this.#transactionId += 1n;
    return problem;
  }

  /** Puts the records that a catalogue starts with. Answers what is wrong, as words to follow a colon. */
  load(volumes: readonly VolumeRecord[]): string | undefined {
    const nextThinId = this.#nextThinId;
    const problem = wholeOf(this.#applyAll(volumes.map((volume) => ({ put: volume })), [], Infinity));
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
    // Between the steps of a rename the names of a volume and its snapshots may differ, at its end not.
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
      // A later step may have replaced it.
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

  /** The only place that changes the maps. */
  #set(uid: string, after: VolumeRecord | undefined): void {
    const before = this.#byUid.get(uid);
    if (before !== undefined) {
      this.#recordBytes -= recordCharsMax(before);
      this.#byThinId.delete(before.thinId);
      if (!before.deleting) this.#byName.delete(before.name);
      if (before.owner !== null) untie(this.#ownedBy, before.owner, uid);
      if (before.origin !== null) untie(this.#madeFrom, before.origin, uid);
    }
    if (after === undefined) {
      this.#byUid.delete(uid);
      return;
    }
    this.#recordBytes += recordCharsMax(after);
    this.#byUid.set(uid, after);
    this.#byThinId.set(after.thinId, after);
    if (!after.deleting) this.#byName.set(after.name, after);
    if (after.owner !== null) tie(this.#ownedBy, after.owner, uid);
    if (after.origin !== null) tie(this.#madeFrom, after.origin, uid);
  }
}

interface Undo {
  readonly uid: string;
  readonly before: VolumeRecord | undefined;
}

/** A catalogue for a pool that is being made (`init`, `import`). Records that break a rule are a defect of the caller. */
export function catalogueFrom(content: CatalogueContent): Catalogue {
  const catalogue = new Catalogue(content);
  const problem = catalogue.load(content.volumes);
  assert(problem === undefined, "the volumes of a new catalogue keep its rules");
  return catalogue;
}

/** A catalogue as the metadata says that it is, and what was in the journal besides. */
export interface SettledCatalogue {
  readonly catalogue: Catalogue;
  /** What was dropped at the end: a change that was never committed, or the torn beginning of one. */
  readonly dropped: "change" | "torn" | undefined;
  /** Where the lines that hold end in the file. */
  readonly heldBytes: number;
}

/**
 * Decides which lines of a journal hold, by the trans_id of the metadata's superblock (see catalogue_journal.ts), and applies
 * them. What was dropped must be gone from the file before a line is appended. Throws {@linkcode UserError} if the two
 * do not belong together, or the journal is damaged.
 */
export function settleCatalogue(journal: Journal, transactionId: bigint): SettledCatalogue {
  const catalogue = new Catalogue(journal.content);
  const problem = catalogue.load(journal.content.volumes);
  if (problem !== undefined) throw damaged(1, problem);
  let dropped: SettledCatalogue["dropped"];
  let heldBytes = journal.contentEndBytes;
  for (let line = journal.next(); line !== undefined;) {
    if (line.kind === "torn") {
      dropped = "torn";
      break;
    }
    const { lineNumber } = line;
    if (line.transactionId !== catalogue.transactionId + 1n) {
      throw damaged(lineNumber, "transactions are missing before it");
    }
    const next = journal.next();
    // Only the last line can be the one that was begun and never committed.
    if (catalogue.transactionId === transactionId && next === undefined) {
      dropped = "change";
      break;
    }
    const problem = catalogue.apply(line.changes);
    if (problem !== undefined) throw damaged(lineNumber, problem);
    heldBytes = line.endBytes;
    line = next;
  }
  if (catalogue.transactionId !== transactionId) {
    throw new UserError(
      `The catalogue belongs to transaction ${catalogue.transactionId} of the metadata, which is at ${transactionId}: ` +
        "another program changed the pool, or one of the two was restored without the other. Bring back the files that " +
        "belong together, or make a new pool directory around the metadata and the data with `import`.",
    );
  }
  return { catalogue, dropped, heldBytes };
}

/** Bytes of a first line without its volumes, at most; a path may be escaped to six times its length. */
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
  assert(tied !== undefined, "what was tied knows to what");
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
