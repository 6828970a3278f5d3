/** What a crash left, as the files of a pool directory, opened by the program's own way. */
import { PoolProcess } from "../../actors/edge/pool_process.ts";
import { packFileHeader, unpackFileHeader } from "../../storage/intent_headers.ts";
import type { RequestsDone, VolumeRequest } from "../../actors/volume/bio.ts";
import type { Actor, Address } from "../../actors/kernel/address.ts";
import type { PoolNotice } from "../../actors/control/export_messages.ts";
import type { History } from "./history.ts";
import type { Images } from "./images.ts";
import { type FoundVolume, problemOfFound, problemOfMetadata } from "./recovery.ts";

/** What is wrong with what a crash left that came right before `instant`, or undefined. Overwrites the directory's files. */
export async function problemOfDirectory(
  directory: string,
  images: Images,
  history: History,
  instant: number,
): Promise<string | undefined> {
  await Deno.writeFile(`${directory}/metadata.img`, images.metadata);
  await Deno.writeFile(`${directory}/data.img`, images.data);
  await Deno.writeFile(`${directory}/catalog.json`, images.journal);
  await Deno.writeFile(
    `${directory}/intent.journal`,
    images.isSameBoot ? images.intents : ofAnotherBoot(images),
  );
  const logged: string[] = [];
  const process = await PoolProcess.open(directory, { log: (sentence) => logged.push(sentence) });
  let found: FoundVolume[];
  try {
    found = await readProcess(process);
  } finally {
    await process.close();
  }
  const isReplayed = logged.some((sentence) => sentence.endsWith("replayed and committed."));
  if (isReplayed && !images.isSameBoot) return "what a power cut has left of the intent journal is replayed";
  return problemOfMetadata(await Deno.readFile(`${directory}/metadata.img`)) ??
    problemOfFound(found, history, instant, images.isSameBoot ? "answered" : "flushed");
}

/** The file of the intent journal as if the host had started anew since. */
function ofAnotherBoot({ intents }: Images): Uint8Array {
  const header = unpackFileHeader(intents);
  // It has not survived the power cut.
  if (typeof header !== "object") return intents;
  const bytes = intents.slice();
  const bootId = "00000000-0000-4000-8000-000000000000";
  bytes.set(packFileHeader({ ...header, binding: { ...header.binding, bootId } }));
  return bytes;
}

async function readProcess(process: PoolProcess): Promise<FoundVolume[]> {
  const listed = await process.command({ verb: "list" });
  if (listed.kind !== "volumes") throw new Error(`list answered ${listed.kind}`);
  const found: FoundVolume[] = [];
  for (const { name, size_bytes: sizeBytes, read_only: readOnly } of listed.volumes) {
    const data = await readWhole(process, name, sizeBytes);
    found.push({ name, sizeBytes, readOnly, words: new Uint32Array(data.buffer) });
  }
  return found;
}

function readWhole(process: PoolProcess, name: string, sizeBytes: number): Promise<Uint8Array> {
  const { kernel, pool } = process;
  return new Promise((resolve, reject) => {
    const client = kernel.spawn<RequestsDone | PoolNotice>(
      `reader of ${name}`,
      16,
      (self) => new Reader(process, self, sizeBytes, resolve, reject),
    );
    kernel.post(pool.address, { type: "attach", name, client });
  });
}

/** Attaches, reads everything, detaches. */
class Reader implements Actor<RequestsDone | PoolNotice> {
  readonly #process: PoolProcess;
  readonly #self: Address<RequestsDone | PoolNotice>;
  readonly #sizeBytes: number;
  readonly #resolve: (data: Uint8Array) => void;
  readonly #reject: (error: Error) => void;
  #uid = "";

  constructor(
    process: PoolProcess,
    self: Address<RequestsDone | PoolNotice>,
    sizeBytes: number,
    resolve: (data: Uint8Array) => void,
    reject: (error: Error) => void,
  ) {
    this.#process = process;
    this.#self = self;
    this.#sizeBytes = sizeBytes;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  receive(message: RequestsDone | PoolNotice): void {
    const { kernel, pool } = this.#process;
    switch (message.type) {
      case "attached":
        this.#uid = message.info.uid;
        kernel.tell(message.volume, { type: "submit", requests: [this.#request()] });
        return;
      case "requestsDone": {
        kernel.tell(pool.address, { type: "detach", uid: this.#uid, client: this.#self });
        const { status, data } = message.requests[0]!;
        if (status === "ok") return this.#resolve(data);
        return this.#reject(new Error(`reading failed: ${status}`));
      }
      case "detached":
        return;
      default:
        return this.#reject(new Error(`the pool said ${message.type}`));
    }
  }

  #request(): VolumeRequest {
    return {
      kind: "read",
      offsetBytes: 0,
      lengthBytes: this.#sizeBytes,
      data: new Uint8Array(this.#sizeBytes),
      fua: false,
      noHole: false,
      fastZero: false,
      client: this.#self,
      status: "ok",
      holes: new Uint8Array(0),
    };
  }
}
