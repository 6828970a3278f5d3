/** The rule that no file names a path of the machine it was written on. */
import type { Source } from "./source.ts";

/** Folders that are on every machine, and say nothing about this one. */
const everywhere = new Set([
  "tmp",
  "var",
  "usr",
  "etc",
  "dev",
  "proc",
  "run",
  "mnt",
  "opt",
  "srv",
  "home",
  "root",
]);

/** Finds the folder of the repository, the folder it lies in, and anybody's home. */
export function rulePaths(sources: readonly Source[], root: URL, home: string | undefined): string[] {
  const folders = root.pathname.split("/").filter(Boolean);
  const names = [`/${folders.join("/")}`];
  if (folders.length > 1 && !everywhere.has(folders[0]!)) names.push(`/${folders[0]}/`);
  if (home !== undefined && home.length > 1) names.push(`${home}/`);
  const found: string[] = [];
  for (const source of sources) {
    for (const name of names) {
      for (let at = source.text.indexOf(name); at >= 0; at = source.text.indexOf(name, at + 1)) {
        // Part of a longer name or address is not the folder itself.
        if (/[\w.~$}*-]/.test(source.text[at - 1] ?? " ")) continue;
        found.push(source.finding(at, `names ${name}: say it relative to the repository`));
      }
    }
    for (const match of source.text.matchAll(/(?<![\w.])\/(?:home|Users)\/(?!you\b|me\b)[a-z]\w*/g)) {
      found.push(source.finding(match.index, `names ${match[0]}: say it relative to the repository`));
    }
  }
  return found;
}
