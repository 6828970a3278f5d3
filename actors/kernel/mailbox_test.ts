import { assertEquals, assertThrows } from "@std/assert";
import { Defect } from "../../storage/base/assert.ts";
import { Mailbox } from "./mailbox.ts";

const letter = (count: number) => ({ type: `letter ${count}` });

Deno.test("a mailbox keeps its order while its ring wraps and grows", () => {
  const mailbox = new Mailbox(1000);
  let sent = 0;
  let taken = 0;
  for (let round = 1; round <= 40; round += 1) {
    for (let count = 0; count < round; count += 1) mailbox.push(letter(sent++));
    for (let count = 0; count < round - 1; count += 1) assertEquals(mailbox.shift(), letter(taken++));
  }
  assertEquals(mailbox.length, sent - taken);
  while (mailbox.length > 0) assertEquals(mailbox.shift(), letter(taken++));
  assertEquals(taken, sent);
});

Deno.test("a mailbox takes as many messages as its bound and not one more", () => {
  const mailbox = new Mailbox(3);
  for (let count = 0; count < 3; count += 1) mailbox.push(letter(count));
  assertThrows(() => mailbox.push(letter(3)), Defect, "a mailbox overflowed its bound");
  mailbox.shift();
  mailbox.push(letter(3));
  assertEquals(mailbox.length, 3);
});

Deno.test("a mailbox remembers the most that ever waited in it", () => {
  const mailbox = new Mailbox(10);
  mailbox.push(letter(0));
  mailbox.push(letter(1));
  mailbox.shift();
  mailbox.shift();
  mailbox.push(letter(2));
  assertEquals(mailbox.highWater, 2);
});

Deno.test("taking from an empty mailbox is a defect", () => {
  assertThrows(() => new Mailbox(1).shift(), Defect, "empty mailbox");
});
