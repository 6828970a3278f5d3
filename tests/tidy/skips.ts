/** Tests with outside programs: each is skipped by name where its program is not installed. */
import type { FileRule } from "./rules.ts";
import { closingOf, type Source } from "./source.ts";

/** What throws where a program is absent (tests/support/programs.ts, tests/support/thin_tools.ts, tests/support/certificates.ts). */
const needsProgram = /\b(requiredProgram|runThinTool|runOnImage|restoreImage|makeCertificates|programPath)\(/;
/** The same of tests/support/server.ts: a pool in memory has a check of this name that needs none. */
const needsThinTools = /\brequireSound\(/;

/** A test that calls one of them says when it is ignored. What a helper calls for it is not looked at. */
export const ruleSkips: FileRule = (source: Source): string[] => {
  if (!source.isTest || !source.path.endsWith("_test.ts")) return [];
  const isOnDisk = /\bPoolOnDisk\b/.test(source.code);
  return [...source.code.matchAll(/\bDeno\.test\(/g)].flatMap((match) => {
    const end = closingOf(source.code, match.index + match[0].length - 1);
    const test = source.code.slice(match.index, end);
    const needs = needsProgram.test(test) || isOnDisk && needsThinTools.test(test);
    if (!needs || /\bignore\b/.test(test)) return [];
    return [
      source.finding(match.index, "a test with an outside program: say with ignore where it is skipped"),
    ];
  });
};
