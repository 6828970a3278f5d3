/** A run that fails, made smaller and shown to a person. */
import { type TraceEvent, traceMermaid, TraceRecorder, traceText } from "../../actors/kernel/trace.ts";
import { type RunResult, World } from "./world.ts";

/** Runs that shrinking may take, and messages that a person reads. */
const runsMax = 1000;
const eventsMax = 120;

/** Leaves out actions, in ever smaller groups, as long as the run still fails with the same kind of sentence. */
export function shrink(
  failed: RunResult,
): { readonly result: RunResult; readonly dropped: ReadonlySet<number> } {
  let best = failed;
  let dropped: ReadonlySet<number> = new Set();
  let runs = 0;
  const kind = kindOf(failed.violation!);
  for (let size = Math.ceil(failed.actions.length / 2); size >= 1 && runs < runsMax;) {
    const before = best.actions.length;
    // From the end, because what comes late depends on what comes early.
    for (let end = before; end > 0 && runs < runsMax; end -= size) {
      const group = best.actions.slice(Math.max(0, end - size), end).map((action) => action.ordinal);
      const tried = new Set([...dropped, ...group]);
      const result = new World(failed.seed, { dropped: tried }).run();
      runs += 1;
      if (result.violation === undefined || kindOf(result.violation) !== kind) continue;
      best = result;
      dropped = tried;
    }
    // Single actions are tried again as long as that helps: without some of them others are not needed either.
    if (size > 1) size = Math.floor(size / 2);
    else if (best.actions.length >= before) break;
  }
  return { result: best, dropped };
}

/** A sentence without its numbers and names. */
function kindOf(violation: string): string {
  return violation.split("\n")[0]!.replace(/"[^"]*"/g, "").replace(/\d+/g, "").slice(0, 30);
}

/** The smallest run found that still fails: what was done, and the last messages of the volume that it is about. */
export function replay(failed: RunResult): string {
  const { result, dropped } = shrink(failed);
  const trace = new TraceRecorder(20_000);
  new World(failed.seed, { dropped, trace }).run();
  const name = /"([^"]+)"/.exec(result.violation!)?.[1];
  const events = eventsAbout(trace.events, name);
  return [
    `still fails with ${result.actions.length} of ${failed.actions.length} actions: ${result.violation}`,
    ...result.actions.map(({ ordinal, text }) => `  ${ordinal}. ${text}`),
    "",
    traceText(events),
    "",
    traceMermaid(events),
  ].join("\n");
}

/** The last messages of the bios of a volume, and of the commits between them; without a name, of everybody. */
function eventsAbout(events: readonly TraceEvent[], name: string | undefined): readonly TraceEvent[] {
  const involved = name === undefined
    ? events
    : events.filter(({ from, to }) =>
      [from, to].some((who) => who.includes(name) || who.startsWith("commit"))
    );
  return involved.slice(-eventsMax);
}
