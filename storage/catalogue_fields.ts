/** Reads the fields of one JSON object of the catalogue, and refuses what a version of this program would lose. */
import { UserError } from "./base/errors.ts";

/** The error for a damaged journal. */
export function catalogueDamage(lineNumber: number, problem: string): UserError {
  return new UserError(
    `The catalogue of the pool is damaged in line ${lineNumber}: ${problem}. Bring it back from a copy, or make a new ` +
      "pool directory around the metadata and the data with `import`.",
  );
}

/** The largest 64-bit transaction id. */
export const transactionIdMax = (1n << 64n) - 1n;

/** Takes the fields of a JSON object one by one, and refuses fields that are missing, of another type, or unknown. */
export class Fields {
  readonly #fields: Map<string, unknown>;
  readonly #lineNumber: number;

  constructor(json: unknown, lineNumber: number) {
    this.#lineNumber = lineNumber;
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      throw catalogueDamage(lineNumber, "it is not a JSON object");
    }
    this.#fields = new Map(Object.entries(json));
  }

  has(name: string): boolean {
    return this.#fields.has(name);
  }

  take(name: string): unknown {
    const value = this.#fields.get(name);
    this.#fields.delete(name);
    return value;
  }

  text(name: string): string {
    const value = this.take(name);
    return typeof value === "string" ? value : this.#refuse(name);
  }

  textOrNull(name: string): string | null {
    const value = this.take(name);
    return typeof value === "string" || value === null ? value : this.#refuse(name);
  }

  boolean(name: string): boolean {
    const value = this.take(name);
    return typeof value === "boolean" ? value : this.#refuse(name);
  }

  integer(name: string, min = 0, max: number = Number.MAX_SAFE_INTEGER): number {
    const value = this.take(name);
    const isFit = typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max;
    return isFit ? value : this.#refuse(name);
  }

  list(name: string): unknown[] {
    const value = this.take(name);
    return Array.isArray(value) ? value : this.#refuse(name);
  }

  /** A JSON number does not hold 64 bits, so the id is a string of decimal digits. */
  transactionId(): bigint {
    const text = this.text("transaction_id");
    const value = /^\d{1,20}$/.test(text) ? BigInt(text) : -1n;
    return value >= 0n && value <= transactionIdMax ? value : this.#refuse("transaction_id");
  }

  end(): void {
    // A later version may have added the field. To ignore it would lose it at the next rewrite.
    for (const name of this.#fields.keys()) {
      throw catalogueDamage(this.#lineNumber, `"${name}" is not known here`);
    }
  }

  #refuse(name: string): never {
    throw catalogueDamage(this.#lineNumber, `"${name}" is missing or malformed`);
  }
}
