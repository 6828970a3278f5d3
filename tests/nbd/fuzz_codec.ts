/**
 * The fuzzer without sockets: each session goes through the decoders whole and cut into pieces, with one outcome;
 * and every few of them through the listener and its connection, whose replies the oracle judges.
 */
import { assert } from "../../storage/base/assert.ts";
import { HandshakeDecoder } from "../../actors/nbd/wire/handshake_codec.ts";
import { decodeOption } from "../../actors/nbd/wire/option.ts";
import { RequestDecoder } from "../../actors/nbd/wire/request.ts";
import { FrameMaker, type FuzzSession } from "./fuzz_frames.ts";
import { type FuzzExport, judge, type Verdict } from "./fuzz_oracle.ts";
import { testBlockBytes, TestServer, testSizeBytes } from "./simulated_server.ts";
import { randomNumbers } from "./wire_bytes.ts";

/** How many frames and sessions there were, and what came of the sessions that were judged. */
export interface FuzzReport {
  frames: number;
  sessions: number;
  readonly verdicts: Record<Verdict, number>;
}

/** Sessions of one seed. */
const sessionsPerSeed = 64;
/** One session in so many goes through a connection. */
const judgedOneIn = 4;
const smallBytes = 3 * 2 ** 20 + 1000;

const exports: ReadonlyMap<string, FuzzExport> = new Map([
  ["disk", { sizeBytes: testSizeBytes, readOnly: false }],
  ["small", { sizeBytes: smallBytes, readOnly: false }],
  ["small@monday", { sizeBytes: smallBytes, readOnly: true }],
]);

/** Runs seeds from `seed` on until there were so many frames. Throws an error that names the seed. */
export function fuzzCodec(frames: number, seed: number): FuzzReport {
  const report: FuzzReport = {
    frames: 0,
    sessions: 0,
    verdicts: { handshake: 0, transmission: 0, ambiguous: 0 },
  };
  for (; report.frames < frames; seed += 1) fuzzCodecSeed(seed, report);
  return report;
}

/** Runs the sessions of one seed. */
export function fuzzCodecSeed(seed: number, report: FuzzReport): void {
  const random = randomNumbers(seed);
  const maker = new FrameMaker(random, testBlockBytes);
  for (let i = 0; i < sessionsPerSeed; i += 1) {
    // Requests of 32 MiB fit into the large one only; they are rare, as they take their time.
    const isLarge = maker.chance(0.01);
    const session = maker.session(isLarge ? "disk" : "small", isLarge ? testSizeBytes : smallBytes);
    try {
      decodeTwice(session, maker);
      if (i % judgedOneIn === 0) report.verdicts[serve(session, maker)] += 1;
    } catch (error) {
      throw new Error(`codec seed ${seed}, session ${i}: ${sentenceOf(error)}`, { cause: error });
    }
    report.frames += session.frames;
    report.sessions += 1;
  }
}

/** What went wrong. */
export function sentenceOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The decoders understand the same, however the stream is cut. */
function decodeTwice({ bytes }: FuzzSession, maker: FrameMaker): void {
  const whole = decode(bytes, () => bytes.length);
  const most = maker.chance(0.03) ? 1 : maker.chance(0.5) ? 40 : 5000;
  const cut = decode(bytes, () => 1 + maker.below(most));
  assert(whole === cut, "the decoders understood something else when the stream was cut");
}

const noBytes = new Uint8Array(0);

/** Numbers, mixed into one. */
class Mixer {
  value = 1;
  /** The handshake asked for extended headers. */
  extended = false;

  add(number: number): void {
    this.value = Math.imul(this.value ^ (number % 2 ** 32) ^ (number / 2 ** 32), 16777619) >>> 0;
  }

  addText(text: string): void {
    for (let i = 0; i < text.length; i += 1) this.add(text.charCodeAt(i));
  }
}

/** What the decoders say about a stream that arrives in such pieces, as one number. */
function decode(bytes: Uint8Array, pieceBytes: () => number): number {
  const mixer = new Mixer();
  const handshake = new HandshakeDecoder();
  let requests: RequestDecoder | undefined;
  for (let at = 0; at < bytes.length;) {
    let piece = bytes.subarray(at, at + pieceBytes());
    at += piece.length;
    if (requests === undefined) {
      handshake.push(piece);
      const outcome = decodeHandshake(handshake, mixer);
      if (outcome === "violation") return mixer.value;
      if (outcome === "needBytes") continue;
      requests = new RequestDecoder({ extendedHeaders: outcome === "extended" });
      piece = handshake.takeSurplus();
    }
    requests.push(piece);
    if (decodeRequests(requests, mixer) === "violation") return mixer.value;
  }
  return mixer.value;
}

/** Goes as far as the first attachment that is asked for; the form of its requests is what the bytes before say. */
function decodeHandshake(
  decoder: HandshakeDecoder,
  mixer: Mixer,
): "needBytes" | "compact" | "extended" | "violation" {
  for (;;) {
    const event = decoder.next();
    if (event === undefined) return "needBytes";
    mixer.addText(event.kind);
    if (event.kind === "violation") return "violation";
    if (event.kind === "clientFlags") mixer.add(event.fixedNewstyle ? 1 : 0);
    if (event.kind !== "option") continue;
    mixer.add(event.option);
    mixer.add(event.lengthBytes);
    const option = decodeOption(event);
    mixer.addText(option.type);
    if ("message" in option) mixer.addText(option.message);
    if ("name" in option) mixer.addText(option.name);
    if ("infoTypes" in option) { for (const type of option.infoTypes) mixer.add(type); }
    if ("queries" in option) { for (const query of option.queries) mixer.addText(query); }
    if (option.type === "extendedHeaders") mixer.extended = true;
    if (option.type === "go" || option.type === "exportName") return mixer.extended ? "extended" : "compact";
  }
}

function decodeRequests(decoder: RequestDecoder, mixer: Mixer): "needBytes" | "violation" {
  for (;;) {
    const step = decoder.next();
    if (step === "needBytes") return step;
    if (step === "violation") {
      mixer.addText(decoder.violation);
      return step;
    }
    const { request } = decoder;
    if (step === "request") {
      const payload = request.payload ?? noBytes;
      for (let at = payload.length - 1; at >= 0; at -= 61) mixer.add(payload[at]!);
      continue;
    }
    for (const field of [request.type, request.flags, request.cookieHigh, request.cookieLow]) {
      mixer.add(field);
    }
    mixer.add(request.offsetBytes === Infinity ? 0xbad : request.offsetBytes);
    mixer.add(request.lengthBytes);
    // A client can announce more than is taken in; nobody makes room for that.
    if (request.payloadBytes > 300_000 || request.cookieLow % 3 === 0) decoder.discard();
    else if (decoder.payloadInChunk) decoder.accept();
    else decoder.accept(new Uint8Array(request.payloadBytes));
  }
}

/** A client of a simulated server sends the session and stops sending. The verdict on what it got. */
function serve({ bytes }: FuzzSession, maker: FrameMaker): Verdict {
  const server = new TestServer();
  const small = server.pool.add("small", smallBytes);
  const monday = server.pool.add("small@monday", smallBytes, { readOnly: true });
  const pieceBytes = maker.chance(0.3) ? 1 + maker.below(100) : 2 ** 20;
  const client = server.connect({ pieceBytes });
  client.say(bytes);
  client.end();
  for (let round = 0; round < 100 && !client.closed; round += 1) server.clock.runAllYields();
  assert(client.closed, "the client has said all, but is not closed");
  const received = client.take(client.unreadBytes);
  const attached = server.disk.clients.size + small.clients.size + monday.clients.size;
  assert(attached === 0, "a client that has left is attached");
  server.stop();
  const names = [...server.kernel.mailboxHighWater().keys()];
  assert(server.stopped && !names.some((name) => name.startsWith("nbd conn")), "a client was not forgotten");
  return judge({ sent: bytes, received, isComplete: true }, exports);
}
