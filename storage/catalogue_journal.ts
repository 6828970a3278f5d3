/**
 * The catalogue as text: a journal of JSON lines. The first line is the whole catalogue, each following line one change
 * with the next transaction id. Zero bytes follow the last line: room for lines to come, which is set aside.
 *
 * ```
 * {"format":"gossamer catalog 1","transaction_id":"7","block_size_bytes":65536,"metadata_path":"metadata.img",
 *  "data_path":"data.img","next_thin_id":2,"volumes":[{"uid":"Qx...","name":"disk0","thin_id":1,...}]}
 * {"transaction_id":"8","changes":[{"put":{...}},{"remove":"Qx..."}]}
 * ```
 *
 * Which lines hold is decided by the trans_id T in the metadata's superblock. A line is durable before the
 * metadata is committed with its id, and no second line is written before that commit is done. So, whenever we stop:
 * - all lines are of T or less: they hold;
 * - one more line, of T + 1: it was never committed, it is dropped;
 * - one more line, torn: it was never durable, so never committed; it is dropped if the one before it is of T.
 * Everything else was not done by us.
 *
 * A journal that has become long is replaced by another one, of a single line that says what all lines of T and less say
 * (actors/edge/catalogue_file.ts). That is done only while the last line is of T and T is durable in the superblock. So
 * the one journal and the other mean the same, and it does not matter which of them is found.
 *
 * A journal is read as a stream: of its text only one line is in memory at a time.
 */
import type { CatalogueChange, CatalogueContent, PoolSettings, VolumeRecord } from "./catalogue_records.ts";
import { UserError } from "./base/errors.ts";
import { thinId, thinIdMax } from "./base/ids.ts";
import { journalLineBytesMax, journalPieceChars } from "./base/limits.ts";
import { type Slices, wholeOf } from "./slices.ts";

/** The first line of a journal, ended by a newline. */
export function lineOfSnapshot(content: CatalogueContent): string {
  return [...piecesOfSnapshot(content, content.volumes)].join("");
}

/** The same line in pieces of some 64 KiB: with 65,536 volumes it has 16 MB, and other work goes on between the pieces. */
export function* piecesOfSnapshot(
  content: Omit<CatalogueContent, "volumes">,
  volumes: Iterable<VolumeRecord>,
): Generator<string> {
  const head = JSON.stringify({
    format: formatName,
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

/** Characters that a record takes in a line at most, and what stands between two of them. */
export function recordCharsMax(record: VolumeRecord): number {
  // The words of all fields, the numbers at their longest, and the time.
  return 260 + record.uid.length + record.name.length + (record.origin?.length ?? 0) +
    (record.owner?.length ?? 0);
}

/** A following line, ended by a newline; made in slices of `perSlice` changes. */
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
    // Without the brackets of the slice's own list.
    line += (at > 0 ? "," : "") + JSON.stringify(json).slice(1, -1);
  }
  return `${line}]}\n`;
}

/** {@linkcode lineOfChangesSlices} at once. */
export function lineOfChanges(transactionId: bigint, changes: readonly CatalogueChange[]): string {
  return wholeOf(lineOfChangesSlices(transactionId, changes, Infinity));
}

/** A line of a journal, not taken apart yet. */
export interface LineText {
  readonly text: string;
  /** Where the line ends in the file, its newline included. */
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

/** A last line that is not whole. */
export interface TornLine {
  readonly kind: "torn";
}

/** A journal that is read line by line. Whether its lines hold is not decided here. */
export class Journal {
  /** The first line. Its settings never change, so they may be used before the metadata is read. */
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

  /** The next line; undefined after the last one. Throws {@linkcode UserError} if anything but the last line is malformed. */
  next(): JournalLine | TornLine | undefined {
    const step = this.#texts.next();
    if (step.done) return undefined;
    this.#lineNumber += 1;
    const { text, endBytes } = step.value;
    const json = jsonOf(text);
    // A sector that did not reach the disk reads as zero bytes, which no JSON text holds: such a line is torn as well.
    if (json === undefined && this.#texts.next().done) return { kind: "torn" };
    const lineNumber = this.#lineNumber;
    return { kind: "change", ...changesOfJson(json, lineNumber), endBytes, lineNumber };
  }
}

/** A journal that is in memory as text. Throws {@linkcode UserError} if its first line is malformed. */
export function readJournal(text: string): Journal {
  return new Journal(linesOf([new TextEncoder().encode(text)]));
}

/**
 * Takes the bytes of a journal apart into lines. What follows the last newline is a line too, unless it is all zeroes.
 * Throws {@linkcode UserError} if a line is longer than any that we write.
 */
export function* linesOf(pieces: Iterable<Uint8Array>): Generator<LineText> {
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
    // Zeroes at the beginning of a line are room that is set aside, or make it a torn one, however many they are.
    if (pendingBytes === 0 && isZeroes(rest)) continue;
    pendingBytes += rest.length;
    if (pendingBytes > journalLineBytesMax) {
      throw damaged(lineNumber, "it is longer than any line of a catalogue");
    }
    pending.push(rest.slice());
  }
  if (pendingBytes > 0) yield { text: textOf(pending), endBytes: offsetBytes };
}

function isZeroes(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += 1) if (bytes[at] !== 0) return false;
  return true;
}

function textOf(pieces: readonly Uint8Array[]): string {
  const decoder = new TextDecoder();
  let text = "";
  for (const piece of pieces) text += decoder.decode(piece, { stream: true });
  return text + decoder.decode();
}

/** The error for a journal that we did not write like this. */
export function damaged(lineNumber: number, problem: string): UserError {
  return new UserError(
    `The catalogue of the pool is damaged in line ${lineNumber}: ${problem}. Bring it back from a copy, or make a new ` +
      "pool directory around the metadata and the data with `import`.",
  );
}

const formatName = "gossamer catalog 1";

/** Undefined if the text is not JSON; null and the like are for the caller to refuse. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // This is an answer too: the caller tells a line that is torn from one that is damaged.
    return undefined;
  }
}

function contentOfJson(json: unknown, lineNumber: number): CatalogueContent {
  const fields = new Fields(json, lineNumber);
  const format = fields.text("format");
  if (format !== formatName) {
    throw new UserError(
      `The catalogue of the pool has the format ${
        JSON.stringify(format)
      }, and this program reads "${formatName}". ` +
        "Use the version that wrote it.",
    );
  }
  const content: CatalogueContent = {
    transactionId: fields.transactionId(),
    settings: settingsOfFields(fields),
    nextThinId: fields.integer("next_thin_id", 0, thinIdMax),
    volumes: fields.list("volumes").map((volume) => volumeOfJson(volume, lineNumber)),
  };
  fields.end();
  return content;
}

function settingsOfFields(fields: Fields): PoolSettings {
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
    // JSON leaves out what is undefined.
    deleting: record.deleting,
    trim_from_bytes: record.trimFromBytes,
  };
}

/** The largest 64-bit transaction id. */
export const transactionIdMax = (1n << 64n) - 1n;

/** Takes the fields of a JSON object one by one, and refuses what is missing, of another type, or left over. */
class Fields {
  readonly #fields: Map<string, unknown>;
  readonly #lineNumber: number;

  constructor(json: unknown, lineNumber: number) {
    this.#lineNumber = lineNumber;
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      throw damaged(lineNumber, "it is not what a line of a catalogue is");
    }
    this.#fields = new Map(Object.entries(json));
  }

  has(name: string): boolean {
    return this.#fields.has(name);
  }

  take(name: string): unknown {
    const value = this.#fields.get(name);
    this.#fields.delete(name);
    return value;
  }

  text(name: string): string {
    const value = this.take(name);
    return typeof value === "string" ? value : this.#refuse(name);
  }

  textOrNull(name: string): string | null {
    const value = this.take(name);
    return typeof value === "string" || value === null ? value : this.#refuse(name);
  }

  boolean(name: string): boolean {
    const value = this.take(name);
    return typeof value === "boolean" ? value : this.#refuse(name);
  }

  integer(name: string, min = 0, max: number = Number.MAX_SAFE_INTEGER): number {
    const value = this.take(name);
    const isFit = typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max;
    return isFit ? value : this.#refuse(name);
  }

  list(name: string): unknown[] {
    const value = this.take(name);
    return Array.isArray(value) ? value : this.#refuse(name);
  }

  /** 64 bits do not fit a JSON number, so it is a string of decimal digits. */
  transactionId(): bigint {
    const text = this.text("transaction_id");
    const value = /^\d{1,20}$/.test(text) ? BigInt(text) : -1n;
    return value >= 0n && value <= transactionIdMax ? value : this.#refuse("transaction_id");
  }

  end(): void {
    // Dropping what a later version may have put there would lose it at the next start.
    for (const name of this.#fields.keys()) throw damaged(this.#lineNumber, `"${name}" is not known here`);
  }

  #refuse(name: string): never {
    throw damaged(this.#lineNumber, `"${name}" is missing or malformed`);
  }
}
