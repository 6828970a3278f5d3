/** What every server is made to do. */
import type { FioJob } from "./fio.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

/**
 * What an image is like before a run. `filled`: all of it written. `fresh`: nothing written, anew for every run.
 * `shared`: all of it written, and then a snapshot taken, anew for every run; `left`: and removed. `chained`: a snapshot
 * after each of so many small changes.
 */
export type ImageState =
  | { readonly kind: "filled" | "fresh" | "shared" | "left" }
  | { readonly kind: "chained"; readonly snapshots: number };

/** How large an image is: one that is written for the first time has more of it, or a run would end before it is warm. */
export function imageBytesOf(image: ImageState, filledBytes: number): number {
  return image.kind === "fresh" ? 4 * filledBytes : filledBytes;
}

/** A workload: one fio job on an image in a state. */
export interface Workload {
  readonly name: string;
  readonly image: ImageState;
  readonly rw: FioJob["rw"];
  readonly blockBytes: number;
  readonly depth: number;
  readonly connections: number;
  readonly unit: "IOPS" | "MB/s";
  /** Requests after which it ends, as a share of the image's 64 KiB blocks; else it ends by time. */
  readonly blocksShare?: number;
  /** Ends when all of the image was met once. */
  readonly once?: boolean;
  readonly options?: readonly string[];
}

const filled = { kind: "filled" } as const;

function random4k(): Workload[] {
  const kinds = [["read", "randread"], ["write", "randwrite"], ["70/30", "randrw"]] as const;
  const all: Workload[] = [];
  for (const [name, rw] of kinds) {
    for (const depth of [1, 32]) {
      for (const connections of [1, 2]) {
        all.push({
          name: `4k random ${name} d${depth} c${connections}`,
          image: filled,
          rw,
          blockBytes: 4 * KiB,
          depth,
          connections,
          unit: "IOPS",
          options: rw === "randrw" ? ["--rwmixread=70"] : [],
        });
      }
    }
  }
  return all;
}

function sequential(): Workload[] {
  return [64 * KiB, MiB].flatMap((blockBytes) =>
    (["read", "write"] as const).map((rw): Workload => ({
      name: `${blockBytes / KiB}k sequential ${rw} d8`,
      image: filled,
      rw,
      blockBytes,
      depth: 8,
      connections: 1,
      unit: "MB/s",
    }))
  );
}

function flushes(): Workload[] {
  return [1, 8].map((depth) => ({
    name: `4k write+flush d${depth}`,
    image: filled,
    rw: "randwrite",
    blockBytes: 4 * KiB,
    depth,
    connections: 1,
    unit: "IOPS",
    options: ["--fsync=1"],
  }));
}

/** Random writes each of which makes a block the volume's own, nearly. */
function newBlocks(kind: "fresh" | "shared" | "left", name: string): Workload[] {
  return [4 * KiB, 64 * KiB].map((blockBytes) => ({
    name: `${blockBytes / KiB}k ${name} d32`,
    image: { kind },
    rw: "randwrite",
    blockBytes,
    depth: 32,
    connections: 1,
    unit: "IOPS",
    blocksShare: 0.5,
    options: ["--blockalign=64k"],
  }));
}

/** Snapshots in a row that are read through. */
export const chainLengths: readonly number[] = [1, 100, 1000];

/** All of them; those that share an image's state stand together. What writes less comes first. */
export const workloads: readonly Workload[] = [
  ...random4k(),
  ...sequential(),
  ...flushes(),
  {
    name: "trim of a full volume 1m d8",
    image: filled,
    rw: "trim",
    blockBytes: MiB,
    depth: 8,
    connections: 1,
    unit: "MB/s",
    once: true,
  },
  ...newBlocks("fresh", "first write"),
  ...newBlocks("shared", "overwrite after snapshot"),
  ...newBlocks("left", "overwrite after removed snapshot"),
  ...chainLengths.map((snapshots): Workload => ({
    name: `4k random read d32 through ${snapshots} snapshots`,
    image: { kind: "chained", snapshots },
    rw: "randread",
    blockBytes: 4 * KiB,
    depth: 32,
    connections: 1,
    unit: "IOPS",
  })),
];

/** The fio job that a workload is, on one server. */
export function jobOf(workload: Workload, uri: string, sizeBytes: number, seconds: number): FioJob {
  const { rw, blockBytes, depth, connections, options, blocksShare, once } = workload;
  return {
    uri,
    rw,
    blockBytes,
    depth,
    connections,
    sizeBytes,
    ...(blocksShare === undefined ? {} : { requests: Math.round(sizeBytes / (64 * KiB) * blocksShare) }),
    ...(blocksShare !== undefined || once === true ? {} : { seconds }),
    options: [...(options ?? []), ...(blocksShare === undefined ? [] : ["--norandommap"])],
  };
}
