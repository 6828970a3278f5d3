/** The client of the control API: asks the server behind a control socket. The API is in control_server.ts. */
import http from "node:http";
import { UserError } from "../../storage/base/errors.ts";
import { controlSilenceMs } from "../limits.ts";
import { ownerOf } from "./file_owner.ts";
import type { DumpWriter } from "./pool_offline.ts";
import type { AdminResult, Command } from "../control/admin_command.ts";
import { jsonOfCommand } from "../control/verbs.ts";
import { SilenceWatch } from "./silence_watch.ts";

/** Errors that mean: no permission to ask. */
const forbidden: readonly (string | undefined)[] = ["EACCES", "EPERM"];
/** Errors that mean: there is no server. Other faults of the pool are found when it is opened. */
const noServer: readonly (string | undefined)[] = ["ENOENT", "ECONNREFUSED", "ENOTDIR"];

/**
 * Asks the server behind a control socket; undefined if there is none. Pieces of text go to `write` as they come. A server
 * that says nothing for `silenceMs` (0: for ever) is given up; while it carries out a long command it is asked for another
 * sign of life. Throws {@linkcode UserError} on a broken conversation.
 */
export async function askControl(
  path: string,
  command: Command,
  write: DumpWriter,
  silenceMs: number = controlSilenceMs,
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
    if (noServer.includes(error.code)) resolve(undefined);
    else reject(forbidden.includes(error.code) ? mayNotAsk(path) : broken(path, error.message));
  });
  request.end(body);
  const silence = new SilenceWatch(path, silenceMs, () => {
    reject(silent(path, silenceMs));
    request.destroy();
  });
  try {
    return await promise;
  } finally {
    silence.end();
  }
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
  throw broken(path, "it closed the connection");
}

async function* linesOf(path: string, response: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for await (const piece of response) {
      // Only the new piece is searched: a line of megabytes comes in hundreds of pieces.
      const lines = decoder.decode(piece, { stream: true }).split("\n");
      lines[0] = rest + lines[0];
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
    // Not JSON of ours: refused below.
  }
  throw broken(path, `it answered ${JSON.stringify(line.slice(0, 100))}`);
}

function silent(path: string, silenceMs: number): UserError {
  return new UserError(
    `The server at ${path} has said nothing for ${
      silenceMs / 1000
    } s. It may be stopped, or its host overloaded; it may still ` +
      "carry out the command. Look at the server, or wait longer with --timeout.",
  );
}

/** Names the owner of the socket, or of the directory above it that refuses access. */
function mayNotAsk(path: string): UserError {
  const owned = ownerOf(path);
  const whose = owned === undefined ? "it is another user's" : `"${owned.path}" belongs to ${owned.name}`;
  const user = owned === undefined ? "that user" : owned.name;
  return new UserError(
    `Cannot ask the server at ${path}: it is not permitted, as ${whose}. Run the command as ${user}, for instance with sudo -u.`,
  );
}

function broken(path: string, reason: string): UserError {
  return new UserError(
    `The server at ${path} did not answer as it should: ${reason}. See what it has printed, and with \`list\` what was done.`,
  );
}
