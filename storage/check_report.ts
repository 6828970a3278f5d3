/** What the checker found, and the bounded lists it collects findings in. */
import type { DBlock, MetadataBlock, ThinId } from "./base/ids.ts";
import { findingsListedMax } from "./base/limits.ts";

/** One thin device as its mapping tree shows it. */
export interface CheckedDevice {
  readonly thinId: ThinId;
  /** Mapped blocks by the details record; equal to the mappings counted unless a problem says otherwise. */
  readonly mappedBlocks: number;
}

/** The verdict on one metadata device. It is sound when {@linkcode CheckReport.problemCount} is 0. */
export interface CheckReport {
  /** The first problems, one sentence each. */
  readonly problems: readonly string[];
  /** All problems, those beyond the list included. */
  readonly problemCount: number;
  /** True when every problem is a leak: space is lost, but no mapping is wrong and nothing gets overwritten. */
  readonly onlyLeaks: boolean;
  /** Oddities that every reader accepts, such as wrong hints; they are recomputed when the pool is opened. */
  readonly notes: readonly string[];
  /** False when damage kept the reference counts from being compared to the end. */
  readonly complete: boolean;
  readonly transactionId: bigint;
  readonly needsCheck: boolean;
  /** Where the metadata snapshot lies, if one is held. */
  readonly heldSnapshot: MetadataBlock | undefined;
  readonly dataBlockSizeSectors: number;
  readonly devices: readonly CheckedDevice[];
  readonly dataTotalBlocks: number;
  /** Data blocks with a count above 0 in the space map. */
  readonly dataUsedBlocks: number;
  readonly metadataTotalBlocks: number;
  /** Metadata blocks with a count above 0 in the space map. */
  readonly metadataUsedBlocks: number;
}

/** Collects findings: damage, leaks and notes, each list bounded. */
export class Findings {
  readonly #problems: string[] = [];
  readonly #notes: string[] = [];
  #damageCount = 0;
  #leakCount = 0;
  #noteCount = 0;

  /** Something a reader refuses, or that loses or mixes up data. */
  damage(sentence: string): void {
    this.#damageCount++;
    this.#list(sentence);
  }

  /** Space that is counted as used and that nothing refers to. */
  leak(sentence: string): void {
    this.#leakCount++;
    this.#list(sentence);
  }

  /** Something odd that every reader accepts. */
  note(sentence: string): void {
    this.#noteCount++;
    if (this.#notes.length < findingsListedMax) this.#notes.push(sentence);
  }

  /** The part of a report that lists the findings. */
  summary(): Pick<CheckReport, "problems" | "problemCount" | "onlyLeaks" | "notes"> {
    const problemCount = this.#damageCount + this.#leakCount;
    return {
      problems: withRest(this.#problems, problemCount, "problems"),
      problemCount,
      onlyLeaks: this.#damageCount === 0 && this.#leakCount > 0,
      notes: withRest(this.#notes, this.#noteCount, "notes"),
    };
  }

  #list(sentence: string): void {
    if (this.#problems.length < findingsListedMax) this.#problems.push(sentence);
  }
}

function withRest(listed: readonly string[], count: number, what: string): string[] {
  const rest = count - listed.length;
  return rest === 0 ? [...listed] : [...listed, `And ${rest} more ${what}.`];
}

/** "Data block 7" or "Data blocks 7 to 9", for a half-open range. */
export function blockRange(what: string, begin: MetadataBlock | DBlock | number, end: number): string {
  return end - begin === 1 ? `${what} ${begin}` : `${what}s ${begin} to ${end - 1}`;
}
