/** Random clients and a random administrator for recorded runs. The same seed gives the same run. */
import type { AdminCommand } from "../../actors/control/admin_command.ts";
import { sectorSizeBytes } from "../../storage/base/ids.ts";
import { testingBlockSizeBytes } from "../support/pool.ts";
import { Cut } from "./content.ts";
import type { RecordedRun } from "./recorded_run.ts";

const blockSectors = testingBlockSizeBytes / sectorSizeBytes;

/** Sizes in sectors: a volume's last block may be partial, and a resize may stay within it. */
const sizes = [
  5 * blockSectors + 100,
  5 * blockSectors + 4,
  4 * blockSectors,
  3 * blockSectors + 1,
  6 * blockSectors - 8,
  5 * blockSectors + 60,
];

/** Does so many things, several at a time. */
export function runWorkload(run: RecordedRun, actions: number): void {
  run.admin({ verb: "create", name: "a", sizeBytes: sizes[0]! * sectorSizeBytes });
  run.drain();
  for (let action = 0; action < actions; action += 1) {
    if (run.command === undefined && run.random.below(5) === 0) {
      const command = randomCommand(run, action);
      if (command !== undefined) run.admin(command);
    } else submitRandom(run);
    if (run.random.below(40) === 0) run.tick();
    run.step(run.random.below(8));
  }
  run.drain();
}

function submitRandom(run: RecordedRun): void {
  const names = run.writable();
  const name = names[run.random.below(names.length)];
  if (name === undefined) return;
  const chance = run.random.below(20);
  if (chance < 4) return run.submit(name, "flush");
  const { begin, sectors } = randomRange(run, name, chance < 14);
  const fua = run.random.below(8) === 0;
  if (chance < 14) return run.submit(name, "write", begin, sectors, { fua });
  if (chance < 16) return run.submit(name, "writeZeroes", begin, sectors, { fua, noHole: chance === 14 });
  // Whether a discard covers the last block depends on the size, which a resize is about to change.
  if (chance < 18 && run.command?.verb !== "resize" && run.command?.verb !== "rollback") {
    return run.submit(name, "discard", begin, sectors, { fua });
  }
  run.submit(name, "read", begin, sectors);
}

/** Often whole blocks, often parts of one, sometimes anything up to the end. */
function randomRange(run: RecordedRun, name: string, isWrite: boolean): { begin: number; sectors: number } {
  const { random } = run;
  const total = run.sizeOf(name) / sectorSizeBytes;
  const blocks = Math.ceil(total / blockSectors);
  let begin = random.below(blocks) * blockSectors;
  let sectors = blockSectors;
  switch (random.below(5)) {
    case 0:
    case 1:
      sectors *= isWrite ? 1 : 1 + random.below(3);
      break;
    case 2:
      begin = random.below(total);
      sectors = 1 + random.below(3 * blockSectors);
      break;
    case 3:
      begin += random.below(blockSectors);
      sectors = 1 + random.below(16);
      break;
    default:
      // Small writes to the same few places meet each other.
      begin += 8 * random.below(4);
      sectors = 16;
  }
  begin = Math.min(begin, total - 1);
  return { begin, sectors: Math.min(sectors, total - begin) };
}

function randomCommand(run: RecordedRun, action: number): AdminCommand | undefined {
  const { random } = run;
  const volumes = run.history.current.volumes;
  const names = [...volumes.keys()];
  const snapshots = names.filter((name) => volumes.get(name) instanceof Cut);
  const writables = names.filter((name) => !snapshots.includes(name));
  const any = (from: readonly string[]) => from[random.below(from.length)];
  const writable = any(writables);
  const snapshot = any(snapshots);
  if (writable === undefined || writables.length < 2 || names.length > 7) {
    if (names.length > 3) return removal(run, names, writables, any);
    return {
      verb: "create",
      name: `v${action}`,
      sizeBytes: sizes[random.below(sizes.length)]! * sectorSizeBytes,
    };
  }
  switch (random.below(9)) {
    case 0:
    case 1:
      return { verb: "snapshot", names: [`${writable}@s${action}`] };
    case 2:
      return { verb: "snapshot", names: writables.map((name) => `${name}@s${action}`) };
    case 3:
      return { verb: "clone", source: any(names)!, name: `c${action}` };
    case 4:
      if (snapshot === undefined) return undefined;
      return volumes.has(snapshot.slice(0, snapshot.indexOf("@")))
        ? { verb: "rollback", snapshot, force: true }
        : undefined;
    case 5:
      return { verb: "rename", from: writable, to: `r${action}` };
    case 6:
    case 7:
      return {
        verb: "resize",
        name: writable,
        sizeBytes: sizes[random.below(sizes.length)]! * sectorSizeBytes,
        force: true,
      };
    default:
      return removal(run, names, writables, any);
  }
}

function removal(
  run: RecordedRun,
  names: readonly string[],
  writables: readonly string[],
  any: (from: readonly string[]) => string | undefined,
): AdminCommand | undefined {
  const first = any(names);
  if (first === undefined || (writables.length === 1 && first === writables[0])) return undefined;
  const second = run.random.below(3) === 0
    ? any(names.filter((name) => !writables.includes(name)))
    : undefined;
  const chosen = second === undefined || second === first ? [first] : [first, second];
  return { verb: "rm", names: chosen, dryRun: false, force: true };
}
