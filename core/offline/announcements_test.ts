/** Announcements: what others are told to wait for, and that each ends. */
import assert from "node:assert/strict";
import { Announcements } from "./announcements.ts";

/** Announcements, and what is announced by what they have told. */
function scene() {
  const standing = new Set<number>();
  const announcements = new Announcements<{ name: string }>((ino, pending) => {
    if (pending) standing.add(ino);
    else standing.delete(ino);
    return Promise.resolve();
  });
  return { announcements, standing };
}

Deno.test("a file is waited for until the last of its records ends", async () => {
  const { announcements, standing } = scene();
  const [first, second] = [{ name: "first" }, { name: "second" }];
  await announcements.add(7, first);
  await announcements.add(7, second);
  announcements.end(first);
  assert.deepEqual([...standing], [7]);
  announcements.end(second);
  assert.deepEqual([...standing], []);
  assert.equal(announcements.size, 0);
});

Deno.test("a record that became another file's is waited for there, and nowhere else", async () => {
  const { announcements, standing } = scene();
  const record = { name: "moved by a conflict" };
  await announcements.add(7, record);
  await announcements.add(8, record);
  assert.deepEqual([...standing], [8]);
  announcements.end(record);
  assert.deepEqual([...standing], []);
  await announcements.again();
  assert.deepEqual([...standing], []);
});
