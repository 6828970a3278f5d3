/** The program as a package: it installs by the README's line, and could be published. */
import { assertEquals, assertMatch } from "@std/assert";

const root = new URL("../../", import.meta.url);
const decoder = new TextDecoder();

interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(
  program: string,
  args: readonly string[],
  options: Omit<Deno.CommandOptions, "args"> = {},
): Promise<Ended> {
  const output = await new Deno.Command(program, {
    args: [...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    ...options,
    env: { NO_COLOR: "1", GOSSAMER_POOL: "", ...options.env },
  }).output();
  return {
    status: output.code,
    stdout: decoder.decode(output.stdout),
    stderr: decoder.decode(output.stderr),
  };
}

Deno.test("the README's install line gives a command that works from an empty folder", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const line = /^deno (install -g .*?)(?: +#.*)?$/m.exec(readme);
  if (line === null) throw new Error("The README has no line that begins with deno install -g.");
  const folder = await Deno.makeTempDir({ prefix: "gossamer-install-" });
  try {
    const env = {
      DENO_INSTALL_ROOT: `${folder}/installed`,
      PATH: `${Deno.execPath().replace(/\/[^/]*$/, "")}:${Deno.env.get("PATH") ?? ""}`,
    };
    const installed = await run(Deno.execPath(), line[1]!.split(" "), { cwd: root, env });
    assertEquals(installed.status, 0, installed.stderr);
    await Deno.mkdir(`${folder}/empty`);
    const gossamer = (...args: string[]) =>
      run(`${folder}/installed/bin/gossamer`, args, { cwd: `${folder}/empty`, env });
    assertEquals((await gossamer("init", "--data-size", "16M")).status, 0);
    assertEquals((await gossamer("create", "disk0", "1M")).status, 0);
    const { status, stdout } = await gossamer("list", "--json");
    assertEquals(status, 0);
    assertEquals(JSON.parse(stdout).volumes[0].name, "disk0");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("deno publish has no objection to the package, which holds no test", async () => {
  const { status, stderr, stdout } = await run(
    Deno.execPath(),
    ["publish", "--dry-run", "--allow-dirty"],
    { cwd: root },
  );
  assertEquals(status, 0, stderr);
  assertMatch(stdout + stderr, /\/actors\/volume\/remap\.ts /);
  assertEquals(/_test\.ts|\/tests\//.test(stdout + stderr), false);
});

Deno.test("every symbol of the public API is documented, and so are the types that it names", async () => {
  const { status, stderr } = await run(Deno.execPath(), ["doc", "--lint", "mod.ts", "cli.ts"], { cwd: root });
  assertEquals(status, 0, stderr);
});
