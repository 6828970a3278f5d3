/** Which messages to the metadata actor and to the allocator do not commute. See independence.ts, which says more on both. */
import type { Message } from "../../../actors/kernel/address.ts";

import type { LookupAtOnce } from "../../../actors/pool/metadata_messages.ts";
import { rangeOfBlocks } from "./resource_conflicts.ts";

type Fields = Readonly<Record<string, number>>;

/** Of two messages to the metadata actor. */
export function metadataConflict(a: Message, b: Message): boolean {
  return conflictAtMetadata(a, b) || conflictAtMetadata(b, a);
}

/** Of two messages to the allocator. */
export function allocatorConflict(a: Message, b: Message): boolean {
  return conflictAtAllocator(a, b) || conflictAtAllocator(b, a);
}

/**
 * Lookups change nothing. Mappings of different blocks are different keys. A commit's request only starts a task: what is
 * in the commit is decided by the freeze. The end of a commit gives metadata blocks back, which no operation tells apart
 * from others here, where there are always some left; unless it failed, it stops nothing. A growth makes space maps longer, behind
 * all blocks that are mapped.
 *
 * Of what `facts` answers, the tasks of these scenarios use the sizes, and what is owed to devices with a reserve. What
 * `askGrowth` answers is about the sizes, and about metadata blocks, of which there are always some left.
 */
function conflictAtMetadata(a: Message, b: Message): boolean {
  switch (a.type) {
    case "lookup":
    case "lookupAtOnce":
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
      return mayFreeze(b) || b.type === "commitEnded" || b.type === "deleteSlice" || b.type === "grow";
    case "change":
    case "deleteSlice":
      if (hasFailed(b)) return true;
      return mayFreeze(b) || b.type === "change" || b.type === "deleteSlice";
    case "grow":
      if (hasFailed(b) || mayFreeze(b)) return true;
      return b.type === "grow" || b.type === "change" || b.type === "deleteSlice";
    case "commit":
      return b.type === "commit" || mayFreeze(b) || b.type === "commitEnded";
    case "freeze":
    case "flushEnded":
      return mayFreeze(b) || b.type === "commitEnded";
    case "commitEnded":
      return b.type === "commitEnded";
    case "facts":
      return b.type === "grow" || b.type === "change";
    case "askGrowth":
      return b.type === "grow";
    case "holdCommit":
      return b.type === "holdCommit" || b.type === "releaseCommit" || b.type === "commitEnded";
    case "releaseCommit":
      return false;
    default:
      return true;
  }
}

/** A commit or a flush that ends so stops every change that comes later. */
export function hasFailed(message: Message): boolean {
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
  if (message.type === "lookupAtOnce") return rangeOfBlocks((message as LookupAtOnce).wanted);
  if (fields.vblock !== undefined) return { begin: fields.vblock, end: fields.vblock + 1 };
  return { begin: fields.begin!, end: fields.end! };
}

/** A commit may wait for a flush to end, and freezes then. */
export function mayFreeze({ type }: Message): boolean {
  return type === "freeze" || type === "flushEnded";
}

export function mayRelease({ type }: Message): boolean {
  return type === "change" || type === "revoke";
}

export function isLookUp({ type }: Message): boolean {
  return type === "lookup" || type === "lookupAtOnce" || type === "lookupRange";
}

/** Whether it is a search for free blocks and a commit. */
export function isSearchBesideCommit(a: Message, b: Message): boolean {
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

/**
 * What was freed matters to what a search finds, and to reclaims; a lease is taken from what is in hand. A reclaim waits for what
 * is in quarantine, where no lease is, and reclaims that wait together are answered together.
 */
function conflictAtAllocator(a: Message, b: Message): boolean {
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
    case "reclaim":
      return b.type !== "reclaim" && b.type !== "allocate" && b.type !== "keep";
    case "passedDown":
    case "notCommitted":
    case "geometry":
      return true;
    default:
      return b.type === "connect";
  }
}
