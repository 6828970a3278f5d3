/** A volume that the server of a pool holds for this process: the client's side of control_hold.ts. */
import { assert } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";
import type { AdminResult, HeldContent } from "../control/admin_command.ts";
import { brokenConversation, silentServer, valueOf } from "./control.ts";
import { holdPath } from "./control_hold.ts";
import { conversation } from "./hold_conversation.ts";
import { atMost } from "./turns.ts";

/** Where the volume is. */
export interface HeldAt {
  readonly uri: string;
  /** The absolute path of the socket that serves it alone. */
  readonly unixsocket: string;
}

/** See the head of this file. The volume goes when the connection does: with {@linkcode release}, or with this process. */
export class AskedHold {
  readonly at: HeldAt;
  /** Resolves when the hold has ended: with why, if the server has ended it, or could not remove the volume. */
  readonly ended: Promise<string | undefined>;
  #isEnded = false;
  #isReleased = false;
  readonly #path: string;
  readonly #silenceMs: number;
  readonly #hangUp: () => void;

  private constructor(
    path: string,
    silenceMs: number,
    { at, ended, hangUp }: { at: HeldAt; ended: Promise<string | undefined>; hangUp: () => void },
  ) {
    this.#path = path;
    this.#silenceMs = silenceMs;
    this.at = at;
    this.ended = this.#noted(ended);
    this.#hangUp = hangUp;
  }

  /** Asks the server behind a control socket; undefined if there is none. Throws {@linkcode UserError}. */
  static async begin(
    path: string,
    content: HeldContent,
    silenceMs: number,
  ): Promise<AskedHold | AdminResult | undefined> {
    const body = "source" in content ? content : { size_bytes: content.sizeBytes };
    return await conversation(path, { target: holdPath, body }, silenceMs, async (lines, request) => {
      const first = (await lines.next()).value;
      const answer = typeof first === "string" ? valueOf(path, first) as HeldAnswer : undefined;
      if (answer?.kind === "refused") return answer;
      if (typeof answer?.uri !== "string" || typeof answer.unixsocket !== "string") {
        throw brokenConversation(path, "it answered no volume");
      }
      const { uri, unixsocket } = answer;
      const hangUp = () => void request.socket?.end();
      return new AskedHold(path, silenceMs, { at: { uri, unixsocket }, ended: endOf(path, lines), hangUp });
    });
  }

  /** Resolves when the server has ended the hold: with why; undefined if this process has. */
  async lost(): Promise<string | undefined> {
    const reason = await this.ended;
    return this.#isReleased ? undefined : reason ?? serverHasEnded;
  }

  /** Ends the hold; the volume is gone when it resolves. Throws {@linkcode UserError} if it is not, or the server is silent. */
  async release(): Promise<void> {
    // The server has ended it before, and `lost` tells why.
    if (this.#isEnded) return;
    assert(!this.#isReleased, "a hold is released once");
    this.#isReleased = true;
    this.#hangUp();
    if (this.#silenceMs === 0) await this.ended;
    else await atMost(this.#silenceMs, this.#settled());
    if (!this.#isEnded) throw silentServer(this.#path, this.#silenceMs);
    const reason = await this.ended;
    if (reason !== undefined) {
      throw new UserError(`${reason} The volume may be there until the pool is opened again.`);
    }
  }

  async #settled(): Promise<void> {
    await this.ended;
  }

  async #noted(ended: Promise<string | undefined>): Promise<string | undefined> {
    const reason = await ended;
    this.#isEnded = true;
    return reason;
  }
}

const serverHasEnded = "The server has ended.";

/** The first line of the answer. */
type HeldAnswer =
  | Extract<AdminResult, { readonly kind: "refused" }>
  | { readonly kind: "held"; readonly uri: unknown; readonly unixsocket: unknown };

async function endOf(path: string, lines: AsyncGenerator<string>): Promise<string | undefined> {
  try {
    const last = (await lines.next()).value;
    if (typeof last !== "string") return serverHasEnded;
    const answer = valueOf(path, last);
    return answer.kind === "refused" ? answer.reason : undefined;
  } catch {
    // The connection broke: so did the server.
    return serverHasEnded;
  }
}
