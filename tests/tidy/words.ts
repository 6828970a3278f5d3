/** The rules about the words of comments and messages, and about what they cite. */
import type { Source } from "./source.ts";

/** Words for persons. Actors, sockets and blocks are things. */
const persons = /\b(who|whoever|whom|nobody|somebody|someone|everybody|everyone|anybody|anyone)\b/gi;
const personsPer1000LinesMax = 2;

/** The lines of a file that are comment, in whole or in part: what the code has not. */
function commentLinesOf(source: Source): number[] {
  const text = source.text.split("\n");
  const code = source.code.split("\n");
  return text.flatMap((
    line,
    index,
  ) => (line.trimEnd() === code[index]!.trimEnd() || !isComment(line) ? [] : [index + 1]));
}

function isComment(line: string): boolean {
  return /^\s*(\/\/|\/\*|\*)|\/\/ /.test(line);
}

function isProduct(source: Source): boolean {
  return source.path.endsWith(".ts") && !source.isTest;
}

/** Words for persons in the comments of product code, per 1000 lines of comments. */
export function personsPer1000Lines(sources: readonly Source[]): number {
  let lines = 0;
  let words = 0;
  for (const source of sources.filter(isProduct)) {
    const text = source.text.split("\n");
    for (const line of commentLinesOf(source)) {
      lines += 1;
      words += text[line - 1]!.match(persons)?.length ?? 0;
    }
  }
  return lines === 0 ? 0 : words * 1000 / lines;
}

/** Comments name things, not persons: at most two words for a person in 1000 lines of comments. */
export function rulePersons(sources: readonly Source[]): string[] {
  const per1000Lines = personsPer1000Lines(sources);
  if (per1000Lines <= personsPer1000LinesMax) return [];
  const found: string[] = [];
  for (const source of sources.filter(isProduct)) {
    const text = source.text.split("\n");
    for (const line of commentLinesOf(source)) {
      const words = text[line - 1]!.match(persons);
      if (words !== null) found.push(`${source.path}:${line}: ${words.join(", ")}: name the thing`);
    }
  }
  return [
    `${
      per1000Lines.toFixed(1)
    } words for persons in 1000 lines of comments, at most ${personsPer1000LinesMax}`,
    ...found,
  ];
}

/** "cannot" is one word. */
export function ruleCannot(source: Source): string[] {
  if (!/\.(ts|md)$/.test(source.path)) return [];
  return [...source.text.matchAll(/\b[Cc]an not\b/g)].map((match) =>
    source.finding(match.index, "write cannot")
  );
}

/** Every file of this repository that a comment or a page names is there. A name without a folder may lie anywhere. */
export function ruleCitations(sources: readonly Source[]): string[] {
  const paths = new Set(sources.map((source) => source.path));
  const names = new Set(sources.map((source) => source.path.replace(/^.*\//, "")));
  const found: string[] = [];
  for (const source of sources) {
    // The rules' own tests have names of files that are not there.
    if (!/\.(ts|md)$/.test(source.path) || source.path.startsWith("tests/tidy/")) continue;
    const isPage = source.path.endsWith(".md");
    const lines = new Set(isPage ? [] : commentLinesOf(source));
    for (
      const match of source.text.matchAll(
        /(?<![\w./:*$-])((?:\.\.?\/)*(?:[\w-]+\/)*[\w-]+\.(?:ts|md))\b(?![\w/-])/g,
      )
    ) {
      if (!isPage && !lines.has(source.lineOf(match.index))) continue;
      if (isThere(source.path, match[1]!, paths, names)) continue;
      found.push(source.finding(match.index, `cites ${match[1]}, which is not in the repository`));
    }
    for (const match of source.text.matchAll(/\(?\bdesign(?:,? section)? (?:I?\d+)/g)) {
      if (!isPage && !lines.has(source.lineOf(match.index))) continue;
      found.push(
        source.finding(match.index, `cites "${match[0]}": name a page of the repository, or its source`),
      );
    }
  }
  return found;
}

function isThere(
  from: string,
  cited: string,
  paths: ReadonlySet<string>,
  names: ReadonlySet<string>,
): boolean {
  if (!cited.includes("/")) return names.has(cited);
  const relative = new URL(cited, `file:///${from}`).pathname.slice(1);
  if (paths.has(relative) || paths.has(cited)) return true;
  return [...paths].some((path) => path.endsWith(`/${cited}`));
}
