/**
 * World(seed): a pool with clients and an administrator who do things at random and at the same time, through several
 * lives with a crash after each. The same seed, with the same actions left out, gives the same run.
 */
import type { PoolSizes } from "../../actors/control/admin_command.ts";
import { metadataBlockSizeBytes, sectorSizeBytes } from "../../storage/base/ids.ts";
import type { TraceRecorder } from "../../actors/kernel/trace.ts";
import type { FoundVolume } from "../crash/recovery.ts";
import { Random } from "../support/world.ts";
import { Actions } from "./actions.ts";
import { type ForeignChange, ForeignWriter } from "./foreign_writer.ts";
import { Life } from "./life.ts";
import type { PoolParts } from "./life_world.ts";
import { AllowanceRules, checkOwed } from "./allowances.ts";
import { Oracle } from "./oracle.ts";
import { Platters } from "./platters.ts";
import { RefusalRule } from "./refusals.ts";
import { drawSwarm, type Swarm } from "./swarm.ts";
import { Violation } from "./violation.ts";

/** How a run is made. */
export interface RunOptions {
  /** Ordinals of actions that are left out. */
  readonly dropped?: ReadonlySet<number>;
  readonly trace?: TraceRecorder;
  /** Shown the metadata that each crash leaves. Must not change it. */
  readonly look?: (metadata: Uint8Array) => void;
  /** Opening believes what the host's memory shows, also where a flush has failed: a fault that runs must find. */
  readonly believesMemory?: boolean;
  /** Answers leave before the intent journal has their records: a fault that runs must find. */
  readonly forgetsIntents?: boolean;
  /** Puts a fault into each pool that was opened: one that runs must find. */
  readonly breaks?: (parts: PoolParts) => void;
  /** Without an intent journal and all that came after it, so that old seeds are the runs they were. */
  readonly isPlain?: boolean;
  /** Changes of the metadata by another program are overlooked: a fault that runs must find. */
  readonly overlooksForeign?: boolean;
}

/** What a run has come to. */
export interface RunResult {
  readonly seed: number;
  readonly crashes: number;
  readonly powerCuts: number;
  /** Opens that did changes of the intent journal again, to the end. */
  readonly replays: number;
  /** Opens that a crash ended in the midst of such a replay. */
  readonly replaysCut: number;
  /** Changes by another program between a kill and the next open, by kind. */
  readonly foreign: ReadonlyMap<ForeignChange, number>;
  /** Requests and commands answered. */
  readonly answers: number;
  /** How often what was answered with what. */
  readonly counts: ReadonlyMap<string, number>;
  /** Stands for everything that happened, in order. */
  readonly hash: number;
  readonly violation: string | undefined;
  /** What was done, with the ordinals by which it can be left out. */
  readonly actions: readonly { readonly ordinal: number; readonly text: string }[];
}

/** See the head of this file. */
export class World {
  readonly swarm: Swarm;
  readonly oracle: Oracle;
  /** Decides the schedule. What is done is decided by each action's own. */
  random: Random;
  readonly trace: TraceRecorder | undefined;
  /** What the last command that made the pool larger has promised. */
  grown: PoolSizes = { data_total_bytes: 0, metadata_total_bytes: 0 };
  #crashes = 0;
  #powerCuts = 0;
  #replays = 0;
  #replaysCut = 0;
  #hash = 0x811c9dc5;
  #uidLast = 0;
  readonly #seed: number;
  readonly #look: RunOptions["look"];
  readonly #believesMemory: boolean;
  readonly forgetsIntents: boolean;
  readonly breaks: RunOptions["breaks"];
  #rules: AllowanceRules | undefined;
  /** Of the life that has begun. */
  refusals: RefusalRule | undefined;
  readonly #platters: Platters;
  readonly #foreign: ForeignWriter;
  readonly #actions: Actions;

  constructor(seed: number, options: RunOptions = {}) {
    this.#seed = seed;
    this.swarm = drawSwarm(seed, options.isPlain);
    this.random = this.#randomOf(-1);
    this.trace = options.trace;
    this.#look = options.look;
    this.#believesMemory = options.believesMemory ?? false;
    this.forgetsIntents = options.forgetsIntents ?? false;
    this.breaks = options.breaks;
    this.oracle = new Oracle(this.swarm.blockSectors);
    this.#platters = new Platters(this.swarm);
    this.#foreign = new ForeignWriter(seed, options.overlooksForeign ?? false);
    this.#actions = new Actions(this, seed, options.dropped ?? new Set());
  }

  mix(value: number): void {
    this.#hash = Math.imul(this.#hash ^ value, 0x01000193);
  }

  /** A schedule of its own for what comes next: what was left out before does not change it. */
  reschedule(ordinal: number): void {
    this.random = this.#randomOf(ordinal);
  }

  #randomOf(ordinal: number): Random {
    return new Random(Math.imul(this.#seed, 0x85ebca6b) ^ Math.imul(ordinal + 2, 0x5eed_0d1b));
  }

  newUid(): string {
    this.#uidLast += 1;
    return `uid${this.#uidLast}`;
  }

  /** The whole run. It does not throw: what is wrong is in the result. */
  run(): RunResult {
    let violation: string | undefined;
    try {
      this.#live();
    } catch (error) {
      violation = error instanceof Violation ? error.message : describeError(error);
    }
    return {
      seed: this.#seed,
      crashes: this.#crashes,
      powerCuts: this.#powerCuts,
      replays: this.#replays,
      replaysCut: this.#replaysCut,
      foreign: this.#foreign.counts,
      answers: this.#actions.answers,
      counts: this.#actions.counts,
      hash: this.#hash >>> 0,
      violation,
      actions: this.#actions.done,
    };
  }

  #live(): void {
    let wasLossy = false;
    for (let number = 0; number <= this.swarm.lives; number += 1) {
      this.#cutReplay(number);
      this.reschedule(-2 - number);
      const life = this.#open(number);
      if (life === undefined) {
        wasLossy = this.#lastWasLossy;
        continue;
      }
      if (number > 0) wasLossy = this.#lastWasLossy;
      const survivor = this.#keepsIntents && !this.#isAnsweredLost ? "answered" : "flushed";
      // Where an intent journal is kept, an open has flushed both devices and replayed it.
      const isDurable = wasLossy || number === 0 || this.#keepsIntents;
      const found = life.look();
      const problem = this.oracle.crashed(found, isDurable, survivor);
      this.#isAnsweredLost = false;
      if (problem !== undefined) {
        const crash = this.#lastWasPowerCut ? "power cut" : "kill";
        throw new Violation(
          `after the ${crash}${this.#hasFailedFlush ? " and a failed flush" : ""}: ${problem}`,
        );
      }
      this.#checkUnmapped(found);
      this.checkOwed(life, true);
      this.#rules = new AllowanceRules(this.oracle.history, this.#foreign.counts.has("mapping"));
      this.refusals = new RefusalRule(life, this.oracle, this.swarm);
      this.#checkAlive(life);
      life.faults.isOn = true;
      life.fuse.operationsMax = life.fuse.count + this.random.below(this.swarm.operationsMax);
      this.#actions.perform(life, number);
      if (!life.isOver) this.#end(life, number);
      this.#checkAlive(life);
      if (life.host.refused.intents > 0 && life.keepsIntents) {
        throw new Violation("the host had no room for a record of the intent journal, and it is not void");
      }
      this.#crash(life);
    }
  }

  /** Where there may be something to replay, the crash of an open comes before that of the life. By a random source of its own. */
  #cutReplay(number: number): void {
    const random = this.#randomOf(-3000 - number);
    if (this.#lastWasPowerCut || this.#platters.intents.bytes.length === 0 || random.below(2) === 0) return;
    this.random = random;
    const life = this.#open(number, random.below(16));
    if (life !== undefined) this.#crash(life);
  }

  /** See {@linkcode AllowanceRules} and {@linkcode RefusalRule}. Only in a life that has begun. */
  turned(life: Life): void {
    if (this.swarm.allowancesPercent > 0) this.#rules?.check(life);
    this.refusals?.turned();
  }

  /** @param isFresh the pool has just been opened, so nothing but a removal can have made what is counted wrong since */
  checkOwed(life: Life, isFresh: boolean): void {
    if (this.swarm.allowancesPercent === 0 || life.isOver || life.faults.faults > 0) return;
    checkOwed(life, this.oracle.current.allowances, isFresh);
  }

  #checkUnmapped(found: readonly FoundVolume[]): void {
    const problem = this.swarm.detectsZeroes ? this.oracle.problemOfMapped(found) : undefined;
    if (problem !== undefined) throw new Violation(problem);
  }

  #lastWasPowerCut = false;
  /** A flush failed in the life before. */
  #hasFailedFlush = false;
  /** The crash may have lost what was not flushed. */
  #lastWasLossy = false;
  /** Since the pool was last open the power failed or a device did: only what was flushed is certain. */
  #isAnsweredLost = false;

  get #keepsIntents(): boolean {
    return this.swarm.intentSegmentBytes !== undefined;
  }

  /** Opens the pool as production does. Undefined if that was interrupted by the next crash. */
  #open(number: number, operationsMax?: number): Life | undefined {
    const platters = this.#platters;
    const random = this.#randomOf(-1000 - number);
    // Without the C library it cannot; then needs_check has the operator restart the host after a flush that failed.
    const sees = this.#hasFailedFlush ? !this.#believesMemory : random.below(2) === 0;
    if (sees) platters.seeDisks(this.swarm, random);
    platters.check(this.random.below(32) === 0);
    this.#look?.(platters.metadata);
    this.#checkSizes();
    platters.clearNeedsCheck();
    platters.flush("metadata");
    if (this.#keepsIntents) platters.flush("data");
    platters.settle();
    const { metadata, data, journal, intents, log } = platters;
    const { believed } = this.#foreign;
    const life = new Life({ metadata, data, journal, intents, log, believed }, this);
    const isCrashedEarly = this.random.below(10) === 0;
    if (isCrashedEarly) life.fuse.operationsMax = this.random.below(this.#keepsIntents ? 30 : 12);
    if (operationsMax !== undefined) life.fuse.operationsMax = operationsMax;
    life.faults.isOn = this.random.below(10) === 0;
    const answers: string[] = [];
    life.start((result) => answers.push(result.kind === "refused" ? result.reason : result.kind));
    life.drain();
    life.faults.isOn = false;
    this.#checkAlive(life);
    const isOpen = answers[0] === "done";
    if (life.replayed === "replayed") this.#replays += 1;
    if (life.hasIntents && life.replayed === undefined && life.fuse.isBlown) this.#replaysCut += 1;
    if (!isOpen && !life.fuse.isBlown && life.faults.faults === 0) {
      throw new Violation(`the pool does not open: ${answers[0] ?? life.kernel.tasksInFlight().join("; ")}`);
    }
    if (isOpen && !life.fuse.isBlown && life.faults.faults === 0) {
      const problem = this.#foreign.problemOf(life);
      if (problem !== undefined) throw new Violation(problem);
      life.fuse.operationsMax = Infinity;
      return life;
    }
    this.#foreign.openInterrupted(life);
    this.#crash(life);
    return undefined;
  }

  /** A pool that has grown has at least that size after any crash. */
  #checkSizes(): void {
    const { dataSpaceMap, metadataSpaceMap, dataBlockSizeSectors } = this.#platters.superblock();
    const dataBytes = dataSpaceMap.blocks * dataBlockSizeSectors * sectorSizeBytes;
    const { data_total_bytes, metadata_total_bytes } = this.grown;
    if (
      dataBytes < data_total_bytes || metadataSpaceMap.blocks * metadataBlockSizeBytes < metadata_total_bytes
    ) {
      throw new Violation(
        `a growth was lost: ${dataBytes} bytes of data, ${metadataSpaceMap.blocks} metadata blocks`,
      );
    }
  }

  /** Without faults everything ends, and then nobody holds anything. */
  #end(life: Life, number: number): void {
    const isLast = number === this.swarm.lives;
    if (!isLast && this.random.below(3) > 0) return;
    life.faults.isOn = false;
    life.fuse.operationsMax = Infinity;
    life.drain();
    life.host.isFull = false;
    this.#actions.checkIdle(life);
    if (isLast || this.random.below(4) === 0) this.#actions.checkNothingHeld(life);
  }

  #crash(life: Life): void {
    life.fuse.blow();
    this.#rules = this.refusals = undefined;
    this.#crashes += 1;
    this.#hasFailedFlush = life.faults.hasFailedFlush;
    // What only the host's memory has after that is rare enough to be looked for.
    const killsPercent = this.#hasFailedFlush ? 70 : this.swarm.killsPercent;
    this.#lastWasPowerCut = this.random.below(100) >= killsPercent;
    this.#lastWasLossy = this.#lastWasPowerCut || this.#hasFailedFlush;
    const isJournalLost = life.intentFile === undefined || life.host.refused.intents > 0;
    this.#isAnsweredLost ||= this.#lastWasPowerCut || life.faults.faults > 0 || isJournalLost;
    if (this.#lastWasPowerCut) {
      this.#powerCuts += 1;
      this.#platters.cutPower(life, this.swarm, this.random);
    } else {
      if (this.random.below(2) === 0) life.deliverSent();
      this.#platters.kill(life);
      // What a fault leaves is for a server or a check to settle first.
      const isSettled = this.#keepsIntents && life.faults.faults === 0;
      if (isSettled && this.#foreign.write(this.#platters, this.oracle)) this.#isAnsweredLost = true;
    }
    this.mix(0xc4a5 + (this.#lastWasPowerCut ? 1 : 0));
  }

  #checkAlive(life: Life): void {
    if (life.defect instanceof Violation) throw life.defect;
    if (life.defect !== undefined) throw new Violation(`a defect: ${describeError(life.defect)}`);
  }
}

function describeError(error: unknown): string {
  return error instanceof Error ? error.stack ?? error.message : String(error);
}
