/**
 * A plain file through our listener, connections and kernel, without a pool: what the thin volumes themselves cost is the
 * difference to this. `deno run -A tests/bench/plain_server.ts SOCKET FILE`.
 */
import type { RequestDone, VolumeRequest } from "../../actors/bio.ts";
import { DenoClock } from "../../actors/edge/deno_clock.ts";
import { ListeningSocket } from "../../actors/edge/sockets.ts";
import type { Actor, Address } from "../../actors/kernel/address.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import { mailboxMax } from "../../actors/limits.ts";
import { NbdListener } from "../../actors/nbd_listener.ts";
import type { ExportInfo, PoolMessage } from "../../actors/pool_messages.ts";
import type { ThinVolumeMessage } from "../../actors/thin_volume.ts";
import { assert } from "../../storage/assert.ts";
import { PositionalFile } from "./positional_file.ts";

const blockSizeBytes = 64 * 1024;

/** Takes a volume's requests to the file. */
class PlainVolume implements Actor<ThinVolumeMessage> {
  readonly #kernel: Kernel;
  readonly #file: PositionalFile;

  constructor(kernel: Kernel, file: PositionalFile) {
    this.#kernel = kernel;
    this.#file = file;
  }

  receive(message: ThinVolumeMessage): void {
    assert(message.type === "submit", "a plain volume only takes requests");
    const { request } = message;
    request.status = "ok";
    const { kind, offsetBytes, lengthBytes, data } = request;
    if (kind === "flush") return this.#file.flush(() => this.#kernel.post(request.client, done(request)));
    if (kind === "read") {
      this.#file.read(data, offsetBytes);
      const end = Math.ceil((offsetBytes + lengthBytes) / blockSizeBytes);
      request.holes = new Uint8Array(end - Math.floor(offsetBytes / blockSizeBytes));
    } else if (kind === "write") this.#file.write(data, offsetBytes);
    else request.status = "notSupported";
    this.#kernel.tell(request.client, done(request));
  }
}

function done(request: VolumeRequest): RequestDone {
  return { type: "requestDone", request };
}

/** A pool of the one volume. */
class PlainPool implements Actor<PoolMessage> {
  readonly #kernel: Kernel;
  readonly #info: ExportInfo;
  readonly #volume: Address<ThinVolumeMessage>;

  constructor(kernel: Kernel, info: ExportInfo, volume: Address<ThinVolumeMessage>) {
    this.#kernel = kernel;
    this.#info = info;
    this.#volume = volume;
  }

  receive(message: PoolMessage): void {
    const info = this.#info;
    switch (message.type) {
      case "attach":
        return this.#kernel.tell(message.client, {
          type: "attached",
          info,
          volume: this.#volume,
          blockSizeBytes,
        });
      case "describe":
        return this.#kernel.tell(message.client, { type: "described", info, blockSizeBytes });
      case "describeContexts":
        return this.#kernel.tell(message.client, { type: "contexts", info, blockSizeBytes, contexts: [] });
      case "listExports":
        return this.#kernel.tell(message.client, { type: "exports", names: [info.name], descriptions: [""] });
      case "detach":
        return this.#kernel.tell(message.client, { type: "detached", uid: message.uid });
      default:
        assert(false, "a plain pool only knows clients");
    }
  }
}

if (import.meta.main) {
  const [path = "", filePath = ""] = Deno.args;
  const socket = await ListeningSocket.open({ transport: "unix", path });
  const file = new PositionalFile(filePath);
  const kernel = new Kernel({ clock: new DenoClock() });
  const info = { name: "", uid: "plain", sizeBytes: file.sizeBytes, readOnly: false, description: "" };
  const volume = kernel.spawn("volume", mailboxMax, () => new PlainVolume(kernel, file));
  const pool = kernel.spawn("pool", mailboxMax, () => new PlainPool(kernel, info, volume));
  const peers = { pool, accepts: [socket], log: () => {} };
  const listener = kernel.spawn("listener", mailboxMax, (self) => new NbdListener(kernel, self, peers));
  socket.start(kernel, listener);
}
