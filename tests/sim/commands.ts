/** What a random administrator asks. */
import type { AdminCommand } from "../../actors/control/admin_command.ts";
import { metadataBlockSizeBytes, sectorSizeBytes } from "../../storage/base/ids.ts";
import { Cut } from "../crash/content.ts";
import { Random } from "../support/world.ts";
import type { Oracle } from "./oracle.ts";
import type { Swarm } from "./swarm.ts";

/** A size in bytes: few blocks, of which the last may be partial, so that a resize may stay within it. */
export function randomSize(random: Random, { blockSectors, volumeBlocksMax }: Swarm): number {
  const sectors = (1 + random.below(volumeBlocksMax)) * blockSectors - random.below(blockSectors);
  return sectors * sectorSizeBytes;
}

/** A command that fits the volumes there are, or undefined. `ordinal` makes its names new. */
export function randomCommand(
  oracle: Oracle,
  random: Random,
  ordinal: number,
  swarm: Swarm,
): AdminCommand | undefined {
  const growth = randomGrowth(ordinal, swarm);
  if (growth !== undefined) return growth;
  const allowance = randomAllowance(oracle, ordinal, swarm);
  if (allowance !== undefined) return allowance;
  const volumes = oracle.current.volumes;
  const names = [...volumes.keys()];
  const snapshots = names.filter((name) => volumes.get(name) instanceof Cut);
  const writables = names.filter((name) => !snapshots.includes(name));
  const any = (from: readonly string[]) => from[random.below(from.length)];
  const writable = any(writables);
  const snapshot = any(snapshots);
  const canResize = ![...oracle.flying].some((followed) => followed.kind === "discard");
  if (writable === undefined || names.length < 2) {
    return { verb: "create", name: `v${ordinal}`, sizeBytes: randomSize(random, swarm) };
  }
  if (swarm.isChurning && writables.length > 0) {
    if (snapshot === undefined) return { verb: "snapshot", names: [`${writable}@s${ordinal}`] };
    if (random.below(3) > 0) return { verb: "rm", names: [snapshot], dryRun: false, force: true };
  }
  if (swarm.isForking && random.below(4) > 0) {
    if (names.length < 4) {
      if (random.below(2) === 0) return forkOf(any(names)!, 1 + random.below(3), ordinal);
      return { verb: "clone", source: any(names)!, name: `c${ordinal}` };
    }
    return { verb: "rm", names: [any(names)!], dryRun: false, force: true };
  }
  if (names.length > 7) return removal(random, names, any);
  switch (random.below(11)) {
    case 0:
      return { verb: "create", name: `v${ordinal}`, sizeBytes: randomSize(random, swarm) };
    case 1:
    case 2:
      return { verb: "snapshot", names: [`${writable}@s${ordinal}`] };
    case 3:
    case 4:
      return { verb: "snapshot", names: writables.map((name) => `${name}@s${ordinal}`) };
    case 5:
      if (random.below(2) === 0) return forkOf(any(names)!, 1 + random.below(3), ordinal);
      return { verb: "clone", source: any(names)!, name: `c${ordinal}` };
    case 6: {
      const owner = snapshot?.slice(0, snapshot.indexOf("@"));
      if (snapshot === undefined || !canResize || !writables.includes(owner!)) return undefined;
      return { verb: "rollback", snapshot, force: random.below(4) > 0 };
    }
    case 7:
      return { verb: "rename", from: writable, to: `r${ordinal}` };
    case 8:
      if (!canResize) return undefined;
      {
        const force = random.below(4) > 0;
        return { verb: "resize", name: writable, sizeBytes: randomSize(random, swarm), force };
      }
    default:
      return removal(random, names, any);
  }
}

/** By a random source of its own, so that what else a run does stays as it was. Some sizes are more than the devices have. */
function randomGrowth(ordinal: number, { growthBlocks, blockSectors }: Swarm): AdminCommand | undefined {
  const random = new Random(Math.imul(ordinal + 1, 0x165667b1));
  if (growthBlocks.data + growthBlocks.metadata === 0 || random.below(4) > 0) return undefined;
  if (random.below(8) === 0) return { verb: "rescan" };
  const some = (blocks: number, blockBytes: number) =>
    random.below(2) === 0 ? null : { bytes: (1 + random.below(blocks + 1)) * blockBytes, added: true };
  const data = some(Math.ceil(growthBlocks.data / 4), blockSectors * sectorSizeBytes);
  const metadata = some(Math.ceil(growthBlocks.metadata / 4), metadataBlockSizeBytes);
  return { verb: "grow", data, metadata };
}

/** By a random source of its own. Small ones, so that they are reached, and some that are not whole blocks. */
function randomAllowance(oracle: Oracle, ordinal: number, swarm: Swarm): AdminCommand | undefined {
  const { allowancesPercent, blockSectors, volumeBlocksMax, dataBlocks } = swarm;
  const random = new Random(Math.imul(ordinal + 1, 0x1b873593));
  const names = [...oracle.current.volumes].flatMap(([name, content]) =>
    content instanceof Cut ? [] : [name]
  );
  if (random.below(100) >= allowancesPercent || names.length === 0) return undefined;
  const name = names[random.below(names.length)]!;
  const isNone = random.below(4) === 0;
  const bytesOf = (blocks: number) => (blocks * blockSectors - random.below(2)) * sectorSizeBytes;
  if (random.below(2) === 0) {
    return { verb: "quota", name, quotaBytes: isNone ? null : bytesOf(1 + random.below(volumeBlocksMax)) };
  }
  const blocks = 1 + random.below(Math.max(2, dataBlocks / 2));
  return { verb: "reserve", name, reserveBytes: isNone ? null : bytesOf(blocks) };
}

function forkOf(source: string, count: number, ordinal: number): AdminCommand {
  const settings = { ephemeral: false, lingerMs: null, ttlMs: null };
  return { verb: "fork", source, count, name: `k${ordinal}-%02d`, ...settings };
}

function removal(
  random: Random,
  names: readonly string[],
  any: (from: readonly string[]) => string | undefined,
): AdminCommand {
  const [first, second] = [any(names)!, any(names)!];
  const chosen = random.below(3) > 0 || second === first ? [first] : [first, second];
  const [force, wait] = [random.below(3) > 0, random.below(2) === 0];
  return { verb: "rm", names: chosen, dryRun: false, force, wait };
}
