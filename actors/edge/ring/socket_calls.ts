/** The calls of the C library that bind and accept sockets, for the ring: it needs their descriptors, which Deno does not tell. */
import { UserError } from "../../../storage/base/errors.ts";
import { listenBacklog } from "../../limits.ts";
import type { NetName } from "../socket_host.ts";
import { errnoAt, fromLibc, libraryName } from "../libc_symbols.ts";

// From bits/socket.h, netinet/in.h, netinet/tcp.h and netdb.h of glibc: the same on x86-64 and arm64.
const familyUnix = 1;
const familyIpv4 = 2;
const familyIpv6 = 10;
const streamCloseOnExec = 1 | 0o2000000;
const socketLevel = 1;
const reuseAddress = 2;
const keepAlive = 9;
const acceptsConnections = 30;
const tcpLevel = 6;
const tcpNoDelay = 1;
const bothWays = 2;
const errnoAddressInUse = 98;
const passive = 1;
/** Where things are in struct addrinfo of 64-bit machines. */
const infoFamilyAt = 4;
const infoTypeAt = 8;
const infoLengthAt = 16;
const infoAddressAt = 24;
const infoLength = 48;
const nameLength = 128;

const library = fromLibc(() => {
  const { symbols } = Deno.dlopen(libraryName, {
    __errno_location: { parameters: [], result: "pointer" },
    strerror: { parameters: ["i32"], result: "pointer" },
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    listen: { parameters: ["i32", "i32"], result: "i32" },
    socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
    shutdown: { parameters: ["i32", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
    getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
    getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    getaddrinfo: { parameters: ["buffer", "buffer", "buffer", "buffer"], result: "i32" },
    freeaddrinfo: { parameters: ["pointer"], result: "void" },
    gai_strerror: { parameters: ["i32"], result: "pointer" },
    inet_ntop: { parameters: ["i32", "buffer", "buffer", "u32"], result: "pointer" },
  });
  return { symbols, errno: errnoAt(symbols.__errno_location()) };
});

/** Binds a Unix socket and listens there. Answers the descriptor; throws what `Deno.listen` would. */
export function listenOnUnix(path: string): number {
  const bytes = new TextEncoder().encode(path);
  const name = new Uint8Array(2 + bytes.length + 1);
  name[0] = familyUnix;
  name.set(bytes, 2);
  return bound(familyUnix, name);
}

/** Binds a TCP socket and listens there. Answers the descriptor; throws what `Deno.listen` would. */
export function listenOnTcp(hostname: string, port: number): number {
  const name = resolved(hostname, port);
  return bound(new Uint16Array(name.slice(0, 2).buffer)[0]!, name);
}

/** Where a TCP socket is bound; undefined for a Unix socket. */
export function ownNameOf(fd: number): NetName | undefined {
  return nameOf("getsockname", fd);
}

/** Where a TCP socket is connected to; undefined for a Unix socket, and if the connection is lost. */
export function peerNameOf(fd: number): NetName | undefined {
  return nameOf("getpeername", fd);
}

/** Whether a descriptor is a socket that listens. */
export function listens(fd: number): boolean {
  const answer = Uint32Array.of(0);
  const status = calls().symbols.getsockopt(fd, socketLevel, acceptsConnections, answer, Uint32Array.of(4));
  return status === 0 && answer[0] === 1;
}

/** For TCP: sends at once, and has the system probe the other host. */
export function setTcpOptions(fd: number): void {
  const on = Uint32Array.of(1);
  calls().symbols.setsockopt(fd, tcpLevel, tcpNoDelay, on, 4);
  calls().symbols.setsockopt(fd, socketLevel, keepAlive, on, 4);
}

/** Two Unix sockets that are connected to each other (socketpair(2)). Throws if no descriptor is free. */
export function socketPair(): readonly [number, number] {
  const pair = new Int32Array(2);
  if (calls().symbols.socketpair(familyUnix, streamCloseOnExec, 0, pair) !== 0) throw failure();
  return [pair[0]!, pair[1]!];
}

/** Ends both directions: operations under way complete. */
export function shutDown(fd: number): void {
  calls().symbols.shutdown(fd, bothWays);
}

/** Closes a descriptor. */
export function closeDescriptor(fd: number): void {
  calls().symbols.close(fd);
}

function calls() {
  if (library === undefined) throw new Error("there is a ring only where there is the C library");
  return library;
}

function bound(family: number, name: Uint8Array<ArrayBuffer>): number {
  const { symbols } = calls();
  const fd = symbols.socket(family, streamCloseOnExec, 0);
  if (fd < 0) throw failure();
  if (family !== familyUnix) symbols.setsockopt(fd, socketLevel, reuseAddress, Uint32Array.of(1), 4);
  if (symbols.bind(fd, name, name.length) === 0 && symbols.listen(fd, listenBacklog) === 0) return fd;
  const error = failure();
  symbols.close(fd);
  throw error;
}

/** The last failed call's, as Deno says it. */
function failure(): Error {
  const { symbols, errno } = calls();
  const number = errno[0]!;
  const text = `${textAt(symbols.strerror(number))} (os error ${number})`;
  return number === errnoAddressInUse ? new Deno.errors.AddrInUse(text) : new Error(text);
}

function textAt(location: Deno.PointerValue): string {
  return location === null ? "" : Deno.UnsafePointerView.getCString(location);
}

/** The first address of a host as getaddrinfo gives it, with a port: a struct sockaddr. */
function resolved(hostname: string, port: number): Uint8Array<ArrayBuffer> {
  const { symbols } = calls();
  const encode = (text: string) => new TextEncoder().encode(`${text}\0`);
  const hints = new Int32Array(infoLength / 4);
  hints[0] = passive;
  hints[infoTypeAt / 4] = 1;
  const found = new BigUint64Array(1);
  const status = symbols.getaddrinfo(
    encode(hostname),
    encode(String(port)),
    new Uint8Array(hints.buffer),
    found,
  );
  if (status !== 0) throw new UserError(`${hostname}: ${textAt(symbols.gai_strerror(status))}`);
  const info = Deno.UnsafePointer.create(found[0]!);
  if (info === null) throw new Error("getaddrinfo found nothing");
  try {
    const view = new Deno.UnsafePointerView(info);
    if (view.getInt32(infoFamilyAt) === 0) throw new Error("getaddrinfo found no family");
    const address = view.getPointer(infoAddressAt);
    if (address === null) throw new Error("getaddrinfo found no address");
    return new Uint8Array(
      Deno.UnsafePointerView.getArrayBuffer(address, view.getUint32(infoLengthAt)).slice(0),
    );
  } finally {
    symbols.freeaddrinfo(info);
  }
}

function nameOf(call: "getsockname" | "getpeername", fd: number): NetName | undefined {
  const { symbols } = calls();
  const name = new Uint8Array(nameLength);
  if (symbols[call](fd, name, Uint32Array.of(name.length)) !== 0) return undefined;
  const view = new DataView(name.buffer);
  const family = view.getUint16(0, true);
  if (family !== familyIpv4 && family !== familyIpv6) return undefined;
  // struct sockaddr_in has the address at 4, struct sockaddr_in6 at 8.
  const address = name.slice(family === familyIpv4 ? 4 : 8);
  const text = new Uint8Array(64);
  symbols.inet_ntop(family, address, text, text.length);
  return { hostname: new TextDecoder().decode(text.subarray(0, text.indexOf(0))), port: view.getUint16(2) };
}
