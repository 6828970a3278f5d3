/** Where bytes lie in the memory of this process, for system calls. */

/** Of each buffer that was asked for: V8 does not move its memory while it is referenced. */
const addresses = new WeakMap<ArrayBufferLike, number>();

/** The address of the first byte. Reading `.buffer` moves the bytes of a short array out of the heap, where they could be moved. */
export function addressOf(bytes: Uint8Array): number {
  const { buffer, byteOffset } = bytes;
  let address = addresses.get(buffer);
  if (address === undefined) {
    const whole = new Uint8Array(buffer as ArrayBuffer);
    address = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(whole)));
    addresses.set(buffer, address);
  }
  return address + byteOffset;
}
