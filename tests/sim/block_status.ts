/** What block status may say of volumes whose bytes are known. */
import type { Extent } from "../../actors/volume/block_status.ts";
import type { FoundVolume } from "../crash/recovery.ts";

/** What a context of a volume says, from its beginning to its end. */
export interface ToldContext {
  readonly volume: string;
  readonly context: string;
  readonly extents: readonly Extent[];
}

const dirtyPrefix = "qemu:dirty-bitmap:";

/** A hole holds zeroes, and what is clean holds what the snapshot does. Returns what is wrong, undefined if nothing is. */
export function problemOfStatus(
  found: readonly FoundVolume[],
  told: readonly ToldContext[],
): string | undefined {
  const byName = new Map(found.map((volume) => [volume.name, volume]));
  for (const { volume, context, extents } of told) {
    const { words, sizeBytes } = byName.get(volume)!;
    const isDirty = context.startsWith(dirtyPrefix);
    const snapshot = isDirty ? snapshotOf(volume, context.slice(dirtyPrefix.length)) : undefined;
    const base = snapshot === undefined ? undefined : byName.get(snapshot)?.words;
    if (isDirty && base === undefined) return `"${volume}" has ${context}, and there is no such snapshot`;
    let at = 0;
    for (const { lengthBytes, flags } of extents) {
      const end = at + lengthBytes / 4;
      // What is beyond the end of the snapshot counts as zeroes.
      for (let word = at; flags === (isDirty ? 0 : 3) && word < end; word += 1) {
        if (words[word] === (base?.[word] ?? 0)) continue;
        return `"${volume}" at byte ${word * 4}: ${context} says ${flags}, and the bytes say otherwise`;
      }
      at = end;
    }
    if (at * 4 !== sizeBytes) return `${context} of "${volume}" ends at ${at * 4} of ${sizeBytes}`;
  }
  return undefined;
}

function snapshotOf(volume: string, context: string): string {
  return context.includes("@") ? context : `${volume.split("@", 1)[0]}@${context}`;
}
