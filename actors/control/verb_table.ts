/**
 * The table of verbs: one entry for each thing that can be asked. From it come the grammar of the command line, the help,
 * the JSON of the control API in both directions, whether a command only looks, and how it is done without a server: verbs.ts
 * reads it for them.
 *
 * A new verb needs its command in admin_command.ts and its entry here: neither compiles without the other. What carries
 * it out is in admin_task.ts, and what of its result is printed in result_text.ts.
 */
import type { Command, LifetimeOptions, LookCommand, ServerCommand } from "./admin_command.ts";
import {
  anyName,
  clientNumber,
  count,
  durationMs,
  type Field,
  flag,
  namePattern,
  numberedName,
  optionalWord,
  optionalWordList,
  orNone,
  size,
  sizeChange,
  sizeOrNone,
  snapshotField,
  value,
  volumeName,
  word,
  wordList,
} from "./verb_fields.ts";
import { hasNumber } from "../../storage/base/name_pattern.ts";
import type { OptionName, OptionSpec } from "./verb_options.ts";

/** Verbs that ask something of a pool, so that a server can be asked them too. */
export type CommandVerb = Command["verb"];
/** Verbs that are no such question. */
export type LocalVerb = "run" | "serve" | "init" | "import" | "help" | "version";
/** All verbs. */
export type Verb = CommandVerb | LocalVerb;

/** Verbs that without a server only read the pool's files, which works where the pool cannot be opened. */
export type FilesVerb = "check" | "dump";

/** The command of a verb. */
type CommandOf<V extends CommandVerb> = Extract<Command, { readonly verb: V }>;

/** One field of the table for each field of the command, in the order of its words. */
type FieldsOf<C> = { readonly [F in Exclude<keyof C, "verb">]-?: Field<C[F]> };

/** What every verb has. */
export interface Described {
  /** One line of help. */
  readonly summary: string;
  /** The words of a command line that may be given, behind the program's name. */
  readonly example: string;
  /** Options that are no field of the command. */
  readonly options: readonly OptionName[];
  /** What the help says of an option that means something else here than for other verbs. */
  readonly ownOptions?: Partial<Record<OptionName, Pick<OptionSpec, "value" | "help">>>;
}

/** A verb with a command. */
export interface CommandSpec<C> extends Described {
  readonly fields: FieldsOf<C>;
  /** Why a command line whose words fit is wrong usage all the same, as a sentence. */
  readonly misuse?: (command: C) => string | undefined;
  /** Where the control API answers GET with what `--json` prints. Only for a command whose every field may be left out. */
  readonly path?: string;
  /**
   * Whether the command changes nothing in a pool that is served, so that it and those that change something need not wait for
   * each other. `check --clear-needs-check` is one: only where no process has the pool open does it clear the mark.
   */
  readonly isLook: C extends LookCommand ? true
    : C extends ServerCommand ? boolean
    : false | ((command: C) => boolean);
  /** Without a server: `open` the pool and do it there, or read its `files` only, or `never`. */
  readonly offline: C extends ServerCommand ? "never"
    : C extends { readonly verb: FilesVerb } ? "files"
    : "open";
}

/** A verb without one. */
export interface LocalSpec extends Described {
  /** Options that must be given; checked by what carries it out. */
  readonly required?: readonly OptionName[];
  /** Options of which one must be given, and no other beside it; checked as above. */
  readonly oneOf?: readonly OptionName[];
  /** A word that may be given, as the help has it. */
  readonly mayFollow?: string;
  /** Words that come behind all options, as the help has them; checked as above. */
  readonly ending?: string;
  readonly fields?: undefined;
}

/** The entry of each verb. */
type Table =
  & { readonly [V in CommandVerb]: CommandSpec<CommandOf<V>> }
  & { readonly [V in LocalVerb]: LocalSpec };

/** What each command takes that may have to wait. */
const waits = ["timeout", "lock-wait"] as const;
/** What a new pool takes. */
const initOptions = ["data-size", "metadata-size", "block-size", "data", "metadata"] as const;

/** What each verb takes that makes a volume. */
function lifetimeFields() {
  return {
    ephemeral: flag("ephemeral", "ephemeral"),
    lingerMs: value("linger", "linger_ms", orNone(durationMs), null),
    ttlMs: value("ttl", "ttl_ms", orNone(durationMs), null),
  };
}

function misuseOfLifetime({ ephemeral, lingerMs = null }: LifetimeOptions): string | undefined {
  if (lingerMs === null || ephemeral === true) return undefined;
  return "--linger goes with --ephemeral: give both, or neither.";
}

/** See the head of this file. The help has the verbs in this order. */
export const verbSpecs: Table = {
  serve: {
    summary: "serve every volume and snapshot; makes the pool and the named volumes if missing",
    example: "serve --create disk0=10G --listen tcp:127.0.0.1:10809",
    options: [
      "listen",
      "create",
      "read-only",
      "tls",
      "tls-certificates",
      "tls-verify-peer",
      "max-clients",
      "no-space-timeout",
      "error-if-no-space",
      "warn-at",
      "auto-grow",
      "detect-zeroes",
      "io",
      "lock-wait",
      ...initOptions,
    ],
  },
  init: {
    summary: "make a pool (serve makes one with the same options)",
    example: "init --data-size 100G --block-size 128K",
    options: initOptions,
  },
  create: {
    summary: "an empty thin volume",
    example: "create disk0 10G",
    options: waits,
    fields: {
      name: word("NAME", "name", volumeName),
      sizeBytes: word("SIZE", "size_bytes", size),
      singleWriter: flag("single-writer", "single_writer"),
      ...lifetimeFields(),
    },
    misuse: misuseOfLifetime,
    isLook: false,
    offline: "open",
  },
  snapshot: {
    summary: "read-only snapshots, all at one point in time",
    example: "snapshot disk0@monday disk1@monday",
    options: waits,
    fields: { names: wordList("VOL@SNAP", "names", snapshotField) },
    isLook: false,
    offline: "open",
  },
  clone: {
    summary: "a writable volume that shares every block",
    example: "clone disk0@monday fork",
    options: waits,
    fields: {
      source: word("VOL[@SNAP]", "source", anyName),
      name: word("NEW", "name", volumeName),
      ...lifetimeFields(),
    },
    misuse: misuseOfLifetime,
    isLook: false,
    offline: "open",
  },
  fork: {
    summary: "many clones at once, all or none",
    example: "fork disk0@monday --count 100 --name vm-%03d",
    options: ["json", ...waits],
    fields: {
      source: word("VOL[@SNAP]", "source", anyName),
      count: value("count", "count", count, 1),
      name: value("name", "name", orNone(numberedName), null),
      ...lifetimeFields(),
    },
    misuse: (command) => {
      const { count, name } = command;
      const misuse = misuseOfLifetime(command);
      if (misuse !== undefined) return misuse;
      if (count === 1 || name === null || hasNumber(name)) return undefined;
      return `${count} forks cannot have one name: write %d into it, as --name vm-%03d.`;
    },
    isLook: false,
    offline: "open",
  },
  rollback: {
    summary: "give VOL the content of its snapshot; what it had is kept as VOL@before-rollback-N",
    example: "rollback disk0@monday",
    options: ["json", ...waits],
    fields: {
      snapshot: word("VOL@SNAP", "snapshot", snapshotField),
      force: flag("force", "force"),
    },
    isLook: false,
    offline: "open",
  },
  rename: {
    summary: "rename a volume with its snapshots, or a snapshot",
    example: "rename disk0 root",
    options: waits,
    fields: { from: word("OLD", "from", anyName), to: word("NEW", "to", anyName) },
    isLook: false,
    offline: "open",
  },
  resize: {
    summary: "make a volume larger or smaller; what lies beyond a smaller size is gone",
    example: "resize disk0 20G",
    options: waits,
    ownOptions: { force: { help: "make it smaller also where clients are attached" } },
    fields: {
      name: word("VOL", "name", anyName),
      sizeBytes: word("SIZE", "size_bytes", size),
      shrink: flag("shrink", "shrink"),
      force: flag("force", "force"),
    },
    isLook: false,
    offline: "open",
  },
  quota: {
    summary: "the bytes that a volume may map at most; those of its snapshots do not count",
    example: "quota disk0 10G",
    options: waits,
    fields: {
      name: word("VOL", "name", volumeName),
      quotaBytes: word("SIZE|none", "quota_bytes", sizeOrNone),
    },
    isLook: false,
    offline: "open",
  },
  reserve: {
    summary: "keep so many bytes, less those that the volume maps alone, free for it",
    example: "reserve disk0 10G",
    options: waits,
    fields: {
      name: word("VOL", "name", volumeName),
      reserveBytes: word("SIZE|none", "reserve_bytes", sizeOrNone),
    },
    isLook: false,
    offline: "open",
  },
  rm: {
    summary: "remove volumes or snapshots, all or none",
    example: "rm disk0 disk0@monday",
    options: waits,
    fields: {
      names: wordList("NAME", "names", anyName),
      dryRun: flag("dry-run", "dry_run"),
      force: flag("force", "force"),
      wait: flag("wait", "wait"),
    },
    isLook: ({ dryRun }) => dryRun,
    offline: "open",
  },
  grow: {
    summary: "make the pool's data or metadata larger, also while it is served",
    example: "grow +10G --metadata +64M",
    options: ["json", ...waits],
    ownOptions: {
      metadata: { value: "SIZE|+SIZE", help: "the new size of the pool's metadata, or what is added to it" },
    },
    fields: {
      data: optionalWord("SIZE|+SIZE", "data", sizeChange, null),
      metadata: value("metadata", "metadata", sizeChange, null),
    },
    misuse: ({ data, metadata }) =>
      data === null && metadata === null
        ? "grow was given no size: write `grow SIZE`, `grow +SIZE` or `grow --metadata SIZE`."
        : undefined,
    isLook: false,
    offline: "open",
  },
  rescan: {
    summary: "use all of block devices that have become larger",
    example: "rescan",
    options: ["json", ...waits],
    fields: {},
    isLook: false,
    offline: "open",
  },
  list: {
    summary: "volumes and snapshots, in natural order: sizes, what is mapped, what removing each would free",
    path: "/v1/volumes",
    example: "list vm-*",
    options: ["no-header", "parsable", "columns", "sort", "json", ...waits],
    fields: { names: optionalWordList("NAME", "names", namePattern), exact: flag("exact", "exact") },
    isLook: true,
    offline: "open",
  },
  tree: {
    summary: "volumes and snapshots below what they were made from",
    path: "/v1/tree",
    example: "tree",
    options: ["json", ...waits],
    fields: { exact: flag("exact", "exact") },
    isLook: true,
    offline: "open",
  },
  df: {
    summary: "how full data, metadata and host are, and what removing each volume would free",
    path: "/v1/df",
    example: "df --exact",
    options: ["json", ...waits],
    fields: { exact: flag("exact", "exact") },
    isLook: true,
    offline: "open",
  },
  status: {
    summary: "the pool",
    path: "/v1/status",
    example: "status --json",
    options: ["json", ...waits],
    fields: {},
    isLook: true,
    offline: "open",
  },
  check: {
    summary: "check the metadata: 0 sound, 1 not",
    example: "check",
    options: ["json", ...waits],
    fields: { clearNeedsCheck: flag("clear-needs-check", "clear_needs_check") },
    isLook: true,
    offline: "files",
  },
  dump: {
    summary: "the metadata as thin_dump prints it",
    example: "dump",
    options: waits,
    fields: {},
    isLook: true,
    offline: "files",
  },
  clients: {
    path: "/v1/clients",
    summary: "the clients of the running server: number, address, export, since when",
    example: "clients --json",
    options: ["json", ...waits],
    fields: {},
    isLook: true,
    offline: "never",
  },
  kick: {
    summary: "close a client's connection; with --for, refuse its host for that time",
    example: "kick 3 --for 60s",
    options: waits,
    fields: {
      client: word("CLIENT", "client", clientNumber),
      refuseMs: value("for", "refuse_ms", durationMs, 0),
    },
    isLook: false,
    offline: "never",
  },
  import: {
    summary: "make a pool around existing dm-thin metadata and data, in place",
    example: "import --metadata /dev/vg/pool_tmeta --data /dev/vg/pool_tdata",
    options: ["metadata", "data"],
    required: ["metadata", "data"],
  },
  run: {
    summary: "run a program with a throw-away volume, as $uri and $unixsocket; exits with its status",
    example: "run --fork base@ready -- 'qemu-img info $uri'",
    options: ["fork", "size", ...waits],
    oneOf: ["fork", "size"],
    ending: "-- COMMAND...",
  },
  help: {
    summary: "this text (--help); with a command, what there is of that one (COMMAND --help)",
    example: "help snapshot",
    options: [],
    mayFollow: "COMMAND",
  },
  version: {
    summary: "the version of gossamer, Deno and the pool's format (--version)",
    example: "version",
    options: [],
  },
};
