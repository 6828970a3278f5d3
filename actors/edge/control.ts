/** The client of the control API: asks the server behind a control socket. The API is in control_server.ts. */
import { UserError } from "../../storage/base/errors.ts";
import { controlSilenceMs } from "../limits.ts";
import { ControlConnection } from "./control_request.ts";
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
  const silent = Promise.withResolvers<never>();
  const silence = new SilenceWatch(path, silenceMs, () => silent.reject(silentServer(path, silenceMs)));
  const body = JSON.stringify(jsonOfCommand(command));
  const answered = async () => {
    using connection = await connected(path);
    if (connection === undefined) return undefined;
    // What waits for the answer of a server that is given up ends.
    silent.promise.catch(() => connection[Symbol.dispose]());
    const bytes = connection.answerTo({ method: "POST", target: "/v1/commands", body });
    return await resultOf(path, answerLines(path, bytes), write);
  };
  try {
    return await Promise.race([answered(), silent.promise]);
  } finally {
    silence.end();
  }
}

/** Undefined if there is no server. */
async function connected(path: string): Promise<ControlConnection | undefined> {
  try {
    return await ControlConnection.open(path);
  } catch (error) {
    const failure = failureToAsk(path, error as Error);
    if (failure === undefined) return undefined;
    throw failure;
  }
}

/** The sentence for a connection that failed; undefined if that means that there is no server. */
export function failureToAsk(
  path: string,
  { code, message }: Error & { readonly code?: string },
): UserError | undefined {
  if (noServer.includes(code)) return undefined;
  return forbidden.includes(code) ? mayNotAsk(path) : brokenConversation(path, message);
}

async function resultOf(
  path: string,
  lines: AsyncGenerator<string>,
  write: DumpWriter,
): Promise<AdminResult> {
  for await (const line of lines) {
    const value = valueOf(path, line);
    if (typeof value.text !== "string") return value as AdminResult;
    if (await write(value.text) === "gone") return { kind: "refused", reason: "The dump broke off." };
  }
  throw brokenConversation(path, "it closed the connection");
}

/** The lines of an answer. Throws {@linkcode UserError} where it breaks off. */
export async function* answerLines(
  path: string,
  response: AsyncIterable<Uint8Array>,
): AsyncGenerator<string> {
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
    throw brokenConversation(path, error instanceof Error ? error.message : String(error));
  }
  if (rest !== "") yield rest;
}

/** A line of an answer. A server that has failed sends something else. */
export function valueOf(path: string, line: string): Partial<AdminResult> & { readonly text?: unknown } {
  try {
    const value = JSON.parse(line);
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // Not JSON of ours: refused below.
  }
  throw brokenConversation(path, `it answered ${JSON.stringify(line.slice(0, 100))}`);
}

/** The server has said nothing for so long. */
export function silentServer(path: string, silenceMs: number): UserError {
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

/** The server said something else than it should. */
export function brokenConversation(path: string, reason: string): UserError {
  return new UserError(
    `The server at ${path} did not answer as it should: ${reason}. See what it has printed, and with \`list\` what was done.`,
  );
}
