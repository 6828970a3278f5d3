/** What a client sends, made for tests: integers, options, requests, and streams cut into pieces. */
import {
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_CMD_READ,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_REQUEST_MAGIC,
} from "../../actors/nbd/wire/constants.ts";

/** Two bytes, big-endian. */
export function u16(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value);
}

/** Four bytes, big-endian. */
export function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** Eight bytes, big-endian, of an integer below 2^53. */
export function u64(value: number): Uint8Array {
  return join(u32(Math.floor(value / 2 ** 32)), u32(value % 2 ** 32));
}

/** The UTF-8 of a text. */
export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** A string behind its length. */
export function string(text: string): Uint8Array {
  return join(u32(bytes(text).length), bytes(text));
}

/** All parts, one behind the other. */
export function join(...parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** An option with its data. */
export function option(number: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  return join(optionHeader(number, data.length), data);
}

/** An option that announces data. */
export function optionHeader(number: number, lengthBytes: number): Uint8Array {
  return join(u32(IHAVEOPT_HIGH), u32(IHAVEOPT_LOW), u32(number), u32(lengthBytes));
}

/** What a request header holds beside its length; cookie and offset as high and low half. */
interface HeaderFields {
  type?: number;
  flags?: number;
  cookie?: readonly [number, number];
  offset?: readonly [number, number];
}

/** A compact request header. */
export function request({ length = 0, ...fields }: HeaderFields & { length?: number }): Uint8Array {
  return header(NBD_REQUEST_MAGIC, fields, u32(length));
}

/** An extended request header; `length` as a number or as high and low half. */
export function extendedRequest(
  { length = 0, ...fields }: HeaderFields & { length?: number | readonly [number, number] },
): Uint8Array {
  const wide = typeof length === "number" ? u64(length) : join(u32(length[0]), u32(length[1]));
  return header(NBD_EXTENDED_REQUEST_MAGIC, fields, wide);
}

function header(magic: number, fields: HeaderFields, length: Uint8Array): Uint8Array {
  const { type = NBD_CMD_READ, flags = 0, cookie = [0, 0], offset = [0, 0] } = fields;
  const halves = [...cookie, ...offset].map(u32);
  return join(u32(magic), u16(flags), u16(type), ...halves, length);
}

/** The stream in pieces of `pieceBytes`. */
export function split(stream: Uint8Array, pieceBytes: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < stream.length; at += pieceBytes) pieces.push(stream.slice(at, at + pieceBytes));
  return pieces;
}

/** The stream in pieces of random length. */
export function cut(stream: Uint8Array, random: () => number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < stream.length;) {
    const pieceBytes = 1 + Math.floor(random() * 90);
    pieces.push(stream.slice(at, at + pieceBytes));
    at += pieceBytes;
  }
  return pieces;
}

/** Numerical Recipes' linear congruence: the same sequence in [0, 1) for the same seed. */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
