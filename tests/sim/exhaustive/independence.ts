/**
 * Which messages may change places without any visible difference.
 *
 * Two messages to different actors commute: actors share no state (invariant I1 of actors/ARCHITECTURE.md), and what they
 * send is held apart from the order in which others send. One thing is shared: the intent journal, see
 * {@linkcode meetInIntents}. For two messages to the same actor the actor's state decides: metadata_conflicts.ts,
 * resource_conflicts.ts and volume_conflicts.ts say how. In doubt they depend on each other, which costs schedules and misses
 * none. "Commute" is meant up to the numbers of blocks of the metadata and of tickets, which no client and no checker
 * compares; and it includes which message causes an answer: if one answer may be caused by either of two messages, they
 * depend on each other. commutation_test.ts tries all this.
 */
import type { Message } from "../../../actors/kernel/address.ts";
import { defaultKnobs } from "../../../actors/knobs.ts";
import type { BioDone } from "../../../actors/volume/bio.ts";
import {
  allocatorConflict,
  hasFailed,
  isLookUp,
  isSearchBesideCommit,
  mayFreeze,
  mayRelease,
  metadataConflict,
} from "./metadata_conflicts.ts";
import { deviceConflict, isOfBatch, isRegion, isShared, lockConflict } from "./resource_conflicts.ts";
import { poolConflict, spaceConflict, volumeConflict } from "./volume_conflicts.ts";

/** A message as the search sees it. `actor` is the receiver's name. */
export interface Delivery {
  readonly actor: string;
  readonly address: number;
  readonly message: Message;
  /** The number of the request that the message is about, if {@linkcode Run.requestOf} knows. */
  readonly request: number | undefined;
}

type Fields = Readonly<Record<string, number>>;

/**
 * What may change places as long as certain messages have not been sent: a rule that holds only without them is used until
 * the first of them is seen, and then the search must start again. So no rule rests on what the product should do.
 */
export class Independence {
  /** Actors that were sent something that others may have to wait for. */
  readonly #barred = new Set<string>();
  /** Asked for in this run. */
  #commits = 0;

  /** Told of everything that is sent; true if a rule that was used before does not hold from now on. */
  isSurprisedBy(actor: string, message: Message): boolean {
    let isSurprised = false;
    if (actor === "metadata" && message.type === "commit") this.#commits += 1;
    const many = this.#commits > defaultKnobs.flushesMax ? [manyFlushes] : [];
    for (const barred of [...many, ...barredBy(actor, message)]) {
      if (this.#barred.has(barred)) continue;
      this.#barred.add(barred);
      isSurprised = true;
    }
    return isSurprised;
  }

  /** A run begins: told before anything that is sent in it. */
  beginRun(): void {
    this.#commits = 0;
  }

  /** Whether the order in which the two are received may matter. */
  areDependent(a: Delivery, b: Delivery): boolean {
    // By name: in another schedule the same actor may have another address.
    const { actor } = a;
    if (actor !== b.actor) return this.#meetInIntents(a, b) || this.#meetInIntents(b, a);
    if (actor === "metadata") return this.#meetAtMetadata(a.message, b.message);
    if (actor === "allocator") {
      return !this.#isFreeSearch(a.message, b.message) && allocatorConflict(a.message, b.message);
    }
    if (actor.endsWith(" device")) return deviceConflict(a.message, b.message, this.#barred.has(failures));
    if (isRegion(actor)) {
      const hasRanges = this.#barred.has(rangesOf(actor));
      const isVolume = actor.startsWith("region ");
      return this.#barred.has(actor) && lockConflict(a.message, b.message, { isVolume, hasRanges });
    }
    if (actor.startsWith("volume ")) {
      return volumeConflict(a, b, this.#barred.has(actor));
    }
    if (actor === "space watch") return spaceConflict(a.message, b.message);
    if (actor === "pool") return poolConflict(a.message, b.message);
    // They only write to the log, which nothing reads.
    return actor !== "refusals" && actor !== "space gauge";
  }

  #meetAtMetadata(a: Message, b: Message): boolean {
    if (this.#barred.has(slices) && (mayRelease(a) || mayRelease(b))) return !(isLookUp(a) && isLookUp(b));
    if (this.#barred.has("metadata") && (isAnswerToLookUp(a, b) || isAnswerToLookUp(b, a))) return true;
    if (this.#isFreeSearch(a, b) || this.#isFreeFlush(a) || this.#isFreeFlush(b)) return false;
    return metadataConflict(a, b);
  }

  /** As long as nothing was freed, a commit gives a search nothing to find. */
  #isFreeSearch(a: Message, b: Message): boolean {
    return !this.#barred.has("allocator") && isSearchBesideCommit(a, b);
  }

  /**
   * As long as nothing is changed, commits are flushes that go beside each other; as long as there are not more of them than
   * may go at once, the end of one lets no other begin.
   */
  #isFreeFlush(message: Message): boolean {
    return message.type === "flushEnded" && !this.#barred.has(changes) && !this.#barred.has(manyFlushes) &&
      !this.#barred.has(failures);
  }

  /**
   * Whether it is an answer and a freeze, and the answer is that of a change which the intent journal records. An answer first
   * writes what was recorded; a freeze writes it too, and then begins the other segment. So which of them comes first decides
   * which of them writes it, and whether the answer is there before the next segment is. The answer to a flush, a read or a FUA
   * write writes no record of its own: the commit before it has frozen that. If it writes one of another request, that is as
   * if that one's answer had written it, which is searched on its own.
   */
  #meetInIntents(answer: Delivery, freeze: Delivery): boolean {
    if (!this.#barred.has(records) || !isAnswerToChange(answer) || freeze.actor !== "metadata") return false;
    return mayFreeze(freeze.message) || this.#barred.has(slices) && mayRelease(freeze.message);
  }
}

function isAnswerToChange({ actor, message }: Delivery): boolean {
  if (!actor.startsWith("volume ") || message.type !== "bioDone") return false;
  const { kind, request } = (message as BioDone).bio;
  return kind !== "read" && kind !== "flush" && request?.fua !== true;
}

/** Stands for the changes that the intent journal records. */
const records = "records";

/** What holds without it holds no more once such a message was sent. */
function barredBy(actor: string, message: Message): string[] {
  const barred = bars(actor, message) ? [actor] : [];
  if (message.type === "lockRange") barred.push(rangesOf(actor));
  if (isSlice(message)) barred.push(slices);
  if (message.type === "insert" || message.type === "removeRange") barred.push(records);
  if (actor === "metadata" && isChange(message)) barred.push(changes);
  if (hasFailed(message)) barred.push(failures);
  return barred;
}

/** Stands for the ranges that are locked in a region. */
function rangesOf(region: string): string {
  return `${region} ranges`;
}

/** Stands for whatever makes a commit more than a flush. */
const changes = "changes";

function isChange({ type }: Message): boolean {
  return ["insert", "removeRange", "change", "revoke", "deleteSlice", "grow"].includes(type);
}

/** Stands for more commits in one run than may flush at once. */
const manyFlushes = "many flushes";

/** Stands for a flush that failed. */
const failures = "failures";

/** Stands for the changes in slices: the last of them lets a commit begin that waits for it. */
const slices = "slices";

function isSlice(message: Message): boolean {
  return (message as { readonly hasMore?: boolean }).hasMore === true;
}

/**
 * What another device lets go of may be shared until a commit has come to its end. The first device is the volume of
 * every scenario, which lets go of blocks that no other task writes. An insertion may give blocks beside its own another
 * time.
 */
function isAnswerToLookUp(a: Message, b: Message): boolean {
  return isLookUp(a) && (mayFreeze(b) || b.type === "commitEnded" || b.type === "insert");
}

function letsGo(message: Message): boolean {
  if (message.type === "deleteSlice") return true;
  const { thin } = message as unknown as Fields;
  return (message.type === "insert" || message.type === "removeRange") && thin !== 1;
}

/**
 * Whether the message bars others. Shared locks alone never wait, so that their order shows nowhere. As long as nothing
 * suspends a volume, the bios of different requests end without knowing of each other. As long as nothing was freed, a
 * commit frees nothing.
 */
function bars(actor: string, message: Message): boolean {
  if (isRegion(actor)) return !isShared(message) && !isOfBatch(message) && message.type !== "unlock";
  if (actor.startsWith("volume ")) return message.type === "suspend";
  if (actor === "metadata") return letsGo(message);
  return actor === "allocator" && (message.type === "freed" || message.type === "reclaim");
}
