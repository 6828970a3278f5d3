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
  | "intent journal"
  | "allocator"
  | "device"
  | "volume"
  | "garbage collector"
  | "event loop"
  | "other";

/** The first that matches a path relative to the repository counts. */
export const sharesByPath: readonly (readonly [path: RegExp, share: Share])[] = [
  // What a change of mappings costs so that a killed process does not lose it.
  [/^(actors\/(pool|edge)|storage|storage\/device)\/intents?_/, "intent journal"],
  // Bytes from and to clients.
  [
    /^actors\/edge\/(client_socket|direct_|socket_poll|send_share|byte_stream|sockets?|inherited_|tls|outside)/,
    "socket",
  ],
  // Files, and the buffers that are read into and written from.
  [
    /^(actors\/(pool\/(block_device|device_messages)|nbd\/buffers)|storage\/device\/)/,
    "device",
  ],
  [
    /^actors\/edge\/(file_|page_|cached_reads|short_flushes|libc|bounded_calls|unwaiting_writes|disk_calm|known_hole)/,
    "device",
  ],
  // Requests out of bytes, replies into them, credits.
  [/^actors\/nbd\//, "codec"],
  // Delivery of messages, steps of tasks, timers.
  [/^actors\/(kernel\/|edge\/deno_clock)/, "kernel"],
  [/^actors\/pool\/(lock_|data_locks|region_locks)/, "locks"],
  [/^actors\/pool\/(allocator_|data_allocator|data_quarantine)/, "allocator"],
  // Trees, caches, space maps, checksums, commits.
  [/^(actors\/pool|storage)\//, "lookup, metadata"],
  // What a bio is and which steps it takes.
  [/^actors\/volume\//, "volume"],
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
  "intent journal",
  "allocator",
  "device",
  "garbage collector",
  "other",
];
