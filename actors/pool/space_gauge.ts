/**
 * SpaceGauge: how full the data, the metadata and the host's file system are, and a line of the log when one of them
 * crosses a threshold.
 *
 * A pool that is served is measured each second, whenever writes find no space, and at each `status`. So the log, `status`
 * and automatic growth (control/auto_grow.ts) go by the same numbers.
 *
 * Owns: the thresholds, and which of them each kind of space is above. One that was crossed is left only when the space is
 * `warnClearPercent` points below it: space that goes up and down around a threshold does not fill the log.
 *
 * Failure policy: none. What cannot be measured is left out.
 */
import { assert, unreachable } from "../../storage/base/assert.ts";
import { dataBytesOf, metadataBytesOf } from "../../storage/base/geometry.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { formatSize } from "../../storage/base/sizes.ts";
import type { Actor, Address } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { spaceGaugeMs, warnAtPercentsDefault, warnClearPercent, warnThresholdsMax } from "../limits.ts";
import {
  type Fill,
  type Gauge,
  GaugeStub,
  type HostSpace,
  type SpaceGaugeMessage,
  type SpaceMeasured,
} from "./gauge_messages.ts";
import type { Facts, MetadataStub } from "./metadata_messages.ts";
import { type SpaceNeed, spaceNeeds, type SpaceStub } from "./space_messages.ts";

/** What the gauge works with. */
export interface SpaceGaugeOptions {
  readonly metadata: MetadataStub;
  readonly space: SpaceStub;
  /** Undefined if it is not known. */
  hostSpace(): HostSpace | undefined;
  /** Whole percents, ascending, that the log tells of. With none, the default ones tell what is low. */
  readonly warnAtPercents: readonly number[];
  /** Whether it measures by itself. */
  readonly isWatching: boolean;
  /** One sentence for the operator. */
  log(sentence: string): void;
  /** Told of each measure. */
  readonly listener: Address<SpaceMeasured> | undefined;
}

export class SpaceGauge implements Actor<SpaceGaugeMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<SpaceGaugeMessage>;
  readonly #options: SpaceGaugeOptions;
  /** How many thresholds each kind of space has crossed and not left. */
  readonly #crossed: { [need in SpaceNeed]: number } = { data: 0, metadata: 0, host: 0 };
  #isMeasuring = false;
  /** Something has changed since the measure under way began. */
  #isAskedAgain = false;

  constructor(kernel: Kernel, self: Address<SpaceGaugeMessage>, options: SpaceGaugeOptions) {
    const { warnAtPercents } = options;
    assert(warnAtPercents.length <= warnThresholdsMax, "there are a few thresholds");
    assert(
      warnAtPercents.every((percent, at) => percent > (warnAtPercents[at - 1] ?? 0) && percent <= 100),
      "thresholds ascend, and are percents",
    );
    this.#kernel = kernel;
    this.#self = self;
    this.#options = options;
    if (options.isWatching) this.#armTick();
  }

  receive(message: SpaceGaugeMessage): void {
    switch (message.type) {
      case "gauge":
        return this.#gauge(message);
      case "measureNow":
        if (message.isTick) this.#armTick();
        return this.#measure();
      case "measureEnded":
        assert(this.#isMeasuring, "a measure that ends has begun");
        this.#isMeasuring = false;
        if (this.#isAskedAgain) this.#measure();
        return;
      default:
        return unreachable(message);
    }
  }

  #armTick(): void {
    this.#kernel.tellLater(spaceGaugeMs, this.#self, { type: "measureNow", isTick: true });
  }

  #measure(): void {
    if (!this.#options.isWatching) return;
    this.#isAskedAgain = this.#isMeasuring;
    if (this.#isMeasuring) return;
    this.#isMeasuring = true;
    this.#kernel.start("gauge space", measureTask(this.#kernel, this.#self, this.#options));
  }

  #gauge(message: Gauge): void {
    const { facts, space } = message;
    const host = this.#options.hostSpace();
    const measure = {
      data: dataFill(facts),
      metadata: metadataFill(facts, space.lacking.includes("metadata")),
      host: host === undefined
        ? undefined
        : { usedBytes: host.totalBytes - host.freeBytes, totalBytes: host.totalBytes },
      space,
    };
    for (const need of spaceNeeds) {
      const fill = measure[need];
      if (fill !== undefined) this.#meet(need, fill);
    }
    const low = spaceNeeds.filter((need) => this.#crossed[need] > 0);
    this.#kernel.reply(message, { measure, low });
    const { listener } = this.#options;
    if (listener !== undefined) this.#kernel.tell(listener, { type: "spaceMeasured", measure });
  }

  #meet(need: SpaceNeed, fill: Fill): void {
    const { warnAtPercents } = this.#options;
    const isLogged = warnAtPercents.length > 0;
    const percents = isLogged ? warnAtPercents : warnAtPercentsDefault;
    const percent = percentOf(fill);
    for (;;) {
      const next = percents[this.#crossed[need]];
      if (next === undefined || percent < next) break;
      this.#crossed[need] += 1;
      if (isLogged) {
        this.#options.log(`${nameOf[need]} is ${next} % full: ${fillText(fill)}. ${adviceOf[need]}`);
      }
    }
    for (;;) {
      const last = percents[this.#crossed[need] - 1];
      if (last === undefined || percent > last - warnClearPercent) break;
      this.#crossed[need] -= 1;
      if (isLogged) this.#options.log(`${nameOf[need]} is below ${last} % again: ${fillText(fill)}.`);
    }
  }
}

function* measureTask(
  kernel: Kernel,
  self: Address<SpaceGaugeMessage>,
  { metadata, space }: SpaceGaugeOptions,
): Steps<void> {
  const facts = yield* metadata.facts();
  yield* new GaugeStub(kernel, self).gauge(facts, yield* space.facts());
  kernel.tell(self, { type: "measureEnded" });
}

function dataFill({ geometry, dataFree }: Facts): Fill {
  const totalBytes = dataBytesOf(geometry);
  return { usedBytes: totalBytes - dataFree * geometry.blockSizeBytes, totalBytes };
}

/** An operation may have been refused that wanted more blocks than are left: then there is no space. */
function metadataFill({ geometry, metadataAvailable }: Facts, isLacking: boolean): Fill {
  const totalBytes = metadataBytesOf(geometry);
  return {
    usedBytes: isLacking ? totalBytes : totalBytes - metadataAvailable * metadataBlockSizeBytes,
    totalBytes,
  };
}

/** How full it is; what has no bytes is full. */
export function percentOf({ usedBytes, totalBytes }: Fill): number {
  return totalBytes === 0 ? 100 : 100 * usedBytes / totalBytes;
}

function fillText({ usedBytes, totalBytes }: Fill): string {
  return `${formatSize(usedBytes)} of ${formatSize(totalBytes)} are used`;
}

const nameOf: Readonly<Record<SpaceNeed, string>> = {
  data: "The pool's data",
  metadata: "The pool's metadata",
  host: "The host's file system under the data",
};

const adviceOf: Readonly<Record<SpaceNeed, string>> = {
  data: "Trim or remove something, or make the pool larger: `grow +SIZE`.",
  metadata: "Remove volumes or snapshots, or make the metadata larger: `grow --metadata +SIZE`.",
  host: "Make room there: when it is full, writes that need space wait or fail.",
};
