import { assert, assertEquals } from "@std/assert";
import { AcceptLoop } from "./accept_loop.ts";

/** A connection that knows whether it was closed. */
class ScriptedConn {
  isClosed = false;

  close(): void {
    this.isClosed = true;
  }
}

/** A listener that answers each accept with what the test has prepared; then nothing more comes until it is closed. */
class ScriptedListener {
  readonly #script: ("conn" | "EMFILE")[];
  readonly #closed = Promise.withResolvers<never>();

  constructor(script: readonly ("conn" | "EMFILE")[]) {
    this.#script = [...script];
  }

  readonly accepted: ScriptedConn[] = [];

  accept(): Promise<ScriptedConn> {
    const next = this.#script.shift();
    if (next === undefined) return this.#closed.promise;
    const conn = new ScriptedConn();
    if (next === "conn") this.accepted.push(conn);
    return next === "conn"
      ? Promise.resolve(conn)
      : Promise.reject(new Error("Too many open files (os error 24)"));
  }

  close(): void {
    // Where nothing accepts just then, nothing hears of it.
    this.#closed.promise.catch(() => {});
    this.#closed.reject(new Deno.errors.BadResource("closed"));
  }
}

Deno.test("accepting goes on after failures, which are said once", async () => {
  const log: string[] = [];
  const listener = new ScriptedListener(["conn", "EMFILE", "EMFILE", "conn", "EMFILE", "conn"]);
  const third = Promise.withResolvers<void>();
  let count = 0;
  const loop = new AcceptLoop(listener, "clients", (sentence) => log.push(sentence), () => {
    count += 1;
    if (count === 3) third.resolve();
  });
  await third.promise;
  loop.stop();
  await loop.ended;
  assertEquals(log, [
    "Cannot accept clients: Too many open files (os error 24). New ones wait until this is over. If it lasts, raise " +
    "the limit of open files (ulimit -n).",
  ]);
});

Deno.test("accepting ends at once when it is stopped, also while it pauses after a failure", async () => {
  for (const script of [[], ["EMFILE"]] as const) {
    const failed = Promise.withResolvers<void>();
    const loop = new AcceptLoop(new ScriptedListener(script), "clients", () => failed.resolve(), () => {});
    if (script.length > 0) await failed.promise;
    loop.stop();
    await loop.ended;
  }
});

Deno.test("a connection that breaks as it arrives is closed, and one that comes as the listener is closed too", async () => {
  const listener = new ScriptedListener(["conn", "conn"]);
  let isStopped = false;
  const loop = new AcceptLoop(listener, "clients", () => {}, () => {
    assert(!isStopped, "nothing arrives after the stop");
    // The second is there by the time that this one is known to be lost.
    isStopped = true;
    queueMicrotask(() => loop.stop());
    throw new Error("reset by peer");
  });
  await loop.ended;
  assertEquals(listener.accepted.map(({ isClosed }) => isClosed), [true, true]);
});
