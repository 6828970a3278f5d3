/**
 * A process that a test kills: it locks a file, has the ring hold the lock, and writes the file over and over with many operations
 * under way. Argument: the file.
 */
import fs from "node:fs";
import { addressOf } from "../../actors/edge/memory_address.ts";
import { openLocked } from "../../actors/edge/file_lock.ts";
import { operation, Uring } from "../../actors/edge/ring/uring.ts";

const [path] = Deno.args as [string];
const writeBytes = 2 << 20;
const underWay = 64;
const pageBytes = 4096;

const lock = openLocked(path, true, "the test's own lock");
const ring = Uring.open();
if (typeof ring === "string") throw new Error(ring);
ring.holdFiles([lock.fd!]);
// Past the page cache: no thread of the process waits for the disk, and so keeps the lock.
const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_DIRECT);
let writes = 0;

function write(place: number): void {
  writes += 1;
  const buffer = new Uint8Array(writeBytes + pageBytes).fill(writes);
  const address = Math.ceil(addressOf(buffer) / pageBytes) * pageBytes;
  const at = { address, lengthBytes: writeBytes, offset: place * writeBytes };
  const submission = { operation: operation.write, fd, ...at };
  (ring as Uring).push(submission, (count) => count === writeBytes ? write(place) : Deno.exit(1), buffer);
}

for (let place = 0; place < underWay; place += 1) write(place);
ring.enter();
console.log("writing");
for (;;) {
  ring.enter(1000);
  ring.reap();
}
