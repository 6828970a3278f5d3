/** Which sockets the process was started with; what serves them is in inherited_socket.ts. */
import { UserError } from "../../storage/base/errors.ts";

/**
 * The descriptors that systemd, or whoever speaks as it does, has passed to this very process; none without the permission to
 * look. `log` hears of sockets that are passed to another one. Throws `UserError` where the count makes no sense.
 */
export function inheritedDescriptors(log: (sentence: string) => void = () => {}): number[] {
  const count = variable("LISTEN_FDS");
  if (count === undefined) return [];
  const forWhom = variable("LISTEN_PID");
  if (forWhom !== String(Deno.pid)) {
    // Often they came down from a parent that has served them itself.
    log(
      `LISTEN_FDS promises sockets, but ${
        whose(forWhom)
      }; this one is ${Deno.pid}. They are left alone: to serve them, start ` +
        "Deno itself and not through npx or another program, and with --allow-env=LISTEN_FDS,LISTEN_PID.",
    );
    return [];
  }
  if (!/^[0-9]{1,3}$/.test(count)) {
    throw new UserError(`LISTEN_FDS is ${JSON.stringify(count)}, which is no count of sockets. Unset it.`);
  }
  return Array.from({ length: Number(count) }, (_, at) => 3 + at);
}

function whose(forWhom: string | undefined): string {
  return forWhom === undefined ? "no LISTEN_PID says to which process" : `to the process ${forWhom}`;
}

function variable(name: string): string | undefined {
  const isGranted = Deno.permissions.querySync({ name: "env", variable: name }).state === "granted";
  return isGranted ? Deno.env.get(name) : undefined;
}
