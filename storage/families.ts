/**
 * The families of volumes: two thin devices of different families share no data block. So what one volume owns alone changes
 * only if something in its family does.
 *
 * A snapshot or clone belongs to the family of what it was made from, a volume that was made empty to one of its own. The
 * catalogue does not say what a removed volume was made from. So after a start, relatives may look unrelated: then all volumes
 * that are there are one family. The same holds where another program made volumes.
 */
import { assert } from "./base/assert.ts";
import type { VolumeRecord } from "./catalogue_records.ts";
import type { ThinId } from "./base/ids.ts";

/** The name of a family: a uid, or empty for the one of unknown relations. It means nothing else. */
export type FamilyKey = string;

const unknown: FamilyKey = "";

/**
 * The family of each thin device in a catalogue. A rollback that was dropped leaves the thin device in it that it would have
 * made. If its number is used for another volume, that is of a larger family than it need be, which does no harm.
 */
export class Families {
  /** Replaced, not changed, once it was handed out. */
  #keys = new Map<ThinId, FamilyKey>();
  #isHandedOut = false;
  /** All are of the family of unknown relations. */
  #isOneFamily = false;

  /** The families of all thin devices. They stay as they are when the catalogue changes. */
  get byThin(): ReadonlyMap<ThinId, FamilyKey> {
    this.#isHandedOut = true;
    return this.#keys;
  }

  /** Begins anew with these records. */
  load(records: Iterable<VolumeRecord>): void {
    const byUid = new Map<string, VolumeRecord>();
    for (const record of records) byUid.set(record.uid, record);
    const roots = new Map<string, string>();
    let isKnown = true;
    for (const record of byUid.values()) {
      // Each record is walked over once: those on the way get the root that is found.
      const way = new Set<string>();
      let uid = record.uid;
      while (!roots.has(uid)) {
        way.add(uid);
        const at = byUid.get(uid);
        // Of another program, or made from a volume that is gone.
        if (at === undefined || (at.origin === null && at.created === null)) isKnown = false;
        const origin = at?.origin ?? null;
        if (origin === null || way.has(origin)) {
          roots.set(uid, uid);
          break;
        }
        uid = origin;
      }
      for (const met of way) roots.set(met, roots.get(uid)!);
    }
    this.#keys = new Map();
    this.#isHandedOut = false;
    this.#isOneFamily = !isKnown;
    for (const { uid, thinId } of byUid.values()) {
      this.#keys.set(thinId, isKnown ? roots.get(uid)! : unknown);
    }
  }

  /**
   * A record was added, or replaces `before`.
   *
   * @param origin the record that it was made from, if that is there
   */
  put(record: VolumeRecord, before: VolumeRecord | undefined, origin: VolumeRecord | undefined): void {
    const { thinId } = record;
    // A rollback gives the thin device to another record, and a device of the same family to this one.
    if (this.#keys.has(thinId)) return;
    const relative = before ?? origin;
    const related = relative === undefined ? undefined : this.#keys.get(relative.thinId);
    assert(relative === undefined || related !== undefined, "a record that is there has a family");
    if (related !== undefined) return this.#set(thinId, related);
    if (record.origin === null && record.created !== null) return this.#set(thinId, record.uid);
    // It may share blocks with anything that is there.
    if (!this.#isOneFamily) { for (const thin of [...this.#keys.keys()]) this.#set(thin, unknown); }
    this.#set(thinId, unknown);
    this.#isOneFamily = true;
  }

  /** A thin device is gone, or was never made. */
  remove(thin: ThinId): void {
    this.#own();
    const wasThere = this.#keys.delete(thin);
    assert(wasThere, "a record that is there has a family");
  }

  #set(thin: ThinId, key: FamilyKey): void {
    this.#own();
    this.#keys.set(thin, key);
    if (key !== unknown) this.#isOneFamily = false;
  }

  #own(): void {
    if (this.#isHandedOut) this.#keys = new Map(this.#keys);
    this.#isHandedOut = false;
  }
}
