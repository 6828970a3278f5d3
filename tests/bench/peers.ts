/** The programs that we are compared with, each as its users run it. */
import { programPath, requiredProgram } from "../support/programs.ts";
import { runToEnd } from "../support/server.ts";
import { Child } from "./place.ts";
import { fill, type Setup, type Subject, type SubjectKind } from "./subject.ts";
import type { ImageState } from "./workloads.ts";

const clusterBytes = 64 * 1024;
/** Clusters written between two images of a chain, as between two snapshots of ours. */
const chainClusters = 16;
/** The longest chain of qcow2 images; each is a file that qemu keeps open, with caches. */
const chainMax = 100;

/** How a peer makes and serves an image. */
interface Recipe {
  readonly program: string;
  readonly serve: (socket: string, image: string) => Promise<readonly string[]>;
  readonly exportName?: string;
  /** It goes into the background. */
  readonly isDaemon?: boolean;
  /** Makes an image. */
  readonly create: (image: string, sizeBytes: number) => Promise<void>;
  /** Makes the filled image shared; the server is not running. The image to be served from now on. */
  readonly share?: (image: string, count: number) => Promise<string>;
  /** Takes a snapshot of the filled image and removes it; the server is not running. */
  readonly leave?: (image: string) => Promise<void>;
  /** Whether `share` is wanted once before all runs, too. */
  readonly overlaid?: boolean;
}

const rawFile = async (image: string, sizeBytes: number) => {
  await Deno.writeFile(image, new Uint8Array(0));
  await Deno.truncate(image, sizeBytes);
};

async function qemuImg(...args: string[]): Promise<void> {
  await runToEnd(requiredProgram("qemu-img"), args);
}

const newQcow2 = (image: string, sizeBytes: number) =>
  qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=64k", image, String(sizeBytes));

const overlay = async (image: string, base: string) => {
  await qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=64k", "-b", base, "-F", "qcow2", image);
};

const qemuNbd = (format: string) => (socket: string, image: string) =>
  Promise.resolve(["-t", "-e", "8", "-k", socket, "--discard=unmap", "-f", format, image]);

const pidFileOf = (socket: string) => `${socket}.pid`;

/** It serves more than one connection only as a daemon. */
async function nbdServer(socket: string, image: string): Promise<readonly string[]> {
  const config = `${socket}.conf`;
  const lines = ["[generic]", `unixsock = ${socket}`, "[e]", `exportname = ${image}`];
  await Deno.writeTextFile(config, [...lines, "flush = true", "fua = true", "trim = true", ""].join("\n"));
  return ["-C", config, "-p", pidFileOf(socket)];
}

/** A peer's server and its image. */
class PeerSubject implements Subject {
  readonly uri: string;
  readonly #recipe: Recipe;
  readonly #setup: Setup;
  readonly #socket: string;
  readonly #base: string;
  #image: string;
  readonly #links: string[] = [];
  #child: Child | undefined;
  #prepared = 0;

  private constructor(name: string, recipe: Recipe, setup: Setup) {
    this.#recipe = recipe;
    this.#setup = setup;
    const plain = name.replaceAll(" ", "-");
    this.#socket = setup.place.path(`${plain}.sock`);
    this.#base = setup.place.path(`${plain}.img`);
    this.#image = this.#base;
    this.uri = `nbd+unix:///${recipe.exportName ?? ""}?socket=${this.#socket}`;
  }

  static async start(name: string, recipe: Recipe, setup: Setup): Promise<PeerSubject> {
    const subject = new PeerSubject(name, recipe, setup);
    await subject.#make();
    return subject;
  }

  get pid(): number {
    return this.#child!.pid;
  }

  get files(): readonly string[] {
    return [this.#image];
  }

  async prepare(): Promise<void> {
    const { kind } = this.#setup.image;
    if (kind !== "fresh" && kind !== "shared" && kind !== "left") return;
    await this.#stop();
    if (kind === "fresh") {
      await Deno.remove(this.#image);
      await this.#recipe.create(this.#image, this.#setup.imageBytes);
    } else if (kind === "left") await this.#recipe.leave!(this.#image);
    else await this.#share();
    await this.#serve();
  }

  async #make(): Promise<void> {
    const { image, imageBytes } = this.#setup;
    await this.#recipe.create(this.#base, imageBytes);
    await this.#serve();
    if (image.kind === "fresh") return;
    await fill(this.uri, imageBytes);
    if (image.kind === "left" || (image.kind === "filled" && this.#recipe.overlaid !== true)) return;
    await this.#stop();
    if (image.kind === "chained") await this.#chain(image.snapshots);
    else await this.#share();
    await this.#serve();
  }

  async #share(): Promise<void> {
    this.#image = await this.#recipe.share!(this.#base, this.#prepared++);
  }

  async #chain(length: number): Promise<void> {
    const { imageBytes } = this.#setup;
    for (let at = 0; at < length; at++) {
      const image = `${this.#base}.${at}`;
      await overlay(image, this.#image);
      this.#links.push(image);
      this.#image = image;
      const writes = Array.from({ length: chainClusters }, () => {
        const cluster = Math.floor(Math.random() * imageBytes / clusterBytes);
        return ["-c", `write -q ${cluster * clusterBytes} 4k`];
      });
      await runToEnd(requiredProgram("qemu-io"), ["-f", "qcow2", ...writes.flat(), image]);
    }
  }

  async #serve(): Promise<void> {
    const { program, serve, isDaemon } = this.#recipe;
    const args = await serve(this.#socket, this.#image);
    const pidFile = isDaemon === true ? pidFileOf(this.#socket) : undefined;
    const child = await Child.start(requiredProgram(program), args, this.#socket, pidFile);
    this.#child = this.#setup.place.own(child);
  }

  async #stop(): Promise<void> {
    if (this.#child !== undefined) await this.#setup.place.end(this.#child);
    this.#child = undefined;
    await Deno.remove(this.#socket).catch(() => {/* Most remove it themselves. */});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
    for (const path of new Set([...this.#links, this.#image, this.#base])) {
      await Deno.remove(path).catch(() => {/* It was never made. */});
    }
  }
}

function kind(
  name: string,
  recipe: Recipe,
  does: (image: ImageState, rw: string) => boolean,
): SubjectKind {
  return {
    name,
    isPeer: true,
    missing: () => [recipe.program, "fio"].find((program) => programPath(program) === undefined),
    does,
    start: (setup) => PeerSubject.start(name, recipe, setup),
  };
}

const isPlain = (image: ImageState) => image.kind === "filled" || image.kind === "fresh";

/** All peers. Those without snapshots take no part where one is needed. */
export const peerKinds: readonly SubjectKind[] = [
  kind(
    "nbdkit file",
    {
      program: "nbdkit",
      serve: (socket, image) => Promise.resolve(["-f", "-U", socket, "file", image]),
      create: rawFile,
    },
    isPlain,
  ),
  kind("nbd-server", {
    program: "nbd-server",
    serve: nbdServer,
    exportName: "e",
    isDaemon: true,
    create: rawFile,
  }, isPlain),
  kind("qemu-nbd raw", { program: "qemu-nbd", serve: qemuNbd("raw"), create: rawFile }, isPlain),
  kind(
    "qemu-nbd qcow2",
    {
      program: "qemu-nbd",
      serve: qemuNbd("qcow2"),
      create: newQcow2,
      // A snapshot inside the image, as `snapshot` of ours; the one before it goes.
      share: async (image, count) => {
        if (count > 0) await qemuImg("snapshot", "-q", "-d", `s${count - 1}`, image);
        await qemuImg("snapshot", "-q", "-c", `s${count}`, image);
        return image;
      },
      leave: async (image) => {
        await qemuImg("snapshot", "-q", "-c", "s", image);
        await qemuImg("snapshot", "-q", "-d", "s", image);
      },
    },
    (image) => image.kind !== "chained" || image.snapshots <= chainMax,
  ),
  kind(
    "qcow2 + backing",
    {
      program: "qemu-nbd",
      serve: qemuNbd("qcow2"),
      create: newQcow2,
      overlaid: true,
      share: async (image) => {
        await overlay(`${image}.over`, image);
        return `${image}.over`;
      },
    },
    // Reads go through to the base; after the first writes it would be a plain qcow2.
    (image, rw) =>
      image.kind === "shared" || (image.kind === "filled" && (rw === "randread" || rw === "read")),
  ),
];

/** The versions of the programs in use, a line each. */
export async function versions(): Promise<string[]> {
  const lines = [`deno ${Deno.version.deno}, V8 ${Deno.version.v8}`];
  for (
    const [program, option] of [["fio", "-v"], ["nbdkit", "-V"], ["nbd-server", "-V"], ["qemu-nbd", "-V"]]
  ) {
    const path = programPath(program!);
    if (path === undefined) lines.push(`${program}: not installed`);
    else {
      const output = await new Deno.Command(path, { args: [option!] }).output();
      const text = new TextDecoder().decode(output.stdout) + new TextDecoder().decode(output.stderr);
      lines.push(text.trim().split("\n")[0]!);
    }
  }
  return lines;
}
