/** Runs `cli.ts` as a person would in some folder: words in, status and both outputs out. */
import type { ToolResult } from "../support/thin_tools.ts";

const cli = new URL("../../cli.ts", import.meta.url).pathname;
const decoder = new TextDecoder();

/** The arguments of Deno that run the command line with these. */
export function cliArguments(args: readonly string[]): string[] {
  return ["run", "--no-prompt", "-A", cli, ...args];
}

/** Runs it to its end in the folder `cwd`. GOSSAMER_POOL is not set unless `env` does. */
export async function commandLine(
  args: readonly string[],
  cwd: string,
  env: Readonly<Record<string, string>> = {},
): Promise<ToolResult> {
  const output = await new Deno.Command(Deno.execPath(), {
    args: cliArguments(args),
    cwd,
    env: { NO_COLOR: "1", GOSSAMER_POOL: "", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  return {
    status: output.code,
    stdout: decoder.decode(output.stdout),
    stderr: decoder.decode(output.stderr),
  };
}
