/** What a life of the server begins with, and what lives of one run share. */
import type { TraceRecorder } from "../../actors/kernel/trace.ts";
import type { Catalogue } from "../../storage/catalogue.ts";
import type { ThinMetadata } from "../../storage/thin_metadata.ts";
import type { RunLog } from "../crash/recording_device.ts";
import type { Random } from "../support/world.ts";
import type { IntentsLeft } from "./intent_file.ts";
import type { Life } from "./life.ts";
import type { Swarm } from "./swarm.ts";

/** What a life begins with. The bytes are its own from then on. */
export interface Beginning {
  readonly metadata: Uint8Array;
  readonly data: Uint8Array;
  readonly journal: string;
  /** Of the file of the intent journal. */
  readonly intents: IntentsLeft;
  /** A superblock that the intent journal is held against in place of the one that is there: a fault that runs must find. */
  readonly believed?: Uint8Array | undefined;
  /** Where what its devices do is recorded. */
  readonly log: RunLog;
}

/** What the actors of a pool share with nothing else, for rules that hold after each of their turns. */
export interface PoolParts {
  readonly engine: ThinMetadata;
  readonly catalogue: Catalogue;
}

/** What lives of one run share. */
export interface LifeWorld {
  readonly swarm: Swarm;
  /** Decides the schedule, and nothing else; another one from action to action. */
  readonly random: Random;
  /** Takes a number for everything that happens. */
  mix(value: number): void;
  newUid(): string;
  /** Called between any two turns of the actors. */
  turned(life: Life): void;
  /** Answers leave before their records are written: a fault that runs must find. */
  readonly forgetsIntents: boolean;
  /** Puts a fault into what a pool has opened: one that runs must find. */
  readonly breaks: ((parts: PoolParts) => void) | undefined;
  /** Keeps messages for a person, if the run is shown. */
  readonly trace: TraceRecorder | undefined;
}
