/** For tests: a data allocator by itself, with stand-ins for the metadata and the data device. */
import { geometryOf } from "../../storage/base/geometry.ts";
import { dblock } from "../../storage/base/ids.ts";
import type { DBlockRun } from "../../storage/block_set.ts";
import { DataAllocator } from "../../actors/pool/data_allocator.ts";
import { AllocatorStub } from "../../actors/pool/allocator_messages.ts";
import { type DataLocks, spawnDataLocks } from "../../actors/pool/data_locks.ts";
import { type FindFree, type MetadataMessage, MetadataStub } from "../../actors/pool/metadata_messages.ts";
import type { RefusalsMessage } from "../../actors/pool/refusals.ts";
import type { MaybeUnshared, SpaceCame } from "../../actors/pool/space_messages.ts";
import { Recorder, StandInDevice, startCollecting } from "./stand_ins.ts";
import { World } from "./world.ts";

/** Bytes of its data blocks. */
export const blockSizeBytes = 65536;

/** The runs of a few blocks. */
function runsOf(...blocks: number[]): DBlockRun[] {
  return blocks.map((block) => ({ begin: dblock(block), length: 1 }));
}

/** Metadata for the allocator: `free` are the data blocks that it does not count. Its other messages are recorded. */
class StandInMetadata extends Recorder<MetadataMessage> {
  readonly free: Set<number>;
  /** Searches are answered with what was free when they began, at `finish`. */
  holds = false;
  /** Searches fail. */
  fails = false;
  /** A search passes so many blocks at most. */
  passesMax = Infinity;
  /** Searches so far. */
  searches = 0;
  readonly #world: World;
  #dataBlocks = 0;
  readonly #held: (() => void)[] = [];

  constructor(world: World, dataBlocks: number) {
    super(world.kernel, "metadata");
    this.#world = world;
    this.free = new Set();
    this.grow(dataBlocks);
  }

  /** It has so many data blocks from now on; the new ones are free. */
  grow(dataBlocks: number): void {
    for (let block = this.#dataBlocks; block < dataBlocks; block += 1) this.free.add(block);
    this.#dataBlocks = dataBlocks;
  }

  override receive(message: MetadataMessage): void {
    if (message.type !== "findFree") return super.receive(message);
    const answer = this.#search(message);
    const end = () => this.#world.kernel.reply(message, answer);
    if (this.holds) this.#held.push(end);
    else end();
  }

  finish(): void {
    for (const end of this.#held.splice(0)) end();
    this.#world.runReady();
  }

  #search({ from }: FindFree): NonNullable<FindFree["reply"]> {
    this.searches += 1;
    if (this.fails) return { kind: "damaged", reason: "a fault of the test" };
    const next = Math.min(this.#dataBlocks, from + this.passesMax);
    const found = [...this.free].filter((block) => block >= from && block < next);
    return { kind: "free", runs: runsOf(...found), next: dblock(next) };
  }
}

/** An allocator by itself: a data device of so many blocks, all free at first. */
export class AllocatorBench {
  readonly world = new World();
  readonly #log: string[] = [];
  readonly metadata: StandInMetadata;
  readonly device: StandInDevice;
  readonly refusals = new Recorder<RefusalsMessage>(this.world.kernel, "refusals");
  readonly space = new Recorder<SpaceCame | MaybeUnshared>(this.world.kernel, "space watch");
  readonly locks: DataLocks;
  readonly stub: AllocatorStub;

  constructor(dataBlocks: number, canDiscard = true, isTold = true) {
    const { kernel } = this.world;
    this.metadata = new StandInMetadata(this.world, dataBlocks);
    this.device = new StandInDevice(kernel, "data", new Uint8Array(0), { log: this.#log, canDiscard });
    this.locks = spawnDataLocks(kernel);
    const pool = {
      metadata: new MetadataStub(kernel, this.metadata.address),
      device: this.device.stub,
      locks: this.locks,
      refusals: this.refusals.address,
      space: this.space.address,
    };
    const address = kernel.spawn("allocator", 10_000, (self) => new DataAllocator(kernel, self, pool));
    this.stub = new AllocatorStub(kernel, address as AllocatorStub["address"]);
    if (isTold) this.tellGeometry(dataBlocks);
  }

  /** Metadata has so many data blocks, durably, and the allocator is told. */
  grow(dataBlocks: number): void {
    this.metadata.grow(dataBlocks);
    this.tellGeometry(dataBlocks);
  }

  /** The allocator is told of so many data blocks. */
  tellGeometry(dataBlocks: number): void {
    const geometry = geometryOf({ blockSizeBytes, dataBlocks, metadataBlocks: 100 });
    this.world.kernel.tell(this.stub.address, { type: "geometry", geometry });
    this.world.runReady();
  }

  /** The block that is leased, or why there is none. */
  allocate(): number | string {
    const allocation = this.world.run(this.stub.allocate());
    return allocation.kind === "allocated" ? allocation.dblock : allocation.kind;
  }

  /** Leases so many blocks. */
  lease(count: number): (number | string)[] {
    return Array.from({ length: count }, () => this.allocate());
  }

  tell(type: "keep" | "giveBack" | "retire", block: number): void {
    this.world.kernel.tell(this.stub.address, { type, dblock: dblock(block) });
    this.world.runReady();
  }

  /** The block is mapped: it is kept, and metadata counts it. */
  map(block: number): void {
    this.metadata.free.delete(block);
    this.tell("keep", block);
  }

  /** The last mapping of the blocks is removed. */
  free(...blocks: number[]): void {
    for (const block of blocks) this.metadata.free.add(block);
    this.world.kernel.tell(this.stub.address, { type: "freed", runs: runsOf(...blocks) });
    this.world.runReady();
  }

  commit(step: "frozen" | "durable" | "notCommitted"): void {
    this.world.kernel.tell(this.stub.address, { type: step });
    this.world.runReady();
  }

  /** Asks for a reclaim. The answers so far are in what it returns. */
  reclaim(): boolean[] {
    const answers: boolean[] = [];
    startCollecting(this.world.kernel, this.stub.reclaim(), answers);
    this.world.runReady();
    return answers;
  }

  /** Answers the commit that the allocator asked for. */
  answerCommit(kind: "done" | "readOnly"): void {
    const request = this.metadata.take()[0];
    if (request?.type !== "commit") throw new Error(`no commit but ${request?.type}`);
    this.world.kernel.reply(request, { kind });
    this.world.runReady();
  }

  /** The blocks that were discarded since the last time. */
  discarded(): number[] {
    return this.#log.splice(0).map((line) => Number(line.split(" ")[2]) / blockSizeBytes);
  }

  /** A device of one block, which was mapped and has lost its last mapping. */
  static withFreedBlock(canDiscard = true): AllocatorBench {
    const bench = new AllocatorBench(1, canDiscard);
    bench.map(bench.allocate() as number);
    bench.free(0);
    return bench;
  }
}
