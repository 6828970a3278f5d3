import { assert } from "@std/assert";
import { DescriptorReserve, isReserveFull } from "./descriptors.ts";

Deno.test("a reserve whose directory was moved keeps nothing from being accepted", async () => {
  const directory = await Deno.makeTempDir();
  using reserve = new DescriptorReserve(directory, 4);
  assert(reserve.release());
  await Deno.remove(directory);
  assert(isReserveFull());
});
