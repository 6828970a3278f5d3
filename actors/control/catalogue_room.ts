/**
 * How much room the catalogue's journal has, and for what.
 *
 * The journal's file, and the second one for its rewrite, have all their bytes stored before they are needed. So a full host
 * takes nothing from what removing needs:
 *
 * ```
 * journal  | first line | changes ........ | headroom: removals only |
 * second   | room for the first line | headroom                     |
 * ```
 *
 * A change that adds something is refused unless both headrooms are whole after it. A removal may use the headroom, and when
 * that is used up, the journal is rewritten into the second file, which needs no space of the host either. The content after
 * a removal is never larger than before. So removing works until nothing is left.
 */
import { catalogueChangesBytesMin, catalogueFileUnitBytes, catalogueHeadroomBytesMin } from "../limits.ts";

/** What an appended line may use. */
export interface LineRoom {
  /** Bytes that the catalogue takes as one line when the change is made, at most. */
  readonly contentBytes: number;
  /** Whether the change removes something, and so may use what is kept for removals. */
  readonly usesHeadroom: boolean;
}

/** Bytes kept for removals: a line that removes everything, and one that forgets it, take 1.3 times the content. */
export function headroomBytes(contentBytes: number): number {
  return catalogueHeadroomBytesMin + Math.ceil(contentBytes * 3 / 2);
}

/** Bytes of lines after the first one from which on a journal is rewritten. */
export function changesBytesMax(contentBytes: number): number {
  return Math.max(catalogueChangesBytesMin, Math.ceil(contentBytes / 2));
}

/** Bytes that each of the two files is given. */
export function fileBytesFor(contentBytes: number): number {
  return roundUpToFileUnit(contentBytes + changesBytesMax(contentBytes) + headroomBytes(contentBytes));
}

/** Up to the unit in which the files grow. */
export function roundUpToFileUnit(bytes: number): number {
  return Math.ceil(bytes / catalogueFileUnitBytes) * catalogueFileUnitBytes;
}
