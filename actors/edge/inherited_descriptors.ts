/** Which sockets the process was started with; what serves them is in inherited_socket.ts. */
import { UserError } from "../../storage/errors.ts";

/**
 * The descriptors that systemd, or whoever speaks as it does, has passed to this very process; none without the permission to
 * look. Throws `UserError` where the count makes no sense.
 */
export function inheritedDescriptors(): number[] {
  const count = variable("LISTEN_FDS");
  // Variables for another process came down from a parent.
  if (count === undefined || variable("LISTEN_PID") !== String(Deno.pid)) return [];
  if (!/^[0-9]{1,3}$/.test(count)) {
    throw new UserError(`LISTEN_FDS is ${JSON.stringify(count)}, which is no count of sockets. Unset it.`);
  }
  return Array.from({ length: Number(count) }, (_, at) => 3 + at);
}

function variable(name: string): string | undefined {
  const isGranted = Deno.permissions.querySync({ name: "env", variable: name }).state === "granted";
  return isGranted ? Deno.env.get(name) : undefined;
}
