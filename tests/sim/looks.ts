/** Everything that a pool serves, read straight from its volumes, with every block status. */
import type { AdminResult } from "../../actors/control/admin_command.ts";
import type { PoolNotice } from "../../actors/control/export_messages.ts";
import type { Actor, Address } from "../../actors/kernel/address.ts";
import { mailboxes } from "../../actors/mailboxes.ts";
import type { RequestsDone, VolumeRequest } from "../../actors/volume/bio.ts";
import type {
  AskStatus,
  Extent,
  StatusDone,
  StatusRequest,
  StatusSource,
} from "../../actors/volume/block_status.ts";
import { sectorSizeBytes } from "../../storage/base/ids.ts";
import type { FoundVolume } from "../crash/recovery.ts";
import { problemOfStatus, type ToldContext } from "./block_status.ts";
import type { Life } from "./life.ts";
import { Violation } from "./violation.ts";

/** What one hears who looks at volumes. */
type Heard = RequestsDone | StatusDone | PoolNotice;

/** See the head of this file. Nothing may be on its way. */
export class Looks {
  readonly #life: Life;
  readonly #received: Heard[] = [];
  readonly #looker: Address<Heard>;

  constructor(life: Life) {
    this.#life = life;
    this.#looker = life.kernel.spawn("looker", mailboxes.connection, () => new Looker(this.#received));
  }

  /** Reads every volume that is listed. */
  all(): FoundVolume[] {
    const listed: AdminResult[] = [];
    this.#life.admin({ verb: "list" }, (result) => listed.push(result));
    this.#life.drain();
    const list = listed[0];
    if (list?.kind !== "volumes") throw new Violation(`the volumes could not be listed: ${list?.kind}`);
    const contexts: ToldContext[] = [];
    const found = list.volumes.map((listing) => {
      const { name, size_bytes: sizeBytes, read_only: readOnly } = listing;
      const bytes = this.#readWhole(name, sizeBytes, contexts);
      const allowances = { quotaBytes: listing.quota_bytes, reserveBytes: listing.reserve_bytes };
      const mapped = mappedOf(contexts, name);
      return { name, sizeBytes, readOnly, words: new Uint32Array(bytes.buffer), mapped, allowances };
    });
    const problem = problemOfStatus(found, contexts);
    if (problem !== undefined) throw new Violation(problem);
    return found;
  }

  #readWhole(name: string, sizeBytes: number, contexts: ToldContext[]): Uint8Array {
    this.#life.kernel.tell(this.#life.pool.address, { type: "attach", name, client: this.#looker });
    this.#life.drain();
    const notice = this.#received.pop();
    if (notice?.type !== "attached") throw new Violation(`"${name}" is listed and cannot be attached`);
    const request: VolumeRequest = {
      kind: "read",
      offsetBytes: 0,
      lengthBytes: sizeBytes,
      data: new Uint8Array(sizeBytes).fill(0xee),
      fua: false,
      noHole: false,
      fastZero: false,
      client: this.#looker,
      status: "ok",
      holes: new Uint8Array(0),
    };
    this.#life.kernel.tell(notice.volume, { type: "submit", requests: [request] });
    this.#life.drain();
    const answer = this.#received.pop();
    if (answer?.type !== "requestsDone" || request.status !== "ok") {
      throw new Violation(`"${name}" cannot be read: ${answer?.type} ${request.status}`);
    }
    contexts.push(...this.#statusOf(name, notice.volume, sizeBytes));
    this.#life.kernel.tell(this.#life.pool.address, {
      type: "detach",
      uid: notice.info.uid,
      client: this.#looker,
    });
    this.#life.drain();
    this.#received.pop();
    return request.data;
  }

  #statusOf(name: string, volume: Address<AskStatus>, sizeBytes: number): ToldContext[] {
    this.#life.kernel.tell(this.#life.pool.address, { type: "describeContexts", name, client: this.#looker });
    this.#life.drain();
    const notice = this.#received.pop();
    if (notice?.type !== "contexts") throw new Violation(`"${name}" is attached and has no contexts`);
    return notice.contexts.map((context) => ({
      volume: name,
      context: context.name,
      extents: this.#extentsOf(name, volume, context.source, sizeBytes),
    }));
  }

  /** An answer may end before the range does: then it is asked again from there. */
  #extentsOf(name: string, volume: Address<AskStatus>, source: StatusSource, sizeBytes: number): Extent[] {
    const extents: Extent[] = [];
    for (let offsetBytes = 0; offsetBytes < sizeBytes;) {
      const request: StatusRequest = {
        sources: [source],
        offsetBytes,
        lengthBytes: sizeBytes - offsetBytes,
        extentsMax: sizeBytes,
        client: this.#looker,
        status: "ok",
        extents: [],
      };
      this.#life.kernel.tell(volume, { type: "askStatus", request });
      this.#life.drain();
      const answer = this.#received.pop();
      const told = request.extents[0] ?? [];
      if (answer?.type !== "statusDone" || request.status !== "ok" || told.length === 0) {
        throw new Violation(`block status of "${name}" is not told: ${answer?.type} ${request.status}`);
      }
      extents.push(...told);
      for (const { lengthBytes } of told) offsetBytes += lengthBytes;
    }
    return extents;
  }
}

/** What the context of allocation calls no hole. */
function mappedOf(contexts: readonly ToldContext[], name: string): [number, number][] {
  const told = contexts.find(({ volume, context }) => volume === name && context === "base:allocation");
  const mapped: [number, number][] = [];
  let at = 0;
  for (const { lengthBytes, flags } of told?.extents ?? []) {
    const end = at + lengthBytes / sectorSizeBytes;
    if (flags === 0) mapped.push([at, end]);
    at = end;
  }
  return mapped;
}

class Looker implements Actor<Heard> {
  readonly #received: (Heard)[];

  constructor(received: (Heard)[]) {
    this.#received = received;
  }

  receive(message: Heard): void {
    this.#received.push(message);
  }
}
