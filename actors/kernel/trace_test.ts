import { assertEquals, assertNotEquals } from "@std/assert";
import { World } from "../../tests/support/world.ts";
import type { Actor, Address, Request } from "./address.ts";
import { unasked } from "./address.ts";
import type { Kernel } from "./kernel.ts";
import { ask, join, type Steps } from "./task.ts";
import { describe, traceMermaid, TraceRecorder, traceText } from "./trace.ts";

interface Fetch extends Request<{ readonly kind: "page"; readonly bytes: Uint8Array }> {
  readonly type: "fetch";
  readonly page: number;
}

interface Told {
  readonly type: "told";
  readonly text: string;
}

class Library implements Actor<Fetch | Told> {
  constructor(readonly kernel: Kernel, readonly log: Address<Told>) {}

  receive(message: Fetch | Told): void {
    if (message.type === "told") return;
    this.kernel.tell(this.log, { type: "told", text: `page #${message.page}; lent` });
    this.kernel.reply(message, { kind: "page", bytes: new Uint8Array(16) });
  }
}

class Log implements Actor<Told> {
  receive(): void {}
}

function* fetch(library: Address<Fetch>, page: number): Steps<void> {
  const request: Fetch = { type: "fetch", replyTo: unasked, page };
  yield* ask(library, request);
}

function* reader(library: Address<Fetch>, pages: number): Steps<void> {
  yield* fetch(library, 7);
  const others: Steps<void>[] = [];
  for (let page = 0; page < pages; page += 1) others.push(fetch(library, page));
  yield* join("page", others);
}

function record(pages: number, seed?: number): TraceRecorder {
  const { kernel } = new World(seed === undefined ? {} : { seed });
  const trace = new TraceRecorder();
  kernel.trace = trace;
  const log = kernel.spawn("log", 100, () => new Log());
  const library = kernel.spawn("library", 100, () => new Library(kernel, log));
  kernel.whenIdle(log, { type: "told", text: "quiet" });
  kernel.start("reader", reader(library, pages));
  kernel.run();
  return trace;
}

const oneBook = `outside => reader: start
reader -> library: fetch page 7
library ~> log: told text page #7; lent
library --> reader: page bytes 16 bytes
reader => page 0: start
page 0 -> library: fetch page 0
library ~> log: told text page #0; lent
library --> page 0: page bytes 16 bytes
page 0 =| page 0: end
reader =| reader: end
outside ~> log: told text quiet`;

Deno.test("a trace prints every message with its sender and receiver, in order", () => {
  assertEquals(traceText(record(1).events), oneBook);
});

Deno.test("a trace prints as a Mermaid sequence diagram without the characters that end a statement", () => {
  const expected = `sequenceDiagram
  participant P0 as outside
  participant P1 as reader
  participant P2 as library
  participant P3 as log
  participant P4 as page 0
  P0->>P1: start
  P1->>P2: fetch page 7
  P2-)P3: told text page ,7, lent
  P2-->>P1: page bytes 16 bytes
  P1->>P4: start
  P4->>P2: fetch page 0
  P2-)P3: told text page ,0, lent
  P2-->>P4: page bytes 16 bytes
  P0-)P3: told text quiet`;
  assertEquals(traceMermaid(record(1).events), expected);
});

Deno.test("the same seed gives the same trace, and seeds differ", () => {
  const texts = new Set<string>();
  for (let seed = 0; seed < 20; seed += 1) {
    const text = traceText(record(5, seed).events);
    assertEquals(traceText(record(5, seed).events), text);
    texts.add(text);
  }
  assertEquals(texts.size > 15, true);
  assertNotEquals(traceText(record(5, 1).events), traceText(record(5).events));
});

Deno.test("a recorder keeps the last events", () => {
  const trace = new TraceRecorder(3);
  for (let count = 0; count < 5; count += 1) {
    trace.record({ kind: "tell", from: "a", to: "b", text: String(count) });
  }
  assertEquals(trace.events.map((event) => event.text), ["2", "3", "4"]);
});

Deno.test("a description shows plain fields, counts bytes and long lists, and leaves out what is not data", () => {
  const message = {
    type: "submit",
    replyTo: 5,
    bytes: new Uint8Array(3),
    few: [1, { kind: "run", begin: 2 }],
    many: [1, 2, 3, 4, 5],
    none: undefined,
    nothing: null,
    call: () => {},
    actor: new Log(),
    inner: { kind: "read", at: 4 },
  };
  assertEquals(
    describe(message),
    "submit bytes 3 bytes few of 2 many of 5 nothing none inner read",
  );
  assertEquals([describe(undefined), describe("ok"), describe(7)], ["done", "ok", "7"]);
});
