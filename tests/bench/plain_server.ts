/**
 * A plain file through our listener, connections and kernel, without a pool: what the thin volumes themselves cost is the
 * difference to this. `deno run -A tests/bench/plain_server.ts SOCKET FILE`.
 */
import type { RequestsDone, VolumeRequest } from "../../actors/volume/bio.ts";
import { DenoClock } from "../../actors/edge/deno_clock.ts";
import { FileDevice } from "../../actors/edge/file_device.ts";
import { ListeningSocket } from "../../actors/edge/sockets.ts";
import type { Actor, Address } from "../../actors/kernel/address.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import { mailboxes } from "../../actors/mailboxes.ts";
import { NbdListener } from "../../actors/nbd/listener.ts";
import type { PoolMessage } from "../../actors/control/pool_messages.ts";
import type { ExportInfo } from "../../actors/control/export_messages.ts";
import type { ThinVolumeMessage } from "../../actors/volume/volume_messages.ts";
import { assert } from "../../storage/base/assert.ts";
import type { IoResult, ReadTarget } from "../../storage/device/port.ts";
import { SocketGroup } from "../../actors/edge/socket_group.ts";

const blockSizeBytes = 64 * 1024;

/** Takes a volume's requests to the file. */
class PlainVolume implements Actor<ThinVolumeMessage> {
  readonly #kernel: Kernel;
  readonly #file: FileDevice;
  #flushes = 0;

  constructor(kernel: Kernel, file: FileDevice) {
    this.#kernel = kernel;
    this.#file = file;
  }

  receive(message: ThinVolumeMessage): void {
    assert(message.type === "submit", "a plain volume only takes requests");
    for (const request of message.requests) this.#serve(request);
  }

  #serve(request: VolumeRequest): void {
    request.status = "ok";
    const { kind } = request;
    if (kind === "flush") {
      if (this.#flush(request) === "pending") return;
    } else if (kind === "read") {
      this.#read(request);
    } else if (kind === "write") this.#file.write(request.data, request.offsetBytes);
    else request.status = "notSupported";
    this.#kernel.tell(request.client, done(request));
  }

  #flush(request: VolumeRequest): IoResult | "pending" {
    const ended = () => {
      this.#flushes -= 1;
      this.#kernel.post(request.client, done(request));
    };
    const flushed = this.#file.flush(ended, this.#flushes === 0);
    if (flushed === "pending") this.#flushes += 1;
    return flushed;
  }

  /** Block by block, as a volume does. */
  #read(request: VolumeRequest): void {
    request.holes = new Uint8Array(0);
    const end = request.offsetBytes + request.lengthBytes;
    for (let begin = request.offsetBytes, ordinal = 0; begin < end; ordinal += 1) {
      const blockEnd = Math.min(end, (Math.floor(begin / blockSizeBytes) + 1) * blockSizeBytes);
      const at = begin - request.offsetBytes;
      const target = new BlockTarget(request, at, blockEnd - begin);
      const found = this.#file.read(target, begin, unheard);
      assert(found !== "pending", "without a read beside, all is answered at once");
      if (found.kind === "mapped") {
        found.drain = this.#kernel.drains;
        request.takeSegment!(ordinal, found);
      }
      begin = blockEnd;
    }
  }
}

const unheard = () => assert(false, "this read was to be answered at once");

/** A part of a request. */
class BlockTarget implements ReadTarget {
  constructor(
    readonly request: VolumeRequest,
    readonly dataBegin: number,
    readonly lengthBytes: number,
  ) {}

  get takesMapped(): boolean {
    return this.request.takesSegments === true;
  }

  memory(): Uint8Array {
    const data = this.request.takeData?.() ?? this.request.data;
    return data.subarray(this.dataBegin, this.dataBegin + this.lengthBytes);
  }
}

function done(request: VolumeRequest): RequestsDone {
  return { type: "requestsDone", requests: [request] };
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
  const file = FileDevice.open(filePath, {
    waitsForShortFlushes: true,
    givesSegments: true,
  });
  const kernel = new Kernel({ clock: new DenoClock() });
  const info = { name: "", uid: "plain", sizeBytes: file.sizeBytes, readOnly: false, description: "" };
  const volume = kernel.spawn("volume", mailboxes.volume, () => new PlainVolume(kernel, file));
  const pool = kernel.spawn("pool", mailboxes.pool, () => new PlainPool(kernel, info, volume));
  const peers = { pool, accepts: [socket], log: () => {} };
  const listener = kernel.spawn(
    "listener",
    mailboxes.listener,
    (self) => new NbdListener(kernel, self, peers),
  );
  socket.start(new SocketGroup(kernel), listener);
}
