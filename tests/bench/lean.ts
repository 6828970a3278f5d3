/** The lean client: `lean_client.c`, compiled when it is wanted, and what it prints. */
import { UserError } from "../../storage/base/errors.ts";
import { programPath } from "../support/programs.ts";

const source = new URL("lean_client.c", import.meta.url).pathname;
/** With TLS first: it needs the headers of GnuTLS, and everything but TLS goes without. */
const builds: readonly (readonly [hasTls: boolean, args: readonly string[]])[] = [
  [true, ["-DLEAN_TLS", "-lgnutls"]],
  [false, []],
];

/** What the client is to do with one or more exports. Times are seconds, sizes bytes. */
export interface LeanJob {
  /** `flush` is a write and then a flush, which count as one request. */
  readonly mode: "read" | "write" | "flush";
  readonly uris: readonly string[];
  /** Requests under way on each connection, 1 by default. */
  readonly depth?: number;
  /** Bytes of a request, 4096 by default. */
  readonly bytes?: number;
  /** Connections, as many as URIs by default; they take the URIs in turns. */
  readonly connections?: number;
  /** A thread for each connection; else one thread for all. */
  readonly hasThreads?: boolean;
  /** The CPU that it keeps to. */
  readonly cpu?: number;
  readonly seconds?: number;
  /** What passes before it is measured. */
  readonly warmSeconds?: number;
  /** Where requests begin in the export, and how far they go from there; else all of it. */
  readonly fromBytes?: number;
  readonly spanBytes?: number;
  /** Runs with the same seed meet the same offsets. */
  readonly seed?: number;
  /** Meets each block at most once and ends; `seconds` may end it before. Else it ends by time, after a second. */
  readonly isOnce?: boolean;
  /** One block after the other; else in random order. */
  readonly isSequential?: boolean;
  /** Processes whose CPU time is measured, with those that descend from them. */
  readonly pids?: readonly number[];
}

/** What came out. CPU is user and system, for one request. */
export interface LeanFigures {
  readonly requests: number;
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly serverCpuUs: number;
  readonly clientCpuUs: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
  /** The slowest connection's requests to those of the fastest. */
  readonly fairness: number;
}

/** Bytes of files that are in the page cache, and their size. */
export interface Cached {
  readonly cachedBytes: number;
  readonly sizeBytes: number;
}

/** The compiled client. */
export class LeanClient {
  /** Whether it can speak TLS. */
  readonly hasTls: boolean;
  readonly #path: string;

  private constructor(path: string, hasTls: boolean) {
    this.#path = path;
    this.hasTls = hasTls;
  }

  /** What is missing to compile it; undefined if nothing is. */
  static missing(): string | undefined {
    return programPath("cc") === undefined ? "cc" : undefined;
  }

  /** Compiles it into a folder. Throws a UserError with what the compiler says where it does not compile. */
  static async make(folder: string): Promise<LeanClient> {
    const path = `${folder}/lean_client`;
    let complaint = "";
    for (const [hasTls, more] of builds) {
      const args = ["-O2", "-pthread", "-o", path, source, ...more];
      const { success, stderr } = await new Deno.Command(programPath("cc") ?? "cc", { args }).output();
      if (success) return new LeanClient(path, hasTls);
      complaint = new TextDecoder().decode(stderr);
    }
    throw new UserError(`cc does not compile ${source}: ${complaint.trim()}`);
  }

  /** Runs one job to its end. Throws what the client says if it fails. */
  async run(job: LeanJob): Promise<LeanFigures> {
    const found = await this.#output(argumentsOf(job));
    return {
      requests: found.requests!,
      requestsPerSecond: found.requests_per_second!,
      bytesPerSecond: found.bytes_per_second!,
      serverCpuUs: found.server_cpu_us!,
      clientCpuUs: found.client_cpu_us!,
      p50Us: found.p50_us!,
      p99Us: found.p99_us!,
      p999Us: found.p999_us!,
      maxUs: found.max_us!,
      fairness: found.fairness!,
    };
  }

  /**
   * Writes files back and drops their pages (`posix_fadvise`, no root), and gives what is cached all the same: pages
   * that a running process has mapped stay.
   */
  drop(files: readonly string[]): Promise<Cached> {
    return this.#look("--drop", files);
  }

  /** How much of the files is in the page cache. */
  cached(files: readonly string[]): Promise<Cached> {
    return this.#look("--cached", files);
  }

  async #look(option: string, files: readonly string[]): Promise<Cached> {
    const found = await this.#output([option, ...files]);
    return { cachedBytes: found.cached_bytes!, sizeBytes: found.size_bytes! };
  }

  async #output(args: readonly string[]): Promise<Readonly<Record<string, number>>> {
    const command = new Deno.Command(this.#path, { args: [...args], stdin: "null" });
    const { success, signal, stdout, stderr } = await command.output();
    if (success) return JSON.parse(new TextDecoder().decode(stdout));
    // It has a clock of its own that ends it where a server does not answer.
    if (signal === "SIGALRM") throw new Error("the server left requests unanswered for a minute");
    throw new Error(new TextDecoder().decode(stderr).trim());
  }
}

function argumentsOf(job: LeanJob): string[] {
  const values: readonly (readonly [name: string, value: number | undefined])[] = [
    ["depth", job.depth],
    ["bytes", job.bytes],
    ["connections", job.connections],
    ["cpu", job.cpu],
    ["seconds", job.seconds],
    ["warm", job.warmSeconds],
    ["from", job.fromBytes],
    ["span", job.spanBytes],
    ["seed", job.seed],
  ];
  return [
    `--mode=${job.mode}`,
    ...values.filter(([, value]) => value !== undefined).map(([name, value]) => `--${name}=${value}`),
    ...(job.pids ?? []).map((pid) => `--server=${pid}`),
    ...(job.hasThreads === true ? ["--threads"] : []),
    ...(job.isOnce === true ? ["--once"] : []),
    ...(job.isSequential === true ? ["--sequential"] : []),
    ...job.uris,
  ];
}
