/**
 * The catalogue's file: a journal of JSON lines. The first line is the whole catalogue, each following line one change
 * with the next transaction id. Zero bytes follow the last line: space that is set aside for more lines.
 *
 * ```
 * {"format":"gossamer catalog 1","transaction_id":"7","block_size_bytes":65536,"metadata_path":"metadata.img",
 *  "data_path":"data.img","next_thin_id":2,"volumes":[{"uid":"Qx...","name":"disk0","thin_id":1,...}]}
 * {"transaction_id":"8","changes":[{"put":{...}},{"remove":"Qx..."}]}
 * ```
 *
 * The trans_id T of the metadata's superblock decides which lines hold. A line is durable before the metadata is
 * committed with its id, and the next line is written after that commit is durable. So after a crash there are, besides
 * the lines of T and less, which hold:
 * - no line, or
 * - one line of T + 1: it was not committed, and is dropped; or
 * - one torn line: it was not durable, so not committed. It is dropped if the line before it is of T.
 * In any other state the journal is damaged, or does not belong to the metadata.
 *
 * A long journal is rewritten: another file gets a single line with the content of all lines of T and less
 * (actors/edge/catalogue_file.ts). This is done only while the last line is of T and T is durable in the superblock. So
 * both files mean the same, and if we stop during the rewrite, either of them may be found.
 *
 * A journal is read as a stream: only one line of its text is in memory at a time.
 */
import { isZeroes } from "./base/zeroes.ts";
import type { CatalogueChange, CatalogueContent, PoolSettings, VolumeRecord } from "./catalogue_records.ts";
import { UserError } from "./base/errors.ts";
import { catalogueDamage, Fields } from "./catalogue_fields.ts";
import { hasSettings, jsonOfSettings, settingsCharsMax, settingsOfFields } from "./volume_settings.ts";
import { thinId, thinIdMax } from "./base/ids.ts";
import { journalLineBytesMax, journalPieceChars } from "./base/limits.ts";
import { type Slices, wholeOf } from "./slices.ts";

/** The first line of a journal, ended by a newline. */
export function lineOfSnapshot(content: CatalogueContent): string {
  return [...piecesOfSnapshot(content, content.volumes, content.volumes.some(hasSettings))].join("");
}

/**
 * The same line in pieces of about 64 KiB. With 65,536 volumes it has 16 MB, so other work must run between the pieces.
 * `needsSettings`: a volume has settings.
 */
export function* piecesOfSnapshot(
  content: Omit<CatalogueContent, "volumes">,
  volumes: Iterable<VolumeRecord>,
  needsSettings: boolean,
): Generator<string> {
  const head = JSON.stringify({
    format: formatNames[needsSettings ? 1 : 0],
    transaction_id: content.transactionId.toString(),
    block_size_bytes: content.settings.blockSizeBytes,
    metadata_path: content.settings.metadataPath,
    data_path: content.settings.dataPath,
    next_thin_id: content.nextThinId,
    volumes: [],
  });
  let piece = head.slice(0, -"]}".length);
  let separator = "";
  for (const volume of volumes) {
    piece += separator + JSON.stringify(jsonOfVolume(volume));
    separator = ",";
    if (piece.length < journalPieceChars) continue;
    yield piece;
    piece = "";
  }
  yield `${piece}]}\n`;
}

/** Characters of a record in a line at most, with the separator. */
export function recordCharsMax(record: VolumeRecord): number {
  // 260: the names of all fields, the longest numbers, and the time.
  return 260 + record.uid.length + record.name.length + (record.origin?.length ?? 0) +
    (record.owner?.length ?? 0) + settingsCharsMax(record);
}

/** The line of one change, ended by a newline, made in slices of `perSlice` steps of the change. */
export function* lineOfChangesSlices(
  transactionId: bigint,
  changes: readonly CatalogueChange[],
  perSlice: number,
): Slices<string> {
  let line = `{"transaction_id":"${transactionId}","changes":[`;
  for (let at = 0; at < changes.length; at += perSlice) {
    if (at > 0) yield;
    const slice = changes.slice(at, at + perSlice);
    const json = slice.map((change) => "put" in change ? { put: jsonOfVolume(change.put) } : change);
    // The brackets of the slice's own list are removed.
    line += (at > 0 ? "," : "") + JSON.stringify(json).slice(1, -1);
  }
  return `${line}]}\n`;
}

/** {@linkcode lineOfChangesSlices} in one call. */
export function lineOfChanges(transactionId: bigint, changes: readonly CatalogueChange[]): string {
  return wholeOf(lineOfChangesSlices(transactionId, changes, Infinity));
}

/** A line of a journal as text. */
export interface LineText {
  readonly text: string;
  /** Where the line ends in the file, with its newline. */
  readonly endBytes: number;
}

/** A change of a journal with its transaction id. */
export interface JournalLine {
  readonly kind: "change";
  readonly transactionId: bigint;
  readonly changes: readonly CatalogueChange[];
  readonly endBytes: number;
  readonly lineNumber: number;
}

/** A last line that is not complete. */
export interface TornLine {
  readonly kind: "torn";
}

/** A journal that is read line by line. catalogue_open.ts decides which lines hold. */
export class Journal {
  /** The first line. Its settings never change, so they can be used before the metadata is read. */
  readonly content: CatalogueContent;
  /** Where the first line ends. */
  readonly contentEndBytes: number;
  readonly #texts: Iterator<LineText>;
  #lineNumber = 1;

  /** Reads the first line. Throws {@linkcode UserError} if it is malformed. */
  constructor(texts: Iterator<LineText>) {
    this.#texts = texts;
    const first = texts.next();
    const { text, endBytes } = first.done ? { text: "", endBytes: 0 } : first.value;
    this.content = contentOfJson(jsonOf(text), 1);
    this.contentEndBytes = endBytes;
  }

  /**
   * The next line; undefined after the last one. Throws {@linkcode UserError} if anything but the last line is
   * malformed.
   */
  next(): JournalLine | TornLine | undefined {
    const step = this.#texts.next();
    if (step.done) return undefined;
    this.#lineNumber += 1;
    const { text, endBytes } = step.value;
    const json = jsonOf(text);
    // A sector that did not become durable reads as zero bytes. JSON text has no zero bytes, so such a line is torn
    // too.
    if (json === undefined && this.#texts.next().done) return { kind: "torn" };
    const lineNumber = this.#lineNumber;
    return { kind: "change", ...changesOfJson(json, lineNumber), endBytes, lineNumber };
  }
}

/** Reads a journal from text in memory. Throws {@linkcode UserError} if its first line is malformed. */
export function readJournal(text: string): Journal {
  return new Journal(journalLines([new TextEncoder().encode(text)]));
}

/**
 * Splits the bytes of a journal into lines. Bytes after the last newline are a line too, unless all are zero. Throws
 * {@linkcode UserError} if a line is longer than {@linkcode journalLineBytesMax}.
 */
export function* journalLines(pieces: Iterable<Uint8Array>): Generator<LineText> {
  const newline = "\n".charCodeAt(0);
  let pending: Uint8Array[] = [];
  let pendingBytes = 0;
  let offsetBytes = 0;
  let lineNumber = 1;
  for (const piece of pieces) {
    let begin = 0;
    for (let end = piece.indexOf(newline); end >= 0; end = piece.indexOf(newline, begin)) {
      pending.push(piece.subarray(begin, end));
      begin = end + 1;
      yield { text: textOf(pending), endBytes: offsetBytes + begin };
      pending = [];
      pendingBytes = 0;
      lineNumber += 1;
    }
    offsetBytes += piece.length;
    const rest = piece.subarray(begin);
    // Zeroes at the begin of a line are space that is set aside, or belong to a torn line. Their number does not
    // matter.
    if (pendingBytes === 0 && isZeroes(rest)) continue;
    pendingBytes += rest.length;
    if (pendingBytes > journalLineBytesMax) {
      throw catalogueDamage(lineNumber, "it is longer than any line of a catalogue");
    }
    pending.push(rest.slice());
  }
  if (pendingBytes > 0) yield { text: textOf(pending), endBytes: offsetBytes };
}

function textOf(pieces: readonly Uint8Array[]): string {
  const decoder = new TextDecoder();
  let text = "";
  for (const piece of pieces) text += decoder.decode(piece, { stream: true });
  return text + decoder.decode();
}

/**
 * The number of the newest format of the catalogue that is read and written. The second has settings of volumes
 * (volume_settings.ts); the first line says so as soon as one is set when it is written. A program that knows only the
 * first format refuses the others, by the first line or by the unknown field of a line behind it.
 */
export const catalogueFormat = 2;
const formatNames = ["gossamer catalog 1", "gossamer catalog 2"] as const;

/** The catalogue has the format of another version of this program, which may know more than this one. */
export class ForeignFormatError extends UserError {}

/** The parsed text; undefined if it is not JSON. The caller refuses values of a wrong type. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // No error here: the caller decides whether the line is torn or damaged.
    return undefined;
  }
}

function contentOfJson(json: unknown, lineNumber: number): CatalogueContent {
  const fields = new Fields(json, lineNumber);
  const format = fields.text("format");
  if (!formatNames.some((name) => name === format)) {
    if (!/^gossamer catalog \d+$/.test(format)) throw catalogueDamage(lineNumber, `"format" is malformed`);
    throw new ForeignFormatError(
      `The catalogue of the pool has the format ${JSON.stringify(format)}, and this program reads ` +
        `${formatNames.map((name) => `"${name}"`).join(" and ")}. Use the version that wrote it.`,
    );
  }
  const content: CatalogueContent = {
    transactionId: fields.transactionId(),
    settings: poolSettingsOfFields(fields),
    nextThinId: fields.integer("next_thin_id", 0, thinIdMax),
    volumes: fields.list("volumes").map((volume) => volumeOfJson(volume, lineNumber)),
  };
  fields.end();
  return content;
}

function poolSettingsOfFields(fields: Fields): PoolSettings {
  return {
    blockSizeBytes: fields.integer("block_size_bytes", 1),
    metadataPath: fields.text("metadata_path"),
    dataPath: fields.text("data_path"),
  };
}

function changesOfJson(
  json: unknown,
  lineNumber: number,
): Pick<JournalLine, "transactionId" | "changes"> {
  const fields = new Fields(json, lineNumber);
  const transactionId = fields.transactionId();
  const changes = fields.list("changes").map((change) => changeOfJson(change, lineNumber));
  fields.end();
  return { transactionId, changes };
}

function changeOfJson(json: unknown, lineNumber: number): CatalogueChange {
  const fields = new Fields(json, lineNumber);
  const change: CatalogueChange = fields.has("put")
    ? { put: volumeOfJson(fields.take("put"), lineNumber) }
    : { remove: fields.text("remove") };
  fields.end();
  return change;
}

function volumeOfJson(json: unknown, lineNumber: number): VolumeRecord {
  const fields = new Fields(json, lineNumber);
  const record: VolumeRecord = {
    uid: fields.text("uid"),
    name: fields.text("name"),
    thinId: thinId(fields.integer("thin_id")),
    sizeBytes: fields.integer("size_bytes"),
    readOnly: fields.boolean("read_only"),
    origin: fields.textOrNull("origin"),
    owner: fields.textOrNull("owner"),
    created: fields.textOrNull("created"),
    ...(fields.has("deleting") && fields.boolean("deleting") ? { deleting: true } : {}),
    ...(fields.has("trim_from_bytes") ? { trimFromBytes: fields.integer("trim_from_bytes") } : {}),
    ...settingsOfFields(fields),
  };
  fields.end();
  return record;
}

function jsonOfVolume(record: VolumeRecord): unknown {
  return {
    uid: record.uid,
    name: record.name,
    thin_id: record.thinId,
    size_bytes: record.sizeBytes,
    read_only: record.readOnly,
    origin: record.origin,
    owner: record.owner,
    created: record.created,
    // JSON.stringify leaves out undefined fields.
    deleting: record.deleting,
    trim_from_bytes: record.trimFromBytes,
    ...jsonOfSettings(record),
  };
}
