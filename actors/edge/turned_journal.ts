/** The catalogue's journal beside the loop of the ring: its promises need Deno's event loop. */
import type { IoDone } from "../../storage/device/port.ts";
import type { JournalPort } from "../control/catalogue_journal.ts";
import type { LineRoom } from "../control/catalogue_room.ts";
import type { EventLoopUse } from "./turns.ts";

/** See the head of this file. */
export class TurnedJournal implements JournalPort {
  readonly #journal: JournalPort;
  readonly #eventLoop: EventLoopUse;

  constructor(journal: JournalPort, eventLoop: EventLoopUse) {
    this.#journal = journal;
    this.#eventLoop = eventLoop;
  }

  append(line: string, room: LineRoom, done: IoDone): void {
    this.#journal.append(line, room, this.#turned(done));
  }

  retract(done: IoDone): void {
    this.#journal.retract(this.#turned(done));
  }

  isLong(contentBytes: number): boolean {
    return this.#journal.isLong(contentBytes);
  }

  rewrite(piece: string, isFirst: boolean, done: IoDone): void {
    this.#journal.rewrite(piece, isFirst, this.#turned(done));
  }

  finishRewrite(contentBytes: number, done: IoDone): void {
    this.#journal.finishRewrite(contentBytes, this.#turned(done));
  }

  #turned(done: IoDone): IoDone {
    this.#eventLoop.beginTurns();
    return (result) => {
      this.#eventLoop.endTurns();
      done(result);
    };
  }
}
