/** Finding the real programs that tests compare with. A test that needs an absent one is skipped by name. */

/** The full path of `name`, or undefined. Looks in PATH and where Debian keeps system programs. */
export function programPath(name: string): string | undefined {
  const folders = [...(Deno.env.get("PATH") ?? "").split(":"), "/usr/sbin", "/sbin"];
  for (const folder of folders) {
    if (folder === "") continue;
    const path = `${folder}/${name}`;
    try {
      const found = Deno.statSync(path);
      if (found.isFile && (found.mode ?? 0) & 0o111) return path;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory)) throw error;
    }
  }
  return undefined;
}

/** Whether `name` is installed here: `ignore: !hasProgram("thin_check")`. */
export function hasProgram(name: string): boolean {
  return programPath(name) !== undefined;
}
