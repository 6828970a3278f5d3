/** Runs a guest script of tests on a real Linux kernel, through `vm.sh`. */
import { isTestable, programPath, unpackedFolder } from "../programs.ts";

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
  readonly limitSeconds?: number;
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
  const options = [
    ...(guest.drives ?? []).flatMap((drive) => ["--drive", drive]),
    ...(guest.modules ?? []).flatMap((module) => ["--module", module]),
    ...(guest.programs ?? []).flatMap((program) => ["--bin", program]),
    ...(guest.files === undefined ? [] : ["--files", guest.files.pathname]),
    ...(guest.network === true ? ["--network"] : []),
    "--limit",
    String(guest.limitSeconds ?? 120),
  ];
  const script = new URL("vm.sh", import.meta.url).pathname;
  const args = [...options, guest.script.pathname, ...(guest.args ?? [])];
  const output = await new Deno.Command(script, { args, stdout: "piped", stderr: "piped" }).output();
  const decoder = new TextDecoder();
  const stdout = decoder.decode(output.stdout);
  if (output.success) return stdout;
  throw new Error(`The guest ended with ${output.code}:\n${stdout}\n${decoder.decode(output.stderr)}`);
}
