/** For tests: the content of a pool's devices, as the kernel reads it in a VM and as a stock client reads it from us. */
import { assert, present } from "../../storage/base/assert.ts";
import { sectorSizeBytes } from "../../storage/base/ids.ts";
import type { VolumeListing } from "../../mod.ts";
import { hasProgram, hasPythonNbd, python, requiredProgram } from "../support/programs.ts";
import { type PoolOnDisk, runToEnd, type ServerProcess } from "../support/server.ts";
import { hasThinTools } from "../support/thin_tools.ts";
import { hasVm, runGuest } from "../vm/vm.ts";

/** Whether the tests of this folder run: `ignore: !hasGuestPool()`. */
export function hasGuestPool(): boolean {
  return hasVm("dmsetup") && hasProgram("nbdcopy") && hasPythonNbd() && hasThinTools("0.9") &&
    hasThinTools("1.x");
}

/** What was read from a device: how many bytes, and their SHA-256. */
export interface Content {
  readonly sizeBytes: number;
  readonly sum: string;
}

/** By thin id. */
export type Contents = ReadonlyMap<number, Content>;

/** A guest that runs for so long hangs: on a busy machine it may need a few minutes. */
export const hangSeconds = 900;

/** The script of this folder that the guest runs, and what it wants to know. */
export interface GuestTask {
  readonly script: "agree.sh" | "cut.sh" | "grow.sh" | "make.sh" | "read.sh";
  readonly metadataPath: string;
  readonly dataPath: string;
  readonly args: readonly (string | number)[];
}

/** Lets the kernel loose on metadata and data, and gives what it read, by the word that each line begins with. */
export async function contentsInGuest(task: GuestTask): Promise<(word: string) => Contents> {
  const told = await runGuest({
    script: new URL(task.script, import.meta.url),
    args: task.args.map(String),
    drives: [task.metadataPath, task.dataPath],
    modules: ["dm_thin_pool"],
    programs: ["dmsetup"],
    files: new URL(".", import.meta.url),
    limitSeconds: hangSeconds,
  });
  const lines = told.trimEnd().split("\n").map((line) => line.split(" "));
  return (word) => new Map(lines.filter(([first]) => first === word).map(contentOfLine));
}

function contentOfLine([_word, id, bytes, sum = ""]: readonly string[]): [number, Content] {
  assert(sum.length === 64, "the guest told no sum of a device");
  return [Number(id), { sizeBytes: Number(bytes), sum }];
}

/** The first two arguments of every script that gets a pool of ours: sectors of a block, blocks of the data device. */
export async function geometryArgs(pool: PoolOnDisk): Promise<number[]> {
  const { block_size_bytes, data_total_bytes } = await pool.status();
  return [block_size_bytes / sectorSizeBytes, data_total_bytes / block_size_bytes];
}

/** The last arguments: the size of a device is in the kernel's table and in our catalogue, not in the metadata. */
export function volumeArgs(volumes: readonly VolumeListing[]): string[] {
  return volumes.map((volume) => `${volume.thin_id}:${volume.size_bytes}`);
}

/** The volume or snapshot of that name. */
export function volumeNamed(volumes: readonly VolumeListing[], name: string): VolumeListing {
  return present(volumes.find((volume) => volume.name === name), "a volume that the test made is not listed");
}

/** What a stock client reads from our server. */
export async function contentsHere(
  server: ServerProcess,
  volumes: readonly VolumeListing[],
): Promise<Contents> {
  const contents = new Map<number, Content>();
  for (const { name, thin_id } of volumes) {
    const args = [server.url(name), "-"];
    const { stdout, success } = await new Deno.Command(requiredProgram("nbdcopy"), { args })
      .output();
    assert(success, "nbdcopy could not read a volume");
    const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", stdout)).toHex();
    contents.set(thin_id, { sizeBytes: stdout.length, sum });
  }
  return contents;
}

/** Runs statements of Python on `h`, a handle of libnbd that is connected to the export. */
export async function withLibnbd(
  server: ServerProcess,
  name: string,
  ...statements: string[]
): Promise<void> {
  const code = ["import os", ...statements].flatMap((statement) => ["-c", statement]);
  await runToEnd(python, ["-m", "nbd", "-u", server.url(name), ...code]);
}
