/** The rule that the repository's top level holds a fixed list of entries. */

/** What lies at the top level, and nothing else does. */
const entries: ReadonlySet<string> = new Set([
  ".ci",
  ".gitignore",
  "CHANGELOG.md",
  "CONTRIBUTING.md",
  "LICENSE",
  "README.md",
  "actors",
  "cli.ts",
  "deno.json",
  "deno.lock",
  "docs",
  "mod.ts",
  "storage",
  "tests",
]);

/** Finds entries of the top level that are not in the list; `.git` and what `.gitignore` names are left out. */
export function ruleTopLevel(names: Iterable<string>, gitignore: string): string[] {
  const ignored = gitignore.split("\n").filter((line) => line !== "").map((line) =>
    line.replace(/^\/|\/$/g, "")
  );
  return [...names].filter((name) => {
    if (name === ".git" || entries.has(name)) return false;
    return !ignored.some((line) => line.startsWith("*") ? name.endsWith(line.slice(1)) : name === line);
  }).sort().map((name) => `${name}: move it into docs/, .ci/ or a folder of the code`);
}
