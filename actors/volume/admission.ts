/** What bios a request becomes, which of them must wait for earlier ones of the same request, and what reads have found. */
import { assert } from "../../storage/base/assert.ts";
import { vblock } from "../../storage/base/ids.ts";
import {
  type Admitted,
  type Bio,
  blockBio,
  blocksTouched,
  flushBio,
  rangeBio,
  rangeBios,
  type VolumeRequest,
} from "./bio.ts";

/** The bios of a request, none of them started. */
export function admit(request: VolumeRequest, blockSizeBytes: number, volumeSizeBytes: number): Admitted {
  let planned: Bio[] | undefined;
  if (request.kind === "flush") planned = [flushBio(request)];
  else if (request.kind === "discard" || (request.kind === "writeZeroes" && !request.noHole)) {
    planned = rangeBios(request, blockSizeBytes, volumeSizeBytes);
  }
  // NO_HOLE over several blocks: a request that cannot fit is refused before anything is written (check_space.ts).
  const blocks = planned?.length ?? blocksTouched(request, blockSizeBytes);
  const checksSpace = request.kind === "writeZeroes" && request.noHole && blocks > 1;
  const biosTotal = blocks + (checksSpace ? 1 : 0);
  return {
    request,
    planned,
    biosTotal,
    checksSpace,
    biosStarted: 0,
    biosDone: 0,
    biosParked: 0,
    isSetAside: false,
    flushStarted: false,
  };
}

/** The next bio of a request, counted as started. */
export function takeNextBio(admitted: Admitted, blockSizeBytes: number): Bio {
  const ordinal = admitted.biosStarted;
  assert(ordinal < admitted.biosTotal, "a request starts a bio that it does not have");
  admitted.biosStarted += 1;
  const { planned, request } = admitted;
  if (planned !== undefined) return planned[ordinal]!;
  if (!admitted.checksSpace) return blockBio(request, blockSizeBytes, ordinal);
  if (ordinal > 0) return blockBio(request, blockSizeBytes, ordinal - 1);
  const begin = Math.floor(request.offsetBytes / blockSizeBytes);
  return rangeBio("checkSpace", request, vblock(begin), vblock(begin + admitted.biosTotal - 1));
}

/**
 * True if the next bio must wait until the earlier ones have ended. A fast zero may be refused, and space may be missing:
 * the bios that can find this out go first and alone, so that most such refusals come before any change.
 */
export function mustWait(admitted: Admitted): boolean {
  if (admitted.biosDone === admitted.biosStarted) return false;
  return admitted.request.fastZero || (admitted.checksSpace && admitted.biosStarted === 1);
}

/** A read bio found no mapping. */
export function noteHole({ ordinal }: Bio, { request, biosTotal }: Admitted): void {
  if (request.holes.length === 0) request.holes = new Uint8Array(biosTotal);
  request.holes[ordinal] = 1;
}
