/**
 * AutoGrow: makes the data or the metadata larger by itself when it is nearly full (`serve --auto-grow`).
 *
 * It hears each measure of the space gauge (pool/space_gauge.ts), which also measures when a write finds no space. If a
 * device is as full as its rule says, or writes found none there, it gives the pool the command `grow`, as an operator would:
 * so it is one of the commands that go one at a time, and as safe in a crash (control/pool_growth.ts).
 *
 * Owns: the rules, whether a growth is under way, and for each device the reason why it cannot grow now, as it was logged.
 *
 * What it never does: grow beyond the rule's maximum; promise what the host has not, so the step must be free there, though
 * a sparse file would not use it at once. What keeps it from growing is said once. A growth that failed is tried again only
 * when the sizes have changed since, or there is clearly more room on the host.
 *
 * Failure policy: a growth that is refused changes nothing, and writes go on waiting or failing as without a rule.
 */
import { assert, unreachable } from "../../storage/base/assert.ts";
import { formatSize } from "../../storage/base/sizes.ts";
import type { Actor, Address, Message } from "../kernel/address.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { Steps } from "../kernel/task.ts";
import { autoGrowRoomBytes } from "../limits.ts";
import type { GaugeStub, SpaceMeasure, SpaceMeasured } from "../pool/gauge_messages.ts";
import { percentOf } from "../pool/space_gauge.ts";
import type { AdminResult, PoolSizes } from "./admin_command.ts";
import type { PoolStub } from "./pool_messages.ts";

/** The devices of a pool. Their rules are considered in the order in which they were given, and one device grows at a time. */
export type GrowingDevice = "metadata" | "data";

/** `--auto-grow DEVICE:AT%,STEP,MAX`. */
export interface AutoGrowRule {
  /** Which device grows. */
  readonly device: "data" | "metadata";
  /** Grow from so many percent on. */
  readonly atPercent: number;
  /** By how much at a time. */
  readonly stepBytes: number;
  /** Its size is never more than this. */
  readonly maxBytes: number;
}

/** From the task of a growth: it has ended. */
interface AutoGrown extends Message {
  readonly type: "autoGrown";
  readonly rule: AutoGrowRule;
  readonly result: AdminResult;
}

/** From the assembly, once: what carries out a growth, and what measures after it. */
interface ConnectGrowth extends Message {
  readonly type: "connectGrowth";
  readonly pool: PoolStub;
  readonly gauge: GaugeStub;
}

/** Every message that it takes. */
export type AutoGrowMessage = SpaceMeasured | AutoGrown | ConnectGrowth;

/** What a growth was refused under. */
interface RefusedGrowth {
  readonly dataBytes: number;
  readonly metadataBytes: number;
  readonly hostFreeBytes: number;
}

export class AutoGrow implements Actor<AutoGrowMessage> {
  readonly #kernel: Kernel;
  readonly #self: Address<AutoGrowMessage>;
  readonly #rules: readonly AutoGrowRule[];
  readonly #log: (sentence: string) => void;
  #peers: ConnectGrowth | undefined;
  /** The last measure; the one under which the growth under way began, while there is one. */
  #measure: SpaceMeasure | undefined;
  #isGrowing = false;
  readonly #refused = new Map<GrowingDevice, RefusedGrowth>();
  /** What was said last of each device, until it grows. */
  readonly #said = new Map<GrowingDevice, string>();

  constructor(
    kernel: Kernel,
    self: Address<AutoGrowMessage>,
    options: { readonly rules: readonly AutoGrowRule[]; log(sentence: string): void },
  ) {
    this.#kernel = kernel;
    this.#self = self;
    this.#rules = options.rules;
    this.#log = (sentence) => options.log(sentence);
  }

  receive(message: AutoGrowMessage): void {
    switch (message.type) {
      case "spaceMeasured":
        if (!this.#isGrowing) this.#consider(message.measure);
        return;
      case "autoGrown":
        return this.#grown(message);
      case "connectGrowth":
        this.#peers = message;
        return;
      default:
        return unreachable(message);
    }
  }

  #consider(measure: SpaceMeasure): void {
    this.#measure = measure;
    for (const rule of this.#rules) {
      const fill = measure[rule.device];
      const isDue = measure.space.lacking.includes(rule.device) || percentOf(fill) >= rule.atPercent;
      if (isDue && this.#grow(rule, measure)) return;
    }
  }

  /** Begins a growth. False if there can be none now. */
  #grow(rule: AutoGrowRule, measure: SpaceMeasure): boolean {
    const { device, stepBytes, maxBytes } = rule;
    const { totalBytes } = measure[device];
    const wantedBytes = Math.min(totalBytes + stepBytes, maxBytes);
    if (wantedBytes <= totalBytes) {
      this.#say(device, `it has the ${formatSize(maxBytes)} that --auto-grow allows`);
      return false;
    }
    const freeBytes = freeBytesOf(measure);
    if (freeBytes < wantedBytes - totalBytes) {
      this.#say(
        device,
        `it would grow by ${
          formatSize(wantedBytes - totalBytes)
        }, which the host does not have free. Make room there`,
      );
      return false;
    }
    const refused = this.#refused.get(device);
    if (refused !== undefined && !isOther(refused, measure)) return false;
    if (this.#peers === undefined) return false;
    assert(!this.#isGrowing, "one growth at a time");
    this.#isGrowing = true;
    this.#kernel.start("auto grow", growTask(this.#kernel, this.#self, this.#peers.pool, rule, wantedBytes));
    return true;
  }

  #grown({ rule: { device }, result }: AutoGrown): void {
    assert(this.#isGrowing, "a growth that ends has begun");
    this.#isGrowing = false;
    const measure = this.#measure;
    if (result.kind === "grown" && sizeIn(result.sizes, device) > sizeIn(result.before, device)) {
      this.#refused.delete(device);
      this.#said.delete(device);
      const [before, now] = [sizeIn(result.before, device), sizeIn(result.sizes, device)];
      this.#log(`The pool's ${device} has grown by itself: ${formatSize(before)} -> ${formatSize(now)}.`);
      // It may have to grow once more, and the other device may have been waiting for this one.
      this.#peers?.gauge.measureNow();
      return;
    }
    if (measure !== undefined) {
      this.#refused.set(device, {
        dataBytes: measure.data.totalBytes,
        metadataBytes: measure.metadata.totalBytes,
        hostFreeBytes: freeBytesOf(measure),
      });
    }
    this.#say(
      device,
      result.kind === "refused" ? result.reason.replace(/\.$/, "") : "the step is less than a block",
    );
  }

  #say(device: GrowingDevice, reason: string): void {
    const sentence = `The pool's ${device} is nearly full and does not grow by itself: ${reason}.`;
    if (this.#said.get(device) === sentence) return;
    this.#said.set(device, sentence);
    this.#log(sentence);
  }
}

function* growTask(
  kernel: Kernel,
  self: Address<AutoGrowMessage>,
  pool: PoolStub,
  rule: AutoGrowRule,
  wantedBytes: number,
): Steps<void> {
  const size = { bytes: wantedBytes, added: false };
  const isData = rule.device === "data";
  const result = yield* pool.admin({
    verb: "grow",
    data: isData ? size : null,
    metadata: isData ? null : size,
  });
  kernel.tell(self, { type: "autoGrown", rule, result });
}

function sizeIn(sizes: PoolSizes, device: GrowingDevice): number {
  return device === "data" ? sizes.data_total_bytes : sizes.metadata_total_bytes;
}

/** A host that does not tell is asked by trying. */
function freeBytesOf({ host }: SpaceMeasure): number {
  return host === undefined ? Infinity : host.totalBytes - host.usedBytes;
}

/** Whether what was refused may be possible now. */
function isOther(refused: RefusedGrowth, measure: SpaceMeasure): boolean {
  return refused.dataBytes !== measure.data.totalBytes ||
    refused.metadataBytes !== measure.metadata.totalBytes ||
    freeBytesOf(measure) >= refused.hostFreeBytes + autoGrowRoomBytes;
}
