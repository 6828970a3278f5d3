/** fio on a volume of its own, which verifies what it has written: a client with a judge that is not ours. */
import { requiredProgram } from "../support/programs.ts";

/** Bytes of the volume that it needs. */
export const fioBytes = 8 << 20;

/** Characters of its complaints that are kept. */
const saidMax = 2_000;
/** After so much more than its time it is killed. */
const lateSeconds = 60;
/** The file in its folder that runVerifiedFio() makes as soon as its client has attached. */
const attachedFile = "fio-attached";

/** Where fio runs, and what ends it early. */
export interface FioRun {
  readonly folder: string;
  readonly stopped: AbortSignal;
}

/** Writes the whole volume, so that no later write needs space. Resolves with what was wrong; undefined if nothing was. */
export function fillWithFio(uri: string, run: FioRun): Promise<string | undefined> {
  return fio(["--name=fill", "--rw=write", "--do_verify=0", ...commonOf(uri)], lateSeconds, run);
}

/** The file that tells that the client of runVerifiedFio() has attached to stay: fio connects once before that, to ask for the size. */
export function attachedPath(folder: string): string {
  return `${folder}/${attachedFile}`;
}

/** Writes and verifies at random a volume that is filled. Resolves with what was wrong; undefined if nothing was. */
export function runVerifiedFio(uri: string, seconds: number, run: FioRun): Promise<string | undefined> {
  const random = [
    "--name=random",
    "--rw=randwrite",
    "--verify_backlog=128",
    "--iodepth=4",
    "--rate_iops=200",
    "--fsync=64",
    `--exec_prerun=touch ${attachedFile}`,
  ];
  return fio(
    [...random, "--time_based", `--runtime=${seconds}`, ...commonOf(uri)],
    seconds + lateSeconds,
    run,
  );
}

function commonOf(uri: string): string[] {
  return [
    "--ioengine=nbd",
    `--uri=${uri}`,
    `--size=${fioBytes}`,
    "--bs=4k",
    "--verify=crc32c",
    "--verify_fatal=1",
    // One process, so that it can be killed.
    "--thread",
  ];
}

/** fio as a child that ends in time, with what it says bounded: without its server it complains for ever. */
async function fio(args: readonly string[], seconds: number, run: FioRun): Promise<string | undefined> {
  const child = new Deno.Command(requiredProgram("fio"), {
    args: [...args],
    // It leaves files beside it where it fails.
    cwd: run.folder,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  // It takes no notice of SIGTERM then.
  const kill = () => child.kill("SIGKILL");
  const late = setTimeout(kill, seconds * 1000);
  run.stopped.addEventListener("abort", kill);
  if (run.stopped.aborted) kill();
  let said = "";
  for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
    if (said.length < saidMax) said += text;
  }
  const { code } = await child.status;
  clearTimeout(late);
  run.stopped.removeEventListener("abort", kill);
  return code === 0 ? undefined : `fio ended with status ${code}: ${said}`;
}
