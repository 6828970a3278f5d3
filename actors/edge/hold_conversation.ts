/**
 * The conversation with a server that holds a volume for this process, over node:http. Commands ask over a connection of their own
 * (control_request.ts), which is quicker to load; `run` loads most of the program in any case.
 */
import http from "node:http";
import { answerLines, failureToAsk, silentServer } from "./control.ts";
import { SilenceWatch } from "./silence_watch.ts";

/**
 * Posts a request, and answers what `read` makes of the lines of the answer; undefined if there is no server. Until then a server
 * that says nothing for `silenceMs` (0: for ever) is given up. Throws {@linkcode UserError}.
 */
export async function conversation<T>(
  path: string,
  { target, body }: { readonly target: string; readonly body: unknown },
  silenceMs: number,
  read: (lines: AsyncGenerator<string>, request: http.ClientRequest) => Promise<T>,
): Promise<T | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<T | undefined>();
  const text = JSON.stringify(body);
  const headers = {
    "content-type": "application/json",
    "content-length": new TextEncoder().encode(text).length,
  };
  const options = { socketPath: path, path: target, method: "POST", headers };
  const request = http.request(options, (response) => {
    read(answerLines(path, response), request).then(resolve, reject);
  });
  request.on("error", (error: Error & { code?: string }) => {
    const failure = failureToAsk(path, error);
    if (failure === undefined) resolve(undefined);
    else reject(failure);
  });
  request.end(text);
  const silence = new SilenceWatch(path, silenceMs, () => {
    reject(silentServer(path, silenceMs));
    request.destroy();
  });
  try {
    return await promise;
  } finally {
    silence.end();
  }
}
