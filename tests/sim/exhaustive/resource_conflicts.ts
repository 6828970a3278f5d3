/** Which messages to lock regions and to devices do not commute. See independence.ts. */
import type { Message } from "../../../actors/kernel/address.ts";
import type { TransferAtOnce } from "../../../actors/pool/device_messages.ts";
import type { LockAtOnce } from "../../../actors/pool/region_locks.ts";

type Fields = Readonly<Record<string, number>>;

/** Whether the actor is a lock region: of a volume, or of data blocks. */
export function isRegion(actor: string): boolean {
  return actor.startsWith("region ") || actor.startsWith("data region ");
}

/**
 * Cells of different blocks know nothing of each other, except that a range may wait for several of them: the last to be
 * released answers it. So where no range is ever locked, releases commute too. Of one cell, from the table at the head of lock_region.ts:
 *
 * - Shared locks are granted or wait whatever their order, since none bars another.
 * - Whether a shared lock enters is decided by the tasks that exclude, promote, or hold or await a range, and no release of a
 *   shared lock changes that for a later one: what it grants was waiting, and barred the late comer already.
 * - Readers neither bar an upgrade nor are barred by one, nor by its end as long as it is not promoted.
 *
 * Two releases depend on each other, since the last of them answers what waits. The second and third rule are for volumes:
 * in a data region a reader may overtake an exclusive lock that waits.
 */
export function lockConflict(
  a: Message,
  b: Message,
  { isVolume, hasRanges }: { readonly isVolume: boolean; readonly hasRanges: boolean },
): boolean {
  if (a.type === "retireRegion" || b.type === "retireRegion") return true;
  const [from, to] = [rangeOf(a), rangeOf(b)];
  if (from.end <= to.begin || to.end <= from.begin) return hasRanges && isRelease(a) && isRelease(b);
  // What a batch gets depends on what others hold and wait for.
  if (isOfBatch(a) || isOfBatch(b)) return true;
  if (isShared(a) && isShared(b)) return false;
  if (!isVolume) return true;
  return !(passes(a, b) || passes(b, a));
}

interface LockFields {
  readonly access?: string;
  readonly held?: string;
}

export function isShared(message: Message): boolean {
  return message.type === "lockBlock" && (message as LockFields).access !== "exclusive";
}

/** The locks of a batch are shared ones. */
export function isOfBatch({ type }: Message): boolean {
  return type === "lockAtOnce" || type === "unlockTaken";
}

/** An upgrade gives up a shared hold. */
function isRelease({ type }: Message): boolean {
  return type === "unlock" || type === "unlockTaken" || type === "unlockRange" || type === "upgrade";
}

/** The second and third rule. */
function passes(lock: Message, other: Message): boolean {
  if (!isShared(lock)) return false;
  const { held } = other as LockFields;
  if (held === "read" || held === "write") return true;
  return (lock as LockFields).access === "read" && (other.type === "upgrade" || held === "excludeWriters");
}

function rangeOf(message: Message): { readonly begin: number; readonly end: number } {
  if (isOfBatch(message)) return rangeOfBlocks((message as LockAtOnce).blocks);
  const fields = message as unknown as Fields;
  if (fields.block !== undefined) return { begin: fields.block, end: fields.block + 1 };
  return { begin: fields.begin!, end: fields.end! };
}

/** From the first to the last of the blocks of a batch. */
export function rangeOfBlocks(
  blocks: readonly { readonly vblock: number }[],
): { begin: number; end: number } {
  const numbers = blocks.map(({ vblock }) => vblock);
  return { begin: Math.min(...numbers), end: Math.max(...numbers) + 1 };
}

/**
 * Operations on ranges apart commute, and reads do. A flush commutes with all of them: what it makes durable is not decided
 * by its place in the schedule but by what had been answered before it was asked (crashes.ts). Two flushes do as long as
 * none fails: then it is the first, or the second, that does.
 *
 * The devices of a scenario with a growth are as large as they will be, so that a growth changes nothing, and what the pool
 * uses of a device is only compared with its size.
 */
export function deviceConflict(a: Message, b: Message, flushFails: boolean): boolean {
  if (isAboutSize(a) || isAboutSize(b)) return a.type === b.type;
  if (a.type === "flush" && b.type === "flush") return flushFails;
  if (a.type === "flush" || b.type === "flush" || (a.type === "read" && b.type === "read")) return false;
  return touched(a).some((one) =>
    touched(b).some((other) =>
      (one.isWritten || other.isWritten) && one.begin < other.end && other.begin < one.end
    )
  );
}

function isAboutSize({ type }: Message): boolean {
  return type === "grow" || type === "deviceGeometry";
}

interface Touched {
  readonly begin: number;
  readonly end: number;
  readonly isWritten: boolean;
}

function touched(message: Message): Touched[] {
  if (message.type === "transferAtOnce") {
    return (message as TransferAtOnce).transfers.map(({ atBytes, target, lengthBytes }) => ({
      begin: atBytes,
      end: atBytes + lengthBytes,
      isWritten: target === undefined,
    }));
  }
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
