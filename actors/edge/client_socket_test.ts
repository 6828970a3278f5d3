import { assertEquals } from "@std/assert";
import { present } from "../../storage/base/assert.ts";
import { Kernel } from "../kernel/kernel.ts";
import { loanPieceBytes } from "../limits.ts";
import type { SocketNotice } from "../nbd/socket_port.ts";
import type { ByteStream } from "./byte_stream.ts";
import { ClientSocket } from "./client_socket.ts";
import { DenoClock } from "./deno_clock.ts";
import { SocketGroup } from "./socket_group.ts";

/** A stream whose client takes bytes when the test says so. */
class SlowStream implements ByteStream {
  readonly taken: number[] = [];
  #given: Uint8Array | undefined;
  #resolve: (count: number) => void = () => {};

  read(): Promise<number | null> {
    return new Promise(() => {});
  }

  write(bytes: Uint8Array): Promise<number> {
    this.#given = bytes;
    return new Promise((resolve) => this.#resolve = resolve);
  }

  /** Takes so many bytes at most, and lets the server go on. */
  async take(bytes: number): Promise<void> {
    const given = present(this.#given, "nothing is being sent");
    const count = Math.min(bytes, given.length);
    for (let at = 0; at < count; at += 1024) this.taken.push(given[at]!);
    this.#given = undefined;
    this.#resolve(count);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }

  /** The memory that the system would have. */
  get given(): Uint8Array | undefined {
    return this.#given;
  }

  close(): void {}
}

Deno.test("a send gives its memory back while the client takes the rest, but for what the system has", async () => {
  const clock = new DenoClock();
  const kernel = new Kernel({ clock });
  const notices: SocketNotice[] = [];
  const owner = kernel.spawn<SocketNotice>(
    "owner",
    10,
    () => ({ receive: (notice) => void notices.push(notice) }),
  );
  const stream = new SlowStream();
  const socket = new ClientSocket(
    new SocketGroup(kernel),
    stream,
    { peer: "a client", identity: undefined },
    undefined,
    () => {},
  );
  socket.open(owner);
  const lengthBytes = 5 * loanPieceBytes;
  const payload = new Uint8Array(lengthBytes).map((_, at) => at >> 10);
  const expected = Array.from({ length: lengthBytes / 1024 }, (_, at) => at & 0xff);
  socket.send([payload]);
  assertEquals([socket.shrink(), stream.given?.buffer === payload.buffer], [false, true]);
  await stream.take(loanPieceBytes + 1024);
  assertEquals([socket.shrink(), stream.given?.buffer === payload.buffer], [true, false]);
  assertEquals(socket.sendingBytes, lengthBytes - loanPieceBytes - 1024);
  payload.fill(0xee);
  while (socket.sendingBytes > 0) await stream.take(3 * 1024);
  assertEquals([stream.taken, socket.sentBytes], [expected, lengthBytes]);
  assertEquals(notices.map(({ type }) => type), ["sent"]);
  // The next one is another's memory again.
  const next = new Uint8Array(10);
  socket.send([next]);
  assertEquals([stream.given?.buffer === next.buffer, socket.shrink()], [true, false]);
  socket.close();
  clock.close();
});
