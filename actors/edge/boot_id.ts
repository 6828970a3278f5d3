/**
 * The id that Linux has drawn for this boot of the host (Documentation/admin-guide/sysctl/kernel.rst, "random"). Deno
 * refuses to read below /proc without all permissions, so it is read through the C library.
 */
import { fromLibc, libraryName } from "./libc_symbols.ts";

const bootIdPath = "/proc/sys/kernel/random/boot_id";

/** The boot id; undefined without the C library or where the host tells none. */
export function readBootId(): string | undefined {
  const calls = fromLibc(() =>
    Deno.dlopen(libraryName, {
      open: { parameters: ["buffer", "i32"], result: "i32" },
      read: { parameters: ["i32", "buffer", "usize"], result: "i64" },
      close: { parameters: ["i32"], result: "i32" },
    })
  );
  if (calls === undefined) return undefined;
  const { symbols } = calls;
  const closeOnExec = 0o2000000;
  const fd = symbols.open(new TextEncoder().encode(`${bootIdPath}\0`), closeOnExec);
  // 36 characters and a newline.
  const bytes = new Uint8Array(64);
  const count = fd < 0 ? 0 : Number(symbols.read(fd, bytes, BigInt(bytes.length)));
  if (fd >= 0) symbols.close(fd);
  calls.close();
  const text = new TextDecoder().decode(bytes.subarray(0, Math.max(0, count))).trim();
  return /^[0-9a-f-]{36}$/.test(text) ? text : undefined;
}
