/** What the pool and admin tasks work with: actors, settings and the log. */
import type { FiguresStub } from "./figures_messages.ts";
import type { DeviceStub } from "../pool/device_messages.ts";
import type { JournalStub } from "./catalogue_journal.ts";
import type { GaugeStub } from "../pool/gauge_messages.ts";
import type { Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { PoolStub } from "./pool_messages.ts";
import type { RefusalsMessage } from "../pool/refusals.ts";
import type { Thin } from "../volume/remap.ts";

/** The actors that the pool and its tasks send requests to, and the settings that they share. */
export interface PoolPeers {
  readonly kernel: Kernel;
  readonly pool: PoolStub;
  readonly journal: JournalStub;
  readonly metadataDevice: DeviceStub;
  readonly figures: FiguresStub;
  /** The actors that the bios of every thin device send requests to. */
  readonly thin: Omit<Thin, "id" | "blockSizeBytes">;
  readonly gauge: GaugeStub;
  readonly readOnly: boolean;
  /** What volumes with a reserve map alone is counted by a walk, where it takes one (control/count_own.ts). */
  readonly countsByWalk: boolean;
  /** Told when something is refused for now. */
  readonly refusals: Address<RefusalsMessage>;
  /** One sentence for the operator. */
  log(sentence: string): void;
}

/** The same once the pool knows its geometry: from then on there are thin devices to work on. */
export interface AdminPeers extends PoolPeers {
  /** A thin device as its bios see it; the id differs. */
  readonly thin: Omit<Thin, "id">;
}
