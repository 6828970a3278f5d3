/** fio on a volume of its own, which verifies what it has written: a client with a judge that is not ours. */
import { requiredProgram } from "../programs.ts";

/** Bytes of the volume that it needs. */
export const fioBytes = 8 << 20;

/**
 * Writes the whole volume first, so that no later write needs space, then writes and verifies at random. Resolves with what was
 * wrong; undefined if nothing was. `stopped` ends it early.
 */
export async function runVerifiedFio(
  uri: string,
  seconds: number,
  folder: string,
): Promise<string | undefined> {
  const common = [
    "--ioengine=nbd",
    `--uri=${uri}`,
    `--size=${fioBytes}`,
    "--bs=4k",
    "--verify=crc32c",
    "--verify_fatal=1",
  ];
  const fill = await fio(["--name=fill", "--rw=write", "--do_verify=0", ...common], folder);
  if (fill !== undefined) return fill;
  const random = [
    "--name=random",
    "--rw=randwrite",
    "--verify_backlog=128",
    "--iodepth=4",
    "--rate_iops=200",
    "--fsync=64",
  ];
  return await fio([...random, "--time_based", `--runtime=${seconds}`, ...common], folder);
}

async function fio(args: readonly string[], folder: string): Promise<string | undefined> {
  const output = await new Deno.Command(requiredProgram("fio"), {
    args: [...args],
    // It leaves files beside it where it fails.
    cwd: folder,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  if (output.code === 0) return undefined;
  const decoder = new TextDecoder();
  return `fio ended with status ${output.code}: ${decoder.decode(output.stderr)}${
    decoder.decode(output.stdout)
  }`;
}
