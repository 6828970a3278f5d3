/** The mode of a pool, how it changes, and what follows from it. Not an actor but a part of the pool's state. */
import { assert } from "../../storage/base/assert.ts";
import type { MetadataTrouble } from "../pool/metadata_messages.ts";
import type { SpaceMode, SpaceModeNotice } from "../pool/space_messages.ts";
import type { BioStatus } from "../volume/bio.ts";
import type { VolumeStub } from "../volume/volume_messages.ts";
import { mayChange } from "./mode_table.ts";
import type { PoolMode } from "./pool_messages.ts";

/** Where needs_check could be set, the next start refuses, and its sentence names the steps (thin_superblock.ts#writeRefusalOf). */
const nextAfterFailure = "Start it again: it goes on from the last commit, or says what to do first.";

/**
 * See the head of this file. Trouble only gets worse, until a restart begins anew. What the space watch tells counts while
 * there is no trouble: its modes come and go, and are as "write" for all but writes without space, which it decides itself.
 */
export class ModeOfPool {
  readonly #isOpenedReadOnly: boolean;
  /** Why it was opened read-only, if it was to be written; these words end with the next step. */
  readonly #troubleAtOpening: string | null;
  #mode: PoolMode;
  #trouble: string | null = null;
  #spaceReason: string | null = null;

  /**
   * @param isOpenedReadOnly whether the pool was opened read-only
   * @param trouble why, if it was to be written
   */
  constructor(isOpenedReadOnly: boolean, trouble: string | null = null) {
    assert(isOpenedReadOnly || trouble === null, "a pool with trouble at its opening is read-only");
    this.#trouble = this.#troubleAtOpening = trouble;
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

  /** Why the mode is not "write", as words; null if it is, or if the pool was opened to be read only. */
  get reason(): string | null {
    return this.#trouble ?? this.#spaceReason;
  }

  /** True if commits are possible: the pool is short of space at worst. */
  get takesChanges(): boolean {
    return isOfSpace(this.#mode);
  }

  /** Changes the mode for damage or a failed commit. Returns the sentence to log; undefined if nothing changed. */
  meet({ what, reason }: MetadataTrouble): string | undefined {
    const mode: PoolMode = what === "damaged" ? "read-only" : "fail";
    // A pool that was opened to be read only notes the first damage, without another mode.
    const isFirstTrouble = mode === this.#mode && this.#trouble === null;
    if (!isFirstTrouble && !mayChange(this.#mode, mode)) return undefined;
    this.#mode = mode;
    this.#trouble = reason;
    return mode === "fail"
      ? `The pool has failed: ${reason}. ${nextAfterFailure}`
      : `The pool writes no more: ${reason}. Run \`check\`, which names all damage.`;
  }

  /** Changes the mode as the space watch tells. It logs the change itself. */
  meetSpace({ mode, reason }: SpaceModeNotice): void {
    if (!isOfSpace(this.#mode)) return;
    assert(mode === this.#mode || mayChange(this.#mode, mode), "the mode changes as its table says");
    this.#mode = mode;
    this.#spaceReason = reason;
  }

  /** Why the pool takes no changes, as a sentence; undefined if it takes them. */
  refusal(): string | undefined {
    if (this.takesChanges) return undefined;
    if (this.#troubleAtOpening !== null) return `The pool takes no changes: ${this.#troubleAtOpening}.`;
    if (this.#isOpenedReadOnly) {
      return "The pool is open read-only. Stop that server, or serve without --read-only.";
    }
    const next = this.#mode === "fail" ? nextAfterFailure : "Run `check`, which names all damage.";
    return `The pool takes no changes (mode ${this.#mode}): ${this.#trouble}. ${next}`;
  }

  /** Tells a volume which bios to refuse. */
  tell(volume: VolumeStub): void {
    if (this.takesChanges) return;
    const status: BioStatus = this.#mode === "fail"
      ? "poolFailed"
      : this.#isOpenedReadOnly
      ? "readOnly"
      : "ioError";
    volume.refuse(status, this.#mode === "fail" ? "poolFailed" : undefined);
  }
}

function isOfSpace(mode: PoolMode): mode is SpaceMode {
  return mode === "write" || mode === "out-of-data-space" || mode === "out-of-metadata-space";
}
