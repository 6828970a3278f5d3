/** What is owed to devices with a reserve while a walk counts what they map alone. The rest: actors/control/volume_allowances_test.ts. */
import { assertEquals, assertThrows } from "@std/assert";
import { Defect } from "./base/assert.ts";
import { thinId } from "./base/ids.ts";
import { DeviceAllowances } from "./device_allowances.ts";
import { MetadataFault } from "./metadata_fault.ts";

const one = thinId(1);
const two = thinId(2);

/** A data device of 100 blocks, and the allowances on it: blocks have one byte. */
function allowancesOn(reserveBytes: number | undefined, quotaBytes?: number) {
  const data = { blocks: 100, allocated: 0 };
  const allowances = new DeviceAllowances(1, data);
  allowances.set([{ thin: one, quotaBytes, reserveBytes }]);
  const change = (blocks: number) => {
    const { allocated } = data;
    data.allocated += blocks;
    allowances.noteChange(one, allocated);
  };
  return { data, allowances, change };
}

Deno.test("what a device gives back while a walk counts is taken off the count, and what it takes does not raise it", () => {
  const { allowances, change } = allowancesOn(50);
  allowances.beginCount([one]);
  change(10);
  change(-4);
  allowances.endCount([{ thin: one, blocks: 20 }]);
  assertEquals(allowances.owedBlocks, 50 - 16);
  change(-1);
  assertEquals(allowances.owedBlocks, 50 - 15);
});

Deno.test("a count during which the device was snapshotted counts nothing", () => {
  const { allowances } = allowancesOn(50);
  allowances.beginCount([one]);
  allowances.noteDevices([{ origin: one }], []);
  allowances.endCount([{ thin: one, blocks: 20 }]);
  assertEquals(allowances.owedBlocks, 50);
});

Deno.test("a count that is cancelled, or whose reserve is refused, leaves no allowance of the device", () => {
  const allowances = new DeviceAllowances(1, { blocks: 100, allocated: 0 });
  allowances.beginCount([one]);
  allowances.cancelCount([one]);
  assertEquals(allowances.isEmpty, true);
  allowances.beginCount([one]);
  allowances.endCount([{ thin: one, blocks: 20 }]);
  assertThrows(() => allowances.admitChange([], [{ thin: one, quotaBytes: undefined, reserveBytes: 121 }]));
  allowances.dropUnused([one]);
  assertEquals(allowances.isEmpty, true);
});

Deno.test("a count goes on when another of the same device is cancelled, and what it counted stays for the reserve", () => {
  const allowances = new DeviceAllowances(1, { blocks: 100, allocated: 0 });
  allowances.beginCount([one]);
  allowances.beginCount([one]);
  allowances.cancelCount([one]);
  allowances.endCount([{ thin: one, blocks: 20 }]);
  allowances.set([{ thin: one, quotaBytes: undefined, reserveBytes: 50 }]);
  allowances.dropUnused([one]);
  assertEquals(allowances.owedBlocks, 30);
});

Deno.test("a count during which the reserve ended and was set anew counts nothing", () => {
  const { allowances } = allowancesOn(50);
  allowances.beginCount([one]);
  allowances.set([{ thin: one, quotaBytes: undefined, reserveBytes: undefined }]);
  allowances.set([{ thin: one, quotaBytes: undefined, reserveBytes: 50 }]);
  allowances.endCount([{ thin: one, blocks: 20 }]);
  assertEquals(allowances.owedBlocks, 50);
});

Deno.test("a count that did not begin, or has ended, is a defect", () => {
  const { allowances } = allowancesOn(50);
  allowances.beginCount([one]);
  allowances.endCount([{ thin: one, blocks: 20 }]);
  assertThrows(() => allowances.endCount([{ thin: one, blocks: 20 }]), Defect);
  assertThrows(() => allowances.cancelCount([two]), Defect);
});

Deno.test("what is reserved and cannot be written does not count as free", () => {
  const { data, allowances } = allowancesOn(50);
  data.allocated = 49;
  assertEquals(allowances.refusalOf(two, 0, true), undefined);
  allowances.retiredBlocks = 1;
  assertEquals([allowances.refusalOf(two, 0, true), allowances.refusalOf(one, 0, true)], [
    "reserved",
    undefined,
  ]);
});

Deno.test("a device with more blocks than a lowered quota keeps them and gets no new one", () => {
  const { allowances } = allowancesOn(undefined, 5);
  assertEquals([allowances.refusalOf(one, 7, true), allowances.refusalOf(one, 7, false)], [
    "quotaExceeded",
    undefined,
  ]);
  // To break sharing maps nothing new.
  allowances.admitInsert(one, 7, false, 0);
  assertThrows(() => allowances.admitInsert(one, 7, true, 0), MetadataFault);
});
