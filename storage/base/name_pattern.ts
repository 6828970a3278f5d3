/** Patterns of names with a number, such as `vm-%03d`: at most one `%d`, or `%0Nd` for at least N digits. */
import { UsageError } from "./errors.ts";
import { problemOfName } from "./names.ts";

const number = /%(?:0([1-9]))?d/;

/** Checks a pattern of volume names, and returns it. Throws {@linkcode UsageError}. */
export function parseNamePattern(text: string): string {
  const shown = JSON.stringify(text.slice(0, 200));
  const left = text.replace(number, "");
  if (left.includes("%")) {
    throw new UsageError(
      `${shown} is no pattern of names: write one %d in it, or %0Nd for N digits, such as vm-%03d.`,
    );
  }
  const problem = text.includes("@") ? `${shown} has an "@". Forks are volumes; leave it out.` : undefined;
  const found = problem ?? problemOfName(nameOfPattern(text, 1));
  if (found !== undefined) throw new UsageError(found);
  return text;
}

/** Whether the names of a pattern differ. */
export function hasNumber(pattern: string): boolean {
  return number.test(pattern);
}

/** The name with this number. */
export function nameOfPattern(pattern: string, ordinal: number): string {
  return pattern.replace(number, (_all, digits = "1") => String(ordinal).padStart(Number(digits), "0"));
}
