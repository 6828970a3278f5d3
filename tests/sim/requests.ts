/** What a random client asks, and what it may hear. */
import {
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EPERM,
  NBD_ESHUTDOWN,
} from "../../actors/nbd/wire/constants.ts";
import { sectorSizeBytes } from "../../storage/base/ids.ts";
import { Cut } from "../crash/content.ts";
import { stamped } from "../crash/stamps.ts";
import { Random } from "../support/world.ts";
import type { Asked } from "./client.ts";
import type { Target } from "./oracle.ts";
import type { Swarm } from "./swarm.ts";

/** Stamped sectors. In some writes all are zeroes, or all but the first block's or the last. By a random source of its own. */
export function payloadOf(
  number: number,
  begin: number,
  sectors: number,
  ordinal: number,
  { zeroesPercent, blockSectors }: Swarm,
): Uint8Array {
  const data = stamped(number, begin, sectors, ordinal);
  const random = new Random(Math.imul(ordinal + 1, 0x2545f491));
  if (random.below(100) >= zeroesPercent) return data;
  switch (random.below(4)) {
    case 0:
      return data.fill(0, (blockSectors - begin % blockSectors) * sectorSizeBytes);
    case 1:
      return data.fill(0, 0, (sectors - 1) * sectorSizeBytes);
    default:
      return data.fill(0);
  }
}

/** Often whole blocks, often parts of one, sometimes anything up to the end. */
export function randomRange(
  random: Random,
  total: number,
  blockSectors: number,
): { begin: number; sectors: number } {
  const blocks = Math.ceil(total / blockSectors);
  let begin = random.below(blocks) * blockSectors;
  let sectors = blockSectors;
  switch (random.below(5)) {
    case 0:
      break;
    case 1:
      sectors *= 1 + random.below(3);
      break;
    case 2:
      begin = random.below(total);
      sectors = 1 + random.below(3 * blockSectors);
      break;
    case 3:
      begin += random.below(blockSectors);
      sectors = 1;
      break;
    default:
      begin = 0;
      sectors = random.below(3) === 0 ? total : 1 + random.below(blockSectors);
  }
  begin = Math.min(begin, total - 1);
  return { begin, sectors: Math.min(sectors, total - begin) };
}

/** Whether a client may hear this error while all devices work. */
export function isExpected(asked: Asked, target: Target, error: number): boolean {
  switch (error) {
    case 0:
    case NBD_ESHUTDOWN:
      return true;
    case NBD_EPERM:
      return target instanceof Cut;
    case NBD_ENOSPC:
      return asked.kind === "write" || asked.kind === "writeZeroes" || asked.kind === "discard";
    case NBD_ENOTSUP:
      return asked.fastZero;
    case NBD_EINVAL:
      return asked.kind === "read" || asked.kind === "discard" || asked.fastZero;
    default:
      return false;
  }
}
