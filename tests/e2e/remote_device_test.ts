/** A pool on devices of another kind than files: slow, remote, and away for a while. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { deviceKinds } from "../../actors/edge/device_kinds.ts";
import type { DeviceKinds, OpenDevice } from "../../actors/edge/open_device.ts";
import { answerOf } from "../../actors/edge/outside.ts";
import { makePool } from "../../actors/edge/make_pool.ts";
import { PoolProcess } from "../../actors/edge/pool_process.ts";
import { ListeningSocket } from "../../actors/edge/sockets.ts";
import { mailboxes } from "../../actors/mailboxes.ts";
import { NbdListener, NbdListenerStub } from "../../actors/nbd/listener.ts";
import { NBD_CMD_READ, NBD_CMD_TRIM, NBD_EIO } from "../../actors/nbd/wire/constants.ts";
import {
  type IoDone,
  ioOk,
  type IoResult,
  type ReadDone,
  type ReadTarget,
} from "../../storage/device/port.ts";
import { RawClient } from "../nbd/raw_client.ts";

const MiB = 1 << 20;
const away: IoResult = { kind: "ioError", reason: "the upstream does not answer" };

/** Bytes elsewhere: each operation is answered in a later turn of the event loop. Nothing of it is known to this host. */
class RemoteDevice implements OpenDevice {
  readonly local = undefined;
  readonly cached = undefined;
  isAway = false;
  isOpen = false;
  #pending = 0;

  constructor(readonly path: string, readonly bytes: Uint8Array) {}

  get sizeBytes(): number {
    return this.bytes.length;
  }

  read(target: ReadTarget, offsetBytes: number, done: ReadDone): "pending" {
    const buffer = target.memory();
    return this.#later((result) => done(result, target), () => {
      buffer.set(this.bytes.subarray(offsetBytes, offsetBytes + buffer.length));
    });
  }
  write(buffer: Uint8Array, offsetBytes: number, done: IoDone): "pending" {
    return this.#later(done, () => this.bytes.set(buffer, offsetBytes));
  }
  zero(offsetBytes: number, lengthBytes: number, done: IoDone): "pending" {
    return this.#later(done, () => this.bytes.fill(0, offsetBytes, offsetBytes + lengthBytes));
  }
  copy(fromBytes: number, toBytes: number, lengthBytes: number, done: IoDone): "pending" {
    return this.#later(done, () => this.bytes.copyWithin(toBytes, fromBytes, fromBytes + lengthBytes));
  }
  flush(done: IoDone): "pending" {
    return this.#later(done, () => {});
  }

  async idle(): Promise<void> {
    while (this.#pending > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }

  close(): void {
    this.isOpen = false;
  }

  #later(done: IoDone, effect: () => void): "pending" {
    this.#pending += 1;
    setTimeout(() => {
      this.#pending -= 1;
      if (!this.isAway) effect();
      done(this.isAway ? away : ioOk);
    }, 0);
    return "pending";
  }
}

/** A pool directory whose devices are remote, with what the files of a new pool hold. */
async function makeRemotePool(directory: string) {
  await makePool({
    directory,
    blockSizeBytes: 1 << 16,
    dataSizeBytes: 4 * MiB,
    metadataSizeBytes: 2 * MiB,
  });
  const remote = async (name: string) => {
    const device = new RemoteDevice(name, await Deno.readFile(`${directory}/${name}`));
    await Deno.remove(`${directory}/${name}`);
    return device;
  };
  const [metadata, data] = [await remote("metadata.img"), await remote("data.img")];
  const kinds: DeviceKinds = {
    kindOf: () => ({
      requireAccess: () => {},
      deviceKeyOf: (path) => path,
      lock: () => ({ [Symbol.dispose]: () => {} }),
      open: (_path, { role }) => {
        const device = role === "data" ? data : metadata;
        device.isOpen = true;
        return device;
      },
    }),
  };
  return { metadata, data, kinds };
}

/** Serves a pool at a socket until it is stopped. */
async function listen(process: PoolProcess, path: string): Promise<() => Promise<void>> {
  const { kernel } = process;
  const socket = await ListeningSocket.open({ transport: "unix", path });
  const peers = { pool: process.pool.address, accepts: [socket], log: () => {} };
  const address = kernel.spawn(
    "nbd listener",
    mailboxes.listener,
    (self) => new NbdListener(kernel, self, peers),
  );
  socket.start(process.sockets, address);
  return async () => void await answerOf(kernel, "stop listening", new NbdListenerStub(address).stop());
}

Deno.test({
  name:
    "a pool whose devices are slow and remote is served as one of files is, and goes on when they come back",
  // The C library stays open.
  sanitizeResources: false,
  fn: async () => {
    const folder = await Deno.makeTempDir({ prefix: "gossamer-remote-" });
    try {
      const directory = `${folder}/pool`;
      const { metadata, data, kinds } = await makeRemotePool(directory);
      const said: string[] = [];
      const process = await PoolProcess.open(directory, { log: (sentence) => said.push(sentence) }, kinds);
      assertEquals((await process.command({ verb: "create", name: "a", sizeBytes: 2 * MiB })).kind, "done");
      const stop = await listen(process, `${folder}/nbd.sock`);
      const client = await RawClient.attach({ path: `${folder}/nbd.sock` }, "a");
      const written = new Uint8Array(200_000).map((_, at) => at % 251);
      await client.write(1000, written);
      await client.flush();
      assertEquals((await process.command({ verb: "snapshot", names: ["a@s"] })).kind, "done");
      await client.write(0, new Uint8Array(1000).fill(7));
      assertEquals(await client.read(1000, written.length), written);
      assertEquals((await client.perform({ type: NBD_CMD_TRIM, lengthBytes: 2 * MiB })).error, 0);
      assertEquals(await client.read(1000, 10), new Uint8Array(10));
      await client.write(0, new Uint8Array(10).fill(8));
      data.isAway = true;
      assertEquals((await client.perform({ type: NBD_CMD_READ, lengthBytes: 10 })).error, NBD_EIO);
      data.isAway = false;
      assertEquals(await client.read(0, 11), new Uint8Array([...new Uint8Array(10).fill(8), 0]));
      await client.disconnect();
      client.close();
      await stop();
      process.noteHostLacks();
      await process.close();
      assertEquals([data.isOpen, metadata.isOpen], [false, false]);
      assertStringIncludes(said.join(" "), "the host does not get their space back");

      const again = await PoolProcess.open(directory, {}, kinds);
      const listed = await again.command({ verb: "list" });
      assertEquals(listed.kind === "volumes" && listed.volumes.map(({ name }) => name), ["a", "a@s"]);
      assertEquals(await again.command({ verb: "check" }), {
        kind: "checked",
        problems: [],
        notes: [],
        waiting: 0,
      });
      await again.close();
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test("a device that was opened for a pool that cannot be opened is closed again", async () => {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-remote-" });
  try {
    const { metadata, data, kinds } = await makeRemotePool(`${folder}/pool`);
    metadata.bytes.fill(0, 0, 4096);
    const message = await PoolProcess.open(`${folder}/pool`, {}, kinds).then(() => "", String);
    assertStringIncludes(message, "superblock");
    assertEquals([data.isOpen, metadata.isOpen], [false, false]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("every path of a pool's settings is a file, also one that looks like an address", () => {
  const kinds = ["data.img", "/dev/loop0", "nbd://host/name", "a:b"].map((path) => deviceKinds.kindOf(path));
  assertEquals(new Set(kinds).size, 1);
});
