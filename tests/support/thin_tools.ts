/**
 * The real thin-provisioning-tools as oracles: 0.9 as Debian 12 installs it, 1.x as `.ci/thin_tools_1x.sh` unpacks it.
 * Both are wanted, since 0.9 never looks at the data space map and 1.x never at a bitmap's own block number.
 */
import { isTestable, programPath, unpackedFolder } from "./programs.ts";

export type ThinToolsVersion = "0.9" | "1.x";
export type ThinTool =
  | "thin_check"
  | "thin_dump"
  | "thin_ls"
  | "thin_restore"
  | "thin_repair"
  | "thin_delta"
  | "thin_rmap";

export interface ToolResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const decoder = new TextDecoder();
const metadataBlockBytes = 4096;

/** Runs a program to its end and collects what it printed. */
export function runProgram(path: string, args: readonly string[]): ToolResult {
  return resultOf(new Deno.Command(path, { args: [...args], stdout: "piped", stderr: "piped" }).outputSync());
}

function resultOf(output: Deno.CommandOutput): ToolResult {
  return {
    status: output.code,
    stdout: decoder.decode(output.stdout),
    stderr: decoder.decode(output.stderr),
  };
}

/** The version of the thin_check that is installed as such; Debian 12 has 0.9, Debian 13 has 1.x. */
function installedVersion(): string | undefined {
  const path = programPath("thin_check");
  return path === undefined ? undefined : runProgram(path, ["-V"]).stdout.trim();
}

const installed = installedVersion();

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** The full path of one tool of one version, or undefined where it is absent. */
export function thinToolPath(tool: ThinTool, version: ThinToolsVersion): string | undefined {
  if (version === "0.9") return installed?.startsWith("0.") ? programPath(tool) : undefined;
  const unpacked = `${unpackedFolder("thin-tools-1x")}/bin/${tool}_1x`;
  if (isFile(unpacked)) return unpacked;
  return programPath(`${tool}_1x`) ?? (installed?.startsWith("1.") ? programPath(tool) : undefined);
}

/** Whether a test that needs a version of the tools runs: `ignore: !hasThinTools("1.x")`. */
export function hasThinTools(version: ThinToolsVersion): boolean {
  return isTestable(thinToolPath("thin_check", version) !== undefined);
}

/** Runs one tool of one version. Throws a sentence when it is absent: tests ask {@linkcode hasThinTools} first. */
export function runThinTool(tool: ThinTool, version: ThinToolsVersion, args: readonly string[]): ToolResult {
  return runProgram(requiredToolPath(tool, version), args);
}

function requiredToolPath(tool: ThinTool, version: ThinToolsVersion): string {
  const path = thinToolPath(tool, version);
  if (path === undefined) throw new Error(`${tool} ${version} is not here; run .ci/thin_tools_1x.sh`);
  return path;
}

/** Restores XML into a metadata image of `sizeBlocks` blocks, as thin_restore of that version lays it out. */
export function restoreImage(xml: string, version: ThinToolsVersion, sizeBlocks = 512): Uint8Array {
  const folder = Deno.makeTempDirSync({ prefix: "gossamer-restore-" });
  try {
    Deno.writeTextFileSync(`${folder}/in.xml`, xml);
    Deno.writeFileSync(`${folder}/out.img`, new Uint8Array(0));
    Deno.truncateSync(`${folder}/out.img`, sizeBlocks * metadataBlockBytes);
    const args = ["-i", `${folder}/in.xml`, "-o", `${folder}/out.img`];
    const result = runThinTool("thin_restore", version, args);
    if (result.status !== 0) throw new Error(`thin_restore failed: ${result.stderr}${result.stdout}`);
    return Deno.readFileSync(`${folder}/out.img`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/**
 * Runs one tool over an image held in memory; `args` come before the file's name. Asynchronous, because thin_check 1.x
 * sleeps half a second before it ends: tests with many images run many at once.
 */
export async function runOnImage(
  tool: ThinTool,
  version: ThinToolsVersion,
  image: Uint8Array,
  args: readonly string[] = [],
): Promise<ToolResult> {
  const path = requiredToolPath(tool, version);
  const file = await Deno.makeTempFile({ prefix: "gossamer-image-" });
  try {
    await Deno.writeFile(file, image);
    const output = await new Deno.Command(path, { args: [...args, file], stdout: "piped", stderr: "piped" })
      .output();
    return resultOf(output);
  } finally {
    await Deno.remove(file);
  }
}

/** Maps `items` with at most `atOnce` calls under way, keeping their order. */
export async function mapAtOnce<Item, Result>(
  items: readonly Item[],
  atOnce: number,
  map: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  for (let begin = 0; begin < items.length; begin += atOnce) {
    results.push(...await Promise.all(items.slice(begin, begin + atOnce).map(map)));
  }
  return results;
}
