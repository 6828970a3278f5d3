/**
 * The control API: HTTP with JSON on a Unix socket, for the command line and for programs that fork volumes.
 *
 *   POST /v1/commands   a Command (admin_command.ts) -> its AdminResult
 *   GET  /v1/volumes    what `list --json` prints
 *   GET  /v1/status     what `status --json` prints
 *   GET  /v1/clients    what `clients --json` prints
 *
 *   POST /v1/run        a volume that exists as long as the connection: control_hold.ts
 *
 * The answer to `dump` is a line of JSON for each piece, {"text":...}, and then the result's line.
 *
 * 200: done. 409: the pool refused. Other 4xx: the request is malformed, or was not sent in time. 503: too many commands
 * at once. Of these the body is {"kind":"refused","reason":...}. A connection carries one request.
 */
import { Buffer } from "node:buffer";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { assert } from "../../storage/base/assert.ts";
import { UserError } from "../../storage/base/errors.ts";
import type { AdminResult, Command, HeldContent } from "../control/admin_command.ts";
import { documentOf } from "../control/result_text.ts";
import { commandOfPath, commandSlices } from "../control/verbs.ts";
import { reasonOutside } from "../kernel/boundary.ts";
import { defaultKnobs } from "../knobs.ts";
import {
  controlBodyBytesMax,
  controlCommandsMax,
  controlConnectionsMax,
  controlConnectionsMin,
  controlDumpsMax,
  drainMs,
  holdsMaxOf,
} from "../limits.ts";
import { type AcceptListener, AcceptLoop } from "./accept_loop.ts";
import type { StreamConn } from "./conn_stream.ts";
import { type ControlClient, ControlClients, type ControlTimes, controlTimes } from "./control_clients.ts";
import { DumpAnswer } from "./control_dump.ts";
import { heldContentOf, type HoldHandler, holdPath, serveHold } from "./control_hold.ts";
import type { DumpWriter } from "./pool_offline.ts";
import { aTurn, inTurns } from "./turns.ts";

/** Carries out commands. */
export interface CommandHandler extends HoldHandler {
  readonly log: (sentence: string) => void;
  command(command: Command): Promise<AdminResult>;
  dump(write: DumpWriter): Promise<AdminResult>;
}

/** What a request asks for, and what of the result is its answer. */
interface AskedCommand {
  readonly kind: "command";
  readonly command: Command;
  readonly answerOf: (result: AdminResult) => unknown;
}

/** A request for a volume. */
interface AskedVolume {
  readonly kind: "hold";
  readonly content: HeldContent;
}

/** A request that is answered without the pool. */
class Problem extends Error {
  constructor(readonly status: number, reason: string) {
    super(reason);
  }
}

/** See the head of this file. */
export class ControlServer {
  readonly #handler: CommandHandler;
  readonly #accepts: AcceptLoop<StreamConn>;
  readonly #clients: ControlClients;
  /** Commands at once, and the dumps among them: never all connections, as one without a command is to make room. */
  readonly #commandsMax: number;
  readonly #dumpsMax: number;
  /** Commands that the pool has, also of clients that have gone; and the dumps among them. */
  #commandsRunning = 0;
  #dumpsRunning = 0;
  /** Clients that hold a volume. */
  readonly #holdsMax: number;
  #holdsRunning = 0;
  #holdEnded = Promise.withResolvers<void>();
  readonly #stopping = Promise.withResolvers<string>();

  /** Serves the clients of a listening socket from now on. */
  constructor(
    listener: AcceptListener<StreamConn>,
    handler: CommandHandler,
    times: ControlTimes = controlTimes,
    connectionsMax: number = controlConnectionsMax,
  ) {
    this.#handler = handler;
    assert(
      connectionsMax >= controlConnectionsMin,
      "there is room for a dump, another command, a hold, and a refusal",
    );
    this.#clients = new ControlClients(times, connectionsMax);
    this.#holdsMax = holdsMaxOf(connectionsMax);
    this.#commandsMax = Math.min(controlCommandsMax, connectionsMax - this.#holdsMax - 1);
    this.#dumpsMax = Math.min(controlDumpsMax, this.#commandsMax - 1);
    const server = http.createServer({ requireHostHeader: false }, (request, response) => {
      this.#asked(request, response);
    });
    server.on("clientError", (error: Error, stream: Duplex) => {
      this.#clients.of(stream)?.refuse(400, `The request is not HTTP: ${error.message}`);
    });
    // It has no response of its own, and leads to nothing here.
    server.on("connect", (_request: unknown, stream: Duplex) => {
      this.#clients.of(stream)?.refuse(405, "CONNECT is not served; POST a command to /v1/commands");
    });
    this.#accepts = new AcceptLoop(listener, "control connections", handler.log, (conn) => {
      server.emit("connection", this.#clients.add(conn).stream);
    });
  }

  /** Clients that hold a volume. */
  get holds(): number {
    return this.#holdsRunning;
  }

  /** Resolves when no client holds a volume. */
  async holdsEnded(): Promise<void> {
    while (this.#holdsRunning > 0) await this.#holdEnded.promise;
  }

  /** Stops accepting, ends the volumes that are held, and lets running requests end for `drainMs`. */
  async close(): Promise<void> {
    this.#accepts.stop();
    this.#stopping.resolve("The server has been stopped.");
    // A client that does not take its answer, or never ends its request, may not keep the server from stopping.
    await this.#clients.drain(drainMs);
    await this.#accepts.ended;
  }

  #asked(request: IncomingMessage, response: ServerResponse): void {
    // What the other end does to them is told by the stream.
    request.on("error", () => {});
    response.on("error", () => {});
    const client = this.#clients.of(request.socket);
    // A second request on the same connection is not served, nor one that came too late.
    if (client === undefined || !client.begin()) return void request.resume();
    // A fault of ours that one request met: it must not end the others. A broken invariant does.
    this.#serve(client, request, response).catch((error) => {
      this.#handler.log(`A request to the control socket failed: ${reasonOutside(error)}.`);
      client.close();
    });
  }

  async #serve(client: ControlClient, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = await this.#askedBy(request);
    // Its client has gone, or was too late.
    if (asked === undefined || client.stream.writableEnded || client.stream.destroyed) return;
    if (asked instanceof Problem) return answer(client, response, asked.status, refusal(asked.message));
    if (asked.kind === "hold") return await this.#hold(client, response, asked.content);
    const isDump = asked.command.verb === "dump";
    if (this.#commandsRunning >= this.#commandsMax) {
      return answer(client, response, 503, tooMany(`carries out ${this.#commandsMax} commands`));
    }
    if (isDump && this.#dumpsRunning >= this.#dumpsMax) {
      return answer(client, response, 503, tooMany(`makes ${this.#dumpsMax} dumps`));
    }
    client.run();
    this.#commandsRunning += 1;
    if (isDump) this.#dumpsRunning += 1;
    assert(this.#dumpsRunning <= this.#commandsRunning, "more dumps run than commands");
    try {
      await (isDump ? this.#dump(client, response) : this.#command(client, response, asked));
    } finally {
      this.#commandsRunning -= 1;
      if (isDump) this.#dumpsRunning -= 1;
      assert(this.#commandsRunning >= 0 && this.#dumpsRunning >= 0, "more commands ended than began");
      assert(this.#dumpsRunning <= this.#commandsRunning, "more dumps run than commands");
    }
  }

  async #command(client: ControlClient, response: ServerResponse, asked: AskedCommand): Promise<void> {
    // A pool that fails says why where that was met, and the process ends: here is only no result.
    const result = await this.#handler.command(asked.command).catch(() => undefined);
    if (result === undefined) return answer(client, response, 500, hasFailed);
    const pieces = await inTurns(answerSlices(asked.answerOf(result)));
    const status = result.kind === "refused" ? 409 : 200;
    await answerPieces(client, response, status, pieces);
  }

  async #dump(client: ControlClient, response: ServerResponse): Promise<void> {
    const writer = new DumpAnswer(client, response);
    // As above.
    const result = await this.#handler.dump((text) => writer.write(text)).catch(() => hasFailed);
    writer.end(result);
  }

  async #hold(client: ControlClient, response: ServerResponse, content: HeldContent): Promise<void> {
    if (this.#holdsRunning >= this.#holdsMax) {
      return answer(client, response, 503, tooMany(`holds ${this.#holdsMax} volumes`));
    }
    client.run();
    this.#holdsRunning += 1;
    const last = await this.#holdUntilEnd(client, response, content).finally(() => {
      // Before the client is told, so that it finds the place free.
      assert(this.#holdsRunning > 0, "more holds ended than began");
      this.#holdsRunning -= 1;
      this.#holdEnded.resolve();
      this.#holdEnded = Promise.withResolvers();
    });
    if (!response.headersSent) return answer(client, response, 409, last);
    response.end(`${JSON.stringify(last)}\n`);
    client.answered();
  }

  async #holdUntilEnd(
    client: ControlClient,
    response: ServerResponse,
    content: HeldContent,
  ): Promise<AdminResult> {
    const held = await this.#handler.hold(content).catch((error) => {
      return error instanceof UserError ? refusal(error.message) : hasFailed;
    });
    if (held.kind !== "held") return held;
    return await serveHold(client, response, this.#handler, held, this.#stopping.promise);
  }

  /** Undefined if the client goes away before all of it has come. */
  async #askedBy(request: IncomingMessage): Promise<AskedCommand | AskedVolume | Problem | undefined> {
    try {
      requireHost(request);
      const text = await textOf(request);
      if (text === undefined) return undefined;
      return await askedFor(request, text);
    } catch (error) {
      if (error instanceof Problem) return error;
      if (error instanceof UserError) return new Problem(400, error.message);
      throw error;
    }
  }
}

/** For sentences. */
const readable = [...commandOfPath.keys()].join(", ");

/** Throws {@linkcode Problem} or {@linkcode UserError}. */
async function askedFor({ url, method }: IncomingMessage, text: string): Promise<AskedCommand | AskedVolume> {
  const pathname = pathOf(url ?? "");
  const command = commandOfPath.get(pathname);
  if (command !== undefined) {
    if (method === "GET") return { kind: "command", command, answerOf: documentOf };
    throw new Problem(405, `Read ${pathname} with GET. Commands are POSTed to /v1/commands.`);
  }
  if (pathname !== "/v1/commands" && pathname !== holdPath) {
    throw new Problem(404, `There is no ${pathname}. See /v1/commands, ${holdPath}, ${readable}.`);
  }
  if (method !== "POST") {
    throw new Problem(405, `Commands are POSTed. Read ${readable} with GET.`);
  }
  if (pathname === holdPath) return { kind: "hold", content: heldContentOf(jsonOf(text)) };
  const posted = await inTurns(commandSlices(jsonOf(text), defaultKnobs.sliceRecords));
  return { kind: "command", command: posted, answerOf: (result) => result };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Bad input of a client, answered as such.
    throw new UserError("The request is not JSON. Send one command as a JSON object.");
  }
}

/** The path in the target of a request, which may be a whole URL. */
function pathOf(target: string): string {
  try {
    return new URL(target.startsWith("/") ? `http://pool${target}` : target).pathname;
  } catch {
    // Bad input of a client, answered as such.
    throw new UserError(
      `The request's target ${JSON.stringify(target)} is no path. Ask for one, as /v1/status.`,
    );
  }
}

/** One host where HTTP/1.1 wants it (RFC 9112, 3.2). Which one does not matter: the socket is the host. */
function requireHost(request: IncomingMessage): void {
  const hosts = request.headersDistinct.host ?? [];
  if (hosts.length === 0 && request.httpVersion === "1.0") return;
  if (hosts.length === 1 && URL.canParse(`http://${hosts[0]}`)) return;
  throw new UserError(
    'The request names no host, or not one that is valid. Send one header such as "Host: pool".',
  );
}

/** The body; undefined if the client goes away before its end. */
async function textOf(request: IncomingMessage): Promise<string | undefined> {
  const decoder = new TextDecoder();
  let text = "";
  let lengthBytes = 0;
  try {
    for await (const piece of request) {
      lengthBytes += piece.length;
      // The rest is read and dropped: a client that still sends would not hear an answer.
      if (lengthBytes <= controlBodyBytesMax) text += decoder.decode(piece, { stream: true });
    }
  } catch (error) {
    // A request breaks off when its client goes.
    reasonOutside(error);
    return undefined;
  }
  if (lengthBytes > controlBodyBytesMax) {
    throw new UserError(`The request has more than ${controlBodyBytesMax} bytes. Send several commands.`);
  }
  return text + decoder.decode();
}

function tooMany(does: string): AdminResult {
  return refusal(`The server ${does} already. Try again.`);
}

const hasFailed = refusal("The pool has failed. See the server's log.");

function refusal(reason: string): AdminResult {
  return { kind: "refused", reason };
}

function answer(client: ControlClient, response: ServerResponse, status: number, body: unknown): void {
  const bytes = Buffer.from(JSON.stringify(body));
  writeHead(response, status, bytes.length);
  response.end(bytes);
  client.answered();
}

/** The JSON of an answer, whose volumes may be as many as a pool holds; they come last. */
function* answerSlices(body: unknown): Generator<void, Buffer[]> {
  const { volumes } = body as { readonly volumes?: unknown };
  // Few are one piece: the pauses between several take longer than all the rest of a short list.
  if (!Array.isArray(volumes) || volumes.length <= defaultKnobs.sliceRecords) {
    return [Buffer.from(JSON.stringify(body))];
  }
  // Without the end of the empty list and of the object.
  const pieces = [Buffer.from(JSON.stringify({ ...body as object, volumes: [] }).slice(0, -2))];
  for (let at = 0; at < volumes.length; at += defaultKnobs.sliceRecords) {
    const slice = JSON.stringify(volumes.slice(at, at + defaultKnobs.sliceRecords)).slice(1, -1);
    pieces.push(Buffer.from(at > 0 ? `,${slice}` : slice));
    yield;
  }
  pieces.push(Buffer.from("]}"));
  return pieces;
}

/** Every piece is copied on its way out, so the event loop has a turn between two. */
async function answerPieces(
  client: ControlClient,
  response: ServerResponse,
  status: number,
  pieces: readonly Buffer[],
): Promise<void> {
  writeHead(response, status, pieces.reduce((sum, piece) => sum + piece.length, 0));
  for (const piece of pieces.slice(0, -1)) {
    response.write(piece);
    await aTurn();
  }
  response.end(pieces.at(-1));
  client.answered();
}

function writeHead(response: ServerResponse, status: number, lengthBytes: number): void {
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": lengthBytes,
    "connection": "close",
  });
}
