/** Runs a guest script of tests on a real Linux kernel, through `vm.sh`. */
import { isTestable, programPath, unpackedFolder } from "../support/programs.ts";

/** What a guest gets; see the head of `vm.sh`. */
export interface Guest {
  /** The script, a file of this repository. */
  readonly script: URL;
  readonly args?: readonly string[];
  /** The disks: the first is /dev/vda. */
  readonly drives?: readonly string[];
  readonly modules?: readonly string[];
  readonly programs?: readonly string[];
  /** A folder to copy to /host. */
  readonly files?: URL;
  readonly network?: boolean;
  readonly cpus?: number;
  readonly memoryMib?: number;
  readonly limitSeconds?: number;
  /** Answers, with one line, what the script asks with `ask`. */
  readonly answer?: (question: string) => Promise<string>;
}

const needed = ["qemu-system-x86_64", "busybox", "cpio"] as const;

/** Whether a test that needs the VM, with these programs of the host inside, runs: `ignore: !hasVm("dmsetup")`. */
export function hasVm(...programs: readonly string[]): boolean {
  const isInstalled = [...needed, ...programs].every((name) => programPath(name) !== undefined);
  return isTestable(isInstalled && isFolder(`${unpackedFolder("kernel")}/boot`));
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Runs the guest to its end and returns what its script printed. Throws, with the console, unless it ended with 0. */
export async function runGuest(guest: Guest): Promise<string> {
  const script = new URL("vm.sh", import.meta.url).pathname;
  const args = [...optionsOf(guest), guest.script.pathname, ...(guest.args ?? [])];
  const child = new Deno.Command(script, { args, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
  const stderr = new Response(child.stderr).text();
  const input = child.stdin.getWriter();
  let hasEnded = false;
  const status = child.status.finally(() => hasEnded = true);
  try {
    const stdout = await converse(child.stdout, async (question) => {
      if (guest.answer === undefined) throw new Error(`Nobody answers the guest, which asks: ${question}`);
      await input.write(new TextEncoder().encode(`${await guest.answer(question)}\n`));
    });
    const { code } = await status;
    if (code === 0) return stdout;
    throw new Error(`The guest ended with ${code}:\n${stdout}\n${await stderr}`);
  } finally {
    // A guest that is left over, since an answer failed, takes its machine with it.
    if (!hasEnded) child.kill("SIGTERM");
    await Promise.allSettled([input.close(), stderr, status]);
  }
}

function optionsOf(guest: Guest): string[] {
  return [
    ...(guest.drives ?? []).flatMap((drive) => ["--drive", drive]),
    ...(guest.modules ?? []).flatMap((module) => ["--module", module]),
    ...(guest.programs ?? []).flatMap((program) => ["--bin", program]),
    ...(guest.files === undefined ? [] : ["--files", guest.files.pathname]),
    ...(guest.network === true ? ["--network"] : []),
    ...(guest.answer === undefined ? [] : ["--stdin"]),
    ...(guest.cpus === undefined ? [] : ["--cpus", String(guest.cpus)]),
    ...(guest.memoryMib === undefined ? [] : ["--memory", String(guest.memoryMib)]),
    "--limit",
    String(guest.limitSeconds ?? 120),
  ];
}

/** Reads all that the guest prints. Lines that are questions go to `answer`, one at a time; the others come back. */
async function converse(
  stdout: ReadableStream<Uint8Array>,
  answer: (question: string) => Promise<void>,
): Promise<string> {
  const lines: string[] = [];
  let begun = "";
  for await (const text of stdout.pipeThrough(new TextDecoderStream())) {
    const pieces = `${begun}${text}`.split("\n");
    begun = pieces.pop() ?? "";
    for (const line of pieces) {
      if (line.startsWith("? ")) await answer(line.slice(2));
      else lines.push(`${line}\n`);
    }
  }
  return lines.join("") + begun;
}
