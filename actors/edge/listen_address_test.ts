/** How addresses are written, read and printed. */
import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../../storage/base/errors.ts";
import { nbdUrl, parseListenAddress } from "./listen_address.ts";

Deno.test("addresses are read as people write them", () => {
  const tcp = (hostname: string, port: number) => ({ transport: "tcp" as const, hostname, port });
  assertEquals(parseListenAddress("tcp:127.0.0.1:10809"), tcp("127.0.0.1", 10809));
  assertEquals(parseListenAddress("tcp:localhost:0"), tcp("localhost", 0));
  assertEquals(parseListenAddress("tcp:[::1]:65535"), tcp("::1", 65535));
  assertEquals(parseListenAddress("unix:/run/a b:c.sock"), { transport: "unix", path: "/run/a b:c.sock" });
});

for (
  const bad of [
    "",
    "127.0.0.1:10809",
    "tcp:",
    "tcp:10809",
    "tcp::10809",
    "tcp:localhost",
    "tcp:localhost:",
    "tcp:localhost:65536",
    "tcp:localhost:1e3",
    "tcp:::1:10809",
    "tcp:[::1]",
    "unix:",
    "udp:localhost:1",
  ]
) {
  Deno.test(`"${bad}" is no address`, () => {
    assertThrows(() => parseListenAddress(bad), UsageError, "Cannot listen on");
  });
}

Deno.test("the printed URL is one that NBD clients take", () => {
  assertEquals(nbdUrl({ transport: "tcp", hostname: "127.0.0.1", port: 10809 }), "nbd://127.0.0.1:10809");
  assertEquals(nbdUrl({ transport: "tcp", hostname: "::1", port: 7 }), "nbd://[::1]:7");
  assertEquals(
    nbdUrl({ transport: "unix", path: "/run/50% of a&b?.sock" }),
    "nbd+unix:///?socket=/run/50%25%20of%20a%26b%3F.sock",
  );
});
