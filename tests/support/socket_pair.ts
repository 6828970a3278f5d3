/** For tests: a server's socket and its client, and what the former tells its owner. */
import { DenoClock } from "../../actors/edge/deno_clock.ts";
import { denoSockets } from "../../actors/edge/deno_sockets.ts";
import { RingSockets } from "../../actors/edge/ring/ring_sockets.ts";
import { SocketGroup } from "../../actors/edge/socket_group.ts";
import type { SocketHost } from "../../actors/edge/socket_host.ts";
import { ListeningSocket } from "../../actors/edge/sockets.ts";
import type { Actor, Address } from "../../actors/kernel/address.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { Connected } from "../../actors/nbd/messages.ts";
import type { SocketNotice, SocketPort } from "../../actors/nbd/socket_port.ts";
import { ignoreRing, runningLoop } from "./running_ring.ts";

/** What the sockets of a test are made of. */
export interface SocketWorld {
  readonly host: SocketHost;
  readonly kernel: Kernel;
  end(): Promise<void>;
}

/** The two kinds of sockets. */
export const socketWays: readonly {
  readonly name: string;
  readonly ignore: boolean;
  readonly begin: () => SocketWorld;
}[] = [
  { name: "by Deno", ignore: false, begin: denoWorld },
  { name: "on the ring", ignore: ignoreRing, begin: ringWorld },
];

function denoWorld(): SocketWorld {
  const clock = new DenoClock();
  const end = () => Promise.resolve(clock.close());
  return { host: denoSockets, kernel: new Kernel({ clock }), end };
}

/** Its loop runs on this thread, beside Deno's event loop. */
function ringWorld(): SocketWorld {
  const { loop, end } = runningLoop();
  const kernel = new Kernel({ clock: loop });
  loop.serve(kernel);
  return { host: new RingSockets(loop), kernel, end };
}

export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** A folder that is removed in the end. */
export class TestFolder {
  private constructor(readonly path: string) {}

  static async make(): Promise<TestFolder> {
    return new TestFolder(await Deno.makeTempDir());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** A server's socket and its client, and what the former tells its owner. */
export class SocketPair<Client extends { close(): void } = Deno.Conn> {
  readonly #notices: SocketNotice[] = [];
  #wake: (() => void) | undefined;

  private constructor(
    readonly folder: TestFolder,
    readonly listening: ListeningSocket,
    readonly world: SocketWorld,
    readonly client: Client,
    readonly socket: SocketPort,
  ) {}

  static make(world = denoWorld()): Promise<SocketPair> {
    return SocketPair.with((path) => Deno.connect({ transport: "unix", path }), world);
  }

  /** With a client that is made by `connect`. */
  static async with<Client extends { close(): void }>(
    connect: (path: string) => Promise<Client>,
    world = denoWorld(),
  ): Promise<SocketPair<Client>> {
    const folder = await TestFolder.make();
    const path = `${folder.path}/s`;
    const { kernel } = world;
    const listening = await ListeningSocket.open({ transport: "unix", path }, undefined, world.host);
    const client = await connect(path);
    const socket = await new Promise<SocketPort>((resolve) => {
      const acceptor: Actor<Connected> = { receive: (message) => resolve(message.socket) };
      listening.start(new SocketGroup(kernel), kernel.spawn("acceptor", 8, () => acceptor));
    });
    const pair = new SocketPair(folder, listening, world, client, socket);
    const owner: Address<SocketNotice> = kernel.spawn("owner", 8, () => pair);
    socket.open(owner);
    return pair;
  }

  receive(notice: SocketNotice): void {
    this.#notices.push(notice);
    this.#wake?.();
  }

  get noticesWaiting(): number {
    return this.#notices.length;
  }

  async notice(): Promise<SocketNotice> {
    while (this.#notices.length === 0) await new Promise<void>((resolve) => this.#wake = resolve);
    return this.#notices.shift()!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.listening.closeAll();
    await this.listening.released;
    await this.world.end();
    try {
      this.client.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
    await this.folder[Symbol.asyncDispose]();
  }
}
