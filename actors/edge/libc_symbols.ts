/** Where the C library is, and whether Deno lets us call it. */

/** glibc. With another one (musl), the optional calls are absent. */
export const libraryName = "libc.so.6";

/** What `load` opens of the library; undefined off Linux, without `--allow-ffi`, or where it is missing. Never prompts. */
export function fromLibc<T>(load: () => T): T | undefined {
  if (Deno.build.os !== "linux") return undefined;
  // A permission for one path does not help: with it, Deno looks for the library in the working directory.
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return undefined;
  try {
    return load();
  } catch {
    // Nothing else was begun.
    return undefined;
  }
}

/**
 * errno of this thread. It is read from memory right after a synchronous call, with no call in between that could change
 * it; a call on another thread sets that thread's errno, which is out of reach.
 */
export function errnoAt(location: Deno.PointerValue): Int32Array {
  if (location === null) throw new Error("the C library tells no errno");
  return new Int32Array(Deno.UnsafePointerView.getArrayBuffer(location, 4));
}
