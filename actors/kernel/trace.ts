/** A record of every message, printable as text and as a Mermaid sequence diagram. */
import { tracedCharactersMax } from "../limits.ts";
import type { Message } from "./address.ts";

/** One message, answer, beginning or end of a task, with the names of sender and receiver. */
export interface TraceEvent {
  readonly kind: "start" | "ask" | "tell" | "reply" | "end";
  readonly from: string;
  readonly to: string;
  readonly text: string;
}

/** Receives every event while tracing is on. */
export interface TraceSink {
  record(event: TraceEvent): void;
}

/** Keeps the last `eventsMax` events. */
export class TraceRecorder implements TraceSink {
  readonly events: TraceEvent[] = [];
  readonly #eventsMax: number;

  constructor(eventsMax = 100_000) {
    this.#eventsMax = eventsMax;
  }

  record(event: TraceEvent): void {
    if (this.events.length === this.#eventsMax) this.events.shift();
    this.events.push(event);
  }
}

/** One line for a message or an answer: its type and its plain fields; buffers by their length, parts by their kind. */
export function describe(value: unknown): string {
  if (value === undefined || value === null) return "done";
  if (typeof value !== "object" || !isPlain(value)) return describeField(value);
  const fields = value as Readonly<Record<string, unknown>>;
  const head = fields.type ?? fields.kind;
  const parts = head === undefined ? [] : [String(head)];
  for (const [name, field] of Object.entries(fields)) {
    if (name === "type" || name === "kind" || name === "replyTo" || name === "lock") continue;
    if (field === undefined) continue;
    const text = describeField(field);
    if (text !== "") parts.push(`${name} ${text}`);
  }
  return parts.join(" ");
}

/** Empty for a function. */
function describeField(field: unknown): string {
  if (field === null) return "none";
  if (typeof field === "function") return "";
  if (typeof field === "string" && field.length > tracedCharactersMax) return `of ${field.length} characters`;
  if (typeof field !== "object") return String(field).trimEnd();
  if (field instanceof Uint8Array) return `${field.length} bytes`;
  if (Array.isArray(field)) return `of ${field.length}`;
  const { kind, type } = field as { readonly kind?: unknown; readonly type?: unknown };
  return String(kind ?? type ?? "");
}

function isPlain(value: object): boolean {
  return Object.getPrototypeOf(value) === Object.prototype;
}

/** One line for a message. */
export function describeMessage(message: Message): string {
  return describe(message);
}

/** The events as lines of text. */
export function traceText(events: readonly TraceEvent[]): string {
  return events.map((event) => `${event.from} ${arrows[event.kind]} ${event.to}: ${event.text}`).join("\n");
}

const arrows = { start: "=>", ask: "->", tell: "~>", reply: "-->", end: "=|" } as const;

/** The events as a Mermaid sequence diagram, participants in order of appearance. */
export function traceMermaid(events: readonly TraceEvent[]): string {
  const participants = new Map<string, string>();
  const alias = (name: string): string => {
    let id = participants.get(name);
    if (id === undefined) {
      id = `P${participants.size}`;
      participants.set(name, id);
    }
    return id;
  };
  const lines = events.filter((event) => event.kind !== "end").map((event) => {
    const arrow = event.kind === "reply" ? "-->>" : event.kind === "tell" ? "-)" : "->>";
    const text = event.text.replaceAll(/[;#]/g, ",");
    return `  ${alias(event.from)}${arrow}${alias(event.to)}: ${text}`;
  });
  const heads = [...participants].map(([name, id]) => `  participant ${id} as ${name}`);
  return ["sequenceDiagram", ...heads, ...lines].join("\n");
}
