/** ReservedNames: of two devices that want to make one name, one is told yes. */
import assert from "node:assert/strict";
import type { Op } from "../index/ops.ts";
import { ReservedNames } from "./reserved_names.ts";

const time = { sec: 1, nsec: 0 };
const create = (name: string): Op => (
  { t: "create", parent: 1, name, ino: 9, mode: 0o100644, uid: 0, gid: 0, rdev: 0, time }
);

Deno.test("a name is one device's until its creation was applied", () => {
  const names = new ReservedNames();
  assert.ok(names.take(1, 1, "lock", 5));
  assert.ok(!names.take(2, 1, "lock", 1));
  assert.ok(names.take(2, 2, "lock", 1), "another folder");
  // An earlier creation of the same name, which the device has removed again since.
  names.applied(1, 4, [create("lock")]);
  assert.ok(!names.take(2, 1, "lock", 1));
  names.applied(2, 7, [create("lock")]);
  assert.ok(!names.take(2, 1, "lock", 1));
  names.applied(1, 6, [create("lock"), { t: "unlink", parent: 1, name: "lock", ino: 9, time }]);
  assert.ok(!names.take(2, 1, "lock", 1), "made and removed before the one that is to come");
  names.applied(1, 6, [create("other"), create("lock")]);
  assert.ok(names.take(2, 1, "lock", 1));
});

Deno.test("a name that is given back, or whose device is gone, is free", () => {
  const names = new ReservedNames();
  names.take(1, 1, "a", 1);
  names.take(1, 1, "b", 1);
  names.give(2, 1, "a");
  assert.ok(!names.take(2, 1, "a", 1));
  names.give(1, 1, "a");
  assert.ok(names.take(2, 1, "a", 1));
  names.left(1);
  assert.ok(names.take(2, 1, "b", 1));
  assert.equal(names.countOf(1), 0);
  assert.equal(names.countOf(2), 2);
});
