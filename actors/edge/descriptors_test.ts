import { assert } from "@std/assert";
import { areSparesComplete, SpareDescriptors } from "./descriptors.ts";

Deno.test("a set of spare descriptors whose directory was moved keeps nothing from being accepted", async () => {
  const directory = await Deno.makeTempDir();
  using spares = new SpareDescriptors(directory, 4);
  assert(spares.release());
  await Deno.remove(directory);
  assert(areSparesComplete());
});
