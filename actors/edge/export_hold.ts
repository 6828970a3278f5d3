/** A connection to an export that keeps an ephemeral volume from going while the command that it was made for runs. */
import { UserError } from "../../storage/base/errors.ts";
import {
  commandName,
  errorName,
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_CMD_DISC,
  NBD_CMD_TRIM,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_OPT_GO,
  NBD_REP_ACK,
  NBD_REP_ERR_UNSUP,
  NBD_REP_MAGIC_HIGH,
  NBD_REP_MAGIC_LOW,
  NBD_REQUEST_MAGIC,
  NBD_SIMPLE_REPLY_MAGIC,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
  optionReplyName,
} from "../nbd/wire/constants.ts";
import { infoCollectMaxBytes } from "../nbd/wire/limits.ts";

/** The type of a reply is an error if it has this bit: the first of them is the bit and 1. */
const errorReplies = NBD_REP_ERR_UNSUP - 1;
/** A greeting, a reply to an option without its data, a simple reply, and a compact request. */
const [greetingBytes, optionReplyBytes, simpleReplyBytes, requestBytes] = [18, 20, 16, 28];

/** See the head of this file. */
export class ExportHold {
  readonly #conn: Deno.Conn;

  private constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  /**
   * Attaches, and trims one byte, which changes nothing and makes the volume one that was written to: so it goes when this
   * connection ends, however that is. Throws {@linkcode UserError}.
   */
  static async attach(socketPath: string, name: string): Promise<ExportHold> {
    const conn = await Deno.connect({ transport: "unix", path: socketPath });
    try {
      await handshake(conn, name);
      await trimOneByte(conn, name);
      return new ExportHold(conn);
    } catch (error) {
      conn.close();
      throw error;
    }
  }

  /** Disconnects as the protocol has it. */
  async release(): Promise<void> {
    try {
      await writeAll(this.#conn, requestOf(NBD_CMD_DISC, 0));
    } catch {
      // The server has closed the connection: the volume is gone, or the server is.
    }
    this.#conn.close();
  }
}

/** Fixed newstyle, and NBD_OPT_GO without a request for information. */
async function handshake(conn: Deno.Conn, name: string): Promise<void> {
  const greeting = await bytesOf(conn, greetingBytes);
  requireMagic(greeting, NBDMAGIC_HIGH, NBDMAGIC_LOW);
  const bytes = new TextEncoder().encode(name);
  const go = new DataView(new ArrayBuffer(4 + 16 + 4 + bytes.length + 2));
  go.setUint32(0, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
  go.setUint32(4, IHAVEOPT_HIGH);
  go.setUint32(8, IHAVEOPT_LOW);
  go.setUint32(12, NBD_OPT_GO);
  go.setUint32(16, 4 + bytes.length + 2);
  go.setUint32(20, bytes.length);
  new Uint8Array(go.buffer).set(bytes, 24);
  await writeAll(conn, go);
  for (;;) {
    const reply = await bytesOf(conn, optionReplyBytes);
    requireMagic(reply, NBD_REP_MAGIC_HIGH, NBD_REP_MAGIC_LOW);
    const type = reply.getUint32(12);
    const dataBytes = reply.getUint32(16);
    if (dataBytes > infoCollectMaxBytes) throw unexpected(`an option reply of ${dataBytes} bytes`);
    await bytesOf(conn, dataBytes);
    if (type >= errorReplies) {
      throw new UserError(
        `Cannot attach to "${name}": the server refuses it (${optionReplyName(type)}). See its log.`,
      );
    }
    if (type === NBD_REP_ACK) return;
  }
}

/** A TRIM that fails does not count as written, and the volume would stay. Replies are simple: no others are negotiated. */
async function trimOneByte(conn: Deno.Conn, name: string): Promise<void> {
  await writeAll(conn, requestOf(NBD_CMD_TRIM, 1));
  const reply = await bytesOf(conn, simpleReplyBytes);
  if (reply.getUint32(0) !== NBD_SIMPLE_REPLY_MAGIC) throw unexpected("something else than a simple reply");
  const error = reply.getUint32(4);
  if (error === 0) return;
  throw new UserError(
    `Cannot hold "${name}": its server answers ${commandName(NBD_CMD_TRIM)} with ${
      errorName(error)
    }. See its log.`,
  );
}

function requireMagic(message: DataView, high: number, low: number): void {
  if (message.getUint32(0) !== high || message.getUint32(4) !== low) throw unexpected("another magic number");
}

function unexpected(what: string): UserError {
  return new UserError(`Cannot talk NBD with the server: it sent ${what}. Is it a server of this program?`);
}

function requestOf(command: number, lengthBytes: number): DataView {
  const request = new DataView(new ArrayBuffer(requestBytes));
  request.setUint32(0, NBD_REQUEST_MAGIC);
  request.setUint16(6, command);
  request.setUint32(24, lengthBytes);
  return request;
}

async function writeAll(conn: Deno.Conn, view: DataView): Promise<void> {
  const bytes = new Uint8Array(view.buffer as ArrayBuffer);
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

async function bytesOf(conn: Deno.Conn, lengthBytes: number): Promise<DataView> {
  const bytes = new Uint8Array(lengthBytes);
  for (let at = 0; at < lengthBytes;) {
    const readBytes = await conn.read(bytes.subarray(at));
    if (readBytes === null) throw new UserError("The server closed the connection. See its log.");
    at += readBytes;
  }
  return new DataView(bytes.buffer);
}
