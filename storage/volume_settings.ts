/**
 * What can be set for one volume besides its name and size, and the rules for it. A volume record has these fields
 * beside its own; a snapshot has none of them, and a snapshot or clone does not take them over from its origin.
 *
 * They are the second format of the catalogue. A catalogue in which no volume has a setting is written in the first.
 */
import { isInteger } from "./base/integers.ts";
import type { Fields } from "./catalogue_fields.ts";

/** Settings of one volume. Each is absent unless it was set. */
export interface VolumeSettings {
  /** At most one client that may write is attached at a time. */
  readonly singleWriter?: true;
  /** Once written to, it is removed when its last client detaches cleanly, or has been away for longer than `lingerMs`. */
  readonly ephemeral?: true;
  /** Of an ephemeral volume: how long it stays after a client was lost or the pool was started again. */
  readonly lingerMs?: number;
  /** RFC 3339, UTC: from then on it is removed as soon as no client is attached. */
  readonly expires?: string;
  /** A client has written to it. Kept of ephemeral volumes only. */
  readonly written?: true;
  /** Its mapped blocks have at most so many bytes; those of its snapshots do not count. */
  readonly quotaBytes?: number;
  /** So many bytes, less those that it alone maps, are kept free for it. */
  readonly reserveBytes?: number;
}

/** Whether a record has any setting, and so needs the second format. */
export function hasSettings(record: VolumeSettings): boolean {
  return record.singleWriter !== undefined || record.ephemeral !== undefined ||
    record.lingerMs !== undefined ||
    record.expires !== undefined || record.written !== undefined || record.quotaBytes !== undefined ||
    record.reserveBytes !== undefined;
}

/** What is wrong with the settings of the volume or snapshot of this name, as words to follow a colon. */
export function problemOfSettings(name: string, settings: VolumeSettings): string | undefined {
  if (!hasSettings(settings)) return undefined;
  if (name.includes("@")) return `the snapshot "${name}" has settings, which only a volume can have`;
  const { ephemeral, lingerMs, written, expires, quotaBytes, reserveBytes } = settings;
  if (ephemeral === undefined && lingerMs !== undefined) return `"${name}" lingers and is not ephemeral`;
  if (ephemeral === undefined && written !== undefined) {
    return `"${name}" counts as written to and is not ephemeral`;
  }
  if (lingerMs !== undefined && !isInteger(lingerMs, 0)) {
    return `the linger time of "${name}" is out of range`;
  }
  if (expires !== undefined && !utcTime.test(expires)) {
    return `the time at which "${name}" expires is malformed`;
  }
  if (quotaBytes !== undefined && !isInteger(quotaBytes, 1)) return `the quota of "${name}" is out of range`;
  if (reserveBytes !== undefined && !isInteger(reserveBytes, 1)) {
    return `the reserve of "${name}" is out of range`;
  }
  return undefined;
}

/** The settings among the fields of a record in JSON; they are taken from `fields`. */
export function settingsOfFields(fields: Fields): VolumeSettings {
  const isTrue = (name: string) => fields.has(name) && fields.boolean(name);
  return {
    ...(isTrue("single_writer") ? { singleWriter: true } : {}),
    ...(isTrue("ephemeral") ? { ephemeral: true } : {}),
    ...(fields.has("linger_ms") ? { lingerMs: fields.integer("linger_ms") } : {}),
    ...(fields.has("expires") ? { expires: fields.text("expires") } : {}),
    ...(isTrue("written") ? { written: true } : {}),
    ...(fields.has("quota_bytes") ? { quotaBytes: fields.integer("quota_bytes") } : {}),
    ...(fields.has("reserve_bytes") ? { reserveBytes: fields.integer("reserve_bytes") } : {}),
  };
}

/** Characters of the settings in a line at most, with the separators; 0 if there are none. */
export function settingsCharsMax(settings: VolumeSettings): number {
  return hasSettings(settings) ? JSON.stringify(jsonOfSettings(settings)).length : 0;
}

/** The settings of a record as JSON fields; what is not set is undefined, which JSON.stringify leaves out. */
export function jsonOfSettings(settings: VolumeSettings): Record<string, unknown> {
  return {
    single_writer: settings.singleWriter,
    ephemeral: settings.ephemeral,
    linger_ms: settings.lingerMs,
    expires: settings.expires,
    written: settings.written,
    quota_bytes: settings.quotaBytes,
    reserve_bytes: settings.reserveBytes,
  };
}

/** A time in UTC as RFC 3339 writes it. */
const utcTime = /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?Z$/;
