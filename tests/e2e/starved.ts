/**
 * A process that has used up its descriptors, as a test's child: the runner itself should not. `kept DIR` tells whether
 * the pool's own files can be opened then, `free` whether that is known; `accept` serves descriptor 3, has none left from SIGUSR2 on, and some from SIGHUP.
 */
import {
  areSparesComplete,
  hasFreeDescriptors,
  openWithSpare,
  raisedDescriptorLimit,
  SpareDescriptors,
} from "../../actors/edge/descriptors.ts";
import { freeDescriptorsMin } from "../../actors/limits.ts";
import { DenoClock } from "../../actors/edge/deno_clock.ts";
import { InheritedSocket } from "../../actors/edge/inherited_socket.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { Connected } from "../../actors/nbd/messages.ts";
import { SocketGroup } from "../../actors/edge/socket_group.ts";

/** Takes what is left of the process's descriptors, of which there are 40 more at most from now on. */
function starve(): Deno.FsFile[] {
  const limit = BigInt((raisedDescriptorLimit()?.used ?? 0) + 40);
  const library = Deno.dlopen("libc.so.6", { setrlimit: { parameters: ["i32", "buffer"], result: "i32" } });
  library.symbols.setrlimit(7, BigUint64Array.of(limit, limit));
  const files: Deno.FsFile[] = [];
  for (;;) {
    try {
      files.push(Deno.openSync("/dev/null"));
    } catch {
      return files;
    }
  }
}

function canOpen(path: string): boolean {
  try {
    Deno.openSync(path).close();
    return true;
  } catch {
    return false;
  }
}

const [mode, path = ""] = Deno.args;
if (mode === "kept") {
  const spares = new SpareDescriptors(path, 8);
  const files = starve();
  const found: unknown[] = [canOpen(path)];
  using directory = openWithSpare(() => Deno.openSync(path));
  found.push(directory.statSync().isDirectory, areSparesComplete());
  for (const file of files.splice(0, 3)) file.close();
  found.push(areSparesComplete(), canOpen(path));
  spares[Symbol.dispose]();
  console.log(JSON.stringify(found));
} else if (mode === "free") {
  const files = starve();
  const found = [hasFreeDescriptors()];
  for (const file of files.splice(0, freeDescriptorsMin - 1)) file.close();
  found.push(hasFreeDescriptors());
  files.pop()!.close();
  found.push(hasFreeDescriptors());
  console.log(JSON.stringify(found));
} else {
  const kernel = new Kernel({ clock: new DenoClock() });
  let count = 0;
  const listener = kernel.spawn<Connected>("listener", 100, () => ({
    receive: () => console.log(`client ${count += 1}`),
  }));
  let files: Deno.FsFile[] = [];
  Deno.addSignalListener("SIGUSR2", () => {
    files = starve();
    console.log("full");
  });
  Deno.addSignalListener("SIGHUP", () => {
    for (const file of files.splice(0, 20)) file.close();
    console.log("free");
  });
  const socket = await InheritedSocket.open(3);
  socket.start(new SocketGroup(kernel), listener, console.error);
  console.log("ready");
}
