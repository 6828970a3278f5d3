/** The records of the catalogue, and the rules for a single record. */
import { type ThinId, thinIdMax } from "./base/ids.ts";
import { isInteger } from "./base/integers.ts";
import { problemOfName } from "./base/names.ts";
import { problemOfSettings, type VolumeSettings } from "./volume_settings.ts";

/** A volume or snapshot. Records are never changed in place. */
export interface VolumeRecord extends VolumeSettings {
  /** Random, never used again. Other records refer to it. */
  readonly uid: string;
  /** `VOL`, or `VOL@SNAP` for a snapshot. */
  readonly name: string;
  readonly thinId: ThinId;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** The uid of the volume or snapshot that it was made from, which may be removed already. */
  readonly origin: string | null;
  /** Of a snapshot, the uid of the volume whose renames it follows, which may be removed already. */
  readonly owner: string | null;
  /** RFC 3339, UTC. */
  readonly created: string | null;
  /** It is being deleted: its name is free already, and its mappings are being removed. */
  readonly deleting?: true;
  /** The volume became smaller: mappings from this byte on are being removed. */
  readonly trimFromBytes?: number;
}

/** The settings of a pool, which never change. */
export interface PoolSettings {
  readonly blockSizeBytes: number;
  /** Absolute, or relative to the pool directory. */
  readonly metadataPath: string;
  /** Absolute, or relative to the pool directory. */
  readonly dataPath: string;
}

/** One step of a change; steps are applied in order, all or none. */
export type CatalogueChange =
  /** Adds the record, or replaces the one with the same uid. */
  | { readonly put: VolumeRecord }
  /** Removes the record with this uid. */
  | { readonly remove: string };

/** The whole content of the catalogue. */
export interface CatalogueContent {
  /** The superblock's trans_id to which this content belongs: 64 bits. */
  readonly transactionId: bigint;
  readonly settings: PoolSettings;
  /** The thin id at which the search for an unused one begins. */
  readonly nextThinId: number;
  readonly volumes: readonly VolumeRecord[];
}

/** What is wrong with a single record, as words to follow a colon. */
export function problemOfRecord(record: VolumeRecord): string | undefined {
  if (!isUid(record.uid)) return "a uid is malformed";
  if (record.origin !== null && !isUid(record.origin)) return "an origin is malformed";
  if (record.owner !== null && !isUid(record.owner)) return "an owner is malformed";
  if (problemOfName(record.name) !== undefined) return "a name is malformed";
  const isSnapshot = record.name.includes("@");
  if (isSnapshot && !record.readOnly) return `the snapshot "${record.name}" is writable`;
  if (!isSnapshot && record.owner !== null) return `"${record.name}" is no snapshot and has an owner`;
  if (!isInteger(record.thinId, 0, thinIdMax)) return "a thin id is out of range";
  if (!isInteger(record.sizeBytes, 512) || record.sizeBytes % 512 !== 0) {
    return `the size of "${record.name}" is not a positive multiple of 512 bytes`;
  }
  if (record.trimFromBytes !== undefined && !isInteger(record.trimFromBytes, 0)) {
    return `the place from which "${record.name}" is trimmed is out of range`;
  }
  if (record.created !== null && !rfc3339.test(record.created)) return "a time of creation is malformed";
  return problemOfSettings(record.name, record);
}

const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;
const uidPattern = /^[A-Za-z0-9_-]{1,64}$/;

function isUid(text: string): boolean {
  return uidPattern.test(text);
}
