import { assert, assertEquals } from "@std/assert";
import fs from "node:fs";
import { BoundedCalls } from "./bounded_calls.ts";
import { openLibc } from "./libc.ts";

const ignore = openLibc() === undefined;

interface Scratch extends Disposable {
  readonly path: string;
  readonly fd: number;
}

function scratchFile(flags = "r+"): Scratch {
  const path = Deno.makeTempFileSync({ prefix: "gossamer-calls-" });
  const fd = fs.openSync(path, flags);
  return {
    path,
    fd,
    [Symbol.dispose]: () => {
      fs.closeSync(fd);
      Deno.removeSync(path);
    },
  };
}

/** What a call comes to, at once or later. */
function ended(begin: (done: (status: number) => void) => number | "pending"): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  const status = begin(resolve);
  if (status !== "pending") resolve(status);
  return promise;
}

Deno.test({
  name: "a call on another thread does what it would here, whether it is waited for or not",
  ignore,
  fn: async () => {
    using file = scratchFile();
    const calls = BoundedCalls.of(file.fd)!;
    for (const waitMs of [0, 1000]) {
      // As short as arrays that the engine keeps in its heap.
      const bytes = Uint8Array.of(1, 2, 3, waitMs & 255);
      assertEquals(await ended((done) => calls.write(bytes, 5, waitMs, done)), 4);
      assertEquals(await ended((done) => calls.flush(waitMs, done)), 0);
      assertEquals([...Deno.readFileSync(file.path)], [0, 0, 0, 0, 0, 1, 2, 3, waitMs & 255]);
      assert(calls.isIdle);
    }
  },
});

Deno.test({
  name: "a call that is waited for long enough has ended when it returns",
  ignore,
  fn: () => {
    using file = scratchFile();
    const calls = BoundedCalls.of(file.fd)!;
    assertEquals(calls.write(new Uint8Array(4096).fill(1), 0, 60_000, () => assert(false)), 4096);
  },
});

Deno.test({
  name: "calls are carried out in the order in which they were made",
  ignore,
  fn: async () => {
    using file = scratchFile();
    const calls = BoundedCalls.of(file.fd)!;
    const heard: number[] = [];
    const all = Array.from(
      { length: 100 },
      (_, at) =>
        ended((done) =>
          calls.write(new Uint8Array(8192).fill(at), 0, 0, (status) => {
            heard.push(at);
            done(status);
          })
        ),
    );
    await Promise.all(all);
    assertEquals(Deno.readFileSync(file.path), new Uint8Array(8192).fill(99));
    assertEquals(heard, heard.toSorted((a, b) => a - b));
  },
});

Deno.test({
  name: "a call that fails says with which errno",
  ignore,
  fn: async () => {
    using file = scratchFile("r");
    const calls = BoundedCalls.of(file.fd)!;
    const badDescriptor = -9;
    for (const waitMs of [0, 1000]) {
      assertEquals(await ended((done) => calls.write(new Uint8Array(100), 0, waitMs, done)), badDescriptor);
    }
  },
});
