/**
 * What clients are told of the volumes and snapshots that a pool exports. Not an actor but a part of the pool's state: the
 * pool calls it only while the catalogue is whole.
 */
import { assert, present } from "../../storage/base/assert.ts";
import type { Catalogue, VolumeRecord } from "../../storage/catalogue.ts";
import type { Slices } from "../../storage/slices.ts";
import { contextSlices, descriptionOf, exportListSlices, isSnapshot, longAnswer } from "./export_list.ts";
import { queues } from "../queues.ts";
import type { PoolGeometry } from "./pool_geometry.ts";
import type { WorkOn } from "./pool_messages.ts";
import type { Attach, Describe, DescribeContexts, ExportInfo, ListExports } from "./export_messages.ts";

/** What the exports of a pool depend on. */
export interface ExportsOptions {
  /** Known: the pool asks for nothing here before. */
  readonly geometry: PoolGeometry;
  readonly catalogue: Catalogue;
  readonly readOnly: boolean;
  /** Whether the volume with this uid is being removed. */
  isLeaving(uid: string): boolean;
  isStopping(): boolean;
}

/** See the head of this file. */
export class PoolExports {
  readonly #options: ExportsOptions;
  /** Long answers under way. */
  readonly #works = new Map<number, Slices<void>>();
  #workLast = 0;

  constructor(options: ExportsOptions) {
    this.#options = options;
  }

  /**
   * The record exported under a name, or why there is none. The empty name is the only volume, if there is one.
   * @param only the uid of the only one that the client may have
   */
  find({ name, only }: { readonly name: string; readonly only?: string | undefined }): VolumeRecord | string {
    const { catalogue, isLeaving, isStopping } = this.#options;
    if (isStopping()) return "the server is stopping";
    const record = only !== undefined
      ? this.#theOnly(name, only)
      : name === ""
      ? this.#onlyVolume()
      : catalogue.byName(name);
    if (record === undefined) {
      return name === "" ? "there is no default export; name one" : "there is no such volume";
    }
    return isLeaving(record.uid) ? "the volume is being removed" : record;
  }

  #theOnly(name: string, uid: string): VolumeRecord | undefined {
    const record = this.#options.catalogue.byUid(uid);
    if (record === undefined || record.deleting) return undefined;
    return name === "" || name === record.name ? record : undefined;
  }

  #onlyVolume(): VolumeRecord | undefined {
    let only: VolumeRecord | undefined;
    for (const record of this.#options.catalogue.volumes()) {
      if (record.deleting || isSnapshot(record)) continue;
      if (only !== undefined) return undefined;
      only = record;
    }
    return only;
  }

  /** What a client is told of one export. */
  infoOf(record: VolumeRecord): ExportInfo {
    const { catalogue, readOnly } = this.#options;
    return {
      name: record.name,
      uid: record.uid,
      sizeBytes: record.sizeBytes,
      readOnly: record.readOnly || readOnly,
      isSingleWriter: this.isSingleWriter(record),
      tellsWrites: record.ephemeral === true && record.written === undefined && !readOnly,
      description: descriptionOf(catalogue, record),
    };
  }

  /** Whether a second client is refused. Nothing is written to a pool that is open read-only. */
  isSingleWriter(record: VolumeRecord): boolean {
    return record.singleWriter === true && !this.#options.readOnly;
  }

  /** To a client that asked for a volume which takes one client, and has it. */
  tellInUse({ client, name }: Attach, record: VolumeRecord, writer: string): void {
    const { kernel } = this.#options.geometry.peers;
    const reason = `"${record.name}" takes one client at a time (--single-writer), and ${writer} is attached`;
    kernel.tell(client, { type: "unknownExport", name, reason, isInUse: true });
  }

  tellUnknown(message: Attach | Describe | DescribeContexts, reason: string): void {
    const { kernel } = this.#options.geometry.peers;
    kernel.tell(message.client, { type: "unknownExport", name: message.name, reason });
  }

  describe(message: Describe): void {
    const record = this.find(message);
    if (typeof record === "string") return this.tellUnknown(message, record);
    const { kernel, thin } = this.#options.geometry.peers;
    const { blockSizeBytes } = thin;
    kernel.tell(message.client, { type: "described", info: this.infoOf(record), blockSizeBytes });
  }

  describeContexts(message: DescribeContexts): void {
    const record = this.find(message);
    if (typeof record === "string") return this.tellUnknown(message, record);
    this.#work(this.#contextSlices(message, record));
  }

  *#contextSlices({ client }: DescribeContexts, record: VolumeRecord): Slices<void> {
    const { catalogue } = this.#options;
    const peers = this.#options.geometry.peers;
    const about = { info: this.infoOf(record), blockSizeBytes: peers.thin.blockSizeBytes };
    const contexts = yield* contextSlices(catalogue, record, peers.kernel.knobs.sliceRecords);
    peers.kernel.tell(client, { type: "contexts", ...about, contexts });
  }

  list(message: ListExports): void {
    const { client, only } = message;
    if (only === undefined) return this.#work(this.#listSlices(message));
    const { catalogue, geometry } = this.#options;
    const record = this.find({ name: "", only });
    const records = typeof record === "string" ? [] : [record];
    const names = records.map(({ name }) => name);
    const descriptions = records.map((each) => descriptionOf(catalogue, each));
    geometry.peers.kernel.tell(client, { type: "exports", names, descriptions });
  }

  *#listSlices({ client }: ListExports): Slices<void> {
    const { catalogue, isLeaving } = this.#options;
    const peers = this.#options.geometry.peers;
    const list = yield* exportListSlices(catalogue, isLeaving, peers.kernel.knobs.sliceRecords);
    peers.kernel.tell(client, { type: "exports", ...list });
  }

  /** Begins a long answer. If a slice is not all of it, a task asks for the others. */
  #work(slices: Slices<void>): void {
    if (slices.next().done) return;
    assert(this.#works.size < queues.longAnswers, "more clients wait for a long answer than there can be");
    this.#workLast += 1;
    this.#works.set(this.#workLast, slices);
    const { kernel, pool } = this.#options.geometry.peers;
    kernel.start("long answer", longAnswer(pool, this.#workLast));
  }

  /** Does the next slice of a long answer. */
  workOn(message: WorkOn): void {
    const slices = present(this.#works.get(message.work), "a long answer was ended twice");
    const isDone = slices.next().done === true;
    if (isDone) this.#works.delete(message.work);
    this.#options.geometry.peers.kernel.reply(message, isDone ? "done" : "more");
  }
}
