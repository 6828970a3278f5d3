/** What is owed to devices with a reserve while a walk counts what they map alone. The rest: actors/control/volume_limits_test.ts. */
import { assertEquals, assertThrows } from "@std/assert";
import { Defect } from "./base/assert.ts";
import { thinId } from "./base/ids.ts";
import { DeviceLimits } from "./device_limits.ts";
import { MetadataFault } from "./metadata_fault.ts";

const one = thinId(1);
const two = thinId(2);

/** A data device of 100 blocks, and the limits on it: blocks have one byte. */
function limitsOn(reserveBytes: number | undefined, quotaBytes?: number) {
  const data = { blocks: 100, allocated: 0 };
  const limits = new DeviceLimits(1, data);
  limits.set([{ thin: one, quotaBytes, reserveBytes }]);
  const change = (blocks: number) => {
    const { allocated } = data;
    data.allocated += blocks;
    limits.noteChange(one, allocated);
  };
  return { data, limits, change };
}

Deno.test("what a device gives back while a walk counts is taken off the count, and what it takes does not raise it", () => {
  const { limits, change } = limitsOn(50);
  limits.beginCount([one]);
  change(10);
  change(-4);
  limits.endCount([{ thin: one, blocks: 20 }]);
  assertEquals(limits.owedBlocks, 50 - 16);
  change(-1);
  assertEquals(limits.owedBlocks, 50 - 15);
});

Deno.test("a count during which the device was snapshotted counts nothing", () => {
  const { limits } = limitsOn(50);
  limits.beginCount([one]);
  limits.noteDevices([{ origin: one }], []);
  limits.endCount([{ thin: one, blocks: 20 }]);
  assertEquals(limits.owedBlocks, 50);
});

Deno.test("a count that is cancelled, or whose reserve is refused, leaves no limit of the device", () => {
  const limits = new DeviceLimits(1, { blocks: 100, allocated: 0 });
  limits.beginCount([one]);
  limits.cancelCount([one]);
  assertEquals(limits.isEmpty, true);
  limits.beginCount([one]);
  limits.endCount([{ thin: one, blocks: 20 }]);
  assertThrows(() => limits.admitChange([], [{ thin: one, quotaBytes: undefined, reserveBytes: 121 }]));
  limits.dropUnlimited([one]);
  assertEquals(limits.isEmpty, true);
});

Deno.test("a count goes on when another of the same device is cancelled, and what it counted stays for the reserve", () => {
  const limits = new DeviceLimits(1, { blocks: 100, allocated: 0 });
  limits.beginCount([one]);
  limits.beginCount([one]);
  limits.cancelCount([one]);
  limits.endCount([{ thin: one, blocks: 20 }]);
  limits.set([{ thin: one, quotaBytes: undefined, reserveBytes: 50 }]);
  limits.dropUnlimited([one]);
  assertEquals(limits.owedBlocks, 30);
});

Deno.test("a count during which the reserve ended and was set anew counts nothing", () => {
  const { limits } = limitsOn(50);
  limits.beginCount([one]);
  limits.set([{ thin: one, quotaBytes: undefined, reserveBytes: undefined }]);
  limits.set([{ thin: one, quotaBytes: undefined, reserveBytes: 50 }]);
  limits.endCount([{ thin: one, blocks: 20 }]);
  assertEquals(limits.owedBlocks, 50);
});

Deno.test("a count that did not begin, or has ended, is a defect", () => {
  const { limits } = limitsOn(50);
  limits.beginCount([one]);
  limits.endCount([{ thin: one, blocks: 20 }]);
  assertThrows(() => limits.endCount([{ thin: one, blocks: 20 }]), Defect);
  assertThrows(() => limits.cancelCount([two]), Defect);
});

Deno.test("what is reserved and cannot be written does not count as free", () => {
  const { data, limits } = limitsOn(50);
  data.allocated = 49;
  assertEquals(limits.refusalOf(two, 0, true), undefined);
  limits.retiredBlocks = 1;
  assertEquals([limits.refusalOf(two, 0, true), limits.refusalOf(one, 0, true)], ["reserved", undefined]);
});

Deno.test("a device with more blocks than a lowered quota keeps them and gets no new one", () => {
  const { limits } = limitsOn(undefined, 5);
  assertEquals([limits.refusalOf(one, 7, true), limits.refusalOf(one, 7, false)], [
    "quotaExceeded",
    undefined,
  ]);
  // To break sharing maps nothing new.
  limits.admitInsert(one, 7, false, 0);
  assertThrows(() => limits.admitInsert(one, 7, true, 0), MetadataFault);
});
