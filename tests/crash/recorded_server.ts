/**
 * A pool in real files, served over a Unix socket to real clients, all of its devices and its journal recorded: put
 * together as the product does it (actors/edge/pool_process.ts), with recorders between the actors and the files.
 */
import type { AdminCommand, AdminResult } from "../../actors/control/admin_command.ts";
import { assemblePool } from "../../actors/assemble.ts";
import type { RequestsDone, VolumeRequest } from "../../actors/volume/bio.ts";
import { DenoClock } from "../../actors/edge/deno_clock.ts";
import { openLibc } from "../../actors/edge/libc.ts";
import { answerOf } from "../../actors/edge/outside.ts";
import { PoolFiles } from "../../actors/edge/pool_files.ts";
import { makePool } from "../../actors/edge/make_pool.ts";
import { openOn } from "../../actors/edge/open_engine.ts";
import { ListeningSocket } from "../../actors/edge/sockets.ts";
import type { Message } from "../../actors/kernel/address.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import { mailboxes } from "../../actors/mailboxes.ts";
import { NbdListener, NbdListenerStub } from "../../actors/nbd/listener.ts";
import type { PoolStub } from "../../actors/control/pool_messages.ts";
import type { PoolNotice } from "../../actors/control/export_messages.ts";
import type { Submit } from "../../actors/volume/volume_messages.ts";
import { present } from "../../storage/base/assert.ts";
import { metadataBlockSizeBytes } from "../../storage/base/ids.ts";
import { History, type Submitted } from "./history.ts";
import { type Lineage, WritableContent } from "./content.ts";
import type { Images } from "./images.ts";
import { outcomeOf } from "./recorded_run.ts";
import { RecordingDevice, RecordingIntents, RecordingJournal, RunLog } from "./recording_device.ts";
import { poisoned } from "./stamps.ts";
import { SocketGroup } from "../../actors/edge/socket_group.ts";
import { readBootId } from "../../actors/edge/boot_id.ts";
import { IntentFile } from "../../actors/edge/intent_file.ts";
import { bindingOf } from "../../actors/edge/intents_left.ts";
import { IntentJournal } from "../../actors/pool/intent_journal.ts";
import { intentFileBytes } from "../../storage/intent_read.ts";

const blockSizeBytes = 65536;
/** Of the intent journal: much less than the product's, as all of it is looked at after each operation. */
const segmentBytes = 65536;

/** Where a pool of the test is, and its sizes. */
export interface ServedPool {
  readonly directory: string;
  readonly socketPath: string;
  readonly dataBytes: number;
  readonly metadataBytes: number;
}

/** See the head of this file. */
export class RecordedServer {
  readonly log: RunLog;
  readonly history: History;
  readonly images: Images;
  readonly #kernel: Kernel;
  readonly #pool: PoolStub;
  readonly #stop: () => Promise<void>;
  readonly #beforeSend: () => void;
  /** Answers that no client has heard yet. */
  readonly #unsent: Set<() => void>;
  /** By the address of the volume's actor. */
  readonly #lineages = new Map<unknown, Lineage>();
  readonly #submitted = new Map<VolumeRequest, Submitted>();
  /** Requests seen, by kind. */
  readonly requests = new Map<string, number>();

  private constructor(parts: {
    readonly log: RunLog;
    readonly images: Images;
    readonly kernel: Kernel;
    readonly pool: PoolStub;
    readonly stop: () => Promise<void>;
    readonly beforeSend: () => void;
    readonly sent: Set<() => void>;
  }) {
    this.log = parts.log;
    this.images = parts.images;
    this.history = new History(parts.log, blockSizeBytes);
    this.#kernel = parts.kernel;
    this.#pool = parts.pool;
    this.#stop = parts.stop;
    this.#beforeSend = parts.beforeSend;
    this.#unsent = parts.sent;
    this.#observe();
  }

  /** Makes the pool, its data full of bytes that nobody may see, and serves it. */
  static async start(place: ServedPool): Promise<RecordedServer> {
    const { directory } = place;
    await makePool({
      directory,
      blockSizeBytes,
      dataSizeBytes: place.dataBytes,
      metadataSizeBytes: place.metadataBytes,
    });
    await Deno.writeFile(`${directory}/data.img`, poisoned(place.dataBytes), { create: false });
    const files = PoolFiles.open(directory, { libc: openLibc() });
    const metadata = await Deno.readFile(`${directory}/metadata.img`);
    const engine = openOn(metadata.slice(0, metadataBlockSizeBytes), files.metadata, false);
    const { catalogue } = files.settle(engine.transactionId);
    const images: Images = {
      metadata,
      data: await Deno.readFile(`${directory}/data.img`),
      // Without the zeroes behind the lines.
      journal: new TextEncoder().encode(catalogue.snapshotLine()),
      intents: new Uint8Array(intentFileBytes(segmentBytes)),
      isSameBoot: true,
    };
    const log = new RunLog();
    const { intents, closeIntents } = openIntents(files, log);
    const clock = new DenoClock();
    const kernel = new Kernel({ clock });
    let uids = 0;
    const pool = assemblePool(kernel, {
      catalogue,
      readOnly: false,
      newUid: () => `uid${++uids}`,
      log: () => {},
      journal: new RecordingJournal(
        present(files.catalogueFile, "it is writable"),
        log,
        images.journal.length,
      ),
      data: new RecordingDevice(files.data, log, "data"),
      metadata: new RecordingDevice(files.metadata, log, "metadata"),
      engine,
      intents,
    });
    const started = await answerOf(kernel, "start", pool.start());
    if (started.kind !== "done") throw new Error("the pool does not start");
    const sent = new Set<() => void>();
    const beforeSend = () => {
      intents.writeOut();
      for (const tell of sent) tell();
      sent.clear();
    };
    const stopListening = await listen(new SocketGroup(kernel, beforeSend), pool, place.socketPath);
    const stop = async () => {
      await stopListening();
      const stopped = await answerOf(kernel, "stop", pool.stop());
      kernel.stop();
      clock.close();
      closeIntents();
      files.close();
      if (stopped.kind !== "done") throw new Error("the last commit failed");
    };
    return new RecordedServer({ log, images, kernel, pool, stop, beforeSend, sent });
  }

  /** Gives a command, as the control socket does. Throws what the pool refuses. */
  async admin(command: AdminCommand): Promise<void> {
    const begun = this.history.begin(command);
    const result: AdminResult = await answerOf(this.#kernel, command.verb, this.#pool.admin(command));
    this.#beforeSend();
    this.history.end(begun, outcomeOf(result));
    if (result.kind === "refused") throw new Error(result.reason);
  }

  /** Waits until so many more requests have come. */
  async requestsSeen(count: number): Promise<void> {
    const seen = () => [...this.requests.values()].reduce((sum, of) => sum + of, 0);
    const target = seen() + count;
    while (seen() < target) await new Promise((resolve) => setTimeout(resolve, 1));
  }

  /** Clients have left; commits and closes. */
  async stop(): Promise<void> {
    await this.#stop();
  }

  /** Sees every request that clients submit, and every answer, as messages of the kernel. */
  #observe(): void {
    const kernel = this.#kernel;
    const tell = kernel.tell.bind(kernel);
    kernel.tell = (to, message) => {
      this.#see(to, message);
      tell(to, message);
    };
  }

  #see(to: unknown, message: Message): void {
    switch (message.type) {
      case "attached": {
        // The listener hears of it too.
        if (!("info" in message)) return;
        const { info, volume } = message as PoolNotice & { readonly type: "attached" };
        const content = this.history.current.volumes.get(info.name);
        if (content instanceof WritableContent) this.#lineages.set(volume, content.lineage);
        return;
      }
      case "submit": {
        const lineage = this.#lineages.get(to);
        for (const request of (message as Submit).requests) {
          this.requests.set(request.kind, (this.requests.get(request.kind) ?? 0) + 1);
          if (lineage !== undefined) this.#submitted.set(request, this.history.submit(lineage, request));
        }
        return;
      }
      case "requestsDone":
        for (const request of (message as RequestsDone).requests) this.#done(request);
        return;
    }
  }

  #done(request: VolumeRequest): void {
    const submitted = this.#submitted.get(request);
    this.#submitted.delete(request);
    const isOk = request.status === "ok";
    // It is acknowledged when it is sent, and before that the intent journal has its records.
    if (submitted !== undefined) this.#unsent.add(() => this.history.answer(submitted, isOk));
  }
}

/** The intent journal as the product opens it, recorded; the file is bound to this boot and these files. */
function openIntents(files: PoolFiles, log: RunLog) {
  const libc = present(openLibc(), "the test has the C library");
  const fileBytes = intentFileBytes(segmentBytes);
  const file = IntentFile.open(files.paths.intents, fileBytes, libc);
  if (typeof file === "string") throw new Error(file);
  const bootId = present(readBootId(), "the host tells its boot id");
  const binding = present(bindingOf(files, bootId, file.identity), "both devices are of this host");
  const port = new RecordingIntents(file, log, fileBytes);
  const intents = new IntentJournal({ port, binding, segmentBytes, log: () => {} });
  return { intents, closeIntents: () => file.close() };
}

/** Listens; the answer stops it. */
async function listen(sockets: SocketGroup, pool: PoolStub, path: string): Promise<() => Promise<void>> {
  const { kernel } = sockets;
  const socket = await ListeningSocket.open({ transport: "unix", path });
  const peers = { pool: pool.address, accepts: [socket], log: () => {} };
  const address = kernel.spawn(
    "nbd listener",
    mailboxes.listener,
    (self) => new NbdListener(kernel, self, peers),
  );
  socket.start(sockets, address);
  return async () => {
    await answerOf(kernel, "stop listening", new NbdListenerStub(address).stop());
  };
}
