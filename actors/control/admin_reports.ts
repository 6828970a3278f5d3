/** Admin commands that only look: they read the blocks of the last durable commit, which are kept meanwhile. */
import { checkMetadata } from "../../storage/check.ts";
import { dumpMetadata } from "../../storage/dump.ts";
import { dataBytesOf, type MetadataBlocks, metadataBytesOf } from "../../storage/base/geometry.ts";
import type { MetadataBlock, ThinId } from "../../storage/base/ids.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { into } from "../../storage/device/port.ts";
import { blocksFreedByRemoval } from "../../storage/removal.ts";
import { SliceEnd, type Slices, sortedSlices } from "../../storage/slices.ts";
import { type DeviceUsage, deviceUsage } from "../../storage/usage.ts";
import type { AdminCommand, AdminResult, PoolStatus, SpaceWord, VolumeListing } from "./admin_command.ts";
import type { AdminPeers } from "./admin_peers.ts";
import type { Address } from "../kernel/address.ts";
import { rest, type Steps } from "../kernel/task.ts";
import { lowSpaceShare } from "../limits.ts";
import type { Facts } from "../pool/metadata_messages.ts";
import type { SpaceFacts } from "../pool/space_messages.ts";
import { type TextOutMessage, writeText } from "./text_out.ts";
import type { Registry } from "./pool_messages.ts";

const seeCheck = "`check` names all damage.";

/** A walk over metadata, as storage/ writes it: it yields a block and is resumed with its bytes. */
type Walk<Result> = Generator<MetadataBlock, Result, Uint8Array | undefined>;

/** What the walks of one report read: the last durable commit, with one block at a time in memory. */
interface HeldCommit {
  readonly hold: number;
  readonly superblock: Uint8Array;
  readonly metadataBlocks: MetadataBlocks;
  readonly buffer: Uint8Array;
}

function* holdCommit(peers: AdminPeers): Steps<HeldCommit> {
  const { hold, superblock, geometry: { metadataBlocks } } = yield* peers.thin.metadata.holdCommit();
  return { hold, superblock, metadataBlocks, buffer: new Uint8Array(metadataBlockSizeBytes) };
}

function* readBlock(
  peers: AdminPeers,
  held: HeldCommit,
  block: MetadataBlock,
): Steps<Uint8Array | undefined> {
  // The superblock on disk may be a later one by now, so it comes from memory. A walk asks for it after each piece of work;
  // other turns go first then.
  if (block === 0) {
    yield* rest();
    return held.superblock;
  }
  const result = yield* peers.metadataDevice.read(into(held.buffer), block * metadataBlockSizeBytes);
  return result.kind === "ok" ? held.buffer : undefined;
}

function* runWalk<Result>(peers: AdminPeers, held: HeldCommit, walk: Walk<Result>): Steps<Result> {
  let step = walk.next();
  while (!step.done) step = walk.next(yield* readBlock(peers, held, step.value));
  return step.value;
}

/** Commits, because a report reads what is on disk, and changes in memory would be missing from it. */
function* commitFirst(peers: AdminPeers): Steps<void> {
  if (!peers.readOnly) yield* peers.thin.metadata.commit();
}

/** `list`: every volume and snapshot, with what each maps and owns alone. */
export function* listVolumes(peers: AdminPeers): Steps<AdminResult> {
  yield* commitFirst(peers);
  const registry = yield* peers.pool.registry();
  const held = yield* holdCommit(peers);
  const usage = yield* runWalk(peers, held, deviceUsage());
  peers.thin.metadata.releaseCommit(held.hold);
  if (usage.kind !== "usage") {
    return {
      kind: "refused",
      reason: `Cannot list the volumes: the metadata is damaged. ${usage.sentence} ${seeCheck}`,
    };
  }
  const volumes = yield* restingBetween(listingSlices(peers, registry, usage.devices));
  return { kind: "volumes", volumes };
}

/** Drives slices from a task: between two of them all other turns go first. */
function* restingBetween<Result>(slices: Slices<Result>): Steps<Result> {
  let slice = slices.next();
  while (!slice.done) {
    yield* rest();
    slice = slices.next();
  }
  return slice.value;
}

/** Sorted by name. */
function* listingSlices(
  { kernel, thin }: AdminPeers,
  { records, attached }: Registry,
  devices: readonly DeviceUsage[],
): Slices<VolumeListing[]> {
  const end = new SliceEnd(kernel.knobs.sliceRecords);
  const byThin = new Map<number, DeviceUsage>();
  for (const device of devices) {
    if (end.isDue()) yield;
    byThin.set(device.thinId, device);
  }
  const nameOf = new Map<string, string>();
  for (const { uid, name, deleting } of records) {
    if (end.isDue()) yield;
    if (!deleting) nameOf.set(uid, name);
  }
  const volumes: VolumeListing[] = [];
  for (const record of records) {
    if (end.isDue()) yield;
    if (record.deleting) continue;
    const used = byThin.get(record.thinId);
    volumes.push({
      name: record.name,
      thin_id: record.thinId,
      size_bytes: record.sizeBytes,
      mapped_bytes: (used?.mappedBlocks ?? 0) * thin.blockSizeBytes,
      exclusive_bytes: (used?.exclusiveBlocks ?? 0) * thin.blockSizeBytes,
      read_only: record.readOnly,
      // The volume that it was made from may have been removed.
      origin: record.origin === null ? null : nameOf.get(record.origin) ?? null,
      created: record.created,
      attached: attached.get(record.uid) ?? 0,
    });
  }
  return yield* sortedSlices(volumes, ({ name }) => name, kernel.knobs.sliceRecords);
}

/** `status`: the pool's mode and how full it is. */
export function* poolStatus(peers: AdminPeers): Steps<AdminResult> {
  const registry = yield* peers.pool.registry();
  const facts = yield* peers.thin.metadata.facts();
  const { geometry } = facts;
  const space = yield* peers.thin.space.facts();
  return {
    kind: "status",
    status: {
      mode: registry.mode,
      transaction_id: Number(facts.transactionId),
      block_size_bytes: geometry.blockSizeBytes,
      data_total_bytes: dataBytesOf(geometry),
      data_used_bytes: dataBytesOf(geometry) - facts.dataFree * geometry.blockSizeBytes,
      metadata_total_bytes: metadataBytesOf(geometry),
      metadata_used_bytes: metadataBytesOf(geometry) - facts.metadataFree * metadataBlockSizeBytes,
      volumes: registry.records.reduce((count, { deleting }) => deleting ? count : count + 1, 0),
      attached: [...registry.attached.values()].reduce((sum, clients) => sum + clients, 0),
      trouble: registry.trouble,
      ...spaceWords(facts, space),
      host_free_bytes: space.hostFreeBytes ?? null,
      parked: space.parked,
      reason: sentenceOf(registry),
    },
  };
}

/** How full the devices are. */
function spaceWords(facts: Facts, { short }: SpaceFacts): Pick<PoolStatus, "data" | "metadata"> {
  const wordOf = (free: number, total: number): SpaceWord =>
    free <= total * (1 - lowSpaceShare) ? "low" : "ok";
  const data = short.includes("host")
    ? "host-full"
    : short.includes("data") || facts.dataFree === 0
    ? "full"
    : wordOf(facts.dataFree, facts.geometry.dataBlocks);
  const metadata = short.includes("metadata")
    ? "full"
    : wordOf(facts.metadataFree, facts.geometry.metadataBlocks);
  return { data, metadata };
}

function sentenceOf({ mode, trouble, reason }: Registry): string | null {
  if (reason === null) return null;
  if (trouble !== null) return `The pool writes no more: ${trouble}.`;
  const next = mode === "out-of-metadata-space"
    ? "Remove volumes or snapshots, or make the metadata larger: `grow --metadata +SIZE`."
    : "Trim or remove something, or make the pool larger: `grow +SIZE`. If the host is full, make room there.";
  return `Writes that need space wait or fail: ${reason}. ${next}`;
}

/** `check` of a pool that is being served: the last durable commit is checked while changes go on. */
export function* checkPool(peers: AdminPeers): Steps<AdminResult> {
  yield* commitFirst(peers);
  const held = yield* holdCommit(peers);
  const report = yield* runWalk(peers, held, checkMetadata({ deviceBlocks: held.metadataBlocks }));
  peers.thin.metadata.releaseCommit(held.hold);
  return { kind: "checked", problems: report.problems, notes: report.notes };
}

/** `dump` of a pool that is being served: the last durable commit, as thin_dump writes it. */
export function* dumpPool(
  peers: AdminPeers,
  out: Address<TextOutMessage> | undefined,
): Steps<AdminResult> {
  yield* commitFirst(peers);
  const held = yield* holdCommit(peers);
  const result = yield* dumpHeld(peers, held, out);
  peers.thin.metadata.releaseCommit(held.hold);
  return result;
}

function* dumpHeld(
  peers: AdminPeers,
  held: HeldCommit,
  out: Address<TextOutMessage> | undefined,
): Steps<AdminResult> {
  const dump = dumpMetadata();
  let step = dump.next();
  while (!step.done) {
    if (step.value.kind === "read") {
      step = dump.next(yield* readBlock(peers, held, step.value.block));
      continue;
    }
    const taken = out === undefined ? "taken" : yield* writeText(out, step.value.text);
    if (taken === "gone") return { kind: "refused", reason: "The dump broke off: its reader went away." };
    step = dump.next();
  }
  if (step.value.kind === "whole") return { kind: "done" };
  return {
    kind: "refused",
    reason: `Cannot dump the metadata: it is damaged. ${step.value.sentence} ${seeCheck}`,
  };
}

/** `rm -n`: how many bytes removing all of these would free. */
export function* freedBy(
  peers: AdminPeers,
  command: AdminCommand & { readonly verb: "rm" },
): Steps<AdminResult> {
  const registry = yield* peers.pool.registry();
  const thins = yield* restingBetween(thinsOf(registry, command.names, peers.kernel.knobs.sliceRecords));
  if (typeof thins === "string") {
    return {
      kind: "refused",
      reason:
        `Cannot tell what removing "${thins}" would free: there is no such volume or snapshot. \`list\` shows what is there.`,
    };
  }
  yield* commitFirst(peers);
  const held = yield* holdCommit(peers);
  const removal = yield* runWalk(peers, held, blocksFreedByRemoval(thins));
  peers.thin.metadata.releaseCommit(held.hold);
  if (removal.kind !== "freed") {
    return { kind: "refused", reason: `Cannot tell what would be freed: ${removal.sentence} ${seeCheck}` };
  }
  return { kind: "wouldFree", bytes: removal.blocks * peers.thin.blockSizeBytes };
}

function* thinsOf(
  registry: Registry,
  names: readonly string[],
  perSlice: number,
): Slices<ThinId[] | string> {
  const end = new SliceEnd(perSlice);
  const byName = new Map<string, ThinId>();
  for (const { name, deleting, thinId } of registry.records) {
    if (end.isDue()) yield;
    if (!deleting) byName.set(name, thinId);
  }
  const thins = new Set<ThinId>();
  for (const name of names) {
    if (end.isDue()) yield;
    const thin = byName.get(name);
    if (thin === undefined) return name;
    thins.add(thin);
  }
  return [...thins];
}
