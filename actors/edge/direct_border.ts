/** The border (border.ts) where both sides are one thread: a message is a call. */
import type { Border, FromPool } from "./border.ts";
import { PoolService } from "./pool_service.ts";

/** The way to a pool in this thread. */
export function openDirectBorder(heard: (message: FromPool) => void): Border {
  const service = new PoolService(heard);
  return { send: (message) => service.receive(message), close: () => {} };
}
