/** Times of access: the rule, how they gather, and what becomes of those that can't be sent. */
import assert from "node:assert/strict";
import { S_IFREG, type Stat } from "../fs/stat.ts";
import type { Op } from "../index/ops.ts";
import { blankStat } from "../index/tree.ts";
import type { Clock } from "../platform/clock.ts";
import { splitTime, systemClock } from "../platform/clock.ts";
import { AccessTimes } from "./access_times.ts";

const DAY = 86_400;

function scene(refuse: () => boolean = () => false) {
  const sent: (readonly Op[])[] = [];
  const timers = new Set<() => void>();
  let seconds = 1e9;
  const clock: Clock = {
    ...systemClock,
    now: () => seconds * 1000,
    after: (_ms, callback) => {
      timers.add(callback);
      return () => timers.delete(callback);
    },
  };
  const times = new AccessTimes(clock, () => splitTime(clock.now()), (ops) => {
    if (refuse()) throw new Error("no room");
    sent.push(ops);
  });
  return {
    times,
    sent,
    timers,
    at: (now: number) => void (seconds = now),
    fire: () => {
      const [timer] = timers;
      assert.ok(timer);
      timers.delete(timer);
      timer();
    },
  };
}
const node = (ino: number, atimeSec: number, mtimeSec: number, ctimeSec: number): Stat => ({
  ...blankStat(ino, S_IFREG | 0o644, { sec: 0, nsec: 0 }),
  atimeSec,
  mtimeSec,
  ctimeSec,
});

Deno.test("a read counts after a change of bytes or attributes, or a day after the last one", () => {
  const { times, at } = scene();
  at(1e9);
  for (
    const [atime, mtime, ctime, due] of [
      [1e9 - 9, 1e9 - 9, 1e9 - 20, true],
      [1e9 - 9, 1e9 - 20, 1e9 - 8, true],
      [1e9 - 9, 1e9 - 20, 1e9 - 20, false],
      [1e9 - DAY + 1, 5, 5, false],
      [1e9 - DAY, 5, 5, true],
      // A clock that was wrong once.
      [2e9, 1e9, 1e9, false],
    ] as const
  ) assert.equal(times.isDue(node(7, atime, mtime, ctime)), due, `${atime} ${mtime} ${ctime}`);
});

Deno.test("what was read is shown at once and travels together, in bounded records, once", () => {
  const { times, sent, timers, fire } = scene();
  for (let ino = 1; ino <= 1200; ino++) {
    times.read(node(ino, 1, 2, 2));
    times.read(node(ino, 1, 2, 2));
  }
  assert.equal(times.seen(node(9, 1, 2, 2)).atimeSec, 1e9);
  assert.equal(timers.size, 1);
  times.forget(1);
  fire();
  assert.deepEqual(sent.map((ops) => ops.length), [500, 500, 199]);
  assert.deepEqual(sent[0]?.[0], { t: "atime", ino: 2, atime: { sec: 1e9, nsec: 0 } });
  assert.equal(times.empty, true);
  assert.equal(timers.size, 0);
});

Deno.test("what can't be sent is tried again, and never more is kept than a bound", () => {
  let full = true;
  const { times, sent, fire } = scene(() => full);
  times.read(node(1, 1, 2, 2));
  fire();
  assert.equal(times.empty, false);
  full = false;
  fire();
  assert.equal(sent.length, 1);
  full = true;
  for (let ino = 1; ino <= 10_000; ino++) times.read(node(ino, 1, 2, 2));
  assert.equal(times.empty, true);
});
