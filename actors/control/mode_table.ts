/**
 * The modes of a pool: what each serves, and what leads from one to another. docs/modes.md shows the same tables, and a test
 * holds it to them. The words and the order are dm-thin's: each mode is worse than the one before.
 */
import type { PoolMode } from "./pool_messages.ts";

/** The modes, from best to worst. */
export const modes: readonly PoolMode[] = [
  "write",
  "out-of-data-space",
  "out-of-metadata-space",
  "read-only",
  "fail",
];

/** What each mode does with each kind of request. A pool opened with `--read-only` answers EPERM where this says EIO. */
const modeEffects: Readonly<Record<string, Readonly<Record<PoolMode, string>>>> = {
  "READ, block status": {
    "write": "served",
    "out-of-data-space": "served",
    "out-of-metadata-space": "served",
    "read-only": "served",
    "fail": "EIO",
  },
  "WRITE in place": {
    "write": "served",
    "out-of-data-space": "served",
    "out-of-metadata-space": "served",
    "read-only": "EIO",
    "fail": "EIO",
  },
  "WRITE, WRITE_ZEROES that need space": {
    "write": "served",
    "out-of-data-space": "wait; ENOSPC after the timeout",
    "out-of-metadata-space": "wait; ENOSPC after the timeout",
    "read-only": "EIO",
    "fail": "EIO",
  },
  "TRIM": {
    "write": "served",
    "out-of-data-space": "served",
    "out-of-metadata-space": "served, from the headroom",
    "read-only": "EIO",
    "fail": "EIO",
  },
  "FLUSH": {
    "write": "served",
    "out-of-data-space": "served",
    "out-of-metadata-space": "served",
    "read-only": "EIO; with --read-only, done",
    "fail": "EIO",
  },
  "create, snapshot, clone, fork": {
    "write": "done",
    "out-of-data-space": "done",
    "out-of-metadata-space": "done if the metadata has room, else refused",
    "read-only": "refused",
    "fail": "refused",
  },
  "rm, resize, rename, rollback": {
    "write": "done",
    "out-of-data-space": "done",
    "out-of-metadata-space": "done, removals from the headroom",
    "read-only": "refused",
    "fail": "refused",
  },
  "quota, reserve": {
    "write": "done, a reserve if so much is free",
    "out-of-data-space": "done, a reserve if so much is free",
    "out-of-metadata-space": "done, a reserve if so much is free",
    "read-only": "refused",
    "fail": "refused",
  },
  "grow, rescan": {
    "write": "done",
    "out-of-data-space": "done",
    "out-of-metadata-space": "done if the metadata grows, or suffices for the data",
    "read-only": "refused",
    "fail": "refused",
  },
  "list, tree, df, status, check, dump": {
    "write": "done",
    "out-of-data-space": "done",
    "out-of-metadata-space": "done",
    "read-only": "done",
    "fail": "done",
  },
};

/** A change of the mode, and its cause. Only these happen. */
export interface ModeTransition {
  readonly from: PoolMode;
  readonly to: PoolMode;
  readonly cause: string;
}

const dataShort = "a write found no free data block, or the host had no room for one";
const metadataShort = "a write or a command found no free metadata block but those kept for removals";
const spaceCame = "writes that waited were served, or space came and none waits";
const metadataDamaged = "metadata is damaged or cannot be read";
const commitFailed = "a commit failed: needs_check is set if it still can be";

/** Every transition. */
export const modeTransitions: readonly ModeTransition[] = [
  { from: "write", to: "out-of-data-space", cause: dataShort },
  { from: "write", to: "out-of-metadata-space", cause: metadataShort },
  { from: "out-of-data-space", to: "write", cause: spaceCame },
  { from: "out-of-data-space", to: "out-of-metadata-space", cause: metadataShort },
  { from: "out-of-metadata-space", to: "write", cause: spaceCame },
  {
    from: "out-of-metadata-space",
    to: "out-of-data-space",
    cause: "metadata blocks came, and data is still short",
  },
  ...(["write", "out-of-data-space", "out-of-metadata-space"] as const).flatMap((from): ModeTransition[] => [
    { from, to: "read-only", cause: metadataDamaged },
    { from, to: "fail", cause: commitFailed },
  ]),
  { from: "read-only", to: "fail", cause: "a commit that had begun failed" },
];

/** True if the one mode may follow the other. */
export function mayChange(from: PoolMode, to: PoolMode): boolean {
  return modeTransitions.some((transition) => transition.from === from && transition.to === to);
}

/** Both tables as Markdown. */
export function modeTables(): string {
  const effects = [
    ["", ...modes],
    ["---", ...modes.map(() => "---")],
    ...Object.entries(modeEffects).map(([what, effect]) => [what, ...modes.map((mode) => effect[mode])]),
  ];
  const transitions = [
    ["from", "to", "when"],
    ["---", "---", "---"],
    ...modeTransitions.map(({ from, to, cause }) => [from, to, cause]),
  ];
  const rows = (table: readonly (readonly string[])[]) =>
    table.map((row) => `| ${row.join(" | ")} |`).join("\n");
  return `${rows(effects)}\n\n${rows(transitions)}`;
}
