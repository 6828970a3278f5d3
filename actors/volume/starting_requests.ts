/**
 * The requests of a volume that have bios to start, in the turns of their clients. Part of the ThinVolume actor.
 *
 * Owns: which of them has the next bio.
 */
import { admit, mustWait } from "./admission.ts";
import type { Admitted } from "./bio.ts";
import { ClientTurns } from "./client_turns.ts";
import { queues } from "../queues.ts";

/** See the head of this file. */
export class StartingRequests {
  readonly #turns = new ClientTurns<Admitted>(queues.volumeRequests);

  push(admitted: Admitted): void {
    this.#turns.push(admitted.request.client, admitted);
  }

  /** Removes the request, if it is here. */
  remove(admitted: Admitted): void {
    this.#turns.remove(admitted);
  }

  /** The request whose next bio may start, or that has no bio at all; undefined if there is none. */
  first(): Admitted | undefined {
    // Clients met in a row whose next bio must wait. When these are all clients, none can start.
    let waiting = 0;
    while (waiting < this.#turns.clients) {
      const admitted = this.#turns.first!;
      if (admitted.biosStarted === admitted.biosTotal && admitted.biosTotal > 0) {
        this.#turns.shift();
        waiting = 0;
      } else if (mustWait(admitted)) {
        waiting += 1;
        this.#turns.rotate();
      } else return admitted;
    }
    return undefined;
  }

  /** Ends the turn of the client that {@linkcode first} came from. */
  rotate(): void {
    this.#turns.rotate();
  }

  /**
   * Plans ranges again after a change of the volume's size: the last block may be partial now where it was whole, or the
   * reverse. Unmapping or zeroing a part of a range twice does no harm. Removes and returns the requests that are past the end.
   */
  admitAgain(blockSizeBytes: number, sizeBytes: number): Admitted[] {
    const outOfRange: Admitted[] = [];
    for (const admitted of this.#turns.takeAll()) {
      const { request, biosStarted, biosTotal, planned } = admitted;
      // All its bios are done; it leaves the queue when its turn comes.
      if (biosStarted === biosTotal && biosTotal > 0) continue;
      if (request.offsetBytes + request.lengthBytes > sizeBytes) outOfRange.push(admitted);
      else this.push(planned === undefined ? admitted : admit(request, blockSizeBytes, sizeBytes));
    }
    return outOfRange;
  }
}
