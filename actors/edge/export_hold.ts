/** A connection to an export that keeps an ephemeral volume from going while the command that it was made for runs. */
import { UserError } from "../../storage/base/errors.ts";
import {
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_CMD_DISC,
  NBD_CMD_TRIM,
  NBD_OPT_GO,
  NBD_REP_ACK,
  NBD_REQUEST_MAGIC,
} from "../nbd/wire/constants.ts";

/** NBD_FLAG_C_FIXED_NEWSTYLE and NBD_FLAG_C_NO_ZEROES, and the reply type from which on a reply is an error. */
const clientFlags = 3;
const errorReplies = 0x8000_0000;
const [greetingBytes, optionReplyBytes, simpleReplyBytes] = [18, 20, 16];

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
      await bytesOf(conn, greetingBytes);
      const bytes = new TextEncoder().encode(name);
      const go = new DataView(new ArrayBuffer(4 + 16 + 4 + bytes.length + 2));
      go.setUint32(0, clientFlags);
      go.setUint32(4, IHAVEOPT_HIGH);
      go.setUint32(8, IHAVEOPT_LOW);
      go.setUint32(12, NBD_OPT_GO);
      go.setUint32(16, 4 + bytes.length + 2);
      go.setUint32(20, bytes.length);
      new Uint8Array(go.buffer).set(bytes, 24);
      await writeAll(conn, go);
      for (let type = 0; type !== NBD_REP_ACK;) {
        const reply = await bytesOf(conn, optionReplyBytes);
        type = reply.getUint32(12);
        await bytesOf(conn, reply.getUint32(16));
        if (type >= errorReplies) throw new UserError(`Cannot attach to "${name}": the server refuses it.`);
      }
      await writeAll(conn, requestOf(NBD_CMD_TRIM, 1));
      await bytesOf(conn, simpleReplyBytes);
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

function requestOf(command: number, lengthBytes: number): DataView {
  const request = new DataView(new ArrayBuffer(28));
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
