/** For tests: the file of an intent journal in memory, which outlives the journal that writes it. */
import type { IntentBinding, IntentPort } from "../../storage/device/intent_port.ts";
import { ioOk, type IoResult } from "../../storage/device/port.ts";
import { intentFileBytes } from "../../storage/intent_read.ts";
import { IntentJournal } from "../../actors/pool/intent_journal.ts";

export const testBinding: IntentBinding = { bootId: "boot 1", data: "1 2", metadata: "1 3", file: "1 4" };

export class IntentMemory implements IntentPort {
  bytes: Uint8Array;
  isRemoved = false;
  /** How each write is answered. */
  answer: () => IoResult = () => ioOk;
  /** Called after each write. */
  written: () => void = () => {};
  readonly logged: string[] = [];
  /** Lengths of the writes. */
  readonly writes: number[] = [];
  #generationLast = 0n;

  constructor(readonly segmentBytes: number) {
    this.bytes = new Uint8Array(intentFileBytes(segmentBytes));
  }

  /** A journal of a new process. */
  journal(binding = testBinding): IntentJournal {
    const log = (sentence: string) => void this.logged.push(sentence);
    return new IntentJournal({ port: this, binding, segmentBytes: this.segmentBytes, log });
  }

  write(bytes: Uint8Array, offsetBytes: number): IoResult {
    const answer = this.answer();
    if (answer.kind !== "ok") return answer;
    this.writes.push(bytes.length);
    this.bytes.set(bytes, offsetBytes);
    this.written();
    return ioOk;
  }

  remove(): IoResult {
    this.isRemoved = true;
    this.bytes = new Uint8Array(0);
    return ioOk;
  }

  newGeneration(): bigint {
    this.#generationLast += 1n;
    return this.#generationLast;
  }
}
