/** Socket paths: Linux takes 107 bytes at most, so a long one is tried from the working directory. */
import { socketPathBytesMax } from "../limits.ts";
import { relativePath } from "./absolute_path.ts";

const encoder = new TextEncoder();

/** The path, or a shorter one to the same place; undefined if none is short enough. */
export function shortSocketPath(path: string): string | undefined {
  if (encoder.encode(path).length <= socketPathBytesMax) return path;
  const fromHere = relativePath(path);
  return encoder.encode(fromHere).length <= socketPathBytesMax ? fromHere : undefined;
}
