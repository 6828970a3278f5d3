/**
 * The bounds of the queues inside the actors and at the edge: for each a sum over what may wait in it (invariant I8 of
 * actors/ARCHITECTURE.md). Each is asserted where the queue grows. The bounds of mailboxes are in mailboxes.ts, with what the
 * sums are over.
 *
 * A task waits in one queue at a time, as it asks one question at a time. tests/tidy/queues.ts names every queue there is, and
 * which of these sums, or what else, bounds it.
 */
import { assert } from "../storage/base/assert.ts";
import {
  adminQueueMax,
  heldVolumesMax,
  listenersMost,
  parkedRequestsPerClientMax,
  requestsPerConnectionMax,
} from "./limits.ts";
import { type AdmittedAtOnce, admittedMost, holdersOf, mailboxes } from "./mailboxes.ts";

/** What may wait in each queue. */
export interface Queues {
  /** Bios that ask the allocator for a block, or have one that is not mapped yet. */
  readonly allocations: number;
  /** Tasks that wait for blocks to leave the quarantine. */
  readonly reclaims: number;
  /** Tasks that wait for one commit, or for one flush of the data device. */
  readonly commits: number;
  /** Operations of metadata that wait for a block, for one that runs alone, or for a commit. */
  readonly operations: number;
  /** Commits that readers hold. */
  readonly heldCommits: number;
  /** Operations of one device that are not answered. */
  readonly deviceOperations: number;
  /** Tasks that wait for one lock. */
  readonly lockWaits: number;
  /** Blocks of one region that are locked or waited for. */
  readonly lockedBlocks: number;
  /** Ranges of one region that are locked or waited for. */
  readonly lockedRanges: number;
  /** Requests, or questions about block status, of one volume. */
  readonly volumeRequests: number;
  /** Tasks that wait until a volume has no bio in flight. */
  readonly suspends: number;
  /** Bios of one volume that wait for space. */
  readonly parkedBios: number;
  /** Volumes that have had parked bios. */
  readonly parkingVolumes: number;
  /** Commands that wait, of each kind: those that look, and the others. */
  readonly commands: number;
  /** Questions that the pool answers when a command has ended. */
  readonly viewers: number;
  /** Questions whose answer takes several turns. */
  readonly longAnswers: number;
  /** NBD clients. */
  readonly clients: number;
  /** Commands that wait until one client has left. */
  readonly kicks: number;
  /** Large READs of one client that wait until others have been sent. */
  readonly largeReads: number;
  /** Requests of one client that wait for space, or have. */
  readonly parkedRequests: number;
  /** Requests of one client. */
  readonly requestsOfClient: number;
  /** Clients whose TLS the main side does. */
  readonly relays: number;
  /** Operations of the ring that are not answered. */
  readonly ringOperations: number;
}

/** The sums for what is admitted. */
function queueSums(admitted: AdmittedAtOnce): Queues {
  const { clients, commands, knobs } = admitted;
  const holders = holdersOf(admitted);
  const { bios, bioTasks, commandTasks, passdownTask, commitTask, walkTask, operations } = holders;
  // A bio that found no block, or the trim of a volume.
  const reclaims = bios + commandTasks;
  // A request that waits for space has no credit, so another one may have come in its place.
  const requestsOfClient = requestsPerConnectionMax + parkedRequestsPerClientMax;
  const dataOperations = bios + commandTasks + passdownTask + commitTask + knobs.flushesMax;
  const metadataOperations = operations + commandTasks + walkTask + knobs.commitWritesMax + 2 * commitTask;
  return {
    // Of both devices; a receive and a wait for room of each client, also of those that are being closed; accepts and pauses of
    // each listening socket, and the wake-up.
    ringOperations: dataOperations + metadataOperations + 4 * clients + 2 * (heldVolumesMax + listenersMost) +
      1,
    // A command zeroes the tail of a volume with a bio of its own.
    allocations: bios + commandTasks,
    reclaims,
    // The commit that a reclaim needs is asked for by a task of its own, and one is asked for by the allocator.
    commits: bioTasks + commandTasks + reclaims + 1,
    operations,
    // Commands that look, and the walk over a commit.
    heldCommits: commandTasks + walkTask,
    deviceOperations: Math.max(dataOperations, metadataOperations),
    lockWaits: bios + commandTasks + passdownTask,
    // The old and the new block of a copy; an unlock may be behind the next lock of its place.
    lockedBlocks: 3 * (bios + commandTasks),
    // One of each bio or command; of a passdown, one for each stripe.
    lockedRanges: bios + commandTasks + passdownTask * knobs.passdownRunBlocksMax,
    volumeRequests: clients * requestsOfClient,
    suspends: commandTasks,
    parkedBios: clients * requestsOfClient * knobs.biosPerVolumeMax,
    // Of the volumes that are open, one for each client that leaves it while another comes.
    parkingVolumes: knobs.openVolumesMax + 2 * clients,
    // A stop and the end of a removal are not refused, and are behind the command that is carried out.
    commands: adminQueueMax + heldVolumesMax + 3,
    // A connection asks one question at a time.
    viewers: clients + commandTasks,
    longAnswers: clients,
    clients,
    // Also of clients that are being closed.
    relays: 2 * clients,
    kicks: commands,
    largeReads: requestsPerConnectionMax,
    parkedRequests: requestsOfClient,
    requestsOfClient,
  };
}

/** Bounds of production. */
export const queues: Queues = queueSums(admittedMost);

assert(
  queues.deviceOperations <= Math.max(mailboxes.dataDevice, mailboxes.metadataDevice),
  "the end of each is a message",
);
assert(queues.largeReads <= queues.parkedRequests, "a READ that waits has a credit");
