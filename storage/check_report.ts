/** The report of a check, and the bounded lists in which findings are collected. */
import type { DBlock, MetadataBlock, ThinId } from "./base/ids.ts";
import { findingsListedMax } from "./base/limits.ts";

/** One thin device, as found by the check. */
export interface CheckedDevice {
  readonly thinId: ThinId;
  /** mapped_blocks of the details record. If the number of mappings differs, there is a problem in the report. */
  readonly mappedBlocks: number;
}

/**
 * The result of the check of one metadata device. The metadata is sound if {@linkcode CheckReport.problemCount} is 0.
 */
export interface CheckReport {
  /** The first problems, one sentence each. */
  readonly problems: readonly string[];
  /** Number of all problems, with those that are not listed. */
  readonly problemCount: number;
  /** True if every problem is a leak: space is lost, but no mapping is wrong and no block in use can be overwritten. */
  readonly onlyLeaks: boolean;
  /** Findings that every reader accepts, such as wrong hints. */
  readonly notes: readonly string[];
  /** False if damage made it impossible to compare all reference counts. */
  readonly complete: boolean;
  readonly transactionId: bigint;
  readonly needsCheck: boolean;
  /** The block of the metadata snapshot, if there is one. */
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

  /** Something that a reader refuses, or by which data is lost or mixed up. */
  damage(sentence: string): void {
    this.#damageCount++;
    this.#list(sentence);
  }

  /** A block that is counted as used, but without a reference. */
  leak(sentence: string): void {
    this.#leakCount++;
    this.#list(sentence);
  }

  /** Something wrong that every reader accepts. */
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
