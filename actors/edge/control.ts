/**
 * The control API: HTTP with JSON on a Unix socket, for the command line and for programs that fork volumes.
 *
 *   POST /v1/commands   an AdminCommand (admin_command.ts) -> its AdminResult
 *   GET  /v1/volumes    what `list --json` prints
 *   GET  /v1/status     what `status --json` prints
 *
 * 200: done. 400: the request is malformed. 409: the pool refused; the body says why.
 */
import http from "node:http";
import { UserError } from "../../storage/errors.ts";
import { type AdminCommand, type AdminResult, commandOfJson } from "../admin_command.ts";

/** Carries out a command. */
export type CommandHandler = (command: AdminCommand) => Promise<AdminResult>;

/** A control socket that is being served. */
export interface ControlServer {
  /** Stops accepting, lets running requests end, removes the socket. */
  close(): Promise<void>;
}

/** The most bytes of a request's body: a command with many names. */
const bodyBytesMax = 1 << 20;

/** Serves the control API at a socket path, which nobody must be using. */
export function serveControl(path: string, handle: CommandHandler): ControlServer {
  const server = Deno.serve(
    { path, onListen: () => Deno.chmodSync(path, 0o600) },
    (request) => respond(request, handle),
  );
  return {
    close: async () => {
      await server.shutdown();
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

async function respond(request: Request, handle: CommandHandler): Promise<Response> {
  try {
    const { pathname } = new URL(request.url);
    if (request.method === "GET" && pathname === "/v1/volumes") {
      return responseOf(await handle({ verb: "list" }));
    }
    if (request.method === "GET" && pathname === "/v1/status") {
      return responseOf(await handle({ verb: "status" }));
    }
    if (pathname !== "/v1/commands") {
      return problem(404, `There is no ${pathname}. See /v1/commands, /v1/volumes, /v1/status.`);
    }
    if (request.method !== "POST") return problem(405, "Commands are POSTed.");
    return responseOf(await handle(commandOfJson(await bodyOf(request))));
  } catch (error) {
    if (error instanceof UserError) return problem(400, error.message);
    throw error;
  }
}

async function bodyOf(request: Request): Promise<unknown> {
  const text = await request.text();
  if (text.length > bodyBytesMax) throw new UserError("The request is larger than any command.");
  try {
    return JSON.parse(text);
  } catch {
    // Bad input of a client, answered as such.
    throw new UserError("The request is not JSON. Send one command as a JSON object.");
  }
}

function responseOf(result: AdminResult): Response {
  return Response.json(result, { status: result.kind === "refused" ? 409 : 200 });
}

function problem(status: number, reason: string): Response {
  return Response.json({ kind: "refused", reason }, { status });
}

/** Asks the server behind a control socket; undefined if nobody answers there. Throws on a broken conversation. */
export function askControl(path: string, command: AdminCommand): Promise<AdminResult | undefined> {
  return new Promise((resolve, reject) => {
    const body = JSON.stringify(command);
    const headers = {
      "content-type": "application/json",
      "content-length": new TextEncoder().encode(body).length,
    };
    const request = http.request(
      { socketPath: path, path: "/v1/commands", method: "POST", headers },
      (response) => {
        const pieces: Uint8Array[] = [];
        response.on("data", (piece: Uint8Array) => pieces.push(piece));
        response.on("error", reject);
        response.on("end", () => resolve(resultOf(pieces)));
      },
    );
    request.on("error", (error: Error & { code?: string }) => {
      if (error.code === "ENOENT" || error.code === "ECONNREFUSED") resolve(undefined);
      else reject(new UserError(`Asking the server at ${path} failed: ${error.message}. Is it running?`));
    });
    request.end(body);
  });
}

function resultOf(pieces: readonly Uint8Array[]): AdminResult {
  const decoder = new TextDecoder();
  const text = pieces.map((piece) => decoder.decode(piece, { stream: true })).join("") + decoder.decode();
  return JSON.parse(text);
}
