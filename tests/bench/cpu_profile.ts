/** Reads a V8 CPU profile: self time by share, by file and by function. */
import { type Share, shareOfPath } from "./shares.ts";

/** The file's format, as far as it is used here. Times are microseconds. */
export interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  readonly startTime: number;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

interface ProfileNode {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  readonly children?: readonly number[];
}

/** Self time, microseconds. `nativeUs` of it in Deno, V8's library or the operating system. */
export interface SelfTime {
  us: number;
  nativeUs: number;
}

/** What a profile says about a span of time. */
export interface ProfileSums {
  readonly byShare: ReadonlyMap<Share, SelfTime>;
  readonly byFile: ReadonlyMap<string, SelfTime>;
  /** Names with file and line. */
  readonly byFunction: ReadonlyMap<string, SelfTime>;
  /** In functions and the garbage collector. */
  readonly busyUs: number;
}

interface Place {
  readonly share: Share;
  readonly file: string;
  readonly name: string;
  readonly isNative: boolean;
}

/** Sums the samples between two times of the profile's clock. `root` is the folder of the repository. */
export function sumProfile(profile: CpuProfile, root: string, beginUs: number, endUs: number): ProfileSums {
  const places = placesOf(profile, root);
  const byShare = new Map<Share, SelfTime>();
  const byFile = new Map<string, SelfTime>();
  const byFunction = new Map<string, SelfTime>();
  let busyUs = 0;
  let nowUs = profile.startTime;
  for (const [at, node] of profile.samples.entries()) {
    nowUs += profile.timeDeltas[at]!;
    const place = places.get(node);
    if (nowUs < beginUs || nowUs > endUs || place === undefined) continue;
    // A sample stands for the time until the next one.
    const us = Math.max(0, Math.min(profile.timeDeltas[at + 1] ?? 0, endUs - nowUs));
    busyUs += us;
    add(byShare, place.share, us, place.isNative);
    add(byFile, place.file, us, place.isNative);
    add(byFunction, place.name, us, place.isNative);
  }
  return { byShare, byFile, byFunction, busyUs };
}

function add<Key>(to: Map<Key, SelfTime>, key: Key, us: number, isNative: boolean): void {
  const sum = to.get(key) ?? { us: 0, nativeUs: 0 };
  sum.us += us;
  if (isNative) sum.nativeUs += us;
  to.set(key, sum);
}

/** Where each node's self time belongs; none for idle ones. What is not ours counts to who called it. */
function placesOf(profile: CpuProfile, root: string): Map<number, Place> {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  const places = new Map<number, Place>();
  const outside: Place = { share: "event loop", file: "(event loop)", name: "", isNative: true };
  const visit = (node: ProfileNode, caller: Place): void => {
    const { functionName, url, lineNumber } = node.callFrame;
    const name = functionName === "" ? "(anonymous)" : functionName;
    let place: Place;
    if (url.startsWith(`file://${root}`)) {
      const file = url.slice(`file://${root}`.length);
      place = { share: shareOfPath(file), file, name: `${name} ${file}:${lineNumber + 1}`, isNative: false };
    } else if (name === "(garbage collector)") {
      place = { share: "garbage collector", file: name, name, isNative: true };
    } else {
      const from = url === "" ? "" : ` ${url}:${lineNumber + 1}`;
      place = { ...caller, name: `${name}${from} for ${caller.file}`, isNative: true };
    }
    if (name !== "(idle)" && name !== "(root)") places.set(node.id, place);
    for (const child of node.children ?? []) visit(nodes.get(child)!, place);
  };
  visit(profile.nodes[0]!, outside);
  return places;
}
