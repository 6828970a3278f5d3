/** The other end of a client's connection. */
import { quoted } from "../nbd/wire/option.ts";

/** `peer` names it in the log; its places are counted by `identity` (nbd/places.ts), which a local client has not. */
export interface Peer {
  readonly peer: string;
  readonly identity: string | undefined;
  /** The uid of the only volume that it may have; undefined: all. */
  readonly only?: string | undefined;
}

/** The same after TLS, with the common name in its certificate, if that was verified. A local client stays a local client. */
export function securedPeer({ peer, identity, only }: Peer, clientName: string | undefined): Peer {
  if (clientName === undefined) return { peer, identity, only };
  const name = quoted(clientName);
  return {
    peer: `${peer} (${name})`,
    identity: identity === undefined ? undefined : `the certificate of ${name}`,
    only,
  };
}

/** A local client of the socket at this path. */
export function localPeer(path: string | undefined, only?: string): Peer {
  return { peer: path === undefined ? "a client" : `a client of ${path}`, identity: undefined, only };
}

/** A client on another host, or on this one over TCP. */
export function remotePeer(hostname: string, port: number | undefined): Peer {
  return {
    peer: hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`,
    identity: hostOf(hostname),
  };
}

/**
 * The identity of a host: its IPv4 address, also if that is written as an IPv6 address; else the first 64 bits of its IPv6
 * address, as one host may use all addresses with these.
 */
function hostOf(address: string): string {
  const v4 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (v4 !== undefined || !address.includes(":")) return v4 ?? address;
  const [head = "", tail] = address.replace(/%.*$/, "").split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeroes = tail === undefined ? 0 : Math.max(0, 8 - before.length - after.length);
  const groups = [...before, ...Array<string>(zeroes).fill("0"), ...after];
  return `${groups.slice(0, 4).map((group) => group.toLowerCase().replace(/^0+(?=.)/, "")).join(":")}::/64`;
}
