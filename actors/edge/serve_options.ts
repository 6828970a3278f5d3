/** The options of `serve` and `init`, from text to what serving and making a pool take. Wrong ones throw {@linkcode UsageError}. */
import { UsageError } from "../../storage/base/errors.ts";
import type { AutoGrowRule } from "../control/auto_grow.ts";
import { warnThresholdsMax } from "../limits.ts";
import { parseVolumeName } from "../../storage/base/names.ts";
import { parseSize } from "../../storage/base/sizes.ts";
import type { IoName } from "./host_io.ts";
import { inheritedDescriptors } from "./inherited_descriptors.ts";
import { type Invocation, millisecondsOf } from "./invocation.ts";
import { parseMaxClients, type ServeOptions } from "./serve.ts";
import { parseListenAddress } from "./listen_address.ts";
import type { TlsOptions } from "./tls_keys.ts";

/** Options of a command line, by name: true, a text, or a list of texts. */
export type Options = Invocation["options"];

/** `--create NAME=SIZE`. */
export interface VolumeToCreate {
  /** Of a volume, not of a snapshot. */
  readonly name: string;
  /** As asked for, not rounded yet. */
  readonly sizeBytes: number;
}

/** What `serve` was told. */
export interface Serving {
  /** Whether no byte of the pool may change. */
  readonly readOnly: boolean;
  /** Volumes to make where they are missing. */
  readonly volumes: readonly VolumeToCreate[];
  /** Addresses, TLS, and how many clients. */
  readonly serve: ServeOptions;
  /** The block size that the pool must have, or that a new one gets. */
  readonly blockSizeBytes: number | undefined;
  /** Milliseconds to wait for a pool that another process has open. */
  readonly lockWaitMs: number | undefined;
  /** Milliseconds that writes without space wait. */
  readonly noSpaceTimeoutMs: number | undefined;
  /** Writes without space fail at once. */
  readonly errorIfNoSpace: boolean;
  /** Percents from which on space is low. */
  readonly warnAtPercents: readonly number[] | undefined;
  /** Devices that grow by themselves. */
  readonly autoGrow: readonly AutoGrowRule[];
  /** Writes of zeroes to unmapped blocks leave them unmapped. */
  readonly detectZeroes: boolean;
  /** What moves the bytes. */
  readonly io: IoName | undefined;
}

/** Reads the options of `serve`. */
export function parseServing(options: Options, log: (sentence: string) => void): Serving {
  const readOnly = options["read-only"] === true;
  const volumes = textsOf(options, "create").map(volumeToCreate);
  const serve = serveOptionsOf(options, log);
  const blockSizeBytes = sizeOf(options, "block-size");
  const lockWaitMs = millisecondsOf(options, "lock-wait");
  if (readOnly && volumes.length > 0) {
    throw new UsageError("--create changes the pool, which --read-only forbids. Leave out one of them.");
  }
  const noSpaceTimeoutMs = millisecondsOf(options, "no-space-timeout");
  const errorIfNoSpace = options["error-if-no-space"] === true;
  if (errorIfNoSpace && noSpaceTimeoutMs !== undefined) {
    throw new UsageError(
      "--error-if-no-space lets no write wait, so --no-space-timeout means nothing beside it.",
    );
  }
  const autoGrow = textsOf(options, "auto-grow").map(parseAutoGrow);
  if (readOnly && autoGrow.length > 0) {
    throw new UsageError("--auto-grow changes the pool, which --read-only forbids. Leave out one of them.");
  }
  if (new Set(autoGrow.map(({ device }) => device)).size < autoGrow.length) {
    throw new UsageError("--auto-grow takes one rule for data and one for metadata.");
  }
  const warnAtPercents = warnAtPercentsOf(options);
  const detectZeroes = options["detect-zeroes"] === true;
  return {
    readOnly,
    volumes,
    serve,
    blockSizeBytes,
    lockWaitMs,
    noSpaceTimeoutMs,
    errorIfNoSpace,
    warnAtPercents,
    autoGrow,
    detectZeroes,
    io: ioOf(options),
  };
}

/** Reads `--io deno`. */
function ioOf(options: Options): IoName | undefined {
  const text = textOf(options, "io");
  if (text === undefined || text === "deno" || text === "io_uring") return text;
  throw new UsageError(`--io takes deno or io_uring, not "${text}".`);
}

/** Reads `--warn-at 80,90,95`. */
function warnAtPercentsOf(options: Options): readonly number[] | undefined {
  const text = textOf(options, "warn-at");
  if (text === undefined) return undefined;
  const percents = text.split(",").map((percent) => /^\d{1,3}$/.test(percent) ? Number(percent) : NaN);
  const areLegal = percents.every((percent, at) => percent > (percents[at - 1] ?? 0) && percent <= 100);
  if (areLegal && percents.length <= warnThresholdsMax) return percents;
  throw new UsageError(
    `--warn-at takes up to ${warnThresholdsMax} whole percents from 1 to 100, ascending, such as 80,90,95, not "${text}".`,
  );
}

/** Reads `data:80%,10G,100G`; throws {@linkcode UsageError}. */
function parseAutoGrow(text: string): AutoGrowRule {
  const parts = /^(data|metadata):(\d{1,3})%?,([^,]+),([^,]+)$/.exec(text);
  const atPercent = Number(parts?.[2]);
  if (parts === null || atPercent < 1 || atPercent > 100) {
    throw new UsageError(
      `--auto-grow takes data:AT%,STEP,MAX or metadata:AT%,STEP,MAX, such as data:80%,10G,100G, not "${text}".`,
    );
  }
  return {
    device: parts[1] === "data" ? "data" : "metadata",
    atPercent,
    stepBytes: parseSize(parts[3]!),
    maxBytes: parseSize(parts[4]!),
  };
}

/** A pool to be made; what is undefined has its default. */
export interface NewPoolOptions {
  /** Bytes of a data block. */
  readonly blockSizeBytes: number | undefined;
  /** Bytes of the data device. */
  readonly dataSizeBytes: number | undefined;
  /** Bytes of the metadata device. */
  readonly metadataSizeBytes: number | undefined;
  /** A file or block device instead of the pool's own data file. */
  readonly dataPath: string | undefined;
  /** A file or block device instead of the pool's own metadata file. */
  readonly metadataPath: string | undefined;
}

/** What `init` was told of the new pool; `serve` takes the same. */
export function initOptionsOf(options: Options): NewPoolOptions {
  return {
    blockSizeBytes: sizeOf(options, "block-size"),
    dataSizeBytes: sizeOf(options, "data-size"),
    metadataSizeBytes: sizeOf(options, "metadata-size"),
    dataPath: textOf(options, "data"),
    metadataPath: textOf(options, "metadata"),
  };
}

/** Options for a new pool mean nothing to one that is there; only another block size is refused (by opening it). */
export function noteUnused(options: Options, log: (sentence: string) => void): void {
  for (const option of ["data-size", "metadata-size", "data", "metadata"] as const) {
    if (options[option] !== undefined) log(`The pool is there already: --${option} has no effect.`);
  }
}

function serveOptionsOf(options: Options, log: (sentence: string) => void): ServeOptions {
  const given = textsOf(options, "listen");
  const listen = given.length > 0 ? given : undefined;
  listen?.forEach(parseListenAddress);
  const maxClients = parseMaxClients(textOf(options, "max-clients"));
  return { listen, inherited: inheritedDescriptors(log), tls: tlsOf(options), maxClients };
}

function tlsOf(options: Options): TlsOptions | undefined {
  const policy = textOf(options, "tls") ?? "off";
  const certificates = textOf(options, "tls-certificates");
  const verifyPeer = options["tls-verify-peer"] === true;
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

function volumeToCreate(text: string): VolumeToCreate {
  const equals = text.indexOf("=");
  if (equals < 1) throw new UsageError(`--create takes NAME=SIZE, not "${text}".`);
  return { name: parseVolumeName(text.slice(0, equals)), sizeBytes: parseSize(text.slice(equals + 1)) };
}

function sizeOf(options: Options, option: string): number | undefined {
  const value = textOf(options, option);
  return value === undefined ? undefined : parseSize(value);
}

function textOf(options: Options, option: string): string | undefined {
  const value = options[option];
  return typeof value === "string" ? value : undefined;
}

function textsOf(options: Options, option: string): readonly string[] {
  const value = options[option];
  return Array.isArray(value) ? value : [];
}
