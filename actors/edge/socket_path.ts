/** Socket paths: the kernel takes 107 bytes at most, so a long one is tried from the working directory. */
import { relative, resolve } from "node:path";

/** Bytes of the longest path of a Unix socket: `sun_path` of unix(7) less its final NUL. */
export const socketPathBytesMax = 107;

const encoder = new TextEncoder();

/** The path, or a shorter one to the same place; undefined if none is short enough. */
export function shortSocketPath(path: string): string | undefined {
  if (encoder.encode(path).length <= socketPathBytesMax) return path;
  const fromHere = relative(Deno.cwd(), resolve(path));
  return encoder.encode(fromHere).length <= socketPathBytesMax ? fromHere : undefined;
}
