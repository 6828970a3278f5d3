/** What an operator should know of an address that more than one user reaches. */
import { type ListenAddress, nbdUrl } from "./listen_address.ts";

/**
 * The sentence for an address without TLS, or with TLS that clients may do without; undefined where none is needed: a Unix
 * socket is its owner's alone.
 */
export function exposureOf(
  address: ListenAddress | undefined,
  policy: "allow" | "require" | undefined,
  readOnly: boolean,
): string | undefined {
  if (address?.transport !== "tcp" || policy === "require") return undefined;
  const can = readOnly ? "read every volume" : "read and write every volume";
  const where = `${nbdUrl(address)} ${policy === "allow" ? "does not require TLS" : "has no TLS"}`;
  if (isLoopback(address.hostname)) {
    return `${where}: every user of this host can ${can} there. On a shared host, serve --listen unix:PATH instead.`;
  }
  return `Warning: ${where}: whatever reaches it over the network can ${can}, and what is sent can be read on its way. ` +
    "Give --tls require --tls-verify-peer, or listen on a Unix socket.";
}

/** Whether only programs of this host reach an address: 127.0.0.0/8 and ::1 (RFC 6890), the former also inside IPv6. */
export function isLoopback(hostname: string): boolean {
  const v4 = /^(?:::ffff:)?(\d+)\.\d+\.\d+\.\d+$/i.exec(hostname)?.[1];
  return v4 === undefined ? hostname === "::1" || hostname === "localhost" : v4 === "127";
}
