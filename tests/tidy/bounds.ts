/** The rule that bounds and knobs stand in their tables and not among the code that obeys them. */
import type { Source } from "./source.ts";

/** Files that are tables of bounds or knobs, or of what a format or a protocol fixes. */
const tables = [
  /^actors\/(limits|knobs)\.ts$/,
  /^actors\/nbd\/wire\/(limits|constants)\.ts$/,
  /^storage\/base\/(limits|ids|sizes)\.ts$/,
  /^storage\/format\//,
];

/** Facts of a system call, a structure, a format or an address that stand with the code that uses them: no choice of ours. */
const facts: Readonly<Record<string, readonly string[]>> = {
  // struct tcp_info, a socket option, IOV_MAX, and what older systems do.
  "actors/edge/direct_socket.ts": [
    "tcpResendMaxMs",
    "infoLastAcknowledgedMs",
    "infoUnsentBytes",
    "infoBytes",
    "piecesMax",
  ],
  // struct aiocb.
  "actors/edge/bounded_calls.ts": ["controlBytes"],
  // A page of the host.
  "actors/edge/file_writes.ts": ["pageBytes"],
  "actors/edge/page_cache.ts": ["pageBytes"],
  "actors/edge/page_window.ts": ["pageBytes"],
  // An address is a number of 53 bits.
  "actors/kernel/actor_table.ts": ["generationsMax"],
  "actors/kernel/address.ts": ["slotsMax"],
  // Lengths of structures of the NBD specification.
  "actors/nbd/wire/handshake_codec.ts": ["clientFlagsSizeBytes", "optionHeaderSizeBytes"],
  "actors/nbd/wire/option_reply.ts": [
    "replyHeaderSizeBytes",
    "exportNameSizeBytes",
    "exportNameZeroesBytes",
  ],
  "actors/nbd/wire/reply.ts": ["simpleHeaderSizeBytes", "chunkHeaderSizeBytes", "extendedHeaderSizeBytes"],
  "actors/nbd/wire/request.ts": ["compactHeaderSizeBytes", "extendedHeaderSizeBytes"],
  "actors/nbd/wire/validate.ts": ["statusLengthBytes", "contextIdBytes"],
  // The words of a set, and what the format of dm-thin has room for.
  "storage/block_set.ts": ["wordsPerChunk"],
  "storage/catalogue_fields.ts": ["transactionIdMax"],
  // The intent journal's own format.
  "storage/intent_headers.ts": [
    "intentHeaderBytes",
    "bootIdBytes",
    "identityBytes",
    "atSegmentBytes",
    "baseBytes",
  ],
  "storage/intent_record.ts": ["intentRecordBytes"],
  "storage/overflow_layout.ts": ["overflowLeafEntriesMin"],
  "storage/overflow_counts.ts": ["overflowCountMax"],
  "storage/space_map_metadata.ts": ["overflowCountMin"],
};

/** A name that bounds something, or says how much or how long, given a number where it is declared. */
const declared =
  /^(?:export )?const ([a-z]\w*(?:Max|Min|Most|Ms|S|Bytes|Wanted|Tries|Share|Factor|Divisor)|\w+(?:Per|Max|Min)[A-Z]\w*)(?:: number)? =\s*([^;]*\d[^;]*);/gm;

/** Finds constants of product code that are bounds or knobs by their names, and stand in none of the tables. */
export function ruleBounds(source: Source): string[] {
  const { path } = source;
  if (!path.endsWith(".ts") || source.isTest || !/^(actors|storage)\//.test(path)) return [];
  if (tables.some((table) => table.test(path))) return [];
  return [...source.code.matchAll(declared)]
    .filter(([, name, value]) => !/^new |^\{| \? /.test(value!) && facts[path]?.includes(name!) !== true)
    .map((match) =>
      source.finding(
        match.index,
        `${
          match[1]
        } is a bound or a knob: put it into limits.ts or knobs.ts, or say in tests/tidy/bounds.ts whose fact it is`,
      )
    );
}

/** Finds facts that are named here and not declared in their file any more. */
export function ruleFactsAreThere(sources: readonly Source[]): string[] {
  const files = new Map(sources.map((source) => [source.path, source]));
  return Object.entries(facts).flatMap(([path, names]) =>
    names.filter((name) => !new RegExp(`\\bconst ${name}\\b`).test(files.get(path)?.code ?? ""))
      .map((name) => `tests/tidy/bounds.ts:1: ${path} declares no ${name}: forget it`)
  );
}
