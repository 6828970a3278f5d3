/**
 * The control API: HTTP with JSON on a Unix socket, for the command line and for programs that fork volumes.
 *
 *   POST /v1/commands   an AdminCommand (admin_command.ts) -> its AdminResult
 *   GET  /v1/volumes    what `list --json` prints
 *   GET  /v1/status     what `status --json` prints
 *
 * The answer to `dump` is a line of JSON for each piece, {"text":...}, and then the result's line.
 *
 * 200: done. 400: the request is malformed. 409: the pool refused. Of these two the body is {"kind":"refused","reason":...}.
 */
import http from "node:http";
import { UserError } from "../../storage/errors.ts";
import { drainMs, stalledDumpMs } from "../limits.ts";
import type { TextTaken } from "../text_out.ts";
import type { DumpWriter } from "./pool_offline.ts";
import { type AdminCommand, type AdminResult, commandOfJson, jsonOfCommand } from "../admin_command.ts";

/** Carries out commands. */
export interface CommandHandler {
  command(command: AdminCommand): Promise<AdminResult>;
  dump(write: DumpWriter): Promise<AdminResult>;
}

/** A control socket that is being served. */
export interface ControlServer {
  /** Stops accepting, lets running requests end for `drainMs`, removes the socket. */
  close(): Promise<void>;
}

/** The most bytes of a request's body: a command with many names. */
const bodyBytesMax = 1 << 20;

/** Serves the control API at a socket path, which nobody must be using. */
export function serveControl(path: string, handler: CommandHandler): ControlServer {
  const dumps = new Set<DumpReader>();
  const server = Deno.serve(
    { path, onListen: () => Deno.chmodSync(path, 0o600) },
    (request) => respond(request, handler, dumps),
  );
  return {
    close: async () => {
      // A client that does not take its answer, or never ends its request, may not keep the server from stopping.
      const deadline = Promise.withResolvers<void>();
      const timer = setTimeout(() => deadline.resolve(), drainMs);
      await Promise.race([server.shutdown(), deadline.promise]);
      clearTimeout(timer);
      for (const reader of dumps) reader.answer("gone");
      removeIfThere(path);
    },
  };
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    // Closing the listener may have removed it already.
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function respond(
  request: Request,
  handler: CommandHandler,
  dumps: Set<DumpReader>,
): Promise<Response> {
  try {
    const { pathname } = new URL(request.url);
    if (request.method === "GET" && pathname === "/v1/volumes") {
      const result = await handler.command({ verb: "list" });
      return responseOf(result, result.kind === "volumes" ? { volumes: result.volumes } : result);
    }
    if (request.method === "GET" && pathname === "/v1/status") {
      const result = await handler.command({ verb: "status" });
      return responseOf(result, result.kind === "status" ? result.status : result);
    }
    if (pathname !== "/v1/commands") {
      return problem(404, `There is no ${pathname}. See /v1/commands, /v1/volumes, /v1/status.`);
    }
    if (request.method !== "POST") {
      return problem(405, "Commands are POSTed. Others are GET /v1/volumes and GET /v1/status.");
    }
    const command = commandOfJson(await bodyOf(request));
    if (command.verb === "dump") return dumpResponse(handler, dumps);
    const result = await handler.command(command);
    return responseOf(result, result);
  } catch (error) {
    if (error instanceof UserError) return problem(400, error.message);
    throw error;
  }
}

async function bodyOf(request: Request): Promise<unknown> {
  const text = await textOf(request);
  try {
    return JSON.parse(text);
  } catch {
    // Bad input of a client, answered as such.
    throw new UserError("The request is not JSON. Send one command as a JSON object.");
  }
}

async function textOf(request: Request): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let lengthBytes = 0;
  try {
    for await (const piece of request.body ?? []) {
      lengthBytes += piece.length;
      if (lengthBytes > bodyBytesMax) break;
      text += decoder.decode(piece, { stream: true });
    }
  } catch {
    // The client is gone, or we are stopping; nobody will read the answer.
    throw new UserError("The request broke off. Send it again.");
  }
  if (lengthBytes > bodyBytesMax) {
    throw new UserError(`The request has more than ${bodyBytesMax} bytes. Send several commands.`);
  }
  return text + decoder.decode();
}

/** Who takes a dump, a piece at a time, and may stop doing so. */
class DumpReader {
  #resolve: (taken: TextTaken) => void = () => {};
  #timer: ReturnType<typeof setTimeout> | undefined;
  #gone = false;

  /** Resolves when the piece that was just sent is taken. */
  taken(): Promise<TextTaken> {
    if (this.#gone) return Promise.resolve("gone");
    this.#timer = setTimeout(() => this.answer("gone"), stalledDumpMs);
    return new Promise((resolve) => this.#resolve = resolve);
  }

  /** The reader wants the next piece, or has gone for good. */
  answer(taken: TextTaken): void {
    clearTimeout(this.#timer);
    if (taken === "gone") this.#gone = true;
    this.#resolve(taken);
  }
}

/** The pieces as the reader takes them: each is written when the one before has been read. */
function dumpResponse(handler: CommandHandler, dumps: Set<DumpReader>): Response {
  const reader = new DumpReader();
  dumps.add(reader);
  const encoder = new TextEncoder();
  const lines = new ReadableStream<Uint8Array>({
    start: (controller) => {
      const send = (line: unknown) => controller.enqueue(encoder.encode(`${JSON.stringify(line)}\n`));
      const write = (text: string): Promise<TextTaken> => {
        send({ text });
        return reader.taken();
      };
      handler.dump(write).then((result) => {
        send(result);
        controller.close();
      }).catch((error) => controller.error(error)).finally(() => dumps.delete(reader));
    },
    pull: () => reader.answer("taken"),
    cancel: () => reader.answer("gone"),
  });
  return new Response(lines, { headers: { "content-type": "application/x-ndjson" } });
}

function responseOf(result: AdminResult, body: unknown): Response {
  return Response.json(body, { status: result.kind === "refused" ? 409 : 200 });
}

function problem(status: number, reason: string): Response {
  return Response.json({ kind: "refused", reason }, { status });
}

/** How it shows that there is no server; whatever else is wrong with the pool is found when it is opened. */
const nobodyThere: readonly (string | undefined)[] = ["ENOENT", "ECONNREFUSED", "ENOTDIR"];

/**
 * Asks the server behind a control socket; undefined if nobody answers there. Pieces of text go to `write` as they come.
 * Throws {@linkcode UserError} on a broken conversation.
 */
export function askControl(
  path: string,
  command: AdminCommand,
  write: DumpWriter,
): Promise<AdminResult | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<AdminResult | undefined>();
  const body = JSON.stringify(jsonOfCommand(command));
  const headers = {
    "content-type": "application/json",
    "content-length": new TextEncoder().encode(body).length,
  };
  const options = { socketPath: path, path: "/v1/commands", method: "POST", headers };
  const request = http.request(options, (response) => {
    readLines(path, response, write).then(resolve, reject);
  });
  request.on("error", (error: Error & { code?: string }) => {
    if (nobodyThere.includes(error.code)) resolve(undefined);
    else reject(broken(path, error.message));
  });
  request.end(body);
  return promise;
}

async function readLines(
  path: string,
  response: AsyncIterable<Uint8Array>,
  write: DumpWriter,
): Promise<AdminResult> {
  for await (const line of linesOf(path, response)) {
    const value = valueOf(path, line);
    if (typeof value.text !== "string") return value as AdminResult;
    if (await write(value.text) === "gone") return { kind: "refused", reason: "The dump broke off." };
  }
  throw broken(path, "it hung up");
}

async function* linesOf(path: string, response: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for await (const piece of response) {
      const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
      rest = lines.pop()!;
      yield* lines;
    }
  } catch (error) {
    throw broken(path, error instanceof Error ? error.message : String(error));
  }
  if (rest !== "") yield rest;
}

/** A line of an answer. A server that has failed sends something else. */
function valueOf(path: string, line: string): Partial<AdminResult> & { readonly text?: unknown } {
  try {
    const value = JSON.parse(line);
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // Not ours, as below.
  }
  throw broken(path, `it answered ${JSON.stringify(line.slice(0, 100))}`);
}

function broken(path: string, reason: string): UserError {
  return new UserError(
    `The server at ${path} did not answer as it should: ${reason}. See what it has printed, and with \`list\` what was done.`,
  );
}
