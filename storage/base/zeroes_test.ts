import { assertEquals } from "@std/assert";
import { isZeroes } from "./zeroes.ts";

Deno.test("bytes are zeroes at any place and length, and one byte that is not is found wherever it is", () => {
  const buffer = new Uint8Array(300);
  for (const begin of [0, 1, 2, 3, 4, 7]) {
    for (const length of [0, 1, 2, 3, 4, 5, 63, 64, 65, 128, 200, 211]) {
      // What lies around them does not matter.
      buffer.fill(1);
      const bytes = buffer.subarray(begin, begin + length).fill(0);
      assertEquals(isZeroes(bytes), true, `${begin}, ${length}`);
      for (let at = 0; at < length; at += 1) {
        bytes[at] = 0x80;
        assertEquals(isZeroes(bytes), false, `${begin}, ${length}, ${at}`);
        bytes[at] = 0;
      }
    }
  }
});
