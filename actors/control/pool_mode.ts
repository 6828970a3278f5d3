/** The mode of a pool, how it changes, and what follows from it. Not an actor but a part of the pool's state. */
import type { MetadataTrouble } from "../pool/metadata_messages.ts";
import type { BioStatus } from "../volume/bio.ts";
import type { VolumeStub } from "../volume/thin_volume.ts";
import type { PoolMode } from "./pool_messages.ts";

/**
 * Modes that each mode can change to. A mode only gets worse; a restart begins anew. Nothing enters out-of-data-space yet:
 * writes without space are refused and not parked.
 */
const changes: Readonly<Record<PoolMode, readonly PoolMode[]>> = {
  "write": ["read-only", "fail"],
  "out-of-data-space": ["write", "read-only", "fail"],
  "read-only": ["fail"],
  "fail": [],
};

/** See the head of this file. */
export class ModeOfPool {
  readonly #isOpenedReadOnly: boolean;
  #mode: PoolMode;
  #trouble: string | null = null;

  /** @param isOpenedReadOnly whether the pool was opened to be read only, without trouble */
  constructor(isOpenedReadOnly: boolean) {
    this.#isOpenedReadOnly = isOpenedReadOnly;
    this.#mode = isOpenedReadOnly ? "read-only" : "write";
  }

  get mode(): PoolMode {
    return this.#mode;
  }

  /** Why the pool writes no more; null if it does, or was opened to be read only. */
  get trouble(): string | null {
    return this.#trouble;
  }

  /** Changes the mode for damage or a failed commit. Returns the sentence to log; undefined if nothing changed. */
  meet({ what, reason }: MetadataTrouble): string | undefined {
    const mode: PoolMode = what === "damaged" ? "read-only" : "fail";
    // A pool that was opened to be read only notes the first damage, without another mode.
    const isFirstTrouble = mode === this.#mode && this.#trouble === null;
    if (!isFirstTrouble && !changes[this.#mode].includes(mode)) return undefined;
    this.#mode = mode;
    this.#trouble = reason;
    return mode === "fail"
      ? `The pool has failed: ${reason}. Restart it to go on from the last commit.`
      : `The pool writes no more: ${reason}. Run \`check\`, which names all damage.`;
  }

  /** Why the pool takes no changes, as a sentence; undefined if it takes them. */
  refusal(): string | undefined {
    if (this.#mode === "write") return undefined;
    if (this.#isOpenedReadOnly) {
      return "The pool is open read-only. Stop that server, or serve without --read-only.";
    }
    const next = this.#mode === "fail"
      ? "Restart it to go on from the last commit."
      : "Run `check`, which names all damage.";
    return `The pool takes no changes (mode ${this.#mode}): ${this.#trouble}. ${next}`;
  }

  /** Tells a volume which bios to refuse. */
  tell(volume: VolumeStub): void {
    if (this.#mode === "write") return;
    const status: BioStatus = this.#mode === "fail"
      ? "poolFailed"
      : this.#isOpenedReadOnly
      ? "readOnly"
      : "ioError";
    volume.refuse(status, this.#mode === "fail" ? "poolFailed" : undefined);
  }
}
