/** A server under measurement, whichever program it is. */
import { runFio } from "./fio.ts";
import type { Place } from "./place.ts";
import type { ImageState } from "./workloads.ts";

/** What all servers are set up with. */
export interface Setup {
  readonly place: Place;
  readonly image: ImageState;
  readonly imageBytes: number;
}

/** A running server with one image, and how the image is made as it should be before a run. */
export interface Subject extends AsyncDisposable {
  readonly uri: string;
  readonly pid: number;
  /** The files that it writes, so that its dirty pages burden nobody else's run. */
  readonly files: readonly string[];
  /** What the server has complained about, if that is kept. */
  readonly said?: () => string;
  /** Puts the image into its state; not measured. */
  prepare(): Promise<void>;
}

/** A kind of server. */
export interface SubjectKind {
  readonly name: string;
  /** What we are compared with. */
  readonly isPeer: boolean;
  /** What it needs and is not installed; undefined if all is here. */
  readonly missing: () => string | undefined;
  /** Whether it can do the workload at all. */
  readonly does: (image: ImageState, rw: string) => boolean;
  readonly start: (setup: Setup) => Promise<Subject>;
}

/** Writes all of an image through the server. */
export async function fill(uri: string, imageBytes: number): Promise<void> {
  await runFio({
    uri,
    rw: "write",
    blockBytes: 1 << 20,
    depth: 8,
    sizeBytes: imageBytes,
    options: ["--end_fsync=1"],
  });
}

/**
 * Reads all of an image through the server: hosts let go of pages that were not used for a while, and it is servers that
 * are compared, not who was last.
 */
export async function warm(uri: string, imageBytes: number): Promise<void> {
  await runFio({ uri, rw: "read", blockBytes: 1 << 20, depth: 8, sizeBytes: imageBytes });
}

/** Has a server do some hundred thousand small requests, and flushes: programs that compile what they run begin slowly. */
export async function exercise(uri: string, imageBytes: number, mayWrite: boolean): Promise<void> {
  const rw = mayWrite ? "randrw" : "randread";
  const small = { uri, blockBytes: 4096, sizeBytes: imageBytes };
  await runFio({ ...small, rw, depth: 32, seconds: 2 });
  if (!mayWrite) return;
  // Flushes take so long that a measured run would be over before what serves them is compiled.
  for (const depth of [8, 1]) {
    await runFio({ ...small, rw: "randwrite", depth, seconds: 3, options: ["--fsync=1"] });
  }
}

/** Has the host write what is dirty. */
export async function writeBack(subject: Pick<Subject, "files">): Promise<void> {
  for (const path of subject.files) {
    using file = await Deno.open(path, { read: true });
    await file.syncData();
  }
}
