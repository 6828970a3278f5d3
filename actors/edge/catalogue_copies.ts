/**
 * Reading the catalogue of a pool: `catalog.json`, or its second copy where that is missing, damaged, or does not belong to the
 * metadata. A catalogue of another format is refused, and no copy is taken in its place: what a newer version of this program
 * knows of the volumes must not be lost.
 */
import fs from "node:fs";
import { present } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";
import type { PoolSettings } from "../../storage/catalogue.ts";
import { ForeignFormatError, Journal } from "../../storage/catalogue_journal.ts";
import { settleCatalogue, type SettledCatalogue } from "../../storage/catalogue_open.ts";
import type { CataloguePaths } from "./catalogue_file.ts";
import { CatalogueLines } from "./catalogue_lines.ts";

/** What holds, and where it was found. */
export interface FoundCatalogue extends SettledCatalogue {
  /** Why the second copy is used, as a sentence; undefined if it is not. */
  readonly whyCopy: string | undefined;
}

/** See the head of this file. Read under the lock of the pool: without it another process could change the files. */
export class CatalogueCopies implements Disposable {
  /** The settings, which never change, so they can be used before the metadata is read. */
  readonly settings: PoolSettings;
  readonly #paths: CataloguePaths;
  #held = new DisposableStack();
  /** Undefined once it is settled: it is read once, and not kept. */
  #journal: Journal | undefined;
  /** Why {@linkcode CatalogueCopies.#journal} is that of the second copy; undefined if it is not. */
  #problem: UserError | undefined;

  /** Reads the first line. Throws {@linkcode UserError} if neither copy has one. */
  constructor(paths: CataloguePaths) {
    this.#paths = paths;
    using opening = this.#held.move();
    try {
      this.#journal = read(opening, paths.catalogue);
    } catch (error) {
      this.#problem = this.#requireCopy(error);
      try {
        this.#journal = read(opening, paths.secondCatalogue);
      } catch (error) {
        throw this.#problemOf(error, this.#problem);
      }
    }
    this.#held = opening.move();
    this.settings = this.#journal.content.settings;
  }

  /**
   * Decides which lines hold by the superblock's trans_id. Throws {@linkcode UserError} if neither copy belongs to it: the
   * sentence is about the first one.
   */
  settle(transactionId: bigint): FoundCatalogue {
    const journal = present(this.#journal, "the catalogue is settled once");
    this.#journal = undefined;
    const { settings } = this;
    try {
      return { ...settleCatalogue(journal, transactionId), whyCopy: this.#whyCopy() };
    } catch (error) {
      if (this.#problem !== undefined) throw this.#problemOf(error, this.#problem);
      this.#problem = this.#requireCopy(error);
    } finally {
      this.#held.dispose();
    }
    try {
      using lines = new CatalogueLines(this.#paths.secondCatalogue);
      const copy = new Journal(lines.texts);
      // The devices that are open are those of the first one.
      if (!isSame(copy.content.settings, settings)) throw this.#problem;
      return { ...settleCatalogue(copy, transactionId), whyCopy: this.#whyCopy() };
    } catch (error) {
      throw this.#problemOf(error, this.#problem);
    }
  }

  [Symbol.dispose](): void {
    this.#held.dispose();
  }

  /** The problem of the first one, if there is a second one to be tried. */
  #requireCopy(error: unknown): UserError {
    const isTried = error instanceof UserError && !(error instanceof ForeignFormatError) &&
      fs.existsSync(this.#paths.secondCatalogue);
    if (!isTried) throw error;
    return error;
  }

  /** What is to be said where the second copy is of no use either: what is wrong with the first, if that is there. */
  #problemOf(error: unknown, first: UserError): unknown {
    const isAboutFirst = error instanceof UserError && !(error instanceof ForeignFormatError) &&
      fs.existsSync(this.#paths.catalogue);
    return isAboutFirst ? first : error;
  }

  #whyCopy(): string | undefined {
    if (this.#problem === undefined) return undefined;
    const what = fs.existsSync(this.#paths.catalogue) ? "cannot be used" : "is missing";
    return `"${this.#paths.catalogue}" ${what}, so its second copy, "${this.#paths.secondCatalogue}", is used: no change is lost.`;
  }
}

function read(held: DisposableStack, path: string): Journal {
  return new Journal(held.use(new CatalogueLines(path)).texts);
}

function isSame(copy: PoolSettings, first: PoolSettings): boolean {
  return copy.metadataPath === first.metadataPath && copy.dataPath === first.dataPath &&
    copy.blockSizeBytes === first.blockSizeBytes;
}
