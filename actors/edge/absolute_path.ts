/**
 * Paths from the root, and from the working directory: `resolve` and `relative` of node:path, without loading that. A command
 * to a server needs nothing else of Node's, whose first module costs a tenth of Deno's start.
 */

/** The path from the root, without `.`, `..` and empty parts. */
export function absolutePath(path: string): string {
  return `/${partsOf(path).join("/")}`;
}

/** The path from the working directory. */
export function relativePath(path: string): string {
  const here = partsOf(".");
  const there = partsOf(path);
  const differs = here.findIndex((part, at) => part !== there[at]);
  const shared = differs < 0 ? here.length : differs;
  return [...here.slice(shared).map(() => ".."), ...there.slice(shared)].join("/");
}

function partsOf(path: string): string[] {
  const parts: string[] = [];
  for (const part of (path.startsWith("/") ? path : `${Deno.cwd()}/${path}`).split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return parts;
}
