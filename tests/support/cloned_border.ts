/**
 * A border (actors/edge/border.ts) as between two threads: every message is copied by `structuredClone`, which throws for
 * what is no plain data, and arrives in a later turn, through a message channel.
 */
import type { Border, FromPool, OpenBorder, ToPool } from "../../actors/edge/border.ts";
import { openDirectBorder } from "../../actors/edge/direct_border.ts";
import { PoolService } from "../../actors/edge/pool_service.ts";

/** A border, and its name for tests. */
export type NamedBorder = readonly [name: string, openBorder: OpenBorder];

/** All borders that a test of the main side runs over. */
export const allBorders: readonly NamedBorder[] = [
  ["in one thread", openDirectBorder],
  ["with messages copied", openClonedBorder],
];

/** Opens a way through a message channel. */
export function openClonedBorder(heard: (message: FromPool) => void): Border {
  const { port1: mainEnd, port2: poolEnd } = new MessageChannel();
  const service = new PoolService((message) => poolEnd.postMessage(plain(message)));
  mainEnd.onmessage = ({ data }: MessageEvent<FromPool>) => heard(data);
  poolEnd.onmessage = ({ data }: MessageEvent<ToPool>) => service.receive(data);
  return {
    send: (message) => mainEnd.postMessage(plain(message)),
    close: () => {
      mainEnd.close();
      poolEnd.close();
    },
  };
}

/** The message, which must say after a copy what it said before: a class would have become a bare object. */
function plain<T extends ToPool | FromPool>(message: T): T {
  requirePlain(message, message.type);
  return structuredClone(message);
}

/** Throws for anything but texts, numbers, truth values, null, undefined, lists and bare objects of these. */
function requirePlain(value: unknown, path: string): void {
  if (value === null || ["string", "number", "boolean", "undefined"].includes(typeof value)) return;
  const prototype = Object.getPrototypeOf(value);
  if (typeof value !== "object" || (prototype !== Object.prototype && prototype !== Array.prototype)) {
    throw new TypeError(`${path} is no plain data`);
  }
  for (const [name, part] of Object.entries(value)) requirePlain(part, `${path}.${name}`);
}
