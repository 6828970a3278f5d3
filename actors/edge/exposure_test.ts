import { assertEquals } from "@std/assert";
import { exposureOf, isLoopback } from "./exposure.ts";

Deno.test("loopback is 127.0.0.0/8 and ::1, also inside IPv6, and nothing else", () => {
  const inside = ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost"];
  const outside = [
    "0.0.0.0",
    "::",
    "10.0.0.127",
    "128.0.0.1",
    "::ffff:10.0.0.1",
    "fe80::1",
    "127.example.org",
  ];
  assertEquals(inside.filter((hostname) => !isLoopback(hostname)), []);
  assertEquals(outside.filter(isLoopback), []);
});

Deno.test("an address that requires TLS, and a Unix socket, need no word", () => {
  const tcp = { transport: "tcp", hostname: "0.0.0.0", port: 10809 } as const;
  assertEquals(exposureOf(tcp, "require", false), undefined);
  assertEquals(exposureOf({ transport: "unix", path: "n.sock" }, undefined, false), undefined);
  assertEquals(exposureOf(undefined, undefined, false), undefined);
  assertEquals(
    exposureOf(tcp, "allow", true)?.startsWith("Warning: nbd://0.0.0.0:10809 does not require TLS: "),
    true,
  );
});
