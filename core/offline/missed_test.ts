/** What was passed over is asked about once, again when that fails, and by the next run when this one ends before. */
import assert from "node:assert/strict";
import { FsError } from "../fs/error.ts";
import { Missed } from "./missed.ts";

Deno.test("what is being asked about is told to the next run, what was answered is not", async () => {
  const missed = new Missed(null);
  assert.equal(missed.text(), null);
  for (const ino of [5, 6, 7]) missed.addNode(ino);
  missed.addEntry(1, 'a "name"\n/');
  missed.addEntry(2, "b");
  const question = Promise.withResolvers<boolean>();
  const asking = [missed.askNode(5, () => question.promise), missed.askEntry("2/b", () => question.promise)];
  assert.deepEqual([[...missed.nodes], [...missed.entries.keys()]], [[6, 7], ['1/a "name"\n/']]);
  const text = missed.text();
  assert.equal(missed.text(), null);
  const next = new Missed(text);
  assert.deepEqual([[...next.nodes].sort(), [...next.entries.values()]], [[5, 6, 7], [
    { parent: 1, name: 'a "name"\n/' },
    { parent: 2, name: "b" },
  ]]);
  question.resolve(false);
  await Promise.all(asking);
  await assert.rejects(missed.askNode(6, () => Promise.reject(new Error("cut off"))), /cut off/);
  await missed.askNode(7, () => Promise.resolve(false));
  assert.deepEqual([...new Missed(missed.text()).nodes], [6]);
  // Out of date when it came: to be asked again, also by the next run.
  assert.equal(await missed.askNode(6, () => Promise.resolve(true)), true);
  assert.equal(await missed.askEntry('1/a "name"\n/', () => Promise.resolve(true)), true);
  assert.deepEqual([[...missed.nodes], [...missed.entries.keys()]], [[6], ['1/a "name"\n/']]);
  const again = new Missed(missed.text());
  assert.deepEqual([[...again.nodes], [...again.entries.keys()]], [[6], ['1/a "name"\n/']]);
  assert.throws(() => new Missed("{"), (error) => error instanceof FsError && error.code === "corrupt");
});

Deno.test("of many, what was answered is not written down each time", async () => {
  const missed = new Missed(null);
  for (let ino = 1; ino <= 4000; ino++) missed.addNode(ino);
  assert.ok(missed.text() !== null);
  let told = 0;
  for (let ino = 1; ino <= 4000; ino++) {
    await missed.askNode(ino, () => Promise.resolve(false));
    if (missed.text() !== null) told++;
  }
  assert.ok(told >= 1000 && told <= 1003, `${told} times`);
  missed.addNode(5);
  assert.deepEqual([...new Missed(missed.text()).nodes], [5]);
});
