/**
 * Which messages may change places without any visible difference.
 *
 * Two messages to different actors commute: actors share no state (invariant I1 of actors/ARCHITECTURE.md), and what they send is held apart from the
 * order in which others send. One thing is shared: the intent journal, see {@linkcode meetInIntents}. For two messages to the same actor the actor's state decides, and this file says how. In
 * doubt they depend on each other, which costs schedules and misses none. "Commute" is meant up to the numbers of blocks
 * of the metadata and of tickets, which no client and no checker compares; and it includes which message causes an answer: if one
 * answer may be caused by either of two messages, they depend on each other.
 */
import type { BioDone } from "../../../actors/volume/bio.ts";
import type { Message } from "../../../actors/kernel/address.ts";
import type { Submit } from "../../../actors/volume/volume_messages.ts";

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

  /** Told of everything that is sent; true if a rule that was used before does not hold from now on. */
  isSurprisedBy(actor: string, message: Message): boolean {
    let isSurprised = false;
    for (const barred of barredBy(actor, message)) {
      if (this.#barred.has(barred)) continue;
      this.#barred.add(barred);
      isSurprised = true;
    }
    return isSurprised;
  }

  /** Whether the order in which the two are received may matter. */
  areDependent(a: Delivery, b: Delivery): boolean {
    // By name: in another schedule the same actor may have another address.
    const { actor } = a;
    if (actor !== b.actor) return this.#meetInIntents(a, b) || this.#meetInIntents(b, a);
    const hasBars = this.#barred.has(actor);
    if (
      actor === "metadata" && this.#barred.has(slices) && (mayRelease(a.message) || mayRelease(b.message))
    ) {
      return !(isLookUp(a.message) && isLookUp(b.message));
    }
    if (actor === "metadata" && hasBars && (isAnswerToLookUp(a, b) || isAnswerToLookUp(b, a))) return true;
    if (actor === "metadata" || actor === "allocator") {
      if (!this.#barred.has("allocator") && isSearchBesideCommit(a.message, b.message)) return false;
      return either(a.message, b.message, actor === "metadata" ? metadataConflict : allocatorConflict);
    }
    if (actor.endsWith(" device")) return deviceConflict(a.message, b.message);
    if (isRegion(actor)) return hasBars && lockConflict(a.message, b.message, actor.startsWith("region "));
    if (actor.startsWith("volume ")) return volumeConflict(a, b, hasBars);
    return true;
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
  if (isSlice(message)) barred.push(slices);
  if (message.type === "insert" || message.type === "removeRange") barred.push(records);
  return barred;
}

/** Stands for the changes in slices: the last of them lets a commit begin that waits for it. */
const slices = "slices";

function isSlice(message: Message): boolean {
  return (message as { readonly hasMore?: boolean }).hasMore === true;
}

function mayRelease({ type }: Message): boolean {
  return type === "change" || type === "revoke";
}

function isLookUp({ type }: Message): boolean {
  return type === "lookup" || type === "lookupRange";
}

/**
 * What another device lets go of may be shared until a commit has come to its end. The first device is the volume of
 * every scenario, which lets go of blocks that no other task writes. An insertion may give blocks beside its own another
 * time.
 */
function isAnswerToLookUp(a: Delivery, b: Delivery): boolean {
  const { type } = a.message;
  if (type !== "lookup" && type !== "lookupRange") return false;
  return mayFreeze(b.message) || b.message.type === "commitEnded" || b.message.type === "insert";
}

function letsGo(message: Message): boolean {
  if (message.type === "deleteSlice") return true;
  const { thin } = message as unknown as Fields;
  return (message.type === "insert" || message.type === "removeRange") && thin !== 1;
}

/**
 * Whether the message bars others. Shared locks alone never wait, so that their order shows nowhere. As long as nothing
 * stops a volume, the bios of different requests end without knowing of each other. As long as nothing was freed, a
 * commit frees nothing.
 */
function bars(actor: string, message: Message): boolean {
  if (isRegion(actor)) return !isShared(message) && message.type !== "unlock";
  if (actor.startsWith("volume ")) return message.type !== "submit" && message.type !== "bioDone";
  if (actor === "metadata") return letsGo(message);
  return actor === "allocator" && (message.type === "freed" || message.type === "reclaim");
}

/** Without anything freed: a commit gives a search for free blocks nothing to find. */
function isSearchBesideCommit(a: Message, b: Message): boolean {
  return (isSearch(a) && isCommit(b)) || (isSearch(b) && isCommit(a));
}

function isSearch({ type }: Message): boolean {
  return type === "findFree" || type === "found" || type === "allocate" || type === "keep" ||
    type === "giveBack";
}

function isCommit({ type }: Message): boolean {
  return type === "freeze" || type === "flushEnded" || type === "commitEnded" || type === "frozen" ||
    type === "durable";
}

/** A commit may wait for a flush to end, and freezes then. */
function mayFreeze({ type }: Message): boolean {
  return type === "freeze" || type === "flushEnded";
}

function isRegion(actor: string): boolean {
  return actor.startsWith("region ") || actor.startsWith("data region ");
}

function either(a: Message, b: Message, conflict: (a: Message, b: Message) => boolean): boolean {
  return conflict(a, b) || conflict(b, a);
}

/**
 * Cells of different blocks know nothing of each other, except that a range may wait for several of them: the last to be
 * released answers it. Of one cell, from the table at the head of lock_region.ts:
 *
 * - Shared locks are granted or wait whatever their order, since none bars another.
 * - Whether a shared lock enters is decided by the tasks that exclude, promote, or hold or await a range, and no release of a
 *   shared lock changes that for a later one: what it grants was waiting, and barred the late comer already.
 * - Readers neither bar an upgrade nor are barred by one, nor by its end as long as it is not promoted.
 *
 * Two releases depend on each other, since the last of them answers what waits. The second and third rule are for volumes:
 * in a data region a reader may overtake an exclusive lock that waits.
 */
function lockConflict(a: Message, b: Message, isVolume: boolean): boolean {
  if (a.type === "retireRegion" || b.type === "retireRegion") return true;
  const [from, to] = [rangeOf(a), rangeOf(b)];
  if (from.end <= to.begin || to.end <= from.begin) return isRelease(a) && isRelease(b);
  if (isShared(a) && isShared(b)) return false;
  if (!isVolume) return true;
  return !(passes(a, b) || passes(b, a));
}

interface LockFields {
  readonly access?: string;
  readonly held?: string;
}

function isShared(message: Message): boolean {
  return message.type === "lockBlock" && (message as LockFields).access !== "exclusive";
}

/** An upgrade gives up a shared hold. */
function isRelease({ type }: Message): boolean {
  return type === "unlock" || type === "unlockRange" || type === "upgrade";
}

/** The second and third rule. */
function passes(lock: Message, other: Message): boolean {
  if (!isShared(lock)) return false;
  const { held } = other as LockFields;
  if (held === "read" || held === "write") return true;
  return (lock as LockFields).access === "read" && (other.type === "upgrade" || held === "excludeWriters");
}

function rangeOf(message: Message): { readonly begin: number; readonly end: number } {
  const fields = message as unknown as Fields;
  if (fields.block !== undefined) return { begin: fields.block, end: fields.block + 1 };
  return { begin: fields.begin!, end: fields.end! };
}

/**
 * Lookups change nothing. Mappings of different blocks are different keys. A commit's request only starts a task: what is
 * in the commit is decided by the freeze. The end of a commit gives metadata blocks back, which no operation tells apart
 * from others here, where there are always some left; unless it failed, it stops nothing.
 */
function metadataConflict(a: Message, b: Message): boolean {
  switch (a.type) {
    case "lookup":
    case "lookupRange":
    case "askRuns":
    case "device":
      if (b.type === "change" || b.type === "deleteSlice") return true;
      return (b.type === "insert" || b.type === "removeRange") && mappingsMeet(a, b);
    case "insert":
    case "removeRange":
      if (b.type === "insert" || b.type === "removeRange") return mappingsMeet(a, b);
      if (hasFailed(b)) return true;
      return mayFreeze(b) || b.type === "findFree" || b.type === "change" || b.type === "deleteSlice";
    case "findFree":
      return mayFreeze(b) || b.type === "commitEnded" || b.type === "deleteSlice";
    case "change":
    case "deleteSlice":
      if (hasFailed(b)) return true;
      return mayFreeze(b) || b.type === a.type;
    case "commit":
      return b.type === "commit" || mayFreeze(b) || b.type === "commitEnded";
    case "freeze":
    case "flushEnded":
      return mayFreeze(b) || b.type === "commitEnded";
    case "commitEnded":
      return b.type === "commitEnded";
    case "facts":
      return b.type !== "lookup" && b.type !== "facts";
    case "grow":
    case "askGrowth":
    case "revoke":
    case "listThins":
    case "fetched":
    case "connect":
    case "holdCommit":
    case "releaseCommit":
    case "load":
    case "tick":
      return true;
    default:
      return false;
  }
}

/** A commit or a flush that ends so stops every change that comes later. */
function hasFailed(message: Message): boolean {
  return (message.type === "commitEnded" || message.type === "flushEnded") &&
    (message as { readonly failure?: string }).failure !== undefined;
}

/** A removal of one thin device's mapping may end the sharing of another's, so only whose blocks are apart commute. */
function mappingsMeet(a: Message, b: Message): boolean {
  const [from, to] = [mappingOf(a), mappingOf(b)];
  return from.begin < to.end && to.begin < from.end;
}

function mappingOf(message: Message): { readonly begin: number; readonly end: number } {
  const fields = message as unknown as Fields;
  if (message.type === "device") return { begin: 0, end: Infinity };
  if (fields.vblock !== undefined) return { begin: fields.vblock, end: fields.vblock + 1 };
  return { begin: fields.begin!, end: fields.end! };
}

/** What was freed or kept matters to what a search finds, and to reclaims; a lease is taken from what is in hand. */
function allocatorConflict(a: Message, b: Message): boolean {
  switch (a.type) {
    case "allocate":
      return b.type === "allocate" || b.type === "giveBack" || b.type === "found" || b.type === "passedDown";
    case "giveBack":
      return b.type === "giveBack" || b.type === "found" || b.type === "reclaim";
    case "keep":
      return b.type === "found" || (b.type === "allocate");
    case "freed":
      return b.type === "found" || b.type === "frozen" || b.type === "reclaim" || b.type === "passedDown";
    case "found":
      return true;
    case "frozen":
      return b.type === "frozen" || b.type === "durable" || b.type === "reclaim";
    case "durable":
      return b.type === "durable" || b.type === "passedDown" || b.type === "reclaim";
    case "passedDown":
    case "reclaim":
    case "notCommitted":
    case "geometry":
      return true;
    default:
      return b.type === "connect";
  }
}

/**
 * Operations on ranges apart commute, and reads do. A flush commutes with all of them: what it makes durable is not decided
 * by its place in the schedule but by what had been answered before it was asked (crashes.ts). Two flushes do not: it is the
 * first, or the second, that fails.
 */
function deviceConflict(a: Message, b: Message): boolean {
  if (isAboutSize(a) || isAboutSize(b)) return true;
  if (a.type === "flush" && b.type === "flush") return true;
  if (a.type === "flush" || b.type === "flush" || (a.type === "read" && b.type === "read")) return false;
  return touched(a).some((one) =>
    touched(b).some((other) =>
      (one.isWritten || other.isWritten) && one.begin < other.end && other.begin < one.end
    )
  );
}

function isAboutSize({ type }: Message): boolean {
  return type === "grow" || type === "growthEnded" || type === "deviceGeometry";
}

interface Touched {
  readonly begin: number;
  readonly end: number;
  readonly isWritten: boolean;
}

function touched(message: Message): Touched[] {
  const { offsetBytes, fromBytes, toBytes, lengthBytes } = message as unknown as Fields;
  if (message.type === "copy") {
    return [
      { begin: fromBytes!, end: fromBytes! + lengthBytes!, isWritten: false },
      { begin: toBytes!, end: toBytes! + lengthBytes!, isWritten: true },
    ];
  }
  const length = lengthBytes ?? (message as unknown as { buffer: Uint8Array }).buffer.length;
  return [{ begin: offsetBytes!, end: offsetBytes! + length, isWritten: message.type !== "read" }];
}

/**
 * Requests start their bios whatever their order, and bios end so; a suspension cuts between them. While one waits, the
 * last bio to end answers it; and the last of a request answers that. To the volume it is all the same whether a write
 * ends before a flush is asked for, but not to the contract: the flush must then keep it (crashes.ts).
 */
function volumeConflict(a: Delivery, b: Delivery, isStopped: boolean): boolean {
  if (bars(a.actor, a.message) || bars(b.actor, b.message)) return true;
  if (mayCover(a.message, b.message) || mayCover(b.message, a.message)) return true;
  if (a.message.type !== "bioDone" || b.message.type !== "bioDone") return false;
  return isStopped || a.request === b.request;
}

/** Whether it is a flush that is asked for and the end of something that it may have to keep. */
function mayCover(flush: Message, end: Message): boolean {
  if (flush.type !== "submit" || end.type !== "bioDone") return false;
  const { bio } = end as BioDone;
  return (flush as Submit).request.kind === "flush" && bio.kind !== "read" && bio.kind !== "flush";
}
