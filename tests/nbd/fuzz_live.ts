/**
 * The fuzzer on live connections: clients on real sockets send the sessions to a really served pool, some of them
 * cut into pieces, some of them gone before the answer; the oracle judges what they got.
 */
import { FrameMaker, type FuzzSession } from "./fuzz_frames.ts";
import { type FuzzReport, sentenceOf } from "./fuzz_codec.ts";
import { type FuzzExport, judge } from "./fuzz_oracle.ts";
import { diskBytes, HostilePool, smallBytes } from "./hostile_pool.ts";
import type { RawClient } from "./raw_client.ts";
import { randomNumbers } from "./wire_bytes.ts";

/** Sessions of one seed; so many clients of other seeds are there at the same time. */
const sessionsPerSeed = 16;
const clientsAtOnce = 8;
/** Milliseconds without a byte after which a session hangs. */
const hangMs = 30_000;

const exports: ReadonlyMap<string, FuzzExport> = new Map([
  ["disk", { sizeBytes: diskBytes, readOnly: false }],
  ["small", { sizeBytes: smallBytes, readOnly: false }],
  ["small@monday", { sizeBytes: smallBytes, readOnly: true }],
]);

/** Where the clients connect. */
export interface FuzzTarget {
  connect(timeoutMs: number): Promise<RawClient>;
}

/** Runs seeds from `seed` on until there were so many frames. Throws an error that names the seed. */
export async function fuzzLive(frames: number, seed: number): Promise<FuzzReport> {
  const pool = await HostilePool.serve();
  const running = new Set<number>();
  const working = fuzzClients(pool, frames, seed, running).then(
    (report) => ({ report }),
    (error) => ({ error }),
  );
  const outcome = await Promise.race([working, pool.process.defect.then((defect) => ({ defect }))]);
  // The server's own fault says more than what its clients then missed, and it does not close any more.
  if ("defect" in outcome) {
    const { defect } = outcome;
    throw new Error(`live seeds ${[...running].join(", ")} at once: ${sentenceOf(defect)}`, {
      cause: defect,
    });
  }
  if ("report" in outcome) await pool.requireUnharmed();
  await pool[Symbol.asyncDispose]();
  if ("error" in outcome) throw outcome.error;
  return outcome.report;
}

/** Several clients at a time, each with a seed of its own, until there were so many frames. */
export async function fuzzClients(
  target: FuzzTarget,
  frames: number,
  seed: number,
  running: Set<number> = new Set(),
): Promise<FuzzReport> {
  const report: FuzzReport = {
    frames: 0,
    sessions: 0,
    verdicts: { handshake: 0, transmission: 0, ambiguous: 0 },
  };
  let next = seed;
  let failure: unknown;
  const work = async () => {
    while (report.frames < frames && failure === undefined) {
      const mine = next++;
      running.add(mine);
      await fuzzLiveSeed(target, mine, report).catch((error) => failure ??= error);
      running.delete(mine);
    }
  };
  await Promise.all(Array.from({ length: clientsAtOnce }, work));
  if (failure !== undefined) throw failure;
  return report;
}

async function fuzzLiveSeed(target: FuzzTarget, seed: number, report: FuzzReport): Promise<void> {
  const random = randomNumbers(seed);
  const maker = new FrameMaker(random, 65536);
  for (let i = 0; i < sessionsPerSeed; i += 1) {
    const [name, sizeBytes] = maker.chance(0.05)
      ? ["disk", diskBytes] as const
      : ["small", smallBytes] as const;
    const session = maker.session(name, sizeBytes);
    try {
      await runSession(target, session, maker, report);
    } catch (error) {
      throw new Error(`live seed ${seed}, session ${i}: ${sentenceOf(error)}`, { cause: error });
    }
    report.frames += session.frames;
    report.sessions += 1;
  }
}

async function runSession(
  target: FuzzTarget,
  { bytes }: FuzzSession,
  maker: FrameMaker,
  report: FuzzReport,
): Promise<void> {
  const vanishes = maker.chance(0.1);
  const pieceBytes = maker.chance(0.8) ? bytes.length : 1 + maker.below(maker.chance(0.1) ? 8 : 5000);
  using client = await target.connect(hangMs);
  if (vanishes) return await sendAll(client, bytes, pieceBytes);
  const sending = sendAll(client, bytes, pieceBytes).then(() => closeWrite(client));
  const received = await client.receiveAll();
  await sending;
  report.verdicts[judge({ sent: bytes, received, isComplete: true }, exports)] += 1;
}

/** Sends as far as the server lets it. */
async function sendAll(client: RawClient, bytes: Uint8Array, pieceBytes: number): Promise<void> {
  try {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      await client.send(bytes.subarray(at, at + pieceBytes));
    }
  } catch (error) {
    if (!isClosed(error)) throw error;
  }
}

async function closeWrite(client: RawClient): Promise<void> {
  try {
    await client.closeWrite();
  } catch (error) {
    if (!isClosed(error)) throw error;
  }
}

/** The server has closed before: it had reason to, or the oracle says so. */
function isClosed(error: unknown): boolean {
  return error instanceof Deno.errors.BrokenPipe || error instanceof Deno.errors.ConnectionReset ||
    error instanceof Deno.errors.NotConnected;
}
