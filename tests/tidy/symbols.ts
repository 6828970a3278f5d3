/** The rule that a symbol which a page names, as `path.ts#symbol`, is in that file. */
import type { Source } from "./source.ts";

/** Finds `path.ts#symbol` in pages where no such file has the symbol in its code. A path is relative to the root, or to `actors/`. */
export function ruleSymbols(sources: readonly Source[]): string[] {
  const files = new Map(sources.map((source) => [source.path, source]));
  const found: string[] = [];
  for (const page of sources.filter((source) => source.path.endsWith(".md"))) {
    for (const match of page.text.matchAll(/`([\w./-]+\.ts)#(\w+)`/g)) {
      const [, path, symbol] = match as unknown as [string, string, string];
      const file = files.get(path) ?? files.get(`actors/${path}`);
      if (file !== undefined && new RegExp(`\\b${symbol}\\b`).test(file.code)) continue;
      found.push(
        page.finding(match.index, `names ${path}#${symbol}, which is not there: name where it is now`),
      );
    }
  }
  return found;
}

/** The sections of a page, by their headings of the second level. */
function sectionsOf(
  page: Source,
): { readonly heading: string; readonly text: string; readonly at: number }[] {
  const begins = [...page.text.matchAll(/^## (.*)$/gm)];
  return begins.map((match, index) => {
    const end = begins[index + 1]?.index ?? page.text.length;
    return { heading: match[1]!, text: page.text.slice(match.index, end), at: match.index };
  });
}

/** Sections that are lists or words and not statements about code in paragraphs, or that are generated. */
const plainSections: ReadonlySet<string> = new Set(["Glossary", "Invariants", "Bios as messages"]);

/** Finds paragraphs of `actors/ARCHITECTURE.md`, and rows of its table of failures, that name no file. */
export function ruleTwoHops(sources: readonly Source[]): string[] {
  const page = sources.find((source) => source.path === "actors/ARCHITECTURE.md");
  if (page === undefined) return [];
  const found: string[] = [];
  for (const { heading, text, at } of sectionsOf(page)) {
    if (plainSections.has(heading)) continue;
    let from = at;
    for (const block of text.split("\n\n")) {
      const blockAt = from;
      from += block.length + 2;
      if (block.trim() === "") continue;
      if (block.startsWith("|")) {
        for (const [index, row] of block.trimEnd().split("\n").entries()) {
          const isRow = heading === "When something fails" && index > 1;
          if (isRow && !/`[\w./]+\.ts/.test(row)) {
            found.push(page.finding(blockAt, `"${row.split("|")[1]!.trim()}" names no file`));
          }
        }
      } else if (!/^(#|```|\d\. )/.test(block) && !/:$/.test(block) && !/`[\w./]*\.ts/.test(block)) {
        found.push(page.finding(blockAt, "this paragraph names no file: say where it is in the code"));
      }
    }
  }
  return found;
}
