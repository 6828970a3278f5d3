/**
 * A plain model of the engine: random operations, growth, commits, crashes, blocks that are missing or damaged when they
 * are first read. After every commit the image is recounted.
 */
import { Random } from "../support/world.ts";
import { geometryOf, type PoolBlocks, poolBlocksOf } from "../../storage/base/geometry.ts";
import { assert, assertEquals } from "@std/assert";
import { createSnapshots, createThin, MetadataDriver } from "../support/metadata_driver.ts";
import {
  assertImage,
  assertSharing,
  copied,
  type Devices,
  isMappedBeside,
  mappingsIn,
} from "./model_checks.ts";
import type { ModelOptions } from "./model_options.ts";
import {
  type DBlock,
  dblock,
  metadataBlockSizeBytes,
  type ThinId,
  thinId,
  type VBlock,
  vblock,
} from "../../storage/base/ids.ts";
import { MetadataFault, type ThinMetadata } from "../../storage/thin_metadata.ts";

/** See the head of this file. */
export class Model {
  readonly #random: Random;
  readonly #options: ModelOptions;
  readonly driver: MetadataDriver;
  #devices: Devices = new Map();
  #committed: Devices = new Map();
  /** What a commit under way holds, else what the last one held. */
  #frozen: Devices = new Map();
  /** Freed since the last durable commit: not to be given to a new mapping. */
  readonly #quarantine = new Set<number>();
  #cursor = dblock(0);
  refused = 0;
  grown = 0;
  commits = 0;
  /** What the superblock on the device says. */
  #committedSizes: PoolBlocks;
  /** Blocks found to be own though their mapping was old. */
  left = 0;
  greatestCount = 0;

  constructor(options: ModelOptions) {
    this.#options = options;
    this.#random = new Random(options.seed);
    const { metadataBlocks, dataBlocks } = options;
    const geometry = geometryOf({ metadataBlocks, dataBlocks, blockSizeBytes: 65536 });
    this.driver = MetadataDriver.format(geometry, options.cacheBlocks);
    this.driver.flipsNext = () => this.#random.chance(options.flips);
    this.#committedSizes = this.#sizes;
  }

  get #sizes(): PoolBlocks {
    const { dataBlocks, metadataBlocks } = this.driver.engine;
    return poolBlocksOf({ dataBlocks, metadataBlocks });
  }

  run(): void {
    for (let operation = 0; operation < this.#options.operations; operation++) this.#step();
    this.#commit();
    this.#compare();
  }

  /** Deletes every device, whatever the state of space; commits are allowed, giving up is not. */
  deleteEverything(): void {
    let tries = 0;
    for (const thin of this.#devices.keys()) {
      for (let isGone = false; !isGone;) {
        assert(tries++ < 2000, "deletion gets on");
        this.#try((engine) => {
          isGone = engine.deleteThin(thin, 16);
        });
      }
    }
    this.#devices.clear();
    this.#commit();
    this.#compare();
    assertEquals(this.driver.engine.dataFree, this.driver.engine.dataBlocks);
  }

  #step(): void {
    if (this.#devices.size > 0 && this.#random.chance(this.#options.churn)) {
      this.#snapshot();
      this.#delete();
    }
    if (this.#random.chance(this.#options.growth)) this.#grow();
    const dice = this.#random.below(100);
    if (this.#devices.size === 0 || dice < 3) this.#create();
    else if (dice < 8) this.#snapshot();
    else if (dice < 70) this.#write();
    else if (dice < 88) this.#discard();
    else if (dice < 91) this.#delete();
    else if (dice < 96) this.#commitMaybeCrash();
    else this.#lookUp();
    this.#takeFreed();
  }

  /** Runs an operation, with a commit if it was refused for want of space; true unless it was. */
  #try(operation: (engine: ThinMetadata) => void): boolean {
    if (this.#tryWithoutCommit(operation)) return true;
    this.refused++;
    this.#commit();
    return false;
  }

  /** Runs an operation; true unless it was refused for want of space, in which case nothing may have changed. */
  #tryWithoutCommit(operation: (engine: ThinMetadata) => void): boolean {
    try {
      this.driver.run(operation);
      return true;
    } catch (error) {
      if (!(error instanceof MetadataFault) || error.fault.kind !== "noMetadataSpace") throw error;
      return false;
    }
  }

  #anyDevice(): ThinId {
    return [...this.#devices.keys()][this.#random.below(this.#devices.size)]!;
  }

  #freshThin(): ThinId | undefined {
    if (this.#devices.size >= this.#options.devicesMax) return undefined;
    for (;;) {
      const thin = thinId(this.#random.below(2 * this.#options.devicesMax));
      if (!this.#devices.has(thin)) return thin;
    }
  }

  /** One device grows, or both; what would not fit is refused, and what is not refused fits. */
  #grow(): void {
    const by = () => this.#random.chance(0.5) ? this.#random.below(1 + this.#options.growthBlocksMax) : 0;
    const { dataBlocks, metadataBlocks } = this.#sizes;
    const wanted = poolBlocksOf({
      dataBlocks: dataBlocks + by(),
      metadataBlocks: metadataBlocks + Math.floor(by() / 8),
    });
    if (this.driver.engine.growth.refusal(wanted) !== undefined) {
      this.refused++;
      return;
    }
    const image = new Uint8Array(
      Math.max(wanted.metadataBlocks * metadataBlockSizeBytes, this.driver.image.length),
    );
    image.set(this.driver.image);
    this.driver.replaceImage(image);
    this.driver.run((engine) => engine.growth.growMetadata(wanted.metadataBlocks));
    this.driver.run((engine) => engine.growth.growData(wanted.dataBlocks));
    assertEquals(this.#sizes, wanted);
    this.grown++;
  }

  #create(): void {
    const thin = this.#freshThin();
    if (thin !== undefined && this.#try((engine) => createThin(engine, thin))) {
      this.#devices.set(thin, new Map());
    }
  }

  #snapshot(): void {
    const pairs: { thin: ThinId; origin: ThinId }[] = [];
    for (let count = 1 + this.#random.below(3); count > 0; count--) {
      const thin = this.#freshThin();
      if (thin === undefined || pairs.some((pair) => pair.thin === thin)) break;
      pairs.push({ thin, origin: this.#anyDevice() });
    }
    if (pairs.length === 0 || !this.#try((engine) => createSnapshots(engine, pairs, { tick: true }))) return;
    for (const { thin, origin } of pairs) this.#devices.set(thin, new Map(this.#devices.get(origin)!));
  }

  #allocate(): DBlock | undefined {
    for (let turn = 0; turn < 2; turn++) {
      while (this.#cursor < this.driver.engine.dataBlocks) {
        const { runs, next } = this.driver.run((engine) => engine.findFreeData(this.#cursor, 64));
        for (const { begin, length } of runs) {
          for (let block = begin; block < begin + length; block++) {
            if (this.#quarantine.has(block)) continue;
            this.#cursor = dblock(block + 1);
            return dblock(block);
          }
        }
        this.#cursor = next;
      }
      this.#cursor = dblock(this.#random.below(this.driver.engine.dataBlocks));
    }
    return undefined;
  }

  /** A run of writes, upwards, downwards or scattered; shared blocks are broken, old ones of its own made anew. */
  #write(): void {
    const thin = this.#anyDevice();
    const device = this.#devices.get(thin)!;
    const direction = this.#random.below(3) - 1;
    let at = this.#random.below(this.#options.vblocks);
    for (let count = 1 + this.#random.below(30); count > 0; count--) {
      const block = vblock(at);
      const mapping = this.driver.run((engine) => engine.lookup(thin, block));
      assertEquals(mapping.kind === "provisioned" ? mapping.dblock : undefined, device.get(block));
      if (mapping.kind === "unprovisioned" || mapping.shared) {
        const fresh = this.#allocate();
        if (fresh === undefined) return;
        if (!this.#try((engine) => engine.insert(thin, block, fresh))) return;
        device.set(block, fresh);
      } else {
        this.#assertUnshared(thin, block, mapping.dblock);
        if (mapping.isOld && !this.#insertAgain(thin, block, mapping.dblock)) return;
      }
      at = direction === 0 ? this.#random.below(this.#options.vblocks) : at + direction;
      if (at < 0 || at >= this.#options.vblocks) return;
    }
  }

  /**
   * What the engine calls unshared may be overwritten: no other device may map it, now or in a state that a crash can
   * bring back.
   */
  #assertUnshared(thin: ThinId, block: VBlock, mapped: DBlock): void {
    for (const devices of [this.#devices, this.#frozen, this.#committed]) {
      assert(!isMappedBeside(devices, thin, block, mapped), `block ${block} is not ${thin}'s alone`);
    }
  }

  /** Most writers of an old block of their own give it the present time. */
  #insertAgain(thin: ThinId, block: VBlock, mapped: DBlock): boolean {
    this.left++;
    return this.#random.chance(0.2) || this.#try((engine) => engine.insert(thin, block, mapped));
  }

  #discard(): void {
    const thin = this.#anyDevice();
    const device = this.#devices.get(thin)!;
    const begin = this.#random.below(this.#options.vblocks);
    const end = Math.min(
      this.#options.vblocks,
      begin + 1 + this.#random.below(this.#random.chance(0.2) ? 2000 : 100),
    );
    for (let at = begin; at < end;) {
      let next = at;
      let removedBlocks = 0;
      const isDone = this.#try((engine) => {
        ({ next, removedBlocks } = engine.removeRange(thin, vblock(at), vblock(end)));
      });
      if (!isDone) return;
      let removed = 0;
      for (let block = at; block < next; block++) if (device.delete(vblock(block))) removed++;
      assertEquals(removedBlocks, removed);
      at = next;
    }
  }

  #delete(): void {
    const thin = this.#anyDevice();
    const device = this.#devices.get(thin)!;
    for (let isGone = false; !isGone;) {
      const isDone = this.#try((engine) => {
        isGone = engine.deleteThin(thin, 1 + this.#random.below(4));
      });
      if (!isDone) return this.#forgetRemoved(thin, device);
      if (!isGone && this.#random.chance(0.1)) return this.#forgetRemoved(thin, device);
    }
    this.#devices.delete(thin);
  }

  /** A deletion stopped half-way: what is left is a prefix of the device. */
  #forgetRemoved(thin: ThinId, device: Map<VBlock, DBlock>): void {
    const left = this.driver.engine.device(thin)!.mappedBlocks;
    [...device.keys()].sort((a, b) => a - b).slice(left).forEach((block) => device.delete(block));
  }

  #lookUp(): void {
    const thin = this.#anyDevice();
    const device = this.#devices.get(thin)!;
    const begin = this.#random.below(this.#options.vblocks);
    const end = Math.min(this.#options.vblocks, begin + this.#random.below(3000));
    const found = mappingsIn(this.driver, thin, begin, end);
    for (let block = begin; block < end; block++) {
      assertEquals(found.get(vblock(block)), device.get(vblock(block)));
    }
    const highest = this.driver.run((engine) => engine.highestMapped(thin));
    assertEquals(highest, device.size === 0 ? undefined : vblock(Math.max(...device.keys())));
  }

  #commit(): void {
    this.driver.commit();
    this.#committedNow(this.#devices);
  }

  #committedNow(devices: Devices): void {
    this.commits++;
    this.#committedSizes = this.#sizes;
    this.#committed = copied(devices);
    this.#frozen = this.#committed;
    this.#quarantine.clear();
  }

  /** A commit with operations in its midst, or one that is cut off after some of its blocks. */
  #commitMaybeCrash(): void {
    const plan = this.driver.engine.beginCommit();
    const atCommit = copied(this.#devices);
    const sizes = this.#sizes;
    this.#frozen = atCommit;
    const frozen = plan.blocks.map(({ bytes }) => bytes.slice());
    // A block freed before this commit may be used after it; one freed during it only after the next.
    const before = new Set(this.#quarantine);
    for (let count = this.#random.below(4); count > 0; count--) {
      this.#random.chance(0.7) ? this.#writeOnly() : this.#discardOnly();
    }
    if (this.#random.chance(this.#options.growth)) this.#grow();
    plan.blocks.forEach(({ bytes }, index) => assertEquals(bytes, frozen[index], "a frozen block changed"));
    if (this.#random.chance(0.2)) {
      for (const { block, bytes } of plan.blocks) {
        if (this.#random.chance(0.5)) this.driver.image.set(bytes, block * metadataBlockSizeBytes);
      }
      this.driver.reopen();
      this.#frozen = this.#committed;
      this.#devices = copied(this.#committed);
      this.#quarantine.clear();
      this.#check(this.#devices);
      return;
    }
    this.driver.write(plan);
    this.driver.engine.commitDurable();
    this.commits++;
    this.#committedSizes = sizes;
    this.#committed = atCommit;
    for (const block of before) this.#quarantine.delete(block);
    this.#check(atCommit);
    if (this.#random.chance(0.1)) {
      this.driver.reopen();
      this.#devices = copied(this.#committed);
      this.#quarantine.clear();
    }
  }

  #writeOnly(): void {
    const before = this.refused;
    this.#writeWhileCommitting();
    assertEquals(this.refused, before);
  }

  /** One insertion that may not commit, since a commit is under way. */
  #writeWhileCommitting(): void {
    if (this.#devices.size === 0) return;
    const thin = this.#anyDevice();
    const block = vblock(this.#random.below(this.#options.vblocks));
    const mapping = this.driver.run((engine) => engine.lookup(thin, block));
    const own = mapping.kind === "provisioned" && !mapping.shared ? mapping : undefined;
    if (own !== undefined) {
      this.#assertUnshared(thin, block, own.dblock);
      if (!own.isOld) return;
      this.left++;
    }
    const fresh = own?.dblock ?? this.#allocate();
    if (fresh === undefined) return;
    if (!this.#tryWithoutCommit((engine) => engine.insert(thin, block, fresh))) return;
    this.#devices.get(thin)!.set(block, fresh);
    this.#takeFreed();
  }

  #discardOnly(): void {
    if (this.#devices.size === 0) return;
    const thin = this.#anyDevice();
    const begin = this.#random.below(this.#options.vblocks);
    let next = begin;
    const isDone = this.#tryWithoutCommit((engine) => {
      next = engine.removeRange(thin, vblock(begin), vblock(begin + 50)).next;
    });
    if (!isDone) return;
    for (let block = begin; block < next; block++) this.#devices.get(thin)!.delete(vblock(block));
    this.#takeFreed();
  }

  #takeFreed(): void {
    for (const run of this.driver.engine.takeFreed()) {
      for (let block = 0; block < run.length; block++) this.#quarantine.add(run.begin + block);
    }
  }

  #compare(): void {
    this.driver.reopen();
    this.#devices = copied(this.#committed);
    this.#check(this.#devices);
    assertSharing(this.driver, this.#devices);
  }

  /** The image on the device holds exactly these mappings, and its counts are right. */
  #check(devices: Devices): void {
    const counts = assertImage(this.driver.image, devices, this.#committedSizes);
    for (const count of counts) this.greatestCount = Math.max(this.greatestCount, count);
  }
}
