/**
 * Where a CPU profile's time belongs. The one place that says which file counts to which share: a file that is new is
 * named here, or shows under "other".
 */

/** A share of the time. */
export type Share =
  | "socket"
  | "codec"
  | "kernel"
  | "locks"
  | "lookup, metadata"
  | "allocator"
  | "device"
  | "volume"
  | "garbage collector"
  | "event loop"
  | "other";

/** The first that matches a path relative to the repository counts. */
const sharesByPath: readonly (readonly [path: RegExp, share: Share])[] = [
  // Bytes from and to clients.
  [
    /^actors\/edge\/(client_socket|direct_socket|socket_poll|send_share|byte_stream|sockets?|inherited_|tls|outside)/,
    "socket",
  ],
  // Requests out of bytes, replies into them, credits.
  [/^(storage\/nbd\/|actors\/nbd_)/, "codec"],
  // Delivery of messages, steps of tasks, timers.
  [/^actors\/(kernel\/|edge\/deno_clock)/, "kernel"],
  [/^actors\/(lock_region|data_locks)/, "locks"],
  // Trees, caches, space maps, checksums, commits.
  [/^actors\/(metadata|commit)/, "lookup, metadata"],
  [/^actors\/data_allocator/, "allocator"],
  // Files, and the buffers that are read into and written from.
  [
    /^(actors\/(block_device|buffers)|actors\/edge\/(file_device|page_window|cached_reads|short_flushes|file_flushes|libc)|storage\/device\/)/,
    "device",
  ],
  // What a bio is and which steps it takes.
  [/^actors\/(thin_volume|bio|remap|zero_tail|block_status)/, "volume"],
  [/^storage\//, "lookup, metadata"],
];

/** The share of a file of ours. */
export function shareOfPath(path: string): Share {
  return sharesByPath.find(([pattern]) => pattern.test(path))?.[1] ?? "other";
}

/** All shares, in the order in which a request meets them. */
export const shares: readonly Share[] = [
  "event loop",
  "socket",
  "codec",
  "kernel",
  "volume",
  "locks",
  "lookup, metadata",
  "allocator",
  "device",
  "garbage collector",
  "other",
];
