/**
 * UsageFigures: what each volume owns alone, counted by one walk for all that ask.
 *
 * Counting reads the mapping trees: 1.7 s for 16 million mappings. So figures are kept, by family: two volumes of different
 * families share no block, and so those of a family are right until one of its devices changes (storage/families.ts).
 *
 * Owns: the last figures of each family, the walk under way, and the commands that wait for figures. A command that finds the
 * walk under way waits for its end. What it asked for and did not get is in the next walk, with what all others asked for
 * meanwhile.
 *
 * Failure policy: damage that a walk meets is the answer to all that wait for it, and the last figures stay.
 */
import { assert, unreachable } from "../../storage/base/assert.ts";
import { type ThinId } from "../../storage/base/ids.ts";
import type { FamilyKey } from "../../storage/families.ts";
import { isDamaged } from "../../storage/metadata_scan.ts";
import { SliceEnd } from "../../storage/slices.ts";
import { type DeviceUsage, deviceUsage } from "../../storage/usage.ts";
import {
  type CountFamilies,
  type FamilyFigures,
  type FamilyNow,
  type Figures,
  type FiguresMessage,
  FiguresStub,
  isOfNow,
  type StopFigures,
  type WalkEnded,
} from "./figures_messages.ts";
import { commitFirst, readerOfCommit, readHeldBlock, type WalkPeers } from "./held_walk.ts";
import type { Actor, Address } from "../kernel/address.ts";
import { rest, type Steps } from "../kernel/task.ts";
import type { Timer } from "../kernel/timers.ts";
import { volumesMax } from "../limits.ts";

/** A command that waits for figures. */
interface Asker {
  readonly request: CountFamilies;
  readonly number: number;
  timer: Timer | undefined;
  /** The walk under way was begun for it too. */
  isInWalk: boolean;
}

export class UsageFigures implements Actor<FiguresMessage> {
  readonly #peers: WalkPeers;
  readonly #self: Address<FiguresMessage>;
  /** Replaced, not changed. */
  #last: Figures = new Map();
  /** In the order in which they came; at most as many as commands look at once. */
  #askers: Asker[] = [];
  #askerLast = 0;
  #isWalking = false;
  #isStopping = false;
  #stop: StopFigures | undefined;

  constructor(self: Address<FiguresMessage>, peers: WalkPeers) {
    this.#self = self;
    this.#peers = peers;
  }

  receive(message: FiguresMessage): void {
    const { kernel } = this.#peers;
    switch (message.type) {
      case "figures":
        return kernel.reply(message, this.#last);
      case "countFamilies":
        return this.#ask(message);
      case "waitEnded":
        return this.#waitEnded(message.asker);
      case "goOn":
        return kernel.reply(message, !this.#isStopping);
      case "walkEnded":
        return this.#walkEnded(message);
      case "stopFigures":
        assert(this.#stop === undefined, "a pool is stopped once");
        this.#stop = message;
        this.#isStopping = true;
        return this.#stopIfIdle();
      default:
        return unreachable(message);
    }
  }

  #ask(request: CountFamilies): void {
    this.#askerLast += 1;
    const number = this.#askerLast;
    const timer = request.waitMs === undefined
      ? undefined
      : this.#peers.kernel.tellLater(request.waitMs, this.#self, { type: "waitEnded", asker: number });
    this.#askers.push({ request, number, timer, isInWalk: false });
    assert(
      this.#askers.length <= this.#peers.kernel.knobs.looksMax,
      "only commands that look ask for figures",
    );
    this.#walkIfIdle();
  }

  #walkIfIdle(): void {
    if (this.#isWalking || this.#isStopping || this.#askers.length === 0) return;
    const families = new Map<FamilyKey, FamilyNow>();
    let isDeleting = false;
    for (const asker of this.#askers) {
      asker.isInWalk = true;
      isDeleting ||= asker.request.isDeleting;
      // Where two askers name the same family, the later one knows its present devices.
      for (const family of asker.request.families) families.set(family.key, family);
    }
    this.#isWalking = true;
    const walk = { families: [...families.values()], isDeleting };
    this.#peers.kernel.start("count figures", walkTask(this.#peers, new FiguresStub(this.#self), walk));
  }

  #walkEnded({ counted }: WalkEnded): void {
    assert(this.#isWalking, "a walk ended that had not begun");
    this.#isWalking = false;
    const isCounted = counted !== undefined && !isDamaged(counted);
    if (isCounted) this.#keep(counted);
    const isServed = ({ isInWalk, request }: Asker) =>
      isInWalk || request.families.every((family) => isOfNow(this.#last.get(family.key), family));
    const served = this.#askers.filter(isServed);
    this.#askers = this.#askers.filter((asker) => !served.includes(asker));
    for (const asker of served) {
      this.#answer(
        asker,
        counted !== undefined && isDamaged(counted) ? counted : {
          kind: isCounted ? "counted" : "notYet",
          figures: this.#last,
        },
      );
    }
    this.#walkIfIdle();
    this.#stopIfIdle();
  }

  /** If figures of more than `volumesMax` families are kept, some are of families that are gone: then only the new ones stay. */
  #keep(counted: Figures): void {
    const last = new Map(this.#last.size > volumesMax ? [] : this.#last);
    for (const [key, figures] of counted) last.set(key, figures);
    this.#last = last;
  }

  #waitEnded(number: number): void {
    const asker = this.#askers.find((asker) => asker.number === number);
    if (asker === undefined) return;
    this.#askers = this.#askers.filter((other) => other !== asker);
    asker.timer = undefined;
    this.#answer(asker, { kind: "notYet", figures: this.#last });
  }

  #answer({ request, timer }: Asker, answer: NonNullable<CountFamilies["reply"]>): void {
    if (timer !== undefined) this.#peers.kernel.cancelTimer(timer);
    this.#peers.kernel.reply(request, answer);
  }

  #stopIfIdle(): void {
    if (this.#stop === undefined || this.#isWalking) return;
    assert(this.#askers.length === 0, "a pool is stopped when no command looks any more");
    this.#peers.kernel.reply(this.#stop, "stopped");
    this.#stop = undefined;
  }
}

/** What one walk counts. */
interface WalkWanted {
  readonly families: readonly FamilyNow[];
  readonly isDeleting: boolean;
}

/** Counts what is wanted, as of a commit that begins now, and tells the actor. */
function* walkTask(peers: WalkPeers, figures: FiguresStub, wanted: WalkWanted): Steps<void> {
  const counted = yield* walk(peers, figures, wanted);
  peers.kernel.tell(figures.address, { type: "walkEnded", counted });
}

function* walk(
  peers: WalkPeers,
  figures: FiguresStub,
  { families, isDeleting }: WalkWanted,
): Steps<WalkEnded["counted"]> {
  const only = new Set<ThinId>();
  const end = new SliceEnd(peers.kernel.knobs.sliceRecords);
  for (const { thins } of families) {
    for (const thin of thins) {
      if (end.isDue()) yield* rest();
      only.add(thin);
    }
  }
  yield* commitFirst(peers);
  const reader = yield* readerOfCommit(peers);
  const countedMs = peers.kernel.clock.now();
  const scan = deviceUsage({ only, recount: isDeleting });
  const blocks = new SliceEnd(peers.kernel.knobs.blocksPerRest);
  let step = scan.next();
  while (!step.done) {
    // Other turns go first then.
    if (blocks.isDue()) {
      yield* rest();
      if (!(yield* figures.goOn())) break;
    }
    step = scan.next(yield* readHeldBlock(peers, reader, step.value));
  }
  peers.thin.metadata.releaseCommit(reader.hold);
  if (!step.done) return undefined;
  if (step.value.kind !== "usage") return step.value;
  const byThin = new Map<ThinId, DeviceUsage>();
  for (const device of step.value.devices) {
    if (end.isDue()) yield* rest();
    byThin.set(device.thinId, device);
  }
  const counted = new Map<FamilyKey, FamilyFigures>();
  for (const { key, thins } of families) {
    const devices = new Map<ThinId, DeviceUsage>();
    for (const thin of thins) {
      if (end.isDue()) yield* rest();
      const usage = byThin.get(thin);
      if (usage !== undefined) devices.set(thin, usage);
    }
    counted.set(key, { transaction: reader.transaction, countedMs, members: new Set(thins), devices });
  }
  return counted;
}
