/** For tests of admin tasks: one actor in the place of all peers, which notes what it is sent and answers by a script. */
import type { AdminPeers } from "../../actors/control/admin_peers.ts";
import { JournalStub } from "../../actors/control/catalogue_journal.ts";
import { FiguresStub } from "../../actors/control/figures_messages.ts";
import { type AdminPlan, PoolStub } from "../../actors/control/pool_messages.ts";
import type { Actor, Message, Request } from "../../actors/kernel/address.ts";
import type { Steps } from "../../actors/kernel/task.ts";
import { defaultKnobs, type Knobs } from "../../actors/knobs.ts";
import { DeviceStub } from "../../actors/pool/device_messages.ts";
import { GaugeStub } from "../../actors/pool/gauge_messages.ts";
import { AllocatorStub } from "../../actors/pool/allocator_messages.ts";
import { DataLocks } from "../../actors/pool/data_locks.ts";
import { MetadataStub } from "../../actors/pool/metadata_messages.ts";
import { SpaceStub, type SpaceWatchMessage } from "../../actors/pool/space_messages.ts";
import { VolumeStub } from "../../actors/volume/volume_messages.ts";
import { ioOk } from "../../storage/device/port.ts";
import { World } from "./world.ts";

/** A plan that changes nothing but the transaction id, which becomes 8. */
export const emptyPlan: AdminPlan = {
  kind: "plan",
  transactionId: 8n,
  line: "the line\n",
  room: { contentBytes: 100, usesHeadroom: false },
  create: [],
  snapshots: [],
  tick: false,
  quiesce: [],
  evict: [],
  deletions: [],
  trims: [],
  allowances: [],
  quietUntil: "settled",
  result: { kind: "done" },
};

/** What each request is answered that the script says nothing about. */
const usualAnswers: Readonly<Record<string, unknown>> = {
  plan: emptyPlan,
  settle: "settled",
  evict: "evicted",
  askPiece: { kind: "end", contentBytes: 100 },
  appendLine: { result: ioOk, isLong: false },
  retractLine: ioOk,
  rewritePiece: ioOk,
  finishRewrite: ioOk,
  suspend: "suspended",
  commit: { kind: "done" },
  change: { kind: "done" },
  revoke: { kind: "done" },
  device: { kind: "device", mappedBlocks: 0, highest: undefined },
  deleteSlice: { kind: "deleted", gone: true },
  reclaim: true,
  stopFigures: "stopped",
};

/** See the head of this file. */
export class ScriptedPeers implements Actor<Message> {
  readonly world: World;
  readonly peers: AdminPeers;
  /** A volume that can be suspended. */
  readonly volume: VolumeStub;
  /** What was sent, in order. */
  readonly received: Message[] = [];
  readonly logged: string[] = [];
  readonly #script = new Map<string, unknown[]>();

  constructor(knobs: Partial<Knobs> = {}) {
    this.world = new World({ knobs: { ...defaultKnobs, ...knobs } });
    const { kernel } = this.world;
    const to = kernel.spawn<Message>("peers", 10_000, () => this);
    const device = new DeviceStub(to, true);
    this.volume = new VolumeStub(kernel, to);
    this.peers = {
      kernel,
      pool: new PoolStub(kernel, to),
      journal: new JournalStub(to),
      metadataDevice: device,
      figures: new FiguresStub(to),
      thin: {
        blockSizeBytes: 65536,
        metadata: new MetadataStub(kernel, to),
        allocator: new AllocatorStub(kernel, to),
        dataLocks: new DataLocks([], 1),
        detectsZeroes: false,
        count: () => {},
        data: device,
        space: spaceStub(this.world),
      },
      gauge: new GaugeStub(kernel, to),
      readOnly: false,
      countsByWalk: true,
      refusals: to,
      log: (sentence) => this.logged.push(sentence),
    };
  }

  /** The next requests of this type are answered so, one answer each. */
  answer(type: string, ...answers: unknown[]): this {
    this.#script.set(type, answers);
    return this;
  }

  receive(message: Message): void {
    this.received.push(message);
    const scripted = this.#script.get(message.type)?.shift();
    const answer = scripted ?? usualAnswers[message.type];
    if (answer !== undefined) this.world.kernel.reply(message as Request<unknown>, answer);
  }

  run<T>(steps: Steps<T>): T {
    return this.world.run(steps);
  }

  /** The types of what was sent, without what only the log is told. */
  get order(): string[] {
    return this.received.map(({ type }) => type).filter((type) => type !== "served" && type !== "refused");
  }

  /** What was sent with this type. */
  sent<M extends Message>(type: M["type"]): M[] {
    return this.received.filter((message) => message.type === type) as M[];
  }
}

/** A space watch that knows of no lack, and whose messages are not among those received. */
function spaceStub({ kernel }: World): SpaceStub {
  const facts = { kind: "spaceFacts", parked: 0, short: [], lacking: [] } as const;
  const receive = (message: SpaceWatchMessage) => {
    if (message.type === "spaceFacts") kernel.reply(message, facts);
  };
  return new SpaceStub(kernel, kernel.spawn("space watch", 10_000, () => ({ receive })));
}
