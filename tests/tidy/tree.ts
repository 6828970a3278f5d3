/** Sources made of text, and what is found in them, for the tests of the rules. */
import { Source } from "./source.ts";

/** The lines that the findings name. */
export function linesOf(findings: readonly string[]): string[] {
  return findings.map((finding) => finding.split(": ")[0]!);
}

/** Files by path. */
export function tree(files: Readonly<Record<string, string>>): Source[] {
  return Object.entries(files).map(([path, text]) => new Source(path, text));
}
