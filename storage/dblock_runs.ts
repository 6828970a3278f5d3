/** Runs of data blocks from single blocks and from shorter runs. */
import type { DBlockRun } from "./block_set.ts";
import type { DBlock } from "./base/ids.ts";

/**
 * The blocks as runs in ascending order. Sorts `blocks` if they are not ascending; a removal frees whole leaves, most
 * of them in ascending order. It makes no object per block, since there may be millions.
 */
export function runsOf(blocks: DBlock[]): DBlockRun[] {
  if (!isAscending(blocks)) blocks.sort((a, b) => a - b);
  const runs: DBlockRun[] = [];
  for (let from = 0; from < blocks.length;) {
    const begin = blocks[from]!;
    let length = 1;
    while (blocks[from + length] === begin + length) length++;
    runs.push({ begin, length });
    from += length;
  }
  return runs;
}

/** Joins adjacent runs. The runs are in ascending order. */
export function mergedRuns(runs: readonly DBlockRun[]): DBlockRun[] {
  const merged: DBlockRun[] = [];
  for (const run of runs) {
    const last = merged.at(-1);
    if (last !== undefined && last.begin + last.length === run.begin) {
      merged[merged.length - 1] = { begin: last.begin, length: last.length + run.length };
    } else merged.push(run);
  }
  return merged;
}

function isAscending(blocks: readonly DBlock[]): boolean {
  for (let at = 1; at < blocks.length; at++) if (blocks[at]! < blocks[at - 1]!) return false;
  return true;
}
