/** The operator's commands about clients: asked of the listener, which has the connections, and of the pool, which has the names. */
import { unreachable } from "../../storage/base/assert.ts";
import { refused } from "../control/admin_outcome.ts";
import type { AdminResult, ClientListing, ServerCommand } from "../control/admin_command.ts";
import type { PoolStub } from "../control/pool_messages.ts";
import type { Steps } from "../kernel/task.ts";
import { kickMsMax, refusedIdentitiesMax } from "../limits.ts";
import type { NbdListenerStub } from "./listener.ts";

/** Carries out a command about clients. */
export function* clientCommand(
  command: ServerCommand,
  listener: NbdListenerStub,
  pool: PoolStub,
): Steps<AdminResult> {
  switch (command.verb) {
    case "clients":
      return yield* listClients(listener, pool);
    case "kick":
      return yield* kickClient(listener, command.client, command.refuseMs);
    default:
      return unreachable(command);
  }
}

function* listClients(listener: NbdListenerStub, pool: PoolStub): Steps<AdminResult> {
  const clients = yield* listener.listClients();
  const wanted = new Set(clients.map(({ uid }) => uid));
  const nameOf = new Map<string, string>();
  // A volume may have another name by now than the one by which the client attached.
  const { records } = yield* pool.registry();
  for (const { uid, name } of records) if (wanted.has(uid)) nameOf.set(uid, name);
  return {
    kind: "clients",
    clients: clients.map(({ id, peer, identity, uid, since }): ClientListing => ({
      id,
      peer,
      identity: identity ?? null,
      export: uid === undefined ? null : nameOf.get(uid) ?? null,
      since,
    })),
  };
}

function* kickClient(listener: NbdListenerStub, client: number, refuseMs: number): Steps<AdminResult> {
  if (refuseMs > kickMsMax) {
    return refused(`Cannot refuse a host for more than ${kickMsMax / 3_600_000} hours. Give a shorter time.`);
  }
  const result = yield* listener.kick(client, refuseMs);
  const { kind } = result;
  switch (kind) {
    case "left":
      return { kind: "done" };
    case "noClient":
      return refused(`Cannot kick client ${client}: there is none of this number. \`clients\` shows them.`);
    case "local":
      return refused(
        `Cannot refuse the host of client ${client}: it came over a Unix socket, so it has none. Kick it without --for.`,
      );
    case "full":
      return refused(
        `Cannot refuse the host of client ${client}: ${refusedIdentitiesMax} are refused already. Kick it without --for.`,
      );
    case "stopping":
      return refused(`Cannot kick client ${client}: the server is stopping, which closes all of them.`);
    default:
      return unreachable(kind);
  }
}
