/** Every option of the command line: what it takes, and what its help says. Which verb takes it is in verb_table.ts. */
import { connectionsMax, warnAtPercentsDefault } from "../limits.ts";
import { listColumns } from "./list_columns.ts";

/** One option. */
export interface OptionSpec {
  /** What stands for its value in the help; undefined for one without a value. */
  readonly value?: string;
  /** It may be given several times. */
  readonly repeats?: true;
  /** Its short form. */
  readonly letter?: string;
  readonly help: string;
}

/** The names of all options, without their dashes. */
export type OptionName = keyof typeof optionSpecs;

const optionSpecs = {
  listen: {
    value: "ADDR",
    repeats: true,
    help: "where to serve: tcp:HOST:PORT or unix:PATH; nbd.sock in the pool always",
  },
  create: { value: "NAME=SIZE", repeats: true, help: "a volume to make if it is missing" },
  "read-only": { help: "write no byte to the pool, and share it with other readers" },
  tls: {
    value: "off|allow|require",
    help: "off (the default): no TLS; allow: clients may do without; require: they may not",
  },
  "tls-certificates": {
    value: "DIR",
    help: "the directory of ca-cert.pem, server-cert.pem and server-key.pem",
  },
  "tls-verify-peer": {
    help: "with --tls require: only clients with a certificate that ca-cert.pem has signed",
  },
  "max-clients": { value: "N", help: `clients at once: ${connectionsMax} by default` },
  "no-space-timeout": {
    value: "S",
    help: "seconds that writes wait for space in a full pool before they fail: 60; 0: for ever",
  },
  "error-if-no-space": { help: "writes without space fail at once" },
  "warn-at": {
    value: "P,...",
    help: `percents of data, metadata and the host's space that the log tells of: ${warnAtPercentsDefault}`,
  },
  "auto-grow": {
    value: "DEV:AT%,STEP,MAX",
    repeats: true,
    help: "data or metadata grows by itself by STEP, up to MAX, when it is AT % full",
  },
  "detect-zeroes": { help: "writes of zeroes to unmapped blocks leave them unmapped" },
  io: {
    value: "deno|io_uring",
    help: "what moves the bytes: Deno's own calls (the default), or io_uring on a thread of its own",
  },
  "data-size": { value: "S", help: "the size of a new pool's data: the host's free space by default" },
  "metadata-size": { value: "S", help: "the size of a new pool's metadata: by default what the data needs" },
  "block-size": { value: "S", help: "the size of a new pool's blocks: 64K by default, a multiple of 64K" },
  data: { value: "PATH", help: "the file or block device of the data, instead of data.img in the pool" },
  metadata: {
    value: "PATH",
    help: "the file or block device of the metadata, instead of metadata.img in the pool",
  },
  "clear-needs-check": {
    help: "if all is sound, let a pool be written again whose last commit failed; not while it is served",
  },
  "dry-run": { letter: "n", help: "only say how many bytes would become free" },
  force: { help: "also where clients are attached" },
  wait: { help: "return when the space is back, not when the names are gone" },
  shrink: { help: "refuse a size that is larger than the present one" },
  for: { value: "60s", help: "how long to refuse the client's host: 500ms, 60s, 5m, 1h" },
  exact: { help: "wait for exact figures, however long counting takes" },
  "no-header": { letter: "H", help: "no heading, and a tab between two columns" },
  parsable: { letter: "p", help: "sizes as bytes" },
  columns: {
    letter: "o",
    value: "COLS",
    help: `which columns, of ${listColumns.join(",")}`,
  },
  sort: { letter: "s", value: "COL", help: "by which column the lines are sorted; by name if not given" },
  count: { value: "N", help: "how many forks to make: 1 by default" },
  name: { value: "PATTERN", help: "their names, with one %d or %0Nd: VOL-fork-%d by default" },
  "single-writer": { help: "one client at a time; a second one is refused" },
  fork: { value: "VOL[@SNAP]", help: "the program gets a clone of it" },
  size: { value: "S", help: "the program gets an empty volume of that size" },
  ephemeral: { help: "remove it when its last client, having written to it, is gone" },
  linger: {
    value: "TIME",
    help: "how long it stays when its client was lost, or after a restart: 10m by default",
  },
  ttl: { value: "TIME", help: "remove it after that time, once no client is attached: 90s, 5m, 1h" },
  json: { help: "print JSON" },
  timeout: {
    value: "S",
    help: "seconds until a silent server is given up (30; 0: never); a working one is waited for",
  },
  "lock-wait": { value: "S", help: "seconds to wait for a pool that another process has open (10)" },
} as const satisfies Readonly<Record<string, OptionSpec>>;

/** See the head of this file. */
export const optionTable: Readonly<Record<OptionName, OptionSpec>> = optionSpecs;
/** Their names, in the order of the help. */
export const optionNames = Object.keys(optionSpecs) as readonly OptionName[];
