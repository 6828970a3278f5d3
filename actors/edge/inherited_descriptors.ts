/** Which sockets the process was started with; what serves them is in inherited_socket.ts. */
import { UserError } from "../../storage/base/errors.ts";

/**
 * The descriptors that systemd, or a program that uses its protocol, has passed to this process; none without the permission
 * to read the variables. Sockets that are meant for another process are named in the log. Throws `UserError` if LISTEN_FDS is
 * not a number.
 */
export function inheritedDescriptors(log: (sentence: string) => void = () => {}): number[] {
  const count = variable("LISTEN_FDS");
  if (count === undefined) return [];
  const target = variable("LISTEN_PID");
  if (target !== String(Deno.pid)) {
    // Often a parent has inherited and served them, and passes its environment on.
    log(
      `LISTEN_FDS promises sockets, but ${
        targetOf(target)
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

function targetOf(target: string | undefined): string {
  return target === undefined ? "no LISTEN_PID says to which process" : `to the process ${target}`;
}

function variable(name: string): string | undefined {
  const isGranted = Deno.permissions.querySync({ name: "env", variable: name }).state === "granted";
  return isGranted ? Deno.env.get(name) : undefined;
}
