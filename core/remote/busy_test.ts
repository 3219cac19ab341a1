/** BusyTable: who is waited for, and until when. */
import assert from "node:assert/strict";
import { handClock } from "../../tests/support/hand_clock.ts";
import { BusyTable } from "./busy.ts";

/** A table, its clock and what it told. */
function table() {
  const clock = handClock();
  const told: [ino: number, pending: boolean][] = [];
  return { clock, told, busy: new BusyTable(clock, (ino, pending) => told.push([ino, pending])) };
}
const GRACE_MS = 3000;

Deno.test("what a client held before it lost its connection is waited for until it is back and does not say so again", async () => {
  const { clock, told, busy } = table();
  for (const ino of [7, 8, 9]) busy.announce(1, ino, true);
  busy.left(1);
  await clock.move(1000);
  busy.arrived(1);
  busy.announce(1, 7, true);
  busy.announce(1, 8, false);
  assert.deepEqual([7, 8, 9].map((ino) => busy.isBusy(ino, 2)), [true, false, true]);
  await clock.move(GRACE_MS);
  assert.deepEqual([7, 8, 9].map((ino) => busy.isBusy(ino, 2)), [true, false, false]);
  assert.equal(busy.countOf(1), 1);
  assert.deepEqual(told.slice(3), [[8, false], [9, false]]);
});

Deno.test("a connection that comes and goes does not make others wait for longer", async () => {
  const { clock, busy } = table();
  busy.announce(1, 7, true);
  for (let i = 0; i < 4; i++) {
    busy.left(1);
    await clock.move(GRACE_MS / 4);
    busy.arrived(1);
  }
  assert.ok(!busy.isBusy(7, 2));
  busy.announce(1, 7, true);
  busy.left(1);
  await clock.move(GRACE_MS - 1);
  assert.ok(busy.isBusy(7, 2), "a new one has its whole time");
  await clock.move(1);
  assert.ok(!busy.isBusy(7, 2));
});

Deno.test("a connection that takes over from another one of the device has to say what it holds", async () => {
  const { clock, busy } = table();
  for (const ino of [7, 8]) busy.announce(1, ino, true);
  busy.arrived(1);
  busy.announce(1, 8, true);
  const delivered = busy.wait(7, 2, 20_000, new AbortController().signal);
  await clock.move(GRACE_MS);
  assert.equal(await delivered, true);
  assert.ok(busy.isBusy(8, 2));
});
