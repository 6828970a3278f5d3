/** A pool of volumes in memory that speaks the pool's and the volume's messages, for tests of the NBD side. */
import { assert } from "../../storage/base/assert.ts";
import type { VolumeRequest } from "../../actors/volume/bio.ts";
import type { Extent, StatusRequest, StatusSource } from "../../actors/volume/block_status.ts";
import type { Actor, Address } from "../../actors/kernel/address.ts";
import type { Kernel } from "../../actors/kernel/kernel.ts";
import { mailboxes } from "../../actors/mailboxes.ts";
import type { PoolMessage } from "../../actors/control/pool_messages.ts";
import type { ExportContext, ExportInfo, PoolNotice } from "../../actors/control/export_messages.ts";
import type { ThinVolumeMessage } from "../../actors/volume/volume_messages.ts";

/** A thin volume in memory: blocks that were never written are holes. */
export class MemoryVolume implements Actor<ThinVolumeMessage> {
  readonly #kernel: Kernel;
  readonly #blockSizeBytes: number;
  readonly #blocks = new Map<number, Uint8Array>();
  /** While true, requests wait in `waiting` until a test finishes them. */
  holdRequests = false;
  readonly waiting: VolumeRequest[] = [];
  readonly waitingStatus: StatusRequest[] = [];
  /** Block status requests, in the order they came. */
  readonly asked: StatusRequest[] = [];
  /** Blocks that differ from any snapshot. */
  readonly dirty = new Set<number>();
  /** Kinds in the order they were submitted. */
  readonly kinds: string[] = [];
  /** What every request ends with. */
  status: VolumeRequest["status"] = "ok";
  /** False saves a measurement the list. */
  keepKinds = true;

  constructor(kernel: Kernel, blockSizeBytes: number) {
    this.#kernel = kernel;
    this.#blockSizeBytes = blockSizeBytes;
  }

  receive(message: ThinVolumeMessage): void {
    if (message.type === "askStatus") return this.#ask(message.request);
    if (message.type === "failParkedRequest") return this.#end(message.request, "noDataSpace");
    if (message.type === "dropParked") return this.#drop(message.client);
    assert(message.type === "submit", "a memory volume only takes requests");
    for (const request of message.requests) {
      if (this.keepKinds) this.kinds.push(request.kind + (request.fua ? " fua" : ""));
      if (this.holdRequests) this.waiting.push(request);
      else this.finish(request);
    }
  }

  /** Has a request that is held wait for space: its client is told. */
  park(request: VolumeRequest): void {
    const client = request.parked?.();
    assert(client !== undefined, "a client's request can wait for space");
    this.#kernel.tell(client, { type: "requestParked", request });
  }

  #drop(client: VolumeRequest["client"]): void {
    for (const request of this.waiting.filter((held) => held.client === client && held.kind === "write")) {
      this.#end(request, "dropped");
    }
  }

  #end(request: VolumeRequest, status: VolumeRequest["status"]): void {
    const at = this.waiting.indexOf(request);
    if (at < 0) return;
    this.waiting.splice(at, 1);
    request.status = status;
    this.#kernel.tell(request.client, { type: "requestsDone", requests: [request] });
  }

  /** Does what the request asks for and tells its client. */
  finish(request: VolumeRequest): void {
    request.status = this.status;
    if (this.status === "ok") this.#execute(request);
    this.#kernel.tell(request.client, { type: "requestsDone", requests: [request] });
  }

  #ask(request: StatusRequest): void {
    if (this.keepKinds) this.asked.push(request);
    if (this.holdRequests) this.waitingStatus.push(request);
    else this.finishStatus(request);
  }

  /** Answers a block status and tells its client. */
  finishStatus(request: StatusRequest): void {
    request.status = this.status;
    if (this.status === "ok") {
      request.extents = request.sources.map((source) => this.#extents(request, source));
    }
    this.#kernel.tell(request.client, { type: "statusDone", request });
  }

  #extents(request: StatusRequest, source: StatusSource): Extent[] {
    const known = source.kind === "allocation" ? [...this.#blocks.keys()] : [...this.dirty];
    const alike = source.kind === "allocation" ? { known: 0, others: 3 } : { known: 1, others: 0 };
    const end = request.offsetBytes + request.lengthBytes;
    const extents: { lengthBytes: number; flags: number }[] = [];
    let at = request.offsetBytes;
    const add = (to: number, flags: number) => {
      const last = extents.at(-1);
      if (to > at && last?.flags === flags) last.lengthBytes += to - at;
      else if (to > at) extents.push({ lengthBytes: to - at, flags });
      at = Math.max(at, to);
    };
    for (const block of known.sort((a, b) => a - b)) {
      add(Math.min(end, block * this.#blockSizeBytes), alike.others);
      add(Math.min(end, (block + 1) * this.#blockSizeBytes), alike.known);
    }
    add(end, alike.others);
    return extents.slice(0, request.extentsMax);
  }

  #execute(request: VolumeRequest): void {
    if (request.kind === "flush") return;
    const { offsetBytes, lengthBytes } = request;
    const data = request.takeData?.() ?? request.data;
    const blockSizeBytes = this.#blockSizeBytes;
    const first = Math.floor(offsetBytes / blockSizeBytes);
    const end = offsetBytes + lengthBytes;
    const blocks = lengthBytes === 0 ? 0 : Math.floor((end - 1) / blockSizeBytes) - first + 1;
    if (request.kind === "read") request.holes = new Uint8Array(blocks);
    for (let ordinal = 0; ordinal < blocks; ordinal += 1) {
      const blockBegin = (first + ordinal) * blockSizeBytes;
      const begin = Math.max(offsetBytes, blockBegin);
      const partEnd = Math.min(end, blockBegin + blockSizeBytes);
      const part = data.subarray(begin - offsetBytes, partEnd - offsetBytes);
      this.#executePart(request, ordinal, first + ordinal, begin - blockBegin, partEnd - blockBegin, part);
    }
  }

  #executePart(
    request: VolumeRequest,
    ordinal: number,
    block: number,
    begin: number,
    end: number,
    part: Uint8Array,
  ): void {
    let content = this.#blocks.get(block);
    if (request.kind === "read") {
      if (content === undefined) {
        part.fill(0);
        request.holes[ordinal] = 1;
      } else {
        part.set(content.subarray(begin, end));
      }
    } else if (request.kind === "discard" || (request.kind === "writeZeroes" && !request.noHole)) {
      if (end - begin === this.#blockSizeBytes) this.#blocks.delete(block);
      else if (request.kind === "writeZeroes") content?.fill(0, begin, end);
    } else {
      if (content === undefined) this.#blocks.set(block, content = new Uint8Array(this.#blockSizeBytes));
      if (request.kind === "write") content.set(part, begin);
      else content.fill(0, begin, end);
    }
  }
}

/** A volume of a {@linkcode MemoryPool}. */
export interface MemoryExport {
  readonly info: ExportInfo;
  readonly volume: MemoryVolume;
  readonly address: Address<ThinVolumeMessage>;
  readonly clients: Set<Address<PoolNotice>>;
  /** Tests may add others to `base:allocation`. */
  readonly contexts: ExportContext[];
}

/** A pool of memory volumes. It asserts that clients attach and detach in turn. */
export class MemoryPool implements Actor<PoolMessage> {
  readonly exports: MemoryExport[] = [];
  attachesEver = 0;
  readonly #kernel: Kernel;
  readonly #blockSizeBytes: number;

  constructor(kernel: Kernel, blockSizeBytes: number) {
    this.#kernel = kernel;
    this.#blockSizeBytes = blockSizeBytes;
  }

  add(name: string, sizeBytes: number, { readOnly = false } = {}): MemoryExport {
    const volume = new MemoryVolume(this.#kernel, this.#blockSizeBytes);
    const address = this.#kernel.spawn(`volume ${name}`, mailboxes.volume, () => volume);
    const info = { name, uid: `uid of ${name}`, sizeBytes, readOnly, description: `about ${name}` };
    const contexts: ExportContext[] = [{ name: "base:allocation", source: { kind: "allocation" } }];
    const added = { info, volume, address, clients: new Set<Address<PoolNotice>>(), contexts };
    this.exports.push(added);
    return added;
  }

  /** Tells those who are attached. */
  tellClients(to: MemoryExport, notice: PoolNotice): void {
    for (const client of to.clients) this.#kernel.tell(client, notice);
    this.#kernel.run();
  }

  receive(message: PoolMessage): void {
    switch (message.type) {
      case "attach":
      case "describe":
      case "describeContexts":
        return this.#find(message.type, message.name, message.client);
      case "listExports":
        return this.#kernel.tell(message.client, {
          type: "exports",
          names: this.exports.map(({ info }) => info.name),
          descriptions: this.exports.map(({ info }) => info.description),
        });
      case "detach": {
        const left = this.exports.find(({ info }) => info.uid === message.uid);
        assert(left?.clients.delete(message.client) === true, "detached without being attached");
        return this.#kernel.tell(message.client, { type: "detached", uid: message.uid });
      }
      case "tick":
        for (const to of this.exports) this.#repeatSize(to);
        return;
      default:
        assert(false, "a memory pool only knows clients");
    }
  }

  /** Any notice at any time: what a real pool sends when a volume is resized. */
  #repeatSize(to: MemoryExport): void {
    const { uid, sizeBytes } = to.info;
    for (const client of to.clients) this.#kernel.tell(client, { type: "exportResized", uid, sizeBytes });
  }

  #find(
    question: "attach" | "describe" | "describeContexts",
    name: string,
    client: Address<PoolNotice>,
  ): void {
    const found = name === "" && this.exports.length === 1
      ? this.exports[0]
      : this.exports.find(({ info }) => info.name === name);
    if (found === undefined) {
      this.#kernel.tell(client, { type: "unknownExport", name, reason: "no such export" });
      return;
    }
    const { info, address, contexts } = found;
    const blockSizeBytes = this.#blockSizeBytes;
    if (question === "describeContexts") {
      return this.#kernel.tell(client, { type: "contexts", info, blockSizeBytes, contexts });
    }
    if (question === "describe") {
      return this.#kernel.tell(client, { type: "described", info, blockSizeBytes });
    }
    this.attachesEver += 1;
    found.clients.add(client);
    this.#kernel.tell(client, { type: "attached", info, volume: address, blockSizeBytes });
  }
}
