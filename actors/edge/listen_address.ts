/** Addresses to listen on, as people write and read them. */
import { UsageError } from "../../storage/base/errors.ts";
import type { TlsPolicy } from "../nbd/socket_port.ts";

/** Where to listen. */
export type ListenAddress =
  | { readonly transport: "tcp"; readonly hostname: string; readonly port: number }
  | { readonly transport: "unix"; readonly path: string };

const usage = "use tcp:HOST:PORT or unix:PATH, as in tcp:127.0.0.1:10809";

/** Reads `tcp:HOST:PORT` (an IPv6 HOST in brackets) or `unix:PATH`; throws `UsageError`. */
export function parseListenAddress(text: string): ListenAddress {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (path === "" || path.includes("\0")) throw badAddress(text, "it names no path");
    return { transport: "unix", path };
  }
  if (!text.startsWith("tcp:")) throw badAddress(text, "it begins with neither tcp: nor unix:");
  const parts = /^(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^:[\]\s]+)):([0-9]{1,5})$/.exec(text.slice("tcp:".length));
  const hostname = parts?.[1] ?? parts?.[2];
  const port = Number(parts?.[3]);
  if (hostname === undefined) throw badAddress(text, "it has no host and port");
  if (port > 65535) throw badAddress(text, "a port is at most 65535");
  return { transport: "tcp", hostname, port };
}

function badAddress(text: string, reason: string): UsageError {
  return new UsageError(`Cannot listen on ${JSON.stringify(text)}: ${reason}; ${usage}`);
}

/** The URL under which clients reach the socket's default export. */
export function nbdUrl(address: ListenAddress, tls: TlsPolicy = "off"): string {
  const scheme = tls === "require" ? "nbds" : "nbd";
  if (address.transport === "unix") {
    return `${scheme}+unix:///?socket=${address.path.split("/").map(encodeURIComponent).join("/")}`;
  }
  const host = address.hostname.includes(":") ? `[${address.hostname}]` : address.hostname;
  return `${scheme}://${host}:${address.port}`;
}
