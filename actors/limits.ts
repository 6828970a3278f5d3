/**
 * Every bound of the system, and the relations between them, asserted when this module loads. Knobs, which bound nothing by
 * themselves, are in knobs.ts. The bounds of storage/, which cannot import this file, are in storage/base/limits.ts; those of
 * the NBD codec in nbd/wire/limits.ts.
 *
 * Pressure starts at the socket: a connection out of credits is not read. Everything inside is caused by requests and commands
 * that were admitted, so the bounds of mailboxes are sums over those (mailboxes.ts).
 */
import { assert } from "../storage/base/assert.ts";
import { metadataBlockSizeBytes, sectorSizeBytes } from "../storage/base/ids.ts";
import { defaultKnobs } from "./knobs.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const { biosPerVolumeMax, dirtyBlocksMax } = defaultKnobs;

/** Bytes of the largest READ or WRITE served, the maximum payload told to clients (NBD specification, "Block size constraints"). */
export const requestBytesMax = 32 * MiB;
/** Connections at once, attached or still in the handshake, unless the server is told otherwise (`--max-clients`). */
export const connectionsMax = 64;
/** The most connections that `--max-clients` takes. They need some GiB of memory: see {@linkcode residentBytesOf}. */
export const maxClientsMost = 1024;
/** Requests of one connection that were admitted and whose replies were not sent; but see `parkedRequestsPerClientMax`. */
export const requestsPerConnectionMax = 128;
/** Payload bytes in flight that a connection may always have: 32 requests of 64 KiB. */
export const connectionBytesMax = 2 * MiB;
/** Payload bytes in flight that one connection may borrow above its own: one request of the largest kind. */
export const connectionBorrowMax = requestBytesMax;
/** Payload bytes in flight that all connections together may borrow above their own; how they share it is in nbd/loans.ts. */
export const borrowedBytesMax = 128 * MiB;
/** Payload bytes in flight that the connections of one identity may borrow together, so that there is always some for others. */
export const identityBorrowMax = borrowedBytesMax * 3 / 4;
/** Those of them that writes may hold that wait for space, perhaps for ever: beside them the largest requests of others go on. */
export const waitingLoansBytesMax = borrowedBytesMax - 2 * requestBytesMax;
/** Milliseconds without a loan after which the memory of earlier loans is freed. */
export const spareMs = 1_000;
/** Bytes of large READs that one connection may have read and not sent, where they are sent from where they lie. */
export const unsentReadBytesMax = MiB;
/** Payload bytes of one client's writes that wait for space, in memory of their own; beyond that they keep what they have. */
export const parkedBytesPerClientMax = MiB;
/** Such requests of one client. */
export const parkedRequestsPerClientMax = 128;
/** Milliseconds between two looks whether a client is still there from which nothing is read while its writes wait. */
export const hangUpCheckMs = 1_000;
/** Bytes read from a socket at once. */
export const receiveBytesMax = 256 * KiB;
/** Buffers that one connection reads its socket into; a small WRITE is served from where it arrived. */
export const receiveBuffersMax = 4;

/**
 * Extents in the answer to one block status, of all its contexts together; a client that wants more asks again from where it
 * ended. A thousand are one leaf's worth or four of looking up, and 16 KiB on the wire.
 */
export const statusExtentsMax = 1024;
/**
 * Bytes that one of them takes until the answer is written: an object with two numbers, and its place in a list that may
 * have grown (66, measured).
 */
export const extentBytes = 72;
/**
 * Most queries in one meta context option; more are refused with NBD_REP_ERR_TOO_BIG. Each of them selects one context at
 * most, so this is also the number of contexts that a client can have.
 */
export const metaContextQueriesMax = 64;
/** Bytes of an output block: room for some sixty replies of 4 KiB, so that one drain is one or two writes. */
export const outputBlockBytes = 256 * KiB;
/** Output blocks kept for the next batch: one to fill while another is written. */
export const spareOutputBlocksMax = 2;
/** Bytes of an option's replies that are queued at once; the rest of a long list waits until they have been sent. */
export const optionReplyBytesMax = 64 * KiB;
/** Options that a client may send before it attaches, as for each option it can make us work. */
export const handshakeOptionsMax = 1000;
/** Options besides for each export that it was told of: qemu-nbd --list sends three. */
export const optionsPerExport = 4;

/** Lock regions of one volume. A discard of petabytes is one small request, and its task locks a range in each of them. */
export const regionsPerVolumeMax = 64;
/** Lock regions of the data device. Each has every so many-th stripe of it, so that their number does not depend on its size. */
export const dataRegions = 64;

/** Clean metadata blocks kept in memory, by default: 32 MiB. */
export const metadataCacheBlocks = 8192;
/** Free data blocks that could not be written and are not leased again. More are: then it is not the blocks that are bad. */
export const retiredBlocksMax = 256;
/** How many of these blocks the log names. */
export const retiredBlocksSaidMax = 8;
/** Milliseconds without a refusal of a kind, after which it is over if it is served again. It bounds the log's lines. */
export const refusalQuietMs = 10_000;
/** Percents of a device, or of the host's file system, from which on its space is low: a line of the log for each. */
export const warnAtPercentsDefault: readonly number[] = [80, 90, 95];
/** A threshold of `warnAtPercentsDefault` or `--warn-at` is left when the figure is so many percentage points below it. */
export const warnClearPercent = 2;
/** The most thresholds that `--warn-at` takes. */
export const warnThresholdsMax = 10;
/** Bytes by which the host must have more room before a growth that failed there is tried again. */
export const autoGrowRoomBytes = MiB;
/** Milliseconds between two measures of how full a pool is that is served. */
export const spaceGaugeMs = 1_000;
/** Milliseconds between two looks at the host's free space, while bios wait for some. */
export const hostSpaceAskMs = 1_000;
/** Bios of one volume that waited for space and are tried again at once. */
export const parkedRetriesMax = 32;
/** Milliseconds that writes wait for space before they fail, by default, as Linux's `no_space_timeout` (drivers/md/dm-thin.c). */
export const noSpaceTimeoutMs = 60_000;
/** Milliseconds after which the size of a file is looked at again before it is used: another program may cut it. */
export const fileSizeCheckMs = 5;

/** Volumes and snapshots in a pool. */
export const volumesMax = 2 ** 16;
/** Bytes of the largest volume: the largest whole number of sectors whose bytes a number counts exactly. */
export const volumeBytesMax = 2 ** 53 - sectorSizeBytes;
/** Characters of a text that a trace shows; a longer one is shown as its length. */
export const tracedCharactersMax = 64;
/** Bytes of changes that the catalogue's journal holds at least before it is written anew as one line. */
export const catalogueChangesBytesMin = 256 * KiB;
/** Bytes at the end of the journal that are kept for removals, besides one and a half times the catalogue as one line. */
export const catalogueHeadroomBytesMin = 64 * KiB;
/** Bytes in whose multiples the files of the catalogue grow. */
export const catalogueFileUnitBytes = 64 * KiB;
/** Bytes of a line of the catalogue that are written in one turn. */
export const cataloguePieceBytes = MiB;
/** Bytes of zeroes written at once to set such room aside. */
export const catalogueZeroBytesMax = MiB;
/** Bytes of a new journal that are written between two flushes of it: a longer flush could delay the writes of clients. */
export const catalogueUnflushedBytesMax = 4 * MiB;
/** Admin commands that wait for their turn: so many that change something, and so many that only look. */
export const adminQueueMax = 1024;
/** Clients that a sentence names; it counts the others. */
export const clientsNamedMax = 5;
/** Milliseconds after which a dump ends whose reader takes nothing more: the commit it shows holds space. */
export const stalledDumpMs = 10 * 60_000;

/** Milliseconds that a client may take for its first option, and from one to the next; in qemu, for all. */
export const handshakeMs = 10_000;
/** Milliseconds for which the thread of the actors may wait for a write or flush that another thread makes. */
export const threadWaitMsMax = 1;
/** Milliseconds after which a flush under way tells that its disk is busy, or has stopped. */
export const longFlushMs = 2;
/** After a long write on the actors' thread writes are made on another one, until so many in a row were short there. */
export const shortWritesWanted = 3;

/** Milliseconds from connect to transmission. */
export const handshakeSumMs = 60_000;
/** Milliseconds more for each export that the client was told of: libnbd takes 200 to ask about one over TCP. */
export const handshakeExportMs = 500;
/** Milliseconds that a client has for attaching before it makes room for another one, when `connectionsMax` are connected. */
export const crowdedHandshakeMs = 1_000;
/** Milliseconds from STARTTLS to the end of the TLS handshake, within those of the whole handshake. */
export const tlsHandshakeMs = 5_000;
/** Milliseconds after which a client that takes no byte of its replies is given up, when its export or the server goes. */
export const stalledSendMs = 60_000;
/** Lines of the log that wait to be written, and their bytes; what comes beyond is dropped and counted. */
export const logLinesMax = 4096;
export const logBytesMax = 512 * KiB;
/** Milliseconds until a full pipe, which another process has made non-blocking, is tried again for a line of the log. */
export const logAgainMs = 100;
/** Milliseconds that a command which ends waits until its log is written. */
export const logDrainMs = 1_000;
/** Milliseconds in which a client has to move `loanPaceBytesMin` while it holds borrowed bytes that another one waits for. */
export const loanPaceMs = 10_000;
/** 0.8 Mbit/s. So what is lent for one request of the largest kind is back 320 s after it is waited for, and a part of it sooner. */
export const loanPaceBytesMin = MiB;
/** Milliseconds between two looks at that, at each of which what has been sent is given back. */
export const loanCheckMs = 1_000;
/** Bytes that are given back before the whole reply is sent, at least; and of the pieces that its rest is then kept in. */
export const loanPieceBytes = MiB;
/** Seconds without a byte from a TCP client after which its host is asked whether it is there, and between two such questions. */
export const keepAliveIdleS = 10;
export const keepAliveIntervalS = 5;
/** Questions without an answer after which it is gone: 25 s after its last byte. */
export const keepAliveCount = 3;
/**
 * Milliseconds after which a TCP client is gone whose host acknowledges nothing while data for it is out, which is when the
 * system asks no such questions; and between two looks at that.
 */
export const silentPeerMs = 20_000;
export const linkCheckMs = 5_000;
/** Milliseconds between two attempts of the system to send to a client that does not acknowledge, or has no room, at most. */
export const resendMs = 5_000;
/** Milliseconds that a stopping server waits for its clients. */
export const drainMs = 5_000;

/** Milliseconds for which `kick --for` may refuse a host, at most: a day. */
export const kickMsMax = 24 * 3_600_000;
/** Hosts that are refused at once because of `kick --for`. */
export const refusedIdentitiesMax = 1024;
/** Connections to the control socket at once. One more closes the oldest of those that have given no command yet. */
export const controlConnectionsMax = 64;
/** Where few descriptors are allowed, there may be fewer, but so many: a dump, another command, a hold, and one that is refused. */
export const controlConnectionsMin = 4;
/** Commands from the control socket at once, also of clients that have gone; further ones are refused. */
export const controlCommandsMax = 32;
/** The dumps among them, which may last as long as their readers like. */
export const controlDumpsMax = 8;
/** Connections to the control socket at once that hold a volume, as `run` does, for as long as they like. */
export const controlHoldsMax = 24;
/** How many of those there may be among so many connections: fewer where few descriptors are allowed. */
export function holdsMaxOf(connections: number): number {
  return Math.min(controlHoldsMax, Math.floor(connections * controlHoldsMax / controlConnectionsMax));
}
/** Volumes that are held at once: those, and that of a \`run\` which serves the pool itself. */
export const heldVolumesMax = controlHoldsMax + 1;
/** Milliseconds in which a control client has to send its whole request, counted from its connection. */
export const controlRequestMs = 10_000;
/** Milliseconds in which it has to take its answer; a dump has `stalledDumpMs` for each piece. */
export const controlAnswerMs = 30_000;
/** Milliseconds that it has to close its end, once its answer was sent. */
export const controlFarewellMs = 1_000;
/** Milliseconds for which a server may say nothing to a command, by default. One that carries out a long command is asked. */
export const controlSilenceMs = 30_000;
/** Milliseconds that a command waits for a pool that another process has open, by default. */
export const lockWaitMs = 10_000;
/** Milliseconds until it tries again, on average. */
export const lockAgainMs = 50;
/** Bytes of a control request's body: a command with many names. */
export const controlBodyBytesMax = MiB;
/** Descriptors that accepting leaves free, for Deno itself: more than the clients that may come before it is looked again. */
export const freeDescriptorsMin = 8;
/** Milliseconds until accepting is tried again when the host had no free descriptor. */
export const acceptAgainMs = 100;
/** Milliseconds without another such failure after which it is over. */
export const acceptQuietMs = 10_000;

// The edge: files, sockets and descriptors.

/** Bytes of zeroes, or of a copy, that are written to a device with one call of the device. */
export const filePieceBytes = MiB;
/**
 * Bytes written to a file with one system call. The host may keep the bytes of one call as one folio of its page cache, and
 * ext4 looks at all 4 KiB buffers of a folio for each small write to it: after calls of 1 MiB an overwrite of 4 KiB took
 * 33 us of CPU, after calls of 64 KiB 13 (Linux 6.18). The larger calls saved a fifteenth of a large write.
 */
export const fileWritePieceBytes = 64 * KiB;
/** How long an ephemeral volume stays after its last client was lost, if it has no time of its own: 10 minutes. */
export const lingerMsDefault = 600_000;
/** The longest time for which a volume may be told to linger or to live: a hundred years. */
export const lifetimeMsMax = 100 * 366 * 86_400_000;
/** Bytes read from the catalogue's journal at once. */
export const catalogueReadBytes = MiB;
/** Bytes of the sections of a mapped file that are in use, which count as memory of the process; more are read instead. */
export const mappedBytesMax = 1024 * MiB;
/** Bytes of one section: what one entry of the page table maps. */
export const mappedSectionBytes = 2 * MiB;
/** Bytes of a file whose pages the host is asked about with one call of mincore, where it has no cachestat (before Linux 6.5). */
export const mincoreBytesMax = 1024 * MiB;
/** Bytes of a file above which mincore is not used: it looks at every page, also of holes, at some 10 ns each. */
export const mincoreFileBytesMax = 2 ** 36;
/** Bytes of metadata that may be asked for: dm-thin uses 15.875 GiB of 16 GiB and ignores the rest. */
export const metadataAskedBytesMax = 2 ** 34;
/** Times that a block device is locked before it counts as in use, and the milliseconds between: udev locks it for a moment. */
export const blockDeviceLockTries = 10;
export const blockDeviceLockPauseMs = 50;
/** Descriptors that are kept for the pool's own files; as many again for its addresses, and for Deno itself. */
export const ownDescriptors = 8;
/** Descriptors of one client: Deno's, and a duplicate for the system's own calls. */
export const descriptorsPerClient = 2;
/** The same of a client whose TLS the main side does: its socket, a duplicate of it, and a socket pair. */
export const descriptorsPerRelay = 4;
/** Part of the free descriptors that connections to the control socket may have. */
export const controlDescriptorsShare = 1 / 4;
/** Descriptors that are looked at above the highest known socket, to find a new one: the system gives the lowest that is free. */
export const descriptorsSearchedMax = 512;
/** What a place past the end of a file is rounded up to, in bytes. */
export const fileEndAlignBytes = MiB;
/** Bytes of the longest path of a Unix socket: `sun_path` of unix(7) less its final NUL. */
export const socketPathBytesMax = 107;
/** Bytes read at once at either end of a control connection, and of the longest head of an answer. */
export const controlReadBytes = 16 * KiB;
/** Bytes read from a TLS client at once; and decrypted bytes not taken yet, from which on no more are read. */
export const tlsReadBytes = 64 * KiB;
/** Bytes given to a Node stream at once: the count of sent bytes grows in these steps, and copies are no larger. */
export const streamWriteBytesMax = 256 * KiB;
/** Milliseconds that a Node stream has to end (in TLS: to say that nothing was cut off) before it is destroyed. */
export const streamFarewellMs = 1_000;
/** Bytes of a reply that are copied at once, for the system to send when there is room. */
export const sendCopyBytesMax = 128 * KiB;

// NBD clients: places and buffers.

/** Part of the places of clients that are kept for clients of Unix sockets; at least one, unless there is only one in all. */
export const localPlacesShare = 1 / 8;
/** Part of the places of TCP clients that the clients of one identity may take. */
export const identityPlacesShare = 3 / 4;
/** Bytes of the smallest payload buffer; the others are larger by powers of two. A power of two. */
export const payloadBufferBytesMin = 4 * KiB;
/** Bytes of zeroes that are kept to answer READs of holes. */
export const zeroPieceBytes = MiB;

/** Requests admitted at once by all connections. */
export const requestsMax = maxClientsMost * requestsPerConnectionMax;
/** Tasks at once in all volumes of a busy pool: every connection may use a volume of its own. */
export const biosMax = maxClientsMost * biosPerVolumeMax;
/** Messages delivered in one turn of an actor: what tells it something without being asked has no more on its way. */
export const noticesMax = 64;

/**
 * Payload bytes in memory at once, with so many clients.
 *
 * A payload is paid for from admission until its reply is sent, rounded up to the size of its buffer; spare
 * buffers are kept only within what is unpaid. A short reply is copied into an output block of 256 KiB, which
 * wastes at most a third of what was copied; two spare blocks stay with the connection besides.
 */
function payloadBytesOf(clientsMax: number): number {
  return Math.ceil((clientsMax * connectionBytesMax + borrowedBytesMax) * 4 / 3) +
    clientsMax *
      (parkedBytesPerClientMax + receiveBuffersMax * receiveBytesMax +
        spareOutputBlocksMax * outputBlockBytes);
}

/**
 * What the process has beside payloads and metadata blocks: Deno itself and an idle pool (70 MiB, measured), the volumes'
 * and tasks' objects, and what V8 lets lie until it collects it.
 */
export const runtimeBytes = 144 * MiB;
/** The same for each client above `connectionsMax`: 2 KiB for each bio of a volume of its own. */
const runtimeBytesPerClient = 2 * KiB * biosPerVolumeMax;

/** Levels of `tree` that are drawn: what is deeper stands as deep as that. */
export const treeDepthDrawnMax = 32;

/** Resident bytes of a process that serves one pool to so many clients. Dirty metadata blocks, and those of a commit in
 * progress, come on top of the clean. */
export function residentBytesOf(clientsMax: number): number {
  return payloadBytesOf(clientsMax) + runtimeBytes +
    Math.max(0, clientsMax - connectionsMax) * runtimeBytesPerClient +
    (metadataCacheBlocks + 2 * dirtyBlocksMax) * metadataBlockSizeBytes;
}

/** What the README states. */
export const residentBytesMax = residentBytesOf(connectionsMax);

// A request that could never be borrowed whole would wait for ever.
assert(requestBytesMax <= connectionBytesMax + connectionBorrowMax, "the largest payload can be paid for");
assert(receiveBytesMax <= connectionBytesMax, "what one buffer received can be paid for without borrowing");
assert(unsentReadBytesMax <= connectionBytesMax, "reads wait for unsent ones within what a connection has");
assert(optionReplyBytesMax <= connectionBytesMax, "an option's replies are within what a connection has");
assert(
  defaultKnobs.zeroBytesMax <= defaultKnobs.discardBytesMax,
  "a device that zeroes by punching may take the piece",
);
assert(retiredBlocksSaidMax < retiredBlocksMax, "the last block set aside is not one that is named");
assert(borrowedBytesMax >= 2 * requestBytesMax, "two of the largest requests can be in flight at once");
assert(connectionBorrowMax >= requestBytesMax, "a request of the largest kind can be borrowed whole");
assert(
  borrowedBytesMax - identityBorrowMax >= requestBytesMax,
  "another host always finds bytes for a request of the largest kind",
);
assert(
  waitingLoansBytesMax + requestBytesMax <= identityBorrowMax,
  "a host goes on beside its writes that wait",
);
assert(identityBorrowMax >= connectionBorrowMax, "one connection of a host may borrow what it may");
assert(
  loanPieceBytes <= connectionBytesMax,
  "what is given back last is no more than a connection has of its own",
);
assert(borrowedBytesMax >= connectionBorrowMax, "what one connection may borrow is there");
assert(statusExtentsMax * extentBytes <= connectionBytesMax, "a block status never needs to borrow");
assert(statusExtentsMax >= metaContextQueriesMax, "every context gets an extent");
assert(receiveBuffersMax >= 2, "a connection can read while it holds a payload where it arrived");
assert(defaultKnobs.openVolumesMax >= 2 * connectionsMax, "what clients use is open, and as much besides");
// The leaves of both device trees, a third full: of 252 roots and of 126 details.
assert(
  volumesMax / 84 + volumesMax / 42 < dirtyBlocksMax,
  "a change of all devices that there can be, in which no commit may begin, does not fill the memory for what is dirty",
);
assert(dirtyBlocksMax < metadataCacheBlocks, "an operation always finds room beside what is dirty");
assert(silentPeerMs >= 3 * resendMs, "a lost packet or two is no silence");
assert(silentPeerMs + linkCheckMs <= 30_000, "a dead peer is gone within 30 s");
assert(keepAliveIdleS + keepAliveCount * keepAliveIntervalS <= 30, "an idle one too");
assert(crowdedHandshakeMs < handshakeMs, "a client that makes room loses time");
assert(handshakeMs < handshakeSumMs, "there is time for several options");
assert(tlsHandshakeMs < handshakeMs, "TLS leaves time to attach");
assert(connectionsMax <= maxClientsMost, "the default number of clients is allowed");
assert(controlDumpsMax < controlCommandsMax, "dumps leave room for other commands");
assert(
  controlCommandsMax + controlHoldsMax < controlConnectionsMax,
  "a control connection without a command can make room",
);
assert(filePieceBytes <= defaultKnobs.zeroBytesMax, "a device writes zeroes in pieces of at most that");
assert(mappedBytesMax % mappedSectionBytes === 0, "a page window is full of whole sections");
assert(payloadBufferBytesMin <= requestBytesMax, "there is a buffer for every payload");
assert(residentBytesMax <= 720 * MiB, "the bound is what the README states");

/** Bytes of one segment of the intent journal: 87,296 changes of mappings. Half of it full makes the pool commit. */
export const intentSegmentBytes = 4 * MiB;
/** Changes that are collected before they are written, at most. */
export const intentsCollectedMax = 1024;
/** Places of a segment that are kept for a change that is under way when it is full: one that runs alone. */
export const intentPlacesKept = 2;
/** Changes of the intent journal that are done again in one turn. */
export const intentsPerRest = 1024;
/** Places of the ring's submission queue; a full one is handed over at once. */
export const ringEntries = 1024;
/** Connections that the host completes before they are accepted, at most. */
export const listenBacklog = 1024;
/** Addresses that one server listens on, at most; only for sums. */
export const listenersMost = 1024;
/** Mapped segments of one file that wait until their clients have room, at most; further ones are copied. */
export const heldSegmentsMax = 1024;
