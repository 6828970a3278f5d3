/**
 * A small NBD client on a bare socket, for what stock clients will not do: send any bytes, in any order, and see
 * exactly what comes back. Strict about replies: an unknown cookie, a second reply, an overlap or a gap throws.
 */
import {
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_INFO_BLOCK_SIZE,
  NBD_OPT_GO,
  NBD_OPT_LIST,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_UNSUP,
  NBD_REP_MAGIC_HIGH,
  NBD_REP_MAGIC_LOW,
  NBD_REP_SERVER,
  NBD_REPLY_FLAG_DONE,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
  optionName,
  optionReplyName,
} from "../../actors/nbd/wire/constants.ts";
import { join, option, request, string, u16, u32 } from "./wire_bytes.ts";
import { dial, RawSocket, type ServerAddress } from "./raw_socket.ts";
import {
  type ExportFacts,
  exportFacts,
  type OptionReply,
  type Pending,
  type Reply,
  takeChunk,
  viewOf,
} from "./raw_replies.ts";

/** A command to send. Cookie and offset may be given as 32-bit halves; a cookie is chosen if none is given. */
export interface Command {
  readonly type: number;
  readonly flags?: number;
  readonly offsetBytes?: number;
  readonly offset?: readonly [number, number];
  readonly lengthBytes?: number;
  /** For WRITE: sent behind the header, and `lengthBytes` defaults to its length. */
  readonly payload?: Uint8Array;
  readonly cookie?: readonly [number, number];
}

export class RawClient extends RawSocket {
  #nextCookie = 1;
  /** Requests without a reply, by cookie; a cookie may be in use several times. */
  readonly #pending = new Map<string, Pending[]>();
  /** True once NBD_OPT_STRUCTURED_REPLY was acknowledged. */
  structured = false;
  /** What `go` told. */
  facts: ExportFacts | undefined;

  /** Connects and sends nothing. */
  static async connect(address: ServerAddress, { timeoutMs = 10_000 } = {}): Promise<RawClient> {
    return new RawClient(await dial(address), timeoutMs);
  }

  /** Connects and goes as far as transmission. */
  static async attach(
    address: ServerAddress,
    exportName: string,
    { structured = true, timeoutMs = 10_000 } = {},
  ): Promise<RawClient> {
    const client = await RawClient.connect(address, { timeoutMs });
    try {
      await client.greet();
      if (structured) await client.negotiateStructuredReplies();
      await client.go(exportName);
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  // Handshake.

  /** Reads the server's opening; returns the handshake flags. */
  async receiveOpening(): Promise<number> {
    const opening = viewOf(await this.receive(18));
    const words = [0, 4, 8, 12].map((at) => opening.getUint32(at));
    const expected = [NBDMAGIC_HIGH, NBDMAGIC_LOW, IHAVEOPT_HIGH, IHAVEOPT_LOW];
    if (words.some((word, i) => word !== expected[i])) throw new Error("a wrong opening");
    return opening.getUint16(16);
  }

  /** Reads the opening and sends the client flags. */
  async greet(clientFlags = 3): Promise<void> {
    await this.receiveOpening();
    await this.send(u32(clientFlags));
  }

  /** Sends an option without waiting for its replies. */
  async sendOption(number: number, data?: Uint8Array): Promise<void> {
    await this.send(option(number, data));
  }

  /** The next option reply. */
  async receiveOptionReply(): Promise<OptionReply> {
    const header = viewOf(await this.receive(20));
    if (header.getUint32(0) !== NBD_REP_MAGIC_HIGH || header.getUint32(4) !== NBD_REP_MAGIC_LOW) {
      throw new Error("an option reply with a wrong magic");
    }
    const data = await this.receive(header.getUint32(16));
    return { option: header.getUint32(8), replyType: header.getUint32(12), data };
  }

  /** Sends an option and collects its replies up to the final one, an ACK or an error. */
  async negotiate(number: number, data?: Uint8Array): Promise<OptionReply[]> {
    await this.sendOption(number, data);
    const replies: OptionReply[] = [];
    for (;;) {
      const reply = await this.receiveOptionReply();
      if (reply.option !== number) throw new Error(`a reply to ${optionName(reply.option)}`);
      replies.push(reply);
      if (reply.replyType === NBD_REP_ACK || reply.replyType >= NBD_REP_ERR_UNSUP) return replies;
    }
  }

  /** As `negotiate`, but gives only the type of the final reply. */
  async outcome(number: number, data?: Uint8Array): Promise<number> {
    return (await this.negotiate(number, data)).at(-1)!.replyType;
  }

  async negotiateStructuredReplies(): Promise<void> {
    const replyType = await this.outcome(NBD_OPT_STRUCTURED_REPLY);
    if (replyType !== NBD_REP_ACK) throw new Error(`structured replies: ${optionReplyName(replyType)}`);
    this.structured = true;
  }

  /** The names that NBD_OPT_LIST gives. */
  async list(): Promise<string[]> {
    const replies = await this.negotiate(NBD_OPT_LIST);
    return replies.filter((reply) => reply.replyType === NBD_REP_SERVER).map((reply) => {
      const nameBytes = viewOf(reply.data).getUint32(0);
      return new TextDecoder().decode(reply.data.subarray(4, 4 + nameBytes));
    });
  }

  /** NBD_OPT_GO; throws with the reply's name and text if it is refused. */
  async go(exportName: string, infoTypes = [NBD_INFO_BLOCK_SIZE]): Promise<ExportFacts> {
    const replies = await this.negotiate(NBD_OPT_GO, infoRequest(exportName, infoTypes));
    const last = replies.at(-1)!;
    if (last.replyType !== NBD_REP_ACK) {
      throw new Error(`${optionReplyName(last.replyType)}: ${new TextDecoder().decode(last.data)}`);
    }
    this.facts = exportFacts(replies);
    return this.facts;
  }

  // Transmission.

  /** Sends a request without waiting for its reply; returns its cookie. */
  async sendCommand(command: Command): Promise<readonly [number, number]> {
    const cookie = command.cookie ?? [0, this.#nextCookie++];
    const offsetBytes = command.offsetBytes ?? 0;
    const lengthBytes = command.lengthBytes ?? command.payload?.length ?? 0;
    const offset = command.offset ?? [Math.floor(offsetBytes / 2 ** 32), offsetBytes % 2 ** 32];
    if (command.type !== NBD_CMD_DISC) this.#expect(command.type, cookie, offsetBytes, lengthBytes);
    const header = request({
      type: command.type,
      flags: command.flags ?? 0,
      cookie,
      offset,
      length: lengthBytes,
    });
    await this.send(header, command.payload ?? new Uint8Array(0));
    return cookie;
  }

  /** The next reply to be complete, whichever request it answers. */
  async receiveReply(): Promise<Reply> {
    for (;;) {
      const magic = viewOf(await this.receive(4)).getUint32(0);
      if (magic === NBD_SIMPLE_REPLY_MAGIC) return await this.#receiveSimple();
      if (magic !== NBD_STRUCTURED_REPLY_MAGIC) throw new Error(`a reply with magic ${magic.toString(16)}`);
      const reply = await this.#receiveChunk();
      if (reply !== undefined) return reply;
    }
  }

  /** Sends one request and receives its reply. */
  async perform(command: Command): Promise<Reply> {
    await this.sendCommand(command);
    return await this.receiveReply();
  }

  /** READ that must succeed. */
  async read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array> {
    const reply = await this.perform({ type: NBD_CMD_READ, offsetBytes, lengthBytes });
    if (reply.error !== 0) throw new Error(`READ: error ${reply.error} ${reply.message}`);
    return reply.data;
  }

  /** WRITE that must succeed. */
  async write(offsetBytes: number, payload: Uint8Array, flags = 0): Promise<void> {
    const reply = await this.perform({ type: NBD_CMD_WRITE, offsetBytes, payload, flags });
    if (reply.error !== 0) throw new Error(`WRITE: error ${reply.error} ${reply.message}`);
  }

  /** FLUSH that must succeed. */
  async flush(): Promise<void> {
    const reply = await this.perform({ type: NBD_CMD_FLUSH });
    if (reply.error !== 0) throw new Error(`FLUSH: error ${reply.error} ${reply.message}`);
  }

  /** DISC, then waits until the server has closed. */
  async disconnect(): Promise<void> {
    await this.sendCommand({ type: NBD_CMD_DISC });
    const rest = await this.receiveAll();
    this.close();
    if (rest.length !== 0) throw new Error(`${rest.length} bytes after DISC`);
  }

  /** Requests that have no complete reply yet. */
  get inFlight(): number {
    let count = 0;
    for (const same of this.#pending.values()) count += same.length;
    return count;
  }

  #expect(type: number, cookie: readonly [number, number], offsetBytes: number, lengthBytes: number): void {
    // A READ that the server will refuse may announce any length, so do not allocate it.
    const dataBytes = type === NBD_CMD_READ && lengthBytes <= 2 ** 26 ? lengthBytes : 0;
    const pending: Pending = {
      cookie,
      type,
      offsetBytes,
      data: new Uint8Array(dataBytes),
      covered: new Uint8Array(this.structured ? dataBytes : 0),
      chunks: [],
      error: 0,
      message: "",
    };
    const same = this.#pending.get(cookie.join());
    if (same === undefined) this.#pending.set(cookie.join(), [pending]);
    else same.push(pending);
  }

  #pendingOf(header: DataView, at: number): Pending {
    const cookie = [header.getUint32(at), header.getUint32(at + 4)];
    const pending = this.#pending.get(cookie.join())?.[0];
    if (pending === undefined) throw new Error(`a reply to no request, cookie ${cookie.join()}`);
    return pending;
  }

  #complete(pending: Pending): Reply {
    const key = pending.cookie.join();
    const same = this.#pending.get(key)!;
    same.shift();
    if (same.length === 0) this.#pending.delete(key);
    const { cookie, error, message, chunks } = pending;
    return { cookie, error, message, chunks, data: error === 0 ? pending.data : new Uint8Array(0) };
  }

  async #receiveSimple(): Promise<Reply> {
    const header = viewOf(await this.receive(12));
    const pending = this.#pendingOf(header, 4);
    pending.error = header.getUint32(0);
    if (pending.type === NBD_CMD_READ) {
      if (this.structured) throw new Error("a simple reply to a READ with structured replies");
      if (pending.error === 0) pending.data.set(await this.receive(pending.data.length));
    }
    return this.#complete(pending);
  }

  async #receiveChunk(): Promise<Reply | undefined> {
    if (!this.structured) throw new Error("a structured reply that was not negotiated");
    const header = viewOf(await this.receive(16));
    const flags = header.getUint16(0);
    const type = header.getUint16(2);
    const pending = this.#pendingOf(header, 4);
    const payload = await this.receive(header.getUint32(12));
    if ((flags & ~NBD_REPLY_FLAG_DONE) !== 0) throw new Error(`reply flags ${flags}`);
    const isLast = flags === NBD_REPLY_FLAG_DONE;
    pending.chunks.push({ type, isLast, payload });
    takeChunk(pending, type, isLast, payload);
    if (!isLast) return undefined;
    if (pending.type === NBD_CMD_READ && pending.error === 0 && pending.covered.includes(0)) {
      throw new Error("a READ reply that does not cover the request");
    }
    return this.#complete(pending);
  }
}

/** The data of an INFO or GO. */
export function infoRequest(exportName: string, infoTypes: readonly number[] = []): Uint8Array {
  return join(string(exportName), u16(infoTypes.length), ...infoTypes.map(u16));
}

/** The data of a meta context option. */
export function metaContextRequest(exportName: string, queries: readonly string[]): Uint8Array {
  return join(string(exportName), u32(queries.length), ...queries.map(string));
}
