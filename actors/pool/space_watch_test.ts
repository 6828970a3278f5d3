/** The space watch by itself, with a stand-in for a volume. What becomes of bios is in volume/parked_bios_test.ts. */
import { assertEquals } from "@std/assert";
import type { Message } from "../kernel/address.ts";
import { Recorder } from "../../tests/support/stand_ins.ts";
import { World } from "../../tests/support/world.ts";
import type { RefusalsMessage } from "./refusals.ts";
import {
  type MeasureNow,
  type NoSpacePolicy,
  type ParkingVolume,
  type SpaceModeNotice,
  type SpaceSeen,
  SpaceStub,
  type SpaceWatchMessage,
} from "./space_messages.ts";
import { SpaceWatch } from "./space_watch.ts";

const nothing: SpaceSeen = { data: 0, metadata: 0, host: 0 };

class Bench {
  readonly world = new World();
  readonly volume = new Recorder<ParkingVolume>(this.world.kernel, "volume");
  readonly pool = new Recorder<SpaceModeNotice>(this.world.kernel, "pool");
  readonly gauge = new Recorder<MeasureNow>(this.world.kernel, "gauge");
  readonly stub: SpaceStub;

  constructor(policy: NoSpacePolicy = { kind: "queue", timeoutMs: 1000 }) {
    const { kernel } = this.world;
    const refusals = new Recorder<RefusalsMessage & Message>(kernel, "refusals").address;
    const options = { policy, refusals, hostFreeBytes: () => undefined, hostBytesMin: 1 };
    const address = kernel.spawn("watch", 1000, (self) => new SpaceWatch(kernel, self, options));
    this.stub = new SpaceStub(kernel, address);
    this.tell({ type: "connectSpace", pool: this.pool.address, gauge: this.gauge.address });
  }

  tell(...messages: SpaceWatchMessage[]): void {
    for (const message of messages) this.world.kernel.tell(this.stub.address, message);
    this.world.runReady();
  }

  park(need: "data" | "metadata" | "host", seen = nothing): void {
    this.tell({ type: "bioParked", volume: this.volume.address, need, seen });
  }

  unpark(need: "data" | "metadata" | "host", isServed: boolean): void {
    this.tell({ type: "bioUnparked", volume: this.volume.address, need, bios: 1, isServed });
  }

  /** What the pool was told since the last time. */
  modes(): string[] {
    return this.pool.take().map(({ mode }) => mode);
  }
}

Deno.test("a bio that is parked after the space came that it had not seen is tried again at once", () => {
  const bench = new Bench();
  bench.tell({ type: "spaceCame", need: "data" });
  bench.park("data");
  assertEquals(bench.volume.types, ["retryParked"]);
  bench.volume.take();
  bench.park("data", { data: 1, metadata: 0, host: 0 });
  assertEquals(bench.volume.types, []);
});

for (const type of ["maybeUnshared", "removalEnded"] as const) {
  Deno.test(`a bio that was on its way to be parked at "${type}" is tried again at once`, () => {
    const bench = new Bench();
    if (type === "removalEnded") bench.tell({ type: "removalBegan" });
    bench.tell({ type });
    assertEquals([bench.volume.types, bench.modes()], [[], []]);
    bench.park("data");
    assertEquals(bench.volume.types, ["retryParked"]);
  });
}

Deno.test("what may be no space ends no mode", () => {
  const bench = new Bench();
  bench.park("data");
  bench.unpark("data", false);
  assertEquals(bench.modes(), ["out-of-data-space"]);
  bench.tell({ type: "maybeUnshared" });
  assertEquals(bench.modes(), []);
});

Deno.test("space of one kind wakes no bio that waits for another", () => {
  const bench = new Bench();
  bench.park("metadata");
  bench.tell({ type: "spaceCame", need: "data" });
  assertEquals(bench.volume.types, []);
  bench.tell({ type: "spaceCame", need: "metadata" });
  assertEquals(bench.volume.types, ["retryParked"]);
});

Deno.test("metadata space is the worse lack, and each mode is told once", () => {
  const bench = new Bench();
  bench.park("data");
  bench.park("data");
  bench.park("metadata");
  assertEquals(bench.modes(), ["out-of-data-space", "out-of-metadata-space"]);
  bench.unpark("metadata", true);
  assertEquals(bench.modes(), ["out-of-data-space"]);
  bench.unpark("data", true);
  assertEquals(bench.modes(), []);
  bench.unpark("data", true);
  assertEquals(bench.modes(), ["write"]);
});

Deno.test("bios that were dropped leave the mode as it is, until space comes", () => {
  const bench = new Bench();
  bench.park("data");
  bench.unpark("data", false);
  assertEquals(bench.modes(), ["out-of-data-space"]);
  bench.tell({ type: "spaceCame", need: "data" });
  assertEquals(bench.modes(), ["write"]);
});

Deno.test("while a removal is under way bios wait, whatever the policy, and fail if it brought nothing", () => {
  const bench = new Bench({ kind: "error" });
  bench.tell({ type: "removalBegan" });
  bench.park("data");
  assertEquals(bench.volume.take(), []);
  bench.tell({ type: "removalEnded" });
  assertEquals(bench.volume.take(), [{
    type: "retryParked",
    need: "data",
    seen: { ...nothing, data: 1 },
    isForAll: true,
  }]);
  bench.park("data", { ...nothing, data: 1 });
  bench.unpark("data", false);
  assertEquals(bench.volume.types, ["failParked"]);
});

Deno.test("a timeout that ends during a removal waits for it", () => {
  const bench = new Bench();
  bench.park("data");
  bench.tell({ type: "removalBegan" });
  bench.world.clock.advance(1000);
  bench.world.runReady();
  assertEquals(bench.volume.take(), []);
  bench.tell({ type: "removalEnded" });
  bench.volume.take();
  bench.park("data", { ...nothing, data: 1 });
  assertEquals(bench.volume.types, ["failParked"]);
});

Deno.test("a volume that leaves is told nothing more", () => {
  const bench = new Bench();
  bench.park("data");
  bench.unpark("data", false);
  bench.tell({ type: "leaveParking", volume: bench.volume.address });
  bench.tell({ type: "spaceCame", need: "data" });
  assertEquals(bench.volume.types, ["parkingLeft"]);
});
