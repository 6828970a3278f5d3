/**
 * Finding the real programs that tests compare with. A test that needs an absent one is skipped by name, except where
 * GOSSAMER_CI is set: there it runs all the same, and fails for the want of it.
 */

/** Whether a test that needs something runs: where it is here, and always in CI. */
export function isTestable(isHere: boolean): boolean {
  return isHere || (Deno.env.get("GOSSAMER_CI") ?? "") !== "";
}

/** The full path of `name`, or undefined. Looks in PATH and where Debian keeps system programs. */
export function programPath(name: string): string | undefined {
  const folders = [...(Deno.env.get("PATH") ?? "").split(":"), "/usr/sbin", "/sbin"];
  return folders.filter((folder) => folder !== "").map((folder) => `${folder}/${name}`).find(isProgram);
}

/** Whether a path is that of a program. */
export function isProgram(path: string): boolean {
  try {
    const found = Deno.statSync(path);
    return found.isFile && ((found.mode ?? 0) & 0o111) !== 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** The full path of a program that a test needs. Throws a sentence where it is absent. */
export function requiredProgram(name: string): string {
  const path = programPath(name);
  if (path === undefined) throw new Error(`${name} is not installed; .ci/run installs it`);
  return path;
}

/** Whether a test that needs `name` runs: `ignore: !hasProgram("fio")`. */
export function hasProgram(name: string): boolean {
  return isTestable(programPath(name) !== undefined);
}

/** Debian's own Python, to which its package python3-libnbd belongs; the first in PATH may be another. */
export const python = "/usr/bin/python3";

/** Whether a test that needs libnbd for Python runs: `ignore: !hasPythonNbd()`. */
export function hasPythonNbd(): boolean {
  if (!isProgram(python)) return isTestable(false);
  const args = ["-c", "import nbd"];
  return isTestable(new Deno.Command(python, { args, stdout: "null", stderr: "null" }).outputSync().success);
}

/** The folder of what `.ci/` unpacks for tests without installing it: the kernel, the 1.x thin tools. */
export function unpackedFolder(name: string): string {
  const cache = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME") ?? ""}/.cache`;
  return `${cache}/gossamer/${name}`;
}
