/** Latch: who waits before it opens, and who comes later. */
import assert from "node:assert/strict";
import { Latch } from "./latch.ts";

Deno.test("a latch lets all pass when it opens, and everybody afterwards", async () => {
  const latch = new Latch();
  let passed = 0;
  const waiting = [latch.opened, latch.opened].map((opened) => opened.then(() => passed++));
  await Promise.resolve();
  assert.equal(passed, 0);
  latch.open();
  latch.open();
  await Promise.all(waiting);
  assert.equal(passed, 2);
  await latch.opened;
});
