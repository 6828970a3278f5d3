/**
 * The servers that the lean client measures: each serves a number of volumes over one transport, from files that were
 * made and filled alike, and can be stopped and started again.
 */
import { programPath, requiredProgram } from "../support/programs.ts";
import { runToEnd } from "../support/server.ts";
import type { LeanClient } from "./lean.ts";
import { Child, type Listener, type Place } from "./place.ts";
import { isRunning } from "./proc.ts";

const cli = new URL("../../cli.ts", import.meta.url).pathname;
/** What all files are filled with: a block of ours, so that ours and all peers make the same calls in the same order. */
const fillBytes = 64 * 1024;
/** Room in a pool beyond its volumes, and for its metadata. */
export const spareBytes = 64 * 2 ** 20;

/** How clients reach a server. With TLS it is a Unix socket, too. */
export type Transport = "unix" | "tcp" | "tls";

/** What is served, and how. */
export interface LeanSetup {
  readonly place: Place;
  /** Where the files are; the server has a folder of its own in it. */
  readonly folder: string;
  readonly volumes: number;
  /** Of each volume. */
  readonly volumeBytes: number;
  readonly transport: Transport;
  /** ca-cert.pem, server-cert.pem and server-key.pem; with TLS only. */
  readonly certificates: string;
}

/** One process of a server. */
interface Launch {
  readonly program: string;
  readonly args: readonly string[];
  readonly listener: Listener;
  readonly pidFile?: string;
}

/** What a recipe writes its command lines for. */
interface Site extends LeanSetup {
  /** The server's own folder. */
  readonly own: string;
  /** Where it listens, and what reaches it: the first part of a URI, or all but the export of a socket's. */
  readonly listeners: readonly Listener[];
}

/** A program that is measured. */
export interface LeanKind {
  readonly name: string;
  /** What ours is compared with; false for ours, and for what stores nothing. */
  readonly isPeer: boolean;
  /** A file is made for each volume and served; else the program makes what it serves. */
  readonly hasFiles: boolean;
  /** It reads and writes past the page cache. */
  readonly isDirect?: boolean;
  /** One process serves one volume. */
  readonly isSingle?: boolean;
  /** What it needs and is not installed. */
  readonly missing: () => string | undefined;
  /** Once, before the first start. */
  readonly make?: (site: Site) => Promise<void>;
  /** The processes; one that is single has one for each volume. */
  readonly launches: (site: Site) => Promise<Launch[]>;
}

const nameOf = (volume: number) => `v${volume}`;
const volumesOf = ({ volumes }: LeanSetup) => Array.from({ length: volumes }, (_, at) => nameOf(at));

/** A server at work. */
export class LeanServer implements AsyncDisposable {
  readonly kind: LeanKind;
  readonly setup: LeanSetup;
  readonly #site: Site;
  #children: Child[] = [];

  private constructor(kind: LeanKind, site: Site) {
    this.kind = kind;
    this.setup = site;
    this.#site = site;
  }

  /** Makes the files and starts it. */
  static async start(kind: LeanKind, setup: LeanSetup): Promise<LeanServer> {
    const own = await Deno.makeTempDir({ dir: setup.folder, prefix: "s" });
    const count = kind.isSingle === true ? setup.volumes : 1;
    const listeners = Array.from(
      { length: count },
      (_, at): Listener => setup.transport === "tcp" ? { port: freePort() } : { path: `${own}/${at}.sock` },
    );
    const server = setup.place.own(new LeanServer(kind, { ...setup, own, listeners }));
    if (kind.hasFiles) {
      for (const name of volumesOf(setup)) {
        await Deno.mkdir(`${own}/files`, { recursive: true });
        using file = await Deno.create(`${own}/files/${name}`);
        await file.truncate(setup.volumeBytes);
      }
    }
    await kind.make?.(server.#site);
    await server.start();
    return server;
  }

  /** The URI of each volume. */
  get uris(): string[] {
    const scheme = this.setup.transport === "tls" ? "nbds" : "nbd";
    return volumesOf(this.setup).map((name, at) => {
      const listener = this.#site.listeners[this.kind.isSingle === true ? at : 0]!;
      return "port" in listener
        ? `${scheme}://127.0.0.1:${listener.port}/${name}`
        : `${scheme}+unix:///${name}?socket=${listener.path}`;
    });
  }

  get pids(): number[] {
    return this.#children.map(({ pid }) => pid);
  }

  /** What it reads and writes. */
  get files(): string[] {
    const { own } = this.#site;
    if (this.kind.hasFiles) return volumesOf(this.setup).map((name) => `${own}/files/${name}`);
    const files = [`${own}/pool/data.img`, `${own}/pool/metadata.img`];
    return this.kind.make === undefined ? [] : files;
  }

  /** Starts what is stopped and gives the milliseconds from the start of the process until it takes a connection. */
  async start(): Promise<number> {
    const launches = await this.kind.launches(this.#site);
    const begin = performance.now();
    for (const { program, args, listener, pidFile } of launches) {
      this.#children.push(await Child.start(program, args, listener, pidFile));
    }
    return performance.now() - begin;
  }

  /** Ends its processes; what they have written stays. */
  async stop(): Promise<void> {
    for (const child of this.#children.splice(0)) await child[Symbol.asyncDispose]();
    for (const listener of this.#site.listeners) {
      if ("path" in listener) {
        await Deno.remove(listener.path).catch(() => {/* Most remove it themselves. */});
      }
    }
  }

  /** Writes every volume from its beginning to its end, one after the other. */
  async fill(client: LeanClient): Promise<void> {
    for (const uri of this.uris) {
      await client.run({ mode: "write", uris: [uri], bytes: fillBytes, isOnce: true, isSequential: true });
    }
  }

  /** Why it does not answer; empty if it runs. */
  get complaint(): string {
    const ended = this.#children.filter(({ pid }) => !isRunning(pid));
    return ended.map(({ said }) => ` The server has ended. ${said}`).join("").trimEnd();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Deno.remove(this.#site.own, { recursive: true });
  }
}

/** A port that nothing listens on. */
function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/**
 * Ours, from this checkout or from another, such as one of an older commit.
 * @param more options of `serve`
 */
export function oursFrom(name: string, program: string, more: readonly string[] = []): LeanKind {
  const run = (
    site: Site,
    ...args: string[]
  ) => ["run", "-A", program, "--pool", `${site.own}/pool`, ...args];
  return {
    name,
    isPeer: false,
    hasFiles: false,
    missing: () => undefined,
    make: async (site) => {
      const size = site.volumes * site.volumeBytes + spareBytes;
      await runToEnd(Deno.execPath(), run(site, "init", `--data-size=${size}`));
      for (const each of volumesOf(site)) {
        await runToEnd(Deno.execPath(), run(site, "create", each, String(site.volumeBytes)));
      }
    },
    launches: (site) => {
      const [listener] = site.listeners;
      const where = "port" in listener! ? `tcp:127.0.0.1:${listener.port}` : `unix:${listener!.path}`;
      const tls = site.transport === "tls"
        ? ["--tls", "require", "--tls-certificates", site.certificates]
        : [];
      const args = run(site, "serve", "--listen", where, ...tls, ...more);
      return Promise.resolve([{ program: Deno.execPath(), args, listener: listener! }]);
    },
  };
}

function nbdkit(name: string, isPeer: boolean, plugin: (site: Site) => readonly string[]): LeanKind {
  return {
    name,
    isPeer,
    hasFiles: isPeer,
    missing: () => programPath("nbdkit") === undefined ? "nbdkit" : undefined,
    launches: (site) => {
      const listener = site.listeners[0]!;
      const where = "port" in listener
        ? ["-i", "127.0.0.1", "-p", String(listener.port)]
        : ["-U", listener.path];
      const tls = site.transport === "tls"
        ? ["--tls=require", `--tls-certificates=${site.certificates}`]
        : [];
      const args = ["-f", ...where, ...tls, ...plugin(site)];
      return Promise.resolve([{ program: requiredProgram("nbdkit"), args, listener }]);
    },
  };
}

function qemuNbd(name: string, more: readonly string[], isDirect = false): LeanKind {
  const launch = (site: Site, listener: Listener, at: number): Launch => {
    const where = "port" in listener
      ? ["-b", "127.0.0.1", "-p", String(listener.port)]
      : ["-k", listener.path];
    const credentials = `tls-creds-x509,id=t,endpoint=server,verify-peer=no,dir=${site.certificates}`;
    const tls = site.transport === "tls" ? ["--object", credentials, "--tls-creds", "t"] : [];
    const file = `${site.own}/files/${nameOf(at)}`;
    const common = ["-t", "-e", "16", "-x", nameOf(at), "--discard=unmap", "-f", "raw"];
    return {
      program: requiredProgram("qemu-nbd"),
      args: [...common, ...where, ...tls, ...more, file],
      listener,
    };
  };
  return {
    name,
    isPeer: true,
    hasFiles: true,
    isDirect,
    isSingle: true,
    missing: () => programPath("qemu-nbd") === undefined ? "qemu-nbd" : undefined,
    launches: (site) => Promise.resolve(site.listeners.map((listener, at) => launch(site, listener, at))),
  };
}

/** It serves more than one connection only as a daemon. */
const nbdServer: LeanKind = {
  name: "nbd-server",
  isPeer: true,
  hasFiles: true,
  missing: () => programPath("nbd-server") === undefined ? "nbd-server" : undefined,
  launches: async (site) => {
    const listener = site.listeners[0]!;
    const pidFile = `${site.own}/nbd-server.pid`;
    const { certificates } = site;
    const lines = [
      "[generic]",
      ..."port" in listener
        ? ["listenaddr = 127.0.0.1", `port = ${listener.port}`]
        : [`unixsock = ${listener.path}`],
      ...site.transport === "tls"
        ? [
          `cacertfile = ${certificates}/ca-cert.pem`,
          `certfile = ${certificates}/server-cert.pem`,
          `keyfile = ${certificates}/server-key.pem`,
          "force_tls = true",
        ]
        : [],
      ...volumesOf(site).flatMap((name) => [
        `[${name}]`,
        `exportname = ${site.own}/files/${name}`,
        "flush = true",
        "fua = true",
        "trim = true",
      ]),
    ];
    await Deno.writeTextFile(`${site.own}/nbd-server.conf`, `${lines.join("\n")}\n`);
    const args = ["-C", `${site.own}/nbd-server.conf`, "-p", pidFile];
    return [{ program: requiredProgram("nbd-server"), args, listener, pidFile }];
  },
};

/** All that the lean client measures. */
export const leanKinds: readonly LeanKind[] = [
  oursFrom("ours", cli),
  oursFrom("ours io_uring", cli, ["--io", "io_uring"]),
  nbdkit("nbdkit file", true, ({ own }) => ["file", `dir=${own}/files`]),
  nbdkit("nbdkit null", false, ({ volumeBytes }) => ["null", `size=${volumeBytes}`]),
  nbdServer,
  qemuNbd("qemu-nbd threads", ["--aio=threads"]),
  qemuNbd("qemu-nbd io_uring", ["--aio=io_uring"]),
  qemuNbd("qemu-nbd native", ["--cache=none", "--aio=native"], true),
];
