/** For tests: a metadata actor by itself, with its engine, and stand-ins for its devices and its peers. */
import { geometryOf } from "../../storage/base/geometry.ts";
import type { GeometryNotice } from "../../actors/pool/geometry_messages.ts";
import { IntentJournal } from "../../actors/pool/intent_journal.ts";
import { Metadata } from "../../actors/pool/metadata.ts";
import type { AllocatorNotice } from "../../actors/pool/commit_messages.ts";
import {
  type MetadataMessage,
  MetadataStub,
  type MetadataTrouble,
} from "../../actors/pool/metadata_messages.ts";
import type { Done, MetadataFailure } from "../../actors/pool/metadata_results.ts";
import type { SpaceCame, SpaceRefused } from "../../actors/pool/space_messages.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import { dblock, metadataBlockSizeBytes, thinId, vblock } from "../../storage/base/ids.ts";
import { ThinMetadata } from "../../storage/thin_metadata.ts";
import { MetadataDriver } from "./metadata_driver.ts";
import { Recorder, StandInDevice, startCollecting } from "./stand_ins.ts";
import { World } from "./world.ts";

type Answer = { readonly kind: string };

/** See the head of this file. */
export class MetadataBench {
  readonly world = new World();
  /** The operations of both devices, as they begin. */
  readonly log: string[] = [];
  readonly data = new StandInDevice(this.world.kernel, "data", new Uint8Array(0), { log: this.log });
  readonly device: StandInDevice;
  readonly allocator = new Recorder<AllocatorNotice>(this.world.kernel, "allocator");
  readonly pool = new Recorder<MetadataTrouble | GeometryNotice>(this.world.kernel, "pool");
  readonly space = new Recorder<SpaceCame | SpaceRefused>(this.world.kernel, "space watch");
  readonly engine: ThinMetadata;
  readonly stub: MetadataStub;

  constructor(
    driver: MetadataDriver,
    options: {
      readonly cacheBlocks?: number;
      readonly readOnly?: boolean;
      readonly intents?: IntentJournal;
    } = {},
  ) {
    const { kernel } = this.world;
    const { cacheBlocks = 1000, readOnly = false, intents = new IntentJournal("a test") } = options;
    this.device = new StandInDevice(kernel, "metadata", driver.image, { log: this.log });
    const superblock = driver.image.slice(0, metadataBlockSizeBytes);
    const deviceBlocks = driver.image.length / metadataBlockSizeBytes;
    this.engine = ThinMetadata.open(superblock, { cacheBlocks, deviceBlocks, readOnly });
    const devices = { data: this.data.stub, metadata: this.device.stub };
    const address = kernel.spawn<MetadataMessage>(
      "metadata",
      100_000,
      (self) => new Metadata(kernel, self, this.engine, devices, { readOnly, intents }),
    );
    this.stub = new MetadataStub(kernel, address);
    const peers = { allocator: this.allocator.address, pool: this.pool.address, space: this.space.address };
    kernel.tell(address, { type: "connect", ...peers });
    this.world.run(this.stub.load());
    this.log.length = 0;
    this.pool.take();
  }

  /** A pool in which thin 1 maps so many blocks, all of it on the device. */
  static withMapped(
    blocks: number,
    options: ConstructorParameters<typeof MetadataBench>[1] & { readonly metadataBlocks?: number } = {},
  ): MetadataBench {
    const driver = MetadataDriver.format(geometryOf({
      metadataBlocks: options.metadataBlocks ?? 512,
      dataBlocks: 40_000,
      blockSizeBytes: 65536,
    }));
    driver.run((engine) =>
      engine.change({ create: [thinId(1)], snapshots: [], tick: false, transactionId: 0n })
    );
    for (let at = 0; at < blocks; at += 1) {
      driver.run((engine) => engine.insert(thinId(1), vblock(at), dblock(at)));
    }
    driver.commit();
    return new MetadataBench(driver, options);
  }

  /** Asks, and lets happen what can. The answer is in what it returns, when there is one. */
  ask<A extends Answer>(steps: Steps<A>): A[] {
    const answers: A[] = [];
    startCollecting(this.world.kernel, steps, answers);
    this.world.runReady();
    return answers;
  }

  /** Maps block `at` of thin 1 to a data block of the same number. */
  insert(at: number): (Done | MetadataFailure)[] {
    return this.ask(this.stub.insert(thinId(1), vblock(at), dblock(at)));
  }

  /** Asks for a commit. */
  commit(): (Done | MetadataFailure)[] {
    return this.ask(this.stub.commit());
  }

  /** Ends so many operations of a device that are held, and lets happen what can. */
  finish(device: StandInDevice, count = Infinity): void {
    device.finish(count);
    this.world.runReady();
  }
}
