/**
 * The boundary between the kernel and the outside (actors/kernel/boundary.ts): each adapter is run with an outside that
 * fails at every one of its calls in turn. Each time the kernel goes on, what was asked gets its answer, and nothing is
 * left to reject where nothing hears it (which would fail the test).
 */
import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { BlockDevice } from "../../actors/pool/block_device.ts";
import { type BlockDeviceMessage, DeviceStub } from "../../actors/pool/device_messages.ts";
import { AcceptLoop } from "../../actors/edge/accept_loop.ts";
import type { ByteStream } from "../../actors/edge/byte_stream.ts";
import { ClientSocket } from "../../actors/edge/client_socket.ts";
import { type CommandHandler, ControlServer } from "../../actors/edge/control_server.ts";
import { DenoClock } from "../../actors/edge/deno_clock.ts";
import type { DirectSocket } from "../../actors/edge/direct_socket.ts";
import { TextWriter } from "../../actors/edge/text_writer.ts";
import { secureStream } from "../../actors/edge/tls.ts";
import type { Address } from "../../actors/kernel/address.ts";
import { Kernel } from "../../actors/kernel/kernel.ts";
import type { TextTaken } from "../../actors/control/admin_command.ts";
import type { SocketNotice } from "../../actors/nbd/socket_port.ts";
import { sendText, TextOut, type TextOutMessage, type TextPort } from "../../actors/control/text_out.ts";
import { Defect } from "../../storage/base/assert.ts";
import { type DevicePort, ioOk, type LocalStorage } from "../../storage/device/port.ts";
import { present } from "../../storage/base/assert.ts";
import { CounterSums } from "../../actors/counters.ts";
import { kernelOf, useDevice } from "./outside.ts";
import { atEveryCall, faultReason, type Faults } from "../support/faults.ts";
import { SocketGroup } from "../../actors/edge/socket_group.ts";

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** What the socket of these tests is: some bytes come, what is sent is taken a part at a time, then it is over. */
class ShortStream implements ByteStream {
  #reads = 0;

  async read(buffer: Uint8Array): Promise<number | null> {
    await pause(0);
    this.#reads += 1;
    if (this.#reads > 2) return null;
    buffer[0] = 7;
    return 1;
  }

  async write(bytes: Uint8Array): Promise<number> {
    await pause(0);
    return Math.ceil(bytes.length / 2);
  }

  async close(): Promise<void> {
    await pause(0);
  }
}

/** The system's calls on the same. */
const shortDirect = {
  receive: () => 1,
  waitFor: () => true,
  send: (pieces: readonly Uint8Array[], beginBytes: number) => pieces[0]!.length - beginBytes,
  close: () => {},
};

/** A connection that reads, sends, reads to the end, and closes; it hears what its socket has to say. */
async function converse(stream: ByteStream, direct: DirectSocket | undefined): Promise<SocketNotice[]> {
  const clock = new DenoClock();
  const defects: unknown[] = [];
  const kernel = new Kernel({ clock, onDefect: (defect) => defects.push(defect) });
  const notices: SocketNotice[] = [];
  const peer = { name: "a client", place: "unix" };
  const socket = new ClientSocket(
    new SocketGroup(kernel),
    stream,
    peer as never,
    undefined,
    () => {},
    direct,
  );
  const buffer = new Uint8Array(16);
  const steps = [
    () => socket.read(buffer, true),
    () => socket.send([new Uint8Array(8)]),
    () => socket.readRest(buffer),
    () => socket.read(buffer, false),
    () => socket.close(),
  ];
  const over = Promise.withResolvers<void>();
  const owner: Address<SocketNotice> = kernel.spawn("owner", 8, () => ({
    receive: (notice: SocketNotice) => {
      notices.push(notice);
      if (notice.type === "closed") return over.resolve();
      present(steps.shift(), "the socket goes on after its last step")();
    },
  }));
  socket.open(owner);
  steps.shift()!();
  await over.promise;
  await pause(5);
  clock.close();
  assertEquals(defects, []);
  return notices;
}

Deno.test("a client's socket says closed, once, at whichever call its stream fails", async () => {
  const runs = await atEveryCall(["throws", "rejects"], async (faults, what) => {
    const notices = await converse(faults.of(new ShortStream()), undefined);
    assertEquals(notices.filter((notice) => notice.type === "closed").length, 1, what);
    assertEquals(notices.at(-1)!.type, "closed", what);
  });
  assert(runs > 20);
});

Deno.test("a client's socket says closed, once, at whichever of the system's calls fails", async () => {
  const runs = await atEveryCall(["throws"], async (faults, what) => {
    const direct = faults.of(shortDirect, ["receive", "waitFor", "send"]) as unknown as DirectSocket;
    const notices = await converse(new ShortStream(), direct);
    assertEquals(notices.filter((notice) => notice.type === "closed").length, 1, what);
  });
  assert(runs > 4);
});

Deno.test("a TLS handshake ends with a reason, at whichever call what carries it fails", async () => {
  await atEveryCall(["throws", "rejects"], async (faults) => {
    const keys = { policy: "require", key: "", certificate: "", verifyPeer: false } as never;
    await secureStream(faults.of(new ShortStream()), keys).then(
      () => {},
      (error) => assertInstanceOf(error, Error),
    );
    await pause(2);
  });
});

Deno.test("accepting goes on, and ends when it is stopped, at whichever call the listener or what takes a connection fails", async () => {
  const runs = await atEveryCall(["throws"], async (faults) => {
    const closed = Promise.withResolvers<never>();
    closed.promise.catch(() => {});
    let left = 3;
    const listener = {
      accept: () => left-- > 0 ? Promise.resolve(faults.of({ close: () => {} })) : closed.promise,
      close: () => {},
    };
    const outside = faults.of(listener);
    const loop = new AcceptLoop(
      { accept: () => outside.accept(), close: () => (closed.reject(new Error("closed")), outside.close()) },
      "clients",
      () => {},
      () => void faults.call(() => {}),
    );
    await pause(5);
    loop.stop();
    await loop.ended;
  });
  assert(runs > 8);
});

/** The control server's outside: one client, whose connection fails at one of its calls. */
async function serveOne(faults: Faults, request: string): Promise<void> {
  const closed = Promise.withResolvers<never>();
  closed.promise.catch(() => {});
  const served = Promise.withResolvers<void>();
  let isRead = false;
  const conn = {
    read: async (buffer: Uint8Array) => {
      await null;
      if (isRead) return null;
      isRead = true;
      return new TextEncoder().encodeInto(request, buffer).written;
    },
    write: async (bytes: Uint8Array) => {
      await null;
      return Math.min(bytes.length, 50);
    },
    closeWrite: () => Promise.resolve(),
    close: () => {},
  };
  const faulty = faults.of(conn);
  const outside = {
    read: (buffer: Uint8Array) => faulty.read(buffer),
    write: (bytes: Uint8Array) => faulty.write(bytes),
    closeWrite: () => faulty.closeWrite(),
    close: () => {
      served.resolve();
      return faulty.close();
    },
  };
  let accepts = 0;
  const listener = {
    accept: () => {
      accepts += 1;
      return accepts === 1 ? Promise.resolve(outside) : closed.promise;
    },
    close: () => closed.reject(new Error("closed")),
  };
  const handler: CommandHandler = {
    log: () => {},
    command: () => Promise.resolve({ kind: "done" }),
    dump: async (write) => {
      for (let count = 0; count < 3; count += 1) {
        if (await write("a piece") === "gone") return { kind: "refused", reason: "It broke off." };
      }
      return { kind: "done" };
    },
    hold: () => Promise.resolve({ kind: "done" }),
    release: () => Promise.resolve({ kind: "done" }),
  };
  const server = new ControlServer(listener, handler, {
    requestMs: 2000,
    answerMs: 2000,
    dumpPieceMs: 2000,
    farewellMs: 20,
  });
  const beginMs = performance.now();
  await served.promise;
  assert(performance.now() < beginMs + 1000, "it is closed because of the fault, not because its time is up");
  await server.close();
}

Deno.test("the control server ends with each client, at whichever call its connection fails", async () => {
  for (const body of ['{"verb":"status"}', '{"verb":"dump"}', "garbage"]) {
    const request = `POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    const runs = await atEveryCall(["throws", "rejects"], (faults) => serveOne(faults, request));
    assert(runs > 12);
  }
});

/** A port that answers at once where that is allowed. */
const easyPort: DevicePort = {
  sizeBytes: 1 << 20,
  local: undefined,
  read: () => ioOk,
  write: () => ioOk,
  zero: () => ioOk,
  copy: () => ioOk,
  flush: () => ioOk,
};

/** What it can do as a local device. */
const easyLocal: LocalStorage = { canDiscard: true, discard: () => ioOk, isHole: () => false };

Deno.test("what a device's port throws is the answer, unless it is a broken invariant of ours", async () => {
  await atEveryCall(["throws"], async (faults, what) => {
    const answers = await useDevice(faults.of({ ...easyPort, local: faults.of(easyLocal) }));
    assertEquals(answers.length, 7, what);
    for (const answer of answers) {
      if (answer.kind !== "ioError") continue;
      assert(answer.reason.endsWith(faultReason), answer.reason);
    }
  });
  const { kernel, defects } = kernelOf();
  const broken: DevicePort = {
    ...easyPort,
    flush: () => {
      throw new Defect("ours");
    },
  };
  const address = kernel.spawn<BlockDeviceMessage>(
    "device",
    64,
    (self) => new BlockDevice(kernel, self, broken),
  );
  kernel.start("use", new DeviceStub(address, true).flush());
  kernel.run();
  assertEquals(defects.length, 1);
  assertInstanceOf(defects[0], Defect);
});

/** Writes two pieces and tells what became of them. */
async function writeTwo(port: TextPort): Promise<readonly TextTaken[]> {
  const { kernel, defects } = kernelOf();
  const out = kernel.spawn<TextOutMessage>("out", 8, (self) => new TextOut(kernel, self, port));
  const taken: TextTaken[] = [];
  const ended = Promise.withResolvers<void>();
  kernel.start(
    "dump",
    (function* () {
      taken.push(yield* sendText(out, "one"));
      taken.push(yield* sendText(out, "two"));
      ended.resolve();
    })(),
  );
  kernel.run();
  await ended.promise;
  assertEquals(defects, []);
  return taken;
}

Deno.test("a text whose writer throws or rejects is gone, and its caller is told what was thrown", async () => {
  const outside = { write: (_text: string): Promise<TextTaken> => Promise.resolve("taken") };
  await atEveryCall(["throws", "rejects"], async (faults, what) => {
    const writer = new TextWriter(faults.of(outside).write);
    const taken = await writeTwo(writer);
    if (!taken.includes("gone")) return writer.throwFailure();
    try {
      writer.throwFailure();
    } catch (error) {
      assertEquals((error as Error).message, faultReason, what);
      return;
    }
    throw new Error(`${what}: nothing was thrown`);
  });
  const throws: TextPort = {
    write: () => {
      throw new Error(faultReason);
    },
  };
  assertEquals(await writeTwo(throws), ["gone", "gone"]);
});

Deno.test("the clock brings the event loop's turn also where no thread can be had", async () => {
  const real = crypto.subtle.digest;
  await atEveryCall(["throws", "rejects"], async (faults) => {
    crypto.subtle.digest = (...args: Parameters<typeof real>) =>
      faults.call(() => real.apply(crypto.subtle, args));
    const clock = new DenoClock();
    try {
      for (let count = 0; count < 2; count += 1) await new Promise<void>((resolve) => clock.yield(resolve));
    } finally {
      crypto.subtle.digest = real;
      clock.close();
    }
  });
});

Deno.test("a message from outside that comes after its actor has ended is dropped and counted", () => {
  const sums = new CounterSums();
  const { kernel, defects } = kernelOf(undefined, sums);
  const received: string[] = [];
  const actor = (name: string) => () => ({ receive: () => void received.push(name) });
  const old = kernel.spawn("old", 8, actor("old"));
  kernel.retire(old);
  kernel.post(old, { type: "late" });
  const young = kernel.spawn("young", 8, actor("young"));
  kernel.post(old, { type: "late" });
  kernel.post(young, { type: "in time" });
  assertEquals([received, sums.of("postsDropped"), defects], [["young"], 2, []]);
});
