/**
 * The command line: arguments in, results on stdout, everything else on stderr.
 * Exit status 0: done, 1: failed, 2: wrong usage.
 */
import { parseArgs as untypedParseArgs } from "@std/cli/parse-args";
import {
  type AdminCommand,
  type AdminResult,
  defaultBlockSizeBytes,
  formatSize,
  importPool,
  inheritedDescriptors,
  initPool,
  isPool,
  listenToSignals,
  lockWaitMs,
  logDrainMs,
  LogSink,
  openPool,
  parseListenAddress,
  parseMaxClients,
  parseName,
  parseSize,
  parseSnapshotName,
  parseVolumeName,
  type Pool,
  type PoolServer,
  ReaderGone,
  refuseInspector,
  requireServable,
  runCommand,
  type ServeOptions,
  statusText,
  tableOf,
  type TlsOptions,
  UsageError,
  UserError,
  writeResult,
} from "./mod.ts";

const usage = `gossamer: thin volumes, snapshots and clones in one pool, served over NBD

usage: deno run -A cli.ts [--pool DIR] COMMAND

  serve [--listen ADDR]... [--create NAME=SIZE]... [--read-only]
                            serve every volume and snapshot; makes the pool and the named volumes if missing
        [--tls off|allow|require] [--tls-certificates DIR]
                            off (the default): no TLS; allow: clients may do without; require: they may not.
                            DIR holds ca-cert.pem, server-cert.pem and server-key.pem
        [--max-clients N]   clients at once: 64 by default
        [--tls-verify-peer] with require: only clients with a certificate that ca-cert.pem has signed
  init [--data-size S] [--metadata-size S] [--block-size S] [--data PATH] [--metadata PATH]
                            make a pool (serve makes one with the same options)
  create NAME SIZE          an empty thin volume
  snapshot VOL@SNAP...      read-only snapshots, all at one point in time
  clone VOL[@SNAP] NEW      a writable volume that shares every block
  rollback VOL@SNAP         give VOL the content of its snapshot
  rename OLD NEW            rename a volume with its snapshots, or a snapshot
  resize VOL SIZE           make a volume larger or smaller; what lies beyond a smaller size is gone
  rm NAME... [-n] [--force] remove volumes or snapshots, all or none; -n: only say how much that would free
  list [--json]             volumes and snapshots
  status [--json]           the pool
  check                     check the metadata: 0 sound, 1 not
  dump                      the metadata as thin_dump prints it
  import --metadata PATH --data PATH
                            make a pool around existing dm-thin metadata and data, in place

ADDR is tcp:HOST:PORT or unix:PATH. Without any, serve takes the listening sockets that it was started with
(LISTEN_FDS, as systemd sets it), else tcp:127.0.0.1:10809; nbd.sock in the pool always; at most 64 clients.
--timeout S: a server that says nothing for S seconds is given up (30; 0: never), one that works is waited for.
--lock-wait S: how long to wait for a pool that another process has open (10), for serve too.
Sizes are like 512, 10G, 1.5GiB (binary) or 10GB (decimal).
The pool is --pool, else $GOSSAMER_POOL, else ./pool.
`;

/** What parseArgs answers; the packaged library comes without types. */
interface Arguments {
  readonly [option: string]: unknown;
  readonly _: string[];
}

const parseArgs = untypedParseArgs as (
  args: readonly string[],
  options: {
    readonly string: readonly string[];
    readonly boolean: readonly string[];
    readonly collect: readonly string[];
    readonly alias: Readonly<Record<string, string>>;
    readonly unknown: (name: string, key?: string) => boolean;
  },
) => Arguments;

const servingOptions = ["tls", "tls-certificates", "max-clients"] as const;
/** What each command takes that may have to wait. */
const waitOptions = ["timeout", "lock-wait"] as const;
const initOptions = ["data-size", "metadata-size", "block-size", "data", "metadata"] as const;

/** What a command takes. */
interface Rules {
  readonly options: readonly string[];
  /** Its words in order; "..." after the last says that there may be more of them. */
  readonly words: string;
}

const grammar: Readonly<Record<string, Rules>> = {
  serve: {
    options: [
      "listen",
      "create",
      "read-only",
      "tls-verify-peer",
      "lock-wait",
      ...servingOptions,
      ...initOptions,
    ],
    words: "",
  },
  init: { options: initOptions, words: "" },
  create: { options: waitOptions, words: "NAME SIZE" },
  snapshot: { options: waitOptions, words: "VOL@SNAP..." },
  clone: { options: waitOptions, words: "VOL[@SNAP] NEW" },
  rollback: { options: waitOptions, words: "VOL@SNAP" },
  rename: { options: waitOptions, words: "OLD NEW" },
  resize: { options: waitOptions, words: "VOL SIZE" },
  rm: { options: ["dry-run", "force", ...waitOptions], words: "NAME..." },
  list: { options: ["json", ...waitOptions], words: "" },
  status: { options: ["json", ...waitOptions], words: "" },
  check: { options: waitOptions, words: "" },
  dump: { options: waitOptions, words: "" },
  import: { options: ["metadata", "data"], words: "" },
  help: { options: [], words: "" },
};

const seeHelp = "Run with --help to see what there is.";

/** A command that follows the grammar. */
interface Invocation {
  readonly verb: string;
  readonly names: readonly string[];
  readonly pool: string;
  readonly flags: Arguments;
}

/** Parses the arguments. Throws {@linkcode UsageError}. */
function parseInvocation(args: readonly string[]): Invocation {
  const flags = parseArgs(args, {
    // "_" keeps the names as they are: 007 is a name, not 7.
    string: ["_", "pool", "listen", "create", ...servingOptions, ...waitOptions, ...initOptions],
    boolean: ["json", "read-only", "dry-run", "force", "tls-verify-peer", "help"],
    collect: ["listen", "create"],
    alias: { n: "dry-run", h: "help" },
    unknown: (name, key) => {
      if (key === undefined) return true;
      if (/^-[\d.]/.test(name)) {
        throw new UsageError(`${name} is less than nothing. Give a positive number or size.`);
      }
      throw new UsageError(`There is no option ${name}. ${seeHelp}`);
    },
  });
  const [verb, ...names] = flags._;
  if (flags.help === true) return { verb: "help", names: [], pool: "", flags };
  if (verb === undefined) {
    throw new UsageError(args.length === 0 ? usage.trimEnd() : `No command. ${seeHelp}`);
  }
  const rules = Object.hasOwn(grammar, verb) ? grammar[verb] : undefined;
  if (rules === undefined) throw new UsageError(`There is no command "${verb}". ${seeHelp}`);
  requireOptions(verb, rules, flags);
  requireWords(verb, rules.words, names.length);
  return { verb, names, pool: verb === "help" ? "" : poolOf(flags), flags };
}

/** Only the command's own options, each with a value. */
function requireOptions(verb: string, rules: Rules, flags: Arguments): void {
  const ownOptions = ["listen", "create", "read-only", "dry-run", "force", "json", "tls-verify-peer"];
  for (const option of [...ownOptions, ...servingOptions, ...waitOptions, ...initOptions]) {
    const value = flags[option];
    const given = Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false;
    if (given && !rules.options.includes(option)) {
      throw new UsageError(`${verb} has no option --${option}. ${seeHelp}`);
    }
    if (value === "") throw new UsageError(`--${option} needs a value.`);
  }
}

function requireWords(verb: string, words: string, count: number): void {
  const least = words === "" ? 0 : words.split(" ").length;
  if (count === least || (count > least && words.endsWith("..."))) return;
  throw new UsageError(
    least === 0
      ? `${verb} takes options only, and nothing else. ${seeHelp}`
      : `${verb} was given ${
        count === 1 ? "one word" : `${count} words`
      }: write ${verb} ${words}. ${seeHelp}`,
  );
}

function poolOf(flags: Arguments): string {
  if (flags.pool === "") throw new UsageError("--pool needs a directory.");
  if (typeof flags.pool === "string") return flags.pool;
  const granted = Deno.permissions.querySync({ name: "env", variable: "GOSSAMER_POOL" }).state === "granted";
  return (granted ? Deno.env.get("GOSSAMER_POOL") : undefined) || "./pool";
}

/** The admin command that an invocation means. Throws {@linkcode UsageError}. */
function commandOf({ verb, names, flags }: Invocation): AdminCommand {
  const [first = "", second = ""] = names;
  switch (verb) {
    case "create":
      return { verb, name: parseVolumeName(first), sizeBytes: parseSize(second) };
    case "snapshot":
      return { verb, names: names.map((name) => parseSnapshotName(name).name) };
    case "clone":
      return { verb, source: parseName(first).name, name: parseVolumeName(second) };
    case "rollback":
      return { verb, snapshot: parseSnapshotName(first).name };
    case "rename":
      return { verb, from: parseName(first).name, to: parseName(second).name };
    case "resize":
      return { verb, name: parseName(first).name, sizeBytes: parseSize(second) };
    case "rm":
      return {
        verb,
        names: names.map((name) => parseName(name).name),
        dryRun: flags["dry-run"] === true,
        force: flags.force === true,
      };
    case "list":
    case "status":
    case "check":
    case "dump":
      return { verb };
    default:
      throw new UsageError(`There is no command "${verb}".`);
  }
}

async function main(args: readonly string[]): Promise<number> {
  const invocation = parseInvocation(args);
  switch (invocation.verb) {
    case "help":
      await print(usage.trimEnd());
      return 0;
    case "init":
      await makePool(invocation);
      return 0;
    case "import": {
      const { metadata, data } = invocation.flags;
      if (typeof metadata !== "string" || typeof data !== "string") {
        throw new UsageError("import needs --metadata PATH and --data PATH.");
      }
      const imported = await importPool({
        directory: invocation.pool,
        metadataPath: metadata,
        dataPath: data,
      });
      for (const volume of imported) await print(`${volume.name}  ${formatSize(volume.sizeBytes)}`);
      complain(
        "The metadata knows no sizes: each volume ends at its highest mapping. `resize` gives it its real size; " +
          "`check` tells whether the metadata is sound.",
      );
      return 0;
    }
    case "serve":
      return await serve(invocation);
    default:
      return await show(
        invocation,
        await runCommand(invocation.pool, commandOf(invocation), writeText, {
          silenceMs: millisecondsOf(invocation.flags, "timeout"),
          lockWaitMs: millisecondsOf(invocation.flags, "lock-wait"),
        }),
      );
  }
}

async function makePool({ pool, flags }: Invocation): Promise<void> {
  await initPool({
    directory: pool,
    blockSizeBytes: sizeOf(flags, "block-size") ?? defaultBlockSizeBytes,
    dataSizeBytes: sizeOf(flags, "data-size"),
    metadataSizeBytes: sizeOf(flags, "metadata-size"),
    dataPath: pathOf(flags, "data"),
    metadataPath: pathOf(flags, "metadata"),
    log: complain,
  });
}

function sizeOf(flags: Arguments, option: string): number | undefined {
  const value = flags[option];
  return typeof value === "string" ? parseSize(value) : undefined;
}

/** An option in seconds, as milliseconds. Throws {@linkcode UsageError}. */
function millisecondsOf(flags: Arguments, option: "timeout" | "lock-wait"): number | undefined {
  const value = flags[option];
  if (typeof value !== "string") return undefined;
  const seconds = /^[0-9]+(\.[0-9]+)?$/.test(value) ? Number(value) : NaN;
  // A timer of more than 24 days would ring at once.
  if (seconds <= 1_000_000) return seconds * 1000;
  throw new UsageError(`--${option} takes seconds, such as 30 or 0.5, not "${value}".`);
}

function pathOf(flags: Arguments, option: string): string | undefined {
  const value = flags[option];
  return typeof value === "string" ? value : undefined;
}

/** Serves until a signal or a failure of the program. */
async function serve(invocation: Invocation): Promise<number> {
  const { flags, pool: directory } = invocation;
  const readOnly = flags["read-only"] === true;
  const volumes = (flags.create as string[]).map(volumeToCreate);
  const options = serveOptionsOf(flags);
  const blockSizeBytes = sizeOf(flags, "block-size");
  const waitMs = millisecondsOf(flags, "lock-wait") ?? lockWaitMs;
  requireNoChange(flags, readOnly);
  if (!readOnly && !isPool(directory)) {
    await requireServable(options);
    await makePool(invocation);
  } else noteUnused(flags);
  // The addresses are for whoever starts the server: it goes on where they cannot be written.
  const addresses = new LogSink(Deno.stdout, { saysDropped: false });
  let server: PoolServer | undefined;
  const { promise: stopped, resolve } = Promise.withResolvers<"stop">();
  listenToSignals({
    stop: () => resolve("stop"),
    stopAtOnce: () => Deno.exit(1),
    reload: options.tls === undefined ? undefined : () => server?.reloadCertificates(),
  });
  const pool = await openPool(directory, { readOnly, blockSizeBytes, lockWaitMs: waitMs, log: complain });
  try {
    // Bound first: where that fails, no volume is left behind.
    server = await pool.serve(options);
    try {
      await createMissing(pool, volumes);
      // First what was to be said of them, if that can be said soon.
      await log.drained(logDrainMs);
      for (const address of server.addresses) addresses.line(`listening ${address}`);
      const failure = await Promise.race([stopped, pool.defect]);
      if (failure !== "stop") throw failure;
      complain("stopping; a second signal ends the server at once");
    } finally {
      await server.stop();
    }
  } finally {
    await pool.close();
  }
  return 0;
}

/** Where to serve, and how. Throws {@linkcode UsageError}. */
function serveOptionsOf(flags: Arguments): ServeOptions {
  const listen = (flags.listen as string[]).length > 0 ? flags.listen as string[] : undefined;
  listen?.forEach(parseListenAddress);
  const maxClients = parseMaxClients(pathOf(flags, "max-clients"));
  return { listen, inherited: inheritedDescriptors(complain), tls: tlsOf(flags), maxClients };
}

function tlsOf(flags: Arguments): TlsOptions | undefined {
  const policy = flags.tls ?? "off";
  const certificates = pathOf(flags, "tls-certificates");
  const verifyPeer = flags["tls-verify-peer"] === true;
  if (policy !== "off" && policy !== "allow" && policy !== "require") {
    throw new UsageError(`--tls takes off, allow or require, not "${policy}".`);
  }
  if (verifyPeer && policy !== "require") {
    throw new UsageError(
      `--tls-verify-peer needs --tls require: with ${policy}, clients come in without TLS, and show no certificate.`,
    );
  }
  if (policy === "off" && certificates !== undefined) {
    throw new UsageError("--tls-certificates means nothing without TLS: give --tls allow or --tls require.");
  }
  if (policy !== "off" && certificates === undefined) {
    throw new UsageError(
      `--tls ${policy} needs --tls-certificates DIR, the directory with the server's certificate.`,
    );
  }
  return policy === "off" || certificates === undefined ? undefined : { policy, certificates, verifyPeer };
}

function requireNoChange(flags: Arguments, readOnly: boolean): void {
  if (!readOnly) return;
  if ((flags.create as string[]).length > 0) {
    throw new UsageError("--create changes the pool, which --read-only forbids. Leave out one of them.");
  }
}

/** Options for a new pool mean nothing to one that is there; only another block size is refused (by opening it). */
function noteUnused(flags: Arguments): void {
  for (const option of initOptions) {
    if (option === "block-size" || flags[option] === undefined) continue;
    complain(`The pool is there already: --${option} has no effect.`);
  }
}

interface VolumeToCreate {
  readonly name: string;
  readonly sizeBytes: number;
}

function volumeToCreate(text: string): VolumeToCreate {
  const equals = text.indexOf("=");
  if (equals < 1) throw new UsageError(`--create takes NAME=SIZE, not "${text}".`);
  return { name: parseVolumeName(text.slice(0, equals)), sizeBytes: parseSize(text.slice(equals + 1)) };
}

async function createMissing(pool: Pool, volumes: readonly VolumeToCreate[]): Promise<void> {
  if (volumes.length === 0) return;
  const sizes = new Map((await pool.list()).map((there) => [there.name, there.size_bytes]));
  for (const { name, sizeBytes } of volumes) {
    const thereBytes = sizes.get(name);
    const wantedBytes = Math.ceil(sizeBytes / 512) * 512;
    if (thereBytes === undefined) {
      await pool.create(name, sizeBytes);
      sizes.set(name, wantedBytes);
    } else if (thereBytes !== wantedBytes) {
      complain(`"${name}" is there already, with ${formatSize(thereBytes)}; it stays as it is.`);
    }
  }
}

/** Prints a result and tells the exit status. */
async function show({ verb, flags }: Invocation, result: AdminResult): Promise<number> {
  switch (result.kind) {
    case "done":
      return 0;
    case "volumes":
      await print(
        flags.json === true ? JSON.stringify({ volumes: result.volumes }) : tableOf(result.volumes),
      );
      return 0;
    case "status":
      await print(flags.json === true ? JSON.stringify(result.status) : statusText(result.status));
      return 0;
    case "wouldFree":
      await print(`${result.bytes} bytes (${formatSize(result.bytes)}) would be freed`);
      return 0;
    case "checked":
      for (const note of result.notes) complain(`note: ${note}`);
      for (const problem of result.problems) await print(problem);
      await print(
        result.problems.length === 0
          ? "The metadata is sound."
          : `${verb} found ${
            result.problems.length === 1 ? "1 problem" : `${result.problems.length} problems`
          }.`,
      );
      return result.problems.length === 0 ? 0 : 1;
    case "refused":
      complain(result.reason);
      return 1;
  }
}

/** Everything that is not a result goes here, at once and without a wait. */
const log = new LogSink(Deno.stderr);

function complain(sentence: string): void {
  log.line(sentence);
}

function print(line: string): Promise<void> {
  return writeResult(`${line}\n`);
}

async function writeText(text: string): Promise<"taken"> {
  await writeResult(text);
  return "taken";
}

/** The exit status of what was thrown, which is complained about. */
function statusOf(error: unknown): number {
  // A reader that has had enough (`dump | head`) is no failure of ours.
  if (error instanceof ReaderGone) return 0;
  if (error instanceof UserError) {
    complain(error.message);
    return error.exitStatus;
  }
  complain(error instanceof Error ? error.stack ?? error.message : String(error));
  return 1;
}

if (import.meta.main) {
  refuseInspector();
  // Whatever it was ends the command, and is said.
  const status = await main(Deno.args).catch(statusOf);
  await log.drained(logDrainMs);
  Deno.exit(status);
}
