/**
 * A control connection that holds a volume (`run`): the answer stays open, and its end, on either side, ends the volume.
 *
 *   POST /v1/run   {"source":"base@ready"} or {"size_bytes":1073741824}
 *                  -> {"kind":"held","name":...,"uri":...,"unixsocket":...}
 *                     and, when the volume is gone again, {"kind":"done"} or {"kind":"refused","reason":...}
 *
 * Each is a line of JSON. A client that ends its side of the connection (shutdown) still gets the last line. The operating system
 * closes the connection of a client that is killed, so no other sign of life is needed.
 */
import type { ServerResponse } from "node:http";
import { UserError } from "../../storage/base/errors.ts";
import type { AdminResult, HeldContent, HeldVolume } from "../control/admin_command.ts";
import { anyName, type JsonFields, size } from "../control/verb_fields.ts";
import type { ControlClient } from "./control_clients.ts";

/** The path of the request. */
export const holdPath = "/v1/run";

/** Makes volumes that are held, and ends them. */
export interface HoldHandler {
  hold(content: HeldContent): Promise<HeldVolume | AdminResult>;
  release(uid: string): Promise<AdminResult>;
}

/** What a volume begins with, from what JSON.parse made of a request. Throws {@linkcode UserError}. */
export function heldContentOf(value: unknown): HeldContent {
  const fields = (typeof value === "object" && value !== null ? value : {}) as JsonFields;
  const [source, sizeBytes] = [fields.source, fields.size_bytes];
  if ((source === undefined) === (sizeBytes === undefined)) {
    throw new UserError(`POST to ${holdPath} takes "source" or "size_bytes", and not both.`);
  }
  if (source !== undefined) return { source: anyName.ofValue(source, "source") };
  return { sizeBytes: size.ofValue(sizeBytes, "size_bytes") };
}

/** The URI of a held volume (the URI specification of NBD). */
export function uriOfHeld({ name, socketPath }: HeldVolume): string {
  return `nbd+unix:///${name}?socket=${encodeURI(socketPath)}`;
}

/** Answers with the volume, waits until the client or the server ends it, and ends it. Returns the last line of the answer. */
export async function serveHold(
  client: ControlClient,
  response: ServerResponse,
  handler: HoldHandler,
  held: HeldVolume,
  stopping: Promise<string>,
): Promise<AdminResult> {
  const { stream } = client;
  const ended = new Promise<undefined>((resolve) => {
    // node:http would end our side of the connection with the client's.
    stream.removeAllListeners("end");
    stream.once("end", () => resolve(undefined));
    stream.once("close", () => resolve(undefined));
  });
  response.writeHead(200, { "content-type": "application/x-ndjson", "connection": "close" });
  const { name, socketPath } = held;
  const volume = { kind: "held", name, uri: uriOfHeld(held), unixsocket: socketPath };
  response.write(`${JSON.stringify(volume)}\n`);
  const reason = stream.destroyed || stream.readableEnded ? undefined : await Promise.race([ended, stopping]);
  const result = await handler.release(held.uid);
  return reason === undefined ? result : { kind: "refused", reason };
}
