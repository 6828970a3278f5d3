/**
 * The rule that every collection which an object of the actors keeps has a bound that is named here. A collection is a field of
 * a class or an interface whose type or first value is a list, a map or a set that can change.
 *
 * A bound `queues.x` (actors/queues.ts), or another name in code, must stand in the file in an assertion or a comparison; the
 * rule looks that it is there, and the module's tests that it holds. Other bounds are words.
 */
import type { Source } from "./source.ts";

/** What bounds each collection, by file below `actors/` and name. */
export const collections: Readonly<Record<string, string>> = {
  // Requests, bios and tasks that wait.
  "pool/data_allocator.ts#waiting": "queues.allocations",
  "pool/data_quarantine.ts#reclaims": "queues.reclaims",
  "pool/commit_requests.ts#next": "queues.commits",
  "pool/commit_requests.ts#flushes": "each has taken waiting requests, and flushesMax begin at once",
  "pool/waiting_operations.ts#missing": "queues.operations",
  "pool/waiting_operations.ts#delayed": "queues.operations",
  "pool/waiting_operations.ts#slowedDown": "queues.operations",
  "pool/held_commits.ts#held": "queues.heldCommits",
  "pool/block_device.ts#pending": "queues.deviceOperations",
  "pool/lock_cell.ts#upgrades": "queues.lockWaits in lock_region.ts",
  "pool/lock_cell.ts#waiting": "queues.lockWaits in lock_region.ts",
  "pool/lock_region.ts#cells": "queues.lockedBlocks",
  "pool/lock_region.ts#ranges": "queues.lockedRanges",
  "pool/space_watch.ts#parked": "queues.parkingVolumes",
  "control/command_queue.ts#commands": "queues.commands",
  "control/look_queue.ts#waiting": "queues.commands",
  "control/removals.ts#left": "volumesMax",
  "control/volume_lifetimes.ts#aloneSinceMs": "the volumes of the catalogue: each look drops the others",
  "control/volume_lifetimes.ts#written": "the volumes of the catalogue: each look drops the others",
  "control/volume_lifetimes.ts#held": "heldVolumesMax",
  "control/removals.ts#waiting": "adminQueueMax",
  "control/pool.ts#viewersWaiting": "queues.viewers",
  "control/pool_exports.ts#works": "queues.longAnswers",
  "control/usage_figures.ts#askers": "looksMax",
  "volume/done_requests.ts#byClient": "queues.clients",
  "volume/client_turns.ts#lanes": "itemsMax",
  "volume/client_turns.ts#items": "itemsMax",
  "volume/parked_bios.ts#bios": "queues.parkedBios",
  "volume/parked_bios.ts#due": "those that are parked, each once",
  "volume/thin_volume.ts#suspends": "queues.suspends",
  "nbd/arrivals.ts#waiting": "clients.size",
  "nbd/kicks.ts#kicks": "queues.kicks",
  "nbd/submissions.ts#requests": "queues.requestsOfClient",
  "nbd/large_reads.ts#waiting": "queues.largeReads",
  "nbd/listener.ts#clients": "queues.clients",
  "nbd/loans.ts#waiting": "clients.size",
  "nbd/parked_requests.ts#known": "queues.parkedRequests",
  "nbd/refused_identities.ts#identities": "refusedIdentitiesMax",
  "edge/bounded_calls.ts#queue": "queues.deviceOperations",
  "edge/held_segments.ts#held": "heldSegmentsMax",
  "edge/relayed_tls.ts#sockets": "queues.relays",
  "edge/tls_relay.ts#relays": "queues.relays in relayed_tls.ts",
  "edge/ring/ring_socket.ts#holds": "heldSegmentsMax",
  "edge/ring/uring.ts#completed": "queues.ringOperations",
  "edge/ring/uring.ts#kept": "queues.ringOperations",
  "edge/ring/uring.ts#freeSlots": "queues.ringOperations",
  "edge/file_flushes.ts#waiting": "queues.deviceOperations",
  "edge/file_writes.ts#queue": "queues.deviceOperations",
  "edge/socket_poll.ts#waiting": "queues.clients",
  "edge/log_sink.ts#queue": "logLinesMax",
  "edge/deno_clock.ts#waiting":
    "calls for the next turn of the event loop, at most one of each kernel, emptied in it",
  "edge/inherited_socket.ts#waiting":
    "clients that the system's backlog held before the server began, emptied then",

  // Blocks and memory.
  "pool/data_allocator.ts#free": "freeBlocksFetched runs of a search, taken before the next search",
  "pool/data_allocator.ts#givenBackOrder": "queues.allocations",
  "pool/lock_region.ts#spareCells": "spareCellsMax",
  "nbd/buffers.ts#spare": "the bytes that the caller allows with each buffer",
  "nbd/client_request.ts#segments": "blocks that one request touches",
  "nbd/payload_memory.ts#ownBuffers": "requests with credits",
  "nbd/payload_memory.ts#lentBuffers": "requests with credits",
  "nbd/receive.ts#spare": "receiveBuffersMax",
  "nbd/wire/output_queue.ts#pieces": "replies of requests with credits, and optionReplyBytesMax",
  "nbd/wire/output_queue.ts#used": "replies of requests with credits, and optionReplyBytesMax",
  "nbd/wire/output_queue.ts#underWay": "replies of requests with credits, and optionReplyBytesMax",
  "nbd/wire/output_queue.ts#spare": "spareOutputBlocksMax",
  "edge/ring/ring_loop.ts#yields": "one of the kernel, which asks again only after it was called",
  "edge/bounded_calls.ts#spare": "calls that were in the queue at once",
  "edge/page_window.ts#inUse": "sectionsMax",
  "edge/page_window.ts#queue": "sectionsMax",

  // What is open or there.
  "control/figures.ts#thins": "thin devices that are there",
  "control/usage_figures.ts#last": "families of volumes that are there",
  "control/open_volumes.ts#clients": "clients of one volume, which the listener counts",
  "control/eviction.ts#open": "the same map as control/pool.ts#open",
  "control/pool.ts#open": "openVolumesMax and one for each client; those of the command in progress besides",
  "control/plan_removals.ts#changes": "volumes of the one command in progress",
  "control/plan_removals.ts#evict": "volumes of the one command in progress",
  "control/plan_removals.ts#deletions": "volumes of the one command in progress",
  "control/plan_removals.ts#allowances": "volumes of the one command in progress",
  "control/pool_change.ts#leaving": "volumes of the one command in progress",
  "control/pool_change.ts#quietOpen": "volumes of the one command in progress",
  "volume/volume_regions.ts#regions": "regionsPerVolumeMax",
  "edge/control_clients.ts#clients": "connectionsMax",
  "edge/held_volumes.ts#held": "heldVolumesMax",
  "edge/held_volumes.ts#paths": "volumes that are held, one of each",
  "edge/nbd_server.ts#private": "volumes that are held, one of each",
  "edge/inherited_socket.ts#clients": "sockets that are open; the listener closes those without a place",
  "edge/sockets.ts#clients": "sockets that are open; the listener closes those without a place",
  "edge/send_share.ts#senders": "sockets that have sent in the present turn",
  "edge/disk_calm.ts#flushes": "flushes under way: one for each descriptor",
  "edge/file_flushes.ts#free": "handles",
  "edge/file_flushes.ts#bounded": "handles",
  "edge/descriptors.ts#held": "count",
  "edge/pool_link.ts#waiting": "calls of the program that uses the library",
  "edge/worker_border.ts#unanswered": "those that wait in pool_link.ts",
  "edge/pool_link.ts#dumps": "calls of the program that uses the library",
  "edge/pool_process.ts#waiting": "calls of the program that uses the library",
  "edge/pool_service.ts#servers": "servers that the program has begun",
  "edge/pool_service.ts#pieces": "dumps in progress: one piece of each",

  // A fixed set of kinds.
  "control/auto_grow.ts#refused": "the two devices",
  "control/auto_grow.ts#said": "the two devices",
  "nbd/arrivals.ts#refusals": "the rules for places",
  "pool/block_device.ts#failing": "the kinds of refusal",
  "pool/refusals.ts#inForce": "the kinds of refusal",
  "pool/space_watch.ts#short": "the kinds of space",

  // The kernel: what is there, or was there at once.
  "kernel/kernel.ts#idleNotices": "one of each connection, told at the end of the drain",
  "kernel/actor_table.ts#cells": "slotsMax",
  "kernel/actor_table.ts#generations": "slotsMax",
  "kernel/actor_table.ts#free": "slots of actors that have retired",
  "kernel/mailbox.ts#ring": "messagesMax",
  "kernel/resting_tasks.ts#tasks": "tasks that are there",
  "kernel/task_table.ts#tasks": "tasks that were there at once; each actor bounds those that it starts",
  "kernel/task_table.ts#free": "tasks that were there at once",
  "kernel/task_table.ts#childrenAnswers": "children of one task",
  "kernel/timers.ts#timers": "timers that are armed, a few of each actor",
  "kernel/trace.ts#events": "messages, in tests and diagrams only",

  // Filled once, by the function that makes it.
  "control/verb_fields.ts#words": "words of one command line",
  "edge/invocation.ts#_": "words of one command line",
  "edge/file_handles.ts#flushFds": "flushesMax",
  "edge/nbd_server.ts#sockets": "addresses that the server was given",
  "edge/pool_files_init.ts#made": "files of a pool",
};

const field = /^ {2}(?:readonly )?#?(\w+)(?:: (.*?))?(?: = (.*))?;$/gm;

/** A file's fields that are collections. */
function collectionsOf(source: Source): { readonly at: number; readonly name: string }[] {
  const found: { readonly at: number; readonly name: string }[] = [];
  for (const match of source.code.matchAll(field)) {
    const [, name, type = "", value = ""] = match;
    // A list that cannot change, or a function that answers with one.
    if (/^readonly |^Readonly(Map|Set)<|=> [^)]*$/.test(type)) continue;
    if (/\[\]$|^(Map|Set)</.test(type) || /^new (Map|Set)\b|^\[/.test(value)) {
      found.push({ at: match.index, name: name! });
    }
  }
  return found;
}

/** The words of a bound that are code: `queues.x`, or one name alone. */
function codeOf(bound: string): { readonly text: string; readonly file: string | undefined } | undefined {
  const [, text, file] = /^(queues\.\w+|[a-z]\w*[A-Z]\w*|\w+\.size)(?: in (\S+))?$/.exec(bound) ?? [];
  return text === undefined ? undefined : { text, file };
}

/** Collections without a bound here, bounds that are not in the code, and entries for what is not there. */
export function ruleQueues(
  sources: readonly Source[],
  bounds: Readonly<Record<string, string>> = collections,
): string[] {
  const found: string[] = [];
  const files = new Map(sources.map((source) => [source.path, source]));
  const unseen = new Set(Object.keys(bounds));
  for (const source of sources) {
    if (!/^actors\/.*\.ts$/.test(source.path) || source.isTest) continue;
    for (const { at, name } of collectionsOf(source)) {
      const key = `${source.path.replace("actors/", "")}#${name}`;
      unseen.delete(key);
      const bound = bounds[key];
      if (bound === undefined) {
        found.push(
          source.finding(
            at,
            `${name} can grow: assert a bound (actors/queues.ts) and name it in tests/tidy/queues.ts`,
          ),
        );
        continue;
      }
      const code = codeOf(bound);
      if (code === undefined) continue;
      const file = code.file === undefined ? source : files.get(source.path.replace(/[^/]*$/, code.file));
      if (file?.code.includes(code.text) !== true) {
        found.push(source.finding(at, `${name} is bounded by ${code.text}, which is not in the code`));
      }
    }
  }
  for (const key of unseen) {
    // A tree of a few files, as in the tests of the rule, has not all of them.
    const path = `actors/${key.replace(/#.*/, "")}`;
    if (files.has(path)) found.push(`tests/tidy/queues.ts:1: ${key} is not there: forget it`);
  }
  return found;
}

/** Sums of actors/queues.ts that no file asserts. */
export function ruleSumsAreAsserted(sources: readonly Source[]): string[] {
  const table = sources.find(({ path }) => path === "actors/queues.ts");
  if (table === undefined) return [];
  const names = [...table.code.matchAll(/^ {2}readonly (\w+): number;/gm)].map((match) => match[1]!);
  const used = new Set<string>();
  for (const { path, code, isTest } of sources) {
    if (isTest || path === table.path) continue;
    for (const match of code.matchAll(/\bqueues\.(\w+)/g)) used.add(match[1]!);
  }
  return names.filter((name) => !used.has(name)).map((name) => `${table.path}:1: no code asserts ${name}`);
}
