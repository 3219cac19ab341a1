/** Times of changes. */
import assert from "node:assert/strict";
import { ChangeTimes, systemClock } from "./clock.ts";

Deno.test("times of changes differ within a millisecond, follow the clock, and never run ahead of it", () => {
  let ms = 1_795_000_000_123.9;
  const times = new ChangeTimes({ ...systemClock, now: () => ms });
  const many = Array.from({ length: 1500 }, () => times.now().nsec);
  assert.deepEqual(many.slice(0, 3), [123_000_000, 123_001_000, 123_002_000]);
  assert.equal(many.at(-1), 123_999_000);
  ms += 1;
  assert.deepEqual(times.now(), { sec: 1_795_000_000, nsec: 124_000_000 });
  ms -= 3_600_000;
  assert.deepEqual(times.now(), { sec: 1_794_996_400, nsec: 124_000_000 });
});
