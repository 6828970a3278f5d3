/** Reading the catalogue's journal. */
import { journalLines, type LineText } from "../../storage/catalogue_journal.ts";
import { UserError } from "../../storage/base/errors.ts";
import { catalogueReadBytes } from "../limits.ts";
import { openWithSpare } from "./descriptors.ts";

/** The lines of a journal's file, read as they are asked for. */
export class CatalogueLines implements Disposable {
  readonly texts: Generator<LineText>;
  readonly #file: Deno.FsFile;
  readonly #path: string;
  #isClosed = false;

  /** Throws {@linkcode UserError}, as reading does. */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#file = openWithSpare(() => Deno.openSync(path));
    } catch (error) {
      throw this.#unreadable(error);
    }
    this.texts = journalLines(this.#pieces());
  }

  *#pieces(): Generator<Uint8Array> {
    const buffer = new Uint8Array(catalogueReadBytes);
    for (;;) {
      const length = this.#read(buffer);
      if (length === null) return;
      yield buffer.subarray(0, length);
    }
  }

  #read(buffer: Uint8Array): number | null {
    try {
      return this.#file.readSync(buffer);
    } catch (error) {
      throw this.#unreadable(error);
    }
  }

  #unreadable(error: unknown): UserError {
    const reason = error instanceof Error ? error.message : "";
    return new UserError(
      `Cannot read the catalogue "${this.#path}": ${reason}. Check the file and the disk.`,
    );
  }

  /** May be called again. */
  close(): void {
    if (!this.#isClosed) this.#file.close();
    this.#isClosed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
