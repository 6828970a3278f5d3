/**
 * The platform's limit: our codec in a loop with synchronous positional file calls, no actors and no volumes.
 * `deno run -A tests/bench/bare_server.ts SOCKET FILE`. Every request that a socket read brought is served, then all
 * replies go out with as few writes as the queue makes of them. It trusts its client, which is fio.
 */
import {
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_SEND_FLUSH,
  NBD_REP_ERR_UNSUP,
} from "../../actors/nbd/wire/constants.ts";
import { HandshakeDecoder } from "../../actors/nbd/wire/handshake_codec.ts";
import { decodeOption } from "../../actors/nbd/wire/option.ts";
import { OptionReplyWriter } from "../../actors/nbd/wire/option_reply.ts";
import { OutputQueue } from "../../actors/nbd/wire/output_queue.ts";
import { type NbdRequest, RequestDecoder } from "../../actors/nbd/wire/request.ts";
import { copied } from "../../actors/nbd/wire/pieces.ts";
import { ReplyWriter } from "../../actors/nbd/wire/reply.ts";
import { PositionalFile } from "./positional_file.ts";

const receiveBytes = 256 * 1024;
const requestBytesMax = 32 * 1024 * 1024;
const transmissionFlags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN;

class Session {
  readonly #conn: Deno.Conn;
  readonly #file: PositionalFile;
  readonly #received = new Uint8Array(receiveBytes);
  readonly #output = new OutputQueue();
  #structured = false;
  /** A large reply goes out by reference, so each of a batch has a buffer of its own until the batch is sent. */
  #buffers: Uint8Array[] = [];
  #buffersUsed = 0;

  constructor(conn: Deno.Conn, file: PositionalFile) {
    this.#conn = conn;
    this.#file = file;
  }

  async run(): Promise<void> {
    try {
      const surplus = await this.#handshake();
      if (surplus !== undefined) await this.#transmit(surplus);
    } finally {
      this.#conn.close();
    }
  }

  /** What the client sent beyond its last option; undefined if it has gone. */
  async #handshake(): Promise<Uint8Array | undefined> {
    const decoder = new HandshakeDecoder();
    const replies = new OptionReplyWriter(this.#output);
    replies.opening();
    for (;;) {
      await this.#send();
      const event = decoder.next();
      if (event === undefined) {
        const count = await this.#conn.read(this.#received);
        if (count === null) return undefined;
        decoder.push(this.#received.subarray(0, count));
      } else if (event.kind === "violation") {
        return undefined;
      } else if (event.kind === "option") {
        const option = decodeOption(event);
        if (option.type === "abort") return undefined;
        if (option.type === "structuredReply") this.#structured = true;
        else if (option.type !== "info" && option.type !== "go") {
          replies.error(event.option, NBD_REP_ERR_UNSUP, "only a file");
          continue;
        } else {
          replies.infoExport(event.option, this.#file.sizeBytes, transmissionFlags);
          replies.infoBlockSize(event.option, { minimum: 1, preferred: 4096, maximum: requestBytesMax });
        }
        replies.ack(event.option);
        if (option.type === "go") {
          await this.#send();
          return decoder.takeSurplus();
        }
      }
    }
  }

  async #transmit(surplus: Uint8Array): Promise<void> {
    const decoder = new RequestDecoder();
    const replies = new ReplyWriter(this.#output, { structured: this.#structured, extendedHeaders: false });
    let chunk: Uint8Array = surplus;
    for (;;) {
      decoder.push(chunk);
      for (let step = decoder.next(); step !== "needBytes"; step = decoder.next()) {
        if (step === "violation") return;
        const { request } = decoder;
        if (step === "header") {
          if (decoder.payloadInChunk) decoder.accept();
          else decoder.accept(this.#buffer(request.payloadBytes));
        } else if (request.type === NBD_CMD_DISC) {
          return;
        } else if (request.type === NBD_CMD_FLUSH) {
          await new Promise<void>((resolve) => this.#file.flush(resolve));
          replies.success(request);
        } else this.#serve(request, replies);
      }
      await this.#send();
      const count = await this.#conn.read(this.#received);
      if (count === null) return;
      chunk = this.#received.subarray(0, count);
    }
  }

  #serve(request: NbdRequest, replies: ReplyWriter): void {
    if (request.type === NBD_CMD_READ) {
      const data = this.#buffer(request.lengthBytes);
      this.#file.read(data, request.offsetBytes);
      replies.readData(request, request.offsetBytes, data);
    } else if (request.type === NBD_CMD_WRITE) {
      this.#file.write(request.payload!, request.offsetBytes);
      replies.success(request);
    } else throw new Error(`no command ${request.type}`);
  }

  #buffer(lengthBytes: number): Uint8Array {
    const at = this.#buffersUsed++;
    const kept = this.#buffers[at];
    if (kept !== undefined && kept.length >= lengthBytes) return kept.subarray(0, lengthBytes);
    return this.#buffers[at] = new Uint8Array(lengthBytes);
  }

  async #send(): Promise<void> {
    const pieces = copied(this.#output.take(), 0);
    if (pieces.length === 0) return;
    for (const piece of pieces) {
      for (let done = 0; done < piece.length;) done += await this.#conn.write(piece.subarray(done));
    }
    this.#output.recycle();
    this.#buffersUsed = 0;
  }
}

if (import.meta.main) {
  const [socket = "", path = ""] = Deno.args;
  const file = new PositionalFile(path);
  for await (const conn of Deno.listen({ transport: "unix", path: socket })) {
    // A client that goes without a word ends its session, and nothing else.
    new Session(conn, file).run().catch((error) => console.error(String(error)));
  }
}
