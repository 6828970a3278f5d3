/** Which messages to a volume, to the space watch and to the pool do not commute. See independence.ts. */
import type { Message } from "../../../actors/kernel/address.ts";
import type { BatchDone, BioDone, BioWithoutSpace } from "../../../actors/volume/bio.ts";
import type { BioUnparked } from "../../../actors/pool/space_messages.ts";
import type { Submit } from "../../../actors/volume/volume_messages.ts";

/** A message to a volume, and the request that it is about. */
interface VolumeDelivery {
  readonly message: Message;
  readonly request: number | undefined;
}

/**
 * Requests start their bios whatever their order, and bios end so; the last of a request answers that. A suspension cuts
 * between them: requests that come before its end wait in order, and the last bio in flight answers it. Flushes are not among
 * those: a flush that ends changes nothing but its own request. To the volume it is all the same whether a write ends before
 * a flush is asked for, but not to the contract: the flush must then keep it (crashes.ts).
 *
 * A bio that is parked is not in flight either. All that are parked are tried again at once, as they are fewer than
 * `parkedRetriesMax`, so no end of a bio lets another be tried, and none that is being tried meets another retry. Bios are
 * tried in the order in which they were parked.
 */
export function volumeConflict(a: VolumeDelivery, b: VolumeDelivery, isSuspended: boolean): boolean {
  return conflictAtVolume(a, b, isSuspended) || conflictAtVolume(b, a, isSuspended);
}

function conflictAtVolume(a: VolumeDelivery, b: VolumeDelivery, isSuspended: boolean): boolean {
  switch (a.message.type) {
    case "submit":
      if (b.message.type === "submit") return isSuspended;
      return mayCover(a.message, b.message);
    case "batchDone":
      if (b.message.type === "submit") return false;
      if (b.message.type !== "bioDone" && b.message.type !== "batchDone") return true;
      return isSuspended && !isFlush(b.message) ||
        requestsOf(a.message).some((one) => requestsOf(b.message).includes(one));
    case "bioDone":
      if (b.message.type !== "bioDone" && b.message.type !== "bioWithoutSpace") return false;
      if (a.request === b.request) return true;
      return isSuspended && !isFlush(a.message) && !isFlush(b.message);
    case "bioWithoutSpace":
      return b.message.type !== "submit" && b.message.type !== "bioDone";
    case "retryParked":
      return b.message.type !== "submit" && b.message.type !== "bioDone";
    case "suspend":
    case "resume":
      return b.message.type !== "bioDone" || !isFlush(b.message);
    default:
      return true;
  }
}

function isFlush(message: Message): boolean {
  return message.type !== "batchDone" && (message as BioDone | BioWithoutSpace).bio.kind === "flush";
}

function requestsOf(message: Message): unknown[] {
  const bios = message.type === "batchDone" ? (message as BatchDone).bios : [(message as BioDone).bio];
  return bios.map(({ request }) => request);
}

/** Whether it is a flush that is asked for and the end of something that it may have to keep. */
function mayCover(flush: Message, end: Message): boolean {
  if (flush.type !== "submit" || (end.type !== "bioDone" && end.type !== "batchDone")) return false;
  if (!(flush as Submit).requests.some(({ kind }) => kind === "flush")) return false;
  if (end.type === "batchDone") return (end as BatchDone).bios.some(({ kind }) => kind !== "read");
  const { bio } = end as BioDone;
  return bio.kind !== "read" && bio.kind !== "flush";
}

/** A look reads how often space came. What is parked and what is parked no more is counted; a served bio may end the mode. */
export function spaceConflict(a: Message, b: Message): boolean {
  return conflictAtWatch(a, b) || conflictAtWatch(b, a);
}

function conflictAtWatch(a: Message, b: Message): boolean {
  switch (a.type) {
    case "look":
      return b.type !== "look" && b.type !== "bioParked" && b.type !== "bioUnparked";
    case "bioUnparked":
      if (b.type === "look") return false;
      if (b.type !== "bioParked" && b.type !== "bioUnparked") return true;
      return (a as BioUnparked).isServed || b.type === "bioUnparked" && (b as BioUnparked).isServed;
    case "bioParked":
      return b.type !== "look" && b.type !== "bioUnparked";
    case "removalBegan":
      return b.type !== "removalBegan" && b.type !== "bioUnparked";
    default:
      return true;
  }
}

/** All modes that depend on space take changes, so they show only where the mode is told. */
export function poolConflict(a: Message, b: Message): boolean {
  return conflictAtPool(a, b) && conflictAtPool(b, a);
}

function conflictAtPool(a: Message, b: Message): boolean {
  if (a.type === "mayRemove") return b.type === "stopPool";
  return a.type !== "spaceMode" || b.type === "spaceMode" || b.type === "metadataTrouble" ||
    b.type === "registry";
}
