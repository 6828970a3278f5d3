/**
 * The rule that every call of a task's step is `yield*`-ed or handed on. A forgotten `yield*` compiles: the call makes
 * a generator, which nobody runs; `using` even disposes of it, and a condition finds it true.
 */
import { closingOf, type Source } from "./source.ts";

/** Finds the calls of what is declared in actors/ to answer Steps that are neither `yield*`-ed nor handed on. */
export function ruleStepsAreTaken(sources: readonly Source[]): string[] {
  const code = sources.filter((each) => each.path.endsWith(".ts") && !each.isTest);
  const actors = code.filter((each) => each.path.startsWith("actors/"));
  const steps = namesOf(actors, true);
  const others = namesOf(code, false);
  for (const name of signaturesOf(code)) others.add(name);
  const found: string[] = [];
  for (const source of actors) {
    for (const match of source.code.matchAll(/(?<![\w$#])(#?[A-Za-z_$][\w$]*)\s*\(/g)) {
      // A method and a function of one name are told apart by the receiver.
      const name = keyOf(match[1]!, /\.\s*$/.test(source.code.slice(0, match.index)));
      if (!steps.has(name)) continue;
      const isInGenerator = innermostIsGenerator(source, match.index);
      // Where a plain method has the same name, only a task can have meant the steps.
      if (others.has(name) && !isInGenerator) continue;
      if (isTaken(source.code, match.index, match.index + match[0].length - 1)) continue;
      found.push(source.finding(match.index, `${match[1]}() does nothing by itself: write yield* before it`));
    }
  }
  return found;
}

function keyOf(name: string, isMethod: boolean): string {
  return isMethod ? `.${name}` : name;
}

function namesOf(sources: readonly Source[], givesSteps: boolean): Set<string> {
  const names = new Set<string>();
  for (const source of sources) {
    for (const text of source.functions) {
      // A plain function may hand on what another makes; what is generated without a word of Steps is no task.
      const head = source.code.slice(text.begin, text.bodyBegin);
      const answersSteps = text.isGenerator ? /\bSteps</.test(head) : /\)\s*:\s*Steps<[^]*$/.test(head);
      if (text.isGenerator && !answersSteps) continue;
      if (answersSteps !== givesSteps) continue;
      names.add(keyOf(text.name, text.isMethod));
    }
  }
  return names;
}

/** Methods that interfaces declare, a device port's for one. */
function signaturesOf(sources: readonly Source[]): string[] {
  return sources.flatMap((each) =>
    [...each.code.matchAll(/^ {2}(\w+)\([^)]*\)\s*:[^;{]*;/gm)].map((match) => keyOf(match[1]!, true))
  );
}

function innermostIsGenerator(source: Source, at: number): boolean {
  return source.functions.find((text) => text.bodyBegin < at && at < text.bodyEnd)?.isGenerator ?? false;
}

/** Whether the call at this position is `yield*`-ed, returned, assigned or given to somebody. */
function isTaken(code: string, nameAt: number, openAt: number): boolean {
  const before = code.slice(0, receiverBegin(code, nameAt)).trimEnd();
  const after = code.slice(closingOf(code, openAt) + 1).trimStart();
  if (/(\byield\s*\*|\breturn|=>)$/.test(before)) return true;
  // A declaration, of the generator itself or of a plain function with its name.
  if (/(\bfunction\s*\*?|(^|[;{}\n]|\bstatic)\s*\*|\b(static|get|set|private|override))$/.test(before)) {
    return true;
  }
  if (/(^|[;{}])$/.test(before)) return after.startsWith("{") || after.startsWith(":");
  if (/\(\s*$/.test(before)) return !/\b(if|while|switch)\s*\($/.test(before);
  if (/(?<![=!<>])=$/.test(before)) return !/\busing\s+\w+\s*(:[^=;]*)?=$/.test(before);
  return /([,[:]|\?|\?\?)$/.test(before);
}

/** Where the expression begins that the method is called on: `this.#stub!.regions[0]!.` and the like. */
function receiverBegin(code: string, nameAt: number): number {
  let at = nameAt;
  for (;;) {
    const dot = /[!?]?\.\s*$/.exec(code.slice(Math.max(0, at - 80), at));
    if (dot === null || code.slice(0, at).trimEnd().endsWith("...")) break;
    at -= dot[0].length;
    for (;;) {
      const last = code.slice(0, at).trimEnd();
      at = last.length;
      if (last.endsWith("!")) at -= 1;
      else if (last.endsWith(")") || last.endsWith("]")) at = openingOf(code, at - 1);
      else break;
    }
    at -= /[#\w$]*$/.exec(code.slice(Math.max(0, at - 80), at))![0].length;
  }
  const created = /\bnew\s*$/.exec(code.slice(Math.max(0, at - 80), at));
  return created === null ? at : at - created[0].length;
}

function openingOf(code: string, closeAt: number): number {
  let depth = 0;
  for (let at = closeAt; at >= 0; at -= 1) {
    if (")]}".includes(code[at]!)) depth += 1;
    if ("([{".includes(code[at]!)) depth -= 1;
    if (depth === 0) return at;
  }
  return 0;
}
