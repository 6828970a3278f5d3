/** Makes the actors of one pool and wires them: devices, metadata, allocator, catalogue, pool, in this order. */
import type { Catalogue } from "../storage/catalogue.ts";
import type { DevicePort } from "../storage/device/port.ts";
import type { ThinMetadata } from "../storage/thin_metadata.ts";
import type { PoolPeers } from "./control/admin_peers.ts";
import { AutoGrow, type AutoGrowMessage, type AutoGrowRule } from "./control/auto_grow.ts";
import type { CounterName } from "./counters.ts";
import { BlockDevice } from "./pool/block_device.ts";
import { DeviceStub } from "./pool/device_messages.ts";
import { CatalogueJournal, type JournalPort, JournalStub } from "./control/catalogue_journal.ts";
import { DataAllocator } from "./pool/data_allocator.ts";
import { AllocatorStub } from "./pool/allocator_messages.ts";
import { spawnDataLocks } from "./pool/data_locks.ts";
import type { Address } from "./kernel/address.ts";
import { IntentJournal } from "./pool/intent_journal.ts";
import type { Kernel } from "./kernel/kernel.ts";
import { mailboxes } from "./mailboxes.ts";
import { FiguresStub } from "./control/figures_messages.ts";
import { UsageFigures } from "./control/usage_figures.ts";
import { Metadata } from "./pool/metadata.ts";
import { MetadataStub } from "./pool/metadata_messages.ts";
import { GaugeStub, type HostSpace } from "./pool/gauge_messages.ts";
import { SpaceGauge } from "./pool/space_gauge.ts";
import { PoolActor, type PoolOptions } from "./control/pool.ts";
import { PoolStub } from "./control/pool_messages.ts";
import { Refusals, type RefusalsMessage } from "./pool/refusals.ts";
import { type NoSpacePolicy, SpaceStub } from "./pool/space_messages.ts";
import { SpaceWatch } from "./pool/space_watch.ts";

/** Ports and content that the actors of a pool are made with. */
export interface PoolPorts extends PoolOptions {
  readonly catalogue: Catalogue;
  readonly journal: JournalPort;
  readonly data: DevicePort;
  readonly metadata: DevicePort;
  /** What becomes of writes without space; by default, they fail at once. */
  readonly noSpace?: NoSpacePolicy;
  /** Room of the host's file system for the data device; undefined if that is not known. */
  readonly hostSpace?: () => HostSpace | undefined;
  /** Measures how full the pool is, and warns and grows by itself; by default, it does so at each `status` only. */
  readonly guard?: SpaceGuard;
  /** Writes of zeroes to unmapped blocks leave them unmapped; by default they do not. */
  readonly detectsZeroes?: boolean;
  /** Opened on the metadata device's superblock, not loaded yet. */
  readonly engine: ThinMetadata;
  /** Without it no changes are recorded. */
  readonly intents?: IntentJournal;
}

/** What becomes of a pool that is nearly full. */
export interface SpaceGuard {
  /** Whole percents, ascending, from which on space is low. */
  readonly warnAtPercents: readonly number[];
  /** At most one of each device. */
  readonly autoGrow: readonly AutoGrowRule[];
}

/** Makes the actors. The pool works once `start` has been answered. */
export function assemblePool(kernel: Kernel, parts: PoolPorts): PoolStub {
  const refusals = kernel.spawn(
    "refusals",
    mailboxes.refusals,
    (self) => new Refusals(kernel, self, (sentence) => parts.log(sentence)),
  );
  const intents = parts.intents ?? new IntentJournal("this pool is not kept in files");
  const data = spawnDevice(kernel, "dataDevice", parts.data, intents, refusals);
  const metadataDevice = spawnDevice(kernel, "metadataDevice", parts.metadata, intents);
  const { engine, readOnly, detectsZeroes = false, countsByWalk = true } = parts;
  const metadata = new MetadataStub(
    kernel,
    kernel.spawn(
      "metadata",
      mailboxes.metadata,
      (self) => new Metadata(kernel, self, engine, { data, metadata: metadataDevice }, { readOnly, intents }),
    ),
  );
  const hostBytesMin = engine.geometry.blockSizeBytes;
  const space = spawnSpaceWatch(kernel, parts, { refusals, hostBytesMin });
  const { gauge, autoGrow } = spawnGauge(kernel, parts, { metadata, space });
  const dataLocks = spawnDataLocks(kernel);
  const allocation = { metadata, device: data, locks: dataLocks, refusals, space: space.address };
  const allocator = new AllocatorStub(
    kernel,
    kernel.spawn("allocator", mailboxes.allocator, (self) => new DataAllocator(kernel, self, allocation)),
  );
  const journal = new JournalStub(
    kernel.spawn(
      "catalogue journal",
      mailboxes.journal,
      (self) => new CatalogueJournal(kernel, self, parts.journal),
    ),
  );
  const walkPeers = { kernel, metadataDevice, readOnly, thin: { metadata } };
  const figures = new FiguresStub(
    kernel.spawn("usage figures", mailboxes.usageFigures, (self) => new UsageFigures(self, walkPeers)),
  );
  const count = (name: CounterName, amount?: number) => kernel.count(name, amount);
  const thin = { metadata, allocator, dataLocks, data, space, detectsZeroes, count };
  let peers: PoolPeers | undefined;
  const address = kernel.spawn("pool", mailboxes.pool, (self) => {
    const log = (sentence: string) => parts.log(sentence);
    peers = {
      kernel,
      pool: new PoolStub(kernel, self),
      journal,
      metadataDevice,
      figures,
      thin,
      gauge,
      readOnly,
      countsByWalk,
      log,
      refusals,
    };
    const isJournalLong = !readOnly && parts.journal.isLong(parts.catalogue.contentBytes);
    return new PoolActor(kernel, self, peers, { ...parts, isJournalLong });
  });
  kernel.tell(metadata.address, {
    type: "connect",
    allocator: allocator.address,
    pool: address,
    space: space.address,
  });
  kernel.tell(space.address, { type: "connectSpace", pool: address, gauge: gauge.address });
  const pool = new PoolStub(kernel, address);
  if (autoGrow !== undefined) kernel.tell(autoGrow, { type: "connectGrowth", pool, gauge });
  return pool;
}

function spawnDevice(
  kernel: Kernel,
  kind: "dataDevice" | "metadataDevice",
  port: DevicePort,
  intents: IntentJournal,
  refusals?: Address<RefusalsMessage>,
): DeviceStub {
  const name = kind === "dataDevice" ? "data device" : "metadata device";
  const address = kernel.spawn(
    name,
    mailboxes[kind],
    (self) => new BlockDevice(kernel, self, port, refusals, intents),
  );
  return new DeviceStub(address, port.local?.canDiscard ?? false, kernel.knobs);
}

function spawnSpaceWatch(
  kernel: Kernel,
  { noSpace = { kind: "error" }, hostSpace }: PoolPorts,
  peers: { readonly refusals: Address<RefusalsMessage>; readonly hostBytesMin: number },
): SpaceStub {
  const options = { policy: noSpace, hostFreeBytes: () => hostSpace?.()?.freeBytes, ...peers };
  const address = kernel.spawn(
    "space watch",
    mailboxes.spaceWatch,
    (self) => new SpaceWatch(kernel, self, options),
  );
  return new SpaceStub(kernel, address);
}

/** The gauge and, if there are rules, what grows by them. */
function spawnGauge(
  kernel: Kernel,
  { guard, hostSpace, ...parts }: PoolPorts,
  peers: { readonly metadata: MetadataStub; readonly space: SpaceStub },
): { readonly gauge: GaugeStub; readonly autoGrow: Address<AutoGrowMessage> | undefined } {
  const log = (sentence: string) => parts.log(sentence);
  const rules = guard?.autoGrow ?? [];
  const autoGrow = rules.length === 0
    ? undefined
    : kernel.spawn("auto grow", mailboxes.autoGrow, (self) => new AutoGrow(kernel, self, { rules, log }));
  const options = {
    ...peers,
    hostSpace: () => hostSpace?.(),
    warnAtPercents: guard?.warnAtPercents ?? [],
    isWatching: guard !== undefined,
    log,
    listener: autoGrow,
  };
  const address = kernel.spawn(
    "space gauge",
    mailboxes.spaceGauge,
    (self) => new SpaceGauge(kernel, self, options),
  );
  return { gauge: new GaugeStub(kernel, address), autoGrow };
}
