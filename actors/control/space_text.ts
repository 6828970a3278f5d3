/** What `tree` and `df` print. */
import { formatSize } from "../../storage/base/sizes.ts";
import type { PoolSpace, SpaceBytes, TreeListing } from "./admin_command.ts";
import { treeDepthDrawnMax } from "../limits.ts";
import { columns } from "./table_text.ts";

const sizeOf = (bytes: number | null) => bytes === null ? "-" : formatSize(bytes);

/** The columns of sizes behind a name. */
const sizeColumns: readonly number[] = [1, 2, 3, 4];

/** `tree`: names drawn below what they were made from, and their sizes. */
export function treeText(volumes: readonly TreeListing[]): string {
  const drawn = linesOf(volumes.map(({ depth }) => Math.min(depth, treeDepthDrawnMax)));
  const rows = volumes.map((volume, at) => [
    `${drawn[at]}${volume.name}`,
    formatSize(volume.size_bytes),
    formatSize(volume.mapped_bytes),
    sizeOf(volume.exclusive_bytes),
    sizeOf(volume.shared_bytes),
  ]);
  return columns([["NAME", "SIZE", "MAPPED", "EXCLUSIVE", "SHARED"], ...rows], sizeColumns);
}

/** What stands before each name: from the last to the first, because a branch goes on if a sibling follows. */
function linesOf(depths: readonly number[]): string[] {
  const lines: string[] = [];
  // By depth: whether something at that depth follows before anything less deep.
  let follows: boolean[] = [];
  for (const depth of depths.toReversed()) {
    let line = "";
    for (let level = 1; level < depth; level += 1) line += follows[level] ? "│  " : "   ";
    if (depth > 0) line += follows[depth] ? "├─ " : "└─ ";
    lines.push(line);
    follows = follows.slice(0, depth + 1);
    follows[depth] = true;
  }
  return lines.reverse();
}

/** `df`: devices, then volumes by what removing each would free. */
export function spaceText({ data, metadata, host, shared_bytes, volumes }: PoolSpace): string {
  const rowOf = (name: string, { total_bytes, used_bytes, free_bytes }: SpaceBytes) => [
    name,
    formatSize(total_bytes),
    formatSize(used_bytes),
    formatSize(free_bytes),
    `${total_bytes === 0 ? 100 : Math.ceil(used_bytes / total_bytes * 100)}%`,
  ];
  const devices = columns([
    ["", "SIZE", "USED", "FREE", "USE"],
    rowOf("data", data),
    rowOf("metadata", metadata),
    ...host === null ? [] : [rowOf("host", host)],
  ], sizeColumns);
  if (volumes.length === 0) return devices;
  const rows = volumes.map((volume) => [
    volume.name,
    formatSize(volume.size_bytes),
    formatSize(volume.mapped_bytes),
    sizeOf(volume.exclusive_bytes),
  ]);
  const table = columns([["VOLUME", "SIZE", "MAPPED", "FREED BY REMOVAL"], ...rows], sizeColumns);
  const shared = shared_bytes === null || shared_bytes === 0 ? [] : [
    "",
    formatSize(shared_bytes) +
    " are shared: `rm -n NAME...` tells what removing several together would free.",
  ];
  return [devices, "", table, ...shared].join("\n");
}
