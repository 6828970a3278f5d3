/** The records of the catalogue, and how they are found: by uid, name, thin id, owner and origin. */
import { assert } from "./base/assert.ts";
import type { ThinId } from "./base/ids.ts";
import { recordCharsMax } from "./catalogue_journal.ts";
import type { VolumeRecord } from "./catalogue_records.ts";
import { Families } from "./families.ts";
import { SliceEnd, type Slices } from "./slices.ts";
import { hasSettings } from "./volume_settings.ts";

/** See the head of this file. */
export class CatalogueIndex {
  readonly byUid = new Map<string, VolumeRecord>();
  /** Without those that are being deleted. */
  readonly byName = new Map<string, VolumeRecord>();
  readonly byThinId = new Map<ThinId, VolumeRecord>();
  /** Uids of the snapshots of each owner. The owner may be removed already. */
  readonly #ownedBy = new Map<string, Set<string>>();
  /** Uids of the volumes and snapshots made from each origin. The origin may be removed already. */
  readonly #madeFrom = new Map<string, Set<string>>();
  /** Those of the records that are ephemeral or expire. */
  readonly throwAways = new Map<string, VolumeRecord>();
  /** Characters of all records in the first line, at most. */
  recordBytes = 0;
  recordsWithSettings = 0;
  /** Which thin devices may share blocks. */
  readonly families = new Families();
  /** Not while the first line is loaded, whose records have no order. */
  keepsFamilies = true;

  /** The present name of `uid`; null if it is null, removed, or being deleted. */
  nameOf(uid: string | null): string | null {
    const record = uid === null ? undefined : this.byUid.get(uid);
    return record === undefined || record.deleting ? null : record.name;
  }

  /** The snapshots that follow a rename of the volume `uid`. */
  snapshotsOf(uid: string): VolumeRecord[] {
    const snapshots: VolumeRecord[] = [];
    for (const ownedUid of this.#ownedBy.get(uid) ?? []) {
      const record = this.byUid.get(ownedUid);
      if (record !== undefined && !record.deleting) snapshots.push(record);
    }
    return snapshots;
  }

  /** The family of `uid`, as catalogue.ts describes it, in slices of `perSlice` records. */
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
      const record = this.byUid.get(relative);
      if (record === undefined) continue;
      family.push(record);
      if (record.origin !== null) met.add(record.origin);
    }
    return family;
  }

  /** Whether the volume `uid` has snapshots that follow a rename of it, or had some that are being deleted. */
  ownsSome(uid: string): boolean {
    return this.#ownedBy.has(uid);
  }

  /** Puts a record, or removes it (undefined). All changes of the maps are made here. */
  set(uid: string, after: VolumeRecord | undefined): void {
    const before = this.byUid.get(uid);
    if (before !== undefined) {
      this.recordBytes -= recordCharsMax(before);
      if (hasSettings(before)) this.recordsWithSettings -= 1;
      this.byThinId.delete(before.thinId);
      if (!before.deleting) this.byName.delete(before.name);
      if (before.owner !== null) untie(this.#ownedBy, before.owner, uid);
      if (before.origin !== null) untie(this.#madeFrom, before.origin, uid);
      assert(this.recordBytes >= 0, "a record that goes was counted");
      assert(this.recordsWithSettings >= 0, "a record with settings that goes was counted");
    }
    if (this.keepsFamilies) this.#keepFamily(before, after);
    if (after === undefined) {
      this.byUid.delete(uid);
      this.throwAways.delete(uid);
      return;
    }
    this.recordBytes += recordCharsMax(after);
    if (hasSettings(after)) this.recordsWithSettings += 1;
    this.byUid.set(uid, after);
    if (after.ephemeral !== undefined || after.expires !== undefined) this.throwAways.set(uid, after);
    else this.throwAways.delete(uid);
    this.byThinId.set(after.thinId, after);
    if (!after.deleting) this.byName.set(after.name, after);
    if (after.owner !== null) tie(this.#ownedBy, after.owner, uid);
    if (after.origin !== null) tie(this.#madeFrom, after.origin, uid);
  }

  #keepFamily(before: VolumeRecord | undefined, after: VolumeRecord | undefined): void {
    if (after !== undefined) {
      const origin = after.origin === null ? undefined : this.byUid.get(after.origin);
      this.families.put(after, before, origin);
    } else if (before !== undefined) this.families.remove(before.thinId);
  }
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
