/** Makes the catalogue in memory: of a new pool, and of a journal with the superblock of its metadata. */
import { assert } from "./base/assert.ts";
import { UserError } from "./base/errors.ts";
import { Catalogue } from "./catalogue.ts";
import { catalogueDamage } from "./catalogue_fields.ts";
import type { Journal } from "./catalogue_journal.ts";
import type { CatalogueContent } from "./catalogue_records.ts";

/** The catalogue of a new pool (`init`, `import`). Records that break a rule are a defect of the caller. */
export function catalogueFrom(content: CatalogueContent): Catalogue {
  const catalogue = new Catalogue(content);
  const problem = catalogue.load(content.volumes);
  assert(problem === undefined, "the volumes of a new catalogue keep its rules");
  return catalogue;
}

/** The catalogue that belongs to the metadata, and what else was in the journal. */
export interface SettledCatalogue {
  readonly catalogue: Catalogue;
  /** What was dropped at the end of the journal: a change that was not committed, or a torn line. */
  readonly dropped: "change" | "torn" | undefined;
  /** Where the lines that hold end in the file. */
  readonly keptBytes: number;
}

/**
 * Decides by the trans_id of the metadata's superblock which lines of a journal hold (see catalogue_journal.ts), and
 * applies them. The caller removes what was dropped from the file before it appends a line. Throws {@linkcode
 * UserError} if journal and metadata do not belong together, or the journal is damaged.
 */
export function settleCatalogue(journal: Journal, transactionId: bigint): SettledCatalogue {
  const catalogue = new Catalogue(journal.content);
  const problem = catalogue.load(journal.content.volumes);
  if (problem !== undefined) throw catalogueDamage(1, problem);
  let dropped: SettledCatalogue["dropped"];
  let keptBytes = journal.contentEndBytes;
  for (let line = journal.next(); line !== undefined;) {
    if (line.kind === "torn") {
      dropped = "torn";
      break;
    }
    const { lineNumber } = line;
    if (line.transactionId !== catalogue.transactionId + 1n) {
      throw catalogueDamage(lineNumber, "transactions are missing before it");
    }
    const next = journal.next();
    // Only the last line can be one that was not committed.
    if (catalogue.transactionId === transactionId && next === undefined) {
      dropped = "change";
      break;
    }
    const problem = catalogue.apply(line.changes);
    if (problem !== undefined) throw catalogueDamage(lineNumber, problem);
    keptBytes = line.endBytes;
    line = next;
  }
  if (catalogue.transactionId !== transactionId) {
    throw new UserError(
      `The catalogue belongs to transaction ${catalogue.transactionId} of the metadata, which is at ${transactionId}: ` +
        "another program changed the pool, or one of the two was restored without the other. Bring back the files that " +
        "belong together, or make a new pool directory around the metadata and the data with `import`.",
    );
  }
  return { catalogue, dropped, keptBytes };
}
