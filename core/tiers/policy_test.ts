/** The small rules of the tiers: waiting times, scores, circuits, time limits, bandwidth, room on the disk. */
import assert from "node:assert/strict";
import { FsError, hasCode } from "../fs/error.ts";
import { MemoryObjectStore } from "../../backends/memory/object_store.ts";
import type { PackInfo } from "../index/packs.ts";
import { type Clock, systemClock } from "../platform/clock.ts";
import { backoffMs, LONGEST_WAIT } from "./backoff.ts";
import { evictionScore } from "./evictor.ts";
import { Health, within } from "./health.ts";
import { HotSpace } from "./hot_space.ts";
import { TokenBucket } from "./token_bucket.ts";

Deno.test("waiting times begin short, double, stop at five minutes, and are spread", () => {
  assert.deepEqual([1, 2, 3, 4, 5].map((n) => backoffMs(n, 0.5)), [100, 500, 2000, 4000, 8000]);
  assert.equal(backoffMs(1000, 0.5), LONGEST_WAIT);
  assert.ok(backoffMs(1, 0) < 100 && backoffMs(1, 0.99) > 100);
});

Deno.test("a pack stays the longer, the more lately and the more often it was used", () => {
  const now = 1e12;
  const pack = (ageS: number, hits: number): PackInfo => ({
    id: 1,
    name: "x",
    state: 1,
    bytes: 1,
    liveBytes: 1,
    tiers: 3,
    created: 0,
    lastAccess: now - ageS * 1000,
    hits,
  });
  const score = (age: number, hits: number) => evictionScore(pack(age, hits), now, 1, 1);
  assert.ok(score(10, 0) > score(100, 0));
  assert.ok(score(100, 5) > score(100, 4));
  assert.ok(score(31 * 86_400, 1000) < score(3600, 1), "accesses of last month count nothing");
  assert.equal(score(-5, 0), 1, "a clock that was set back makes nothing immortal");
  assert.equal(evictionScore(pack(10, 3), now, 2, 0), 0.2);
});

const outage = new FsError("unavailable", "down");

Deno.test("a circuit opens after failures in a row, not for missing objects, and closes when a check succeeds", async () => {
  const changes: boolean[] = [];
  const store = new MemoryObjectStore();
  const health = new Health({ store, clock: systemClock, onChange: (healthy) => void changes.push(healthy) });
  health.failed(outage);
  health.failed(outage);
  health.succeeded();
  health.failed(outage);
  health.failed(outage);
  for (const code of ["not_found", "corrupt", "cancelled", "no_space"] as const) health.failed(new FsError(code, code));
  assert.equal(health.healthy, true);
  health.failed(outage);
  assert.equal(health.healthy, false);
  assert.equal(health.lastError, outage);
  assert.equal(await health.check(), true);
  assert.equal(health.healthy, true);
  assert.equal(health.lastError, null);
  assert.deepEqual(changes, [false, true]);
});

Deno.test("an open circuit stays open while the store can be asked but not written", async () => {
  const store = new MemoryObjectStore({ capacity: 0 });
  const health = new Health({ store, clock: systemClock });
  for (let i = 0; i < 3; i++) health.failed(outage);
  assert.equal(await health.check(), false);
  assert.equal(health.healthy, false);
});

Deno.test("a call that never answers is left behind after its time, and its signal tells it so", async () => {
  let aborted: unknown;
  const hanging = within(
    systemClock,
    20,
    "the NAS",
    (signal) =>
      new Promise((_, reject) =>
        signal.addEventListener("abort", () => {
          aborted = signal.reason;
          reject(signal.reason);
        })
      ),
  );
  await assert.rejects(hanging, (e) => hasCode(e, "timeout"));
  assert.ok(aborted instanceof DOMException);
  const deaf = within(systemClock, 20, "the NAS", () => new Promise(() => {}));
  await assert.rejects(deaf, (e) => hasCode(e, "timeout"));
  const stop = new AbortController();
  const cancelled = within(systemClock, 60_000, "the NAS", () => new Promise(() => {}), stop.signal);
  stop.abort();
  await assert.rejects(cancelled, (e) => hasCode(e, "cancelled"));
  assert.equal(await within(systemClock, 1000, "x", () => Promise.resolve(5)), 5);
});

/** A clock whose sleeps take no time but move it. */
function jumpingClock(): Clock & { slept: number } {
  let now = 0;
  return {
    ...systemClock,
    slept: 0,
    now: () => now,
    monotonic: () => now,
    sleep(ms) {
      now += ms;
      this.slept += ms;
      return Promise.resolve();
    },
  };
}

Deno.test("bytes are spread over the time the rate gives them, whoever takes them", async () => {
  const clock = jumpingClock();
  const bucket = new TokenBucket(1000, clock);
  for (let i = 0; i < 10; i++) await bucket.take(500);
  assert.ok(clock.slept >= 4750 && clock.slept <= 5000, `${clock.slept} ms for 5000 bytes at 1000 a second`);
  const stream = bucket.limit(new Blob([new Uint8Array(200_000)]).stream());
  assert.equal(
    (await new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>).arrayBuffer()).byteLength,
    200_000,
  );
  assert.ok(clock.slept >= 204_000);
});

Deno.test("the reserve of the hot disk is kept, and packs are let go before a writer is refused", async () => {
  let free = 1000;
  let relieved = 0;
  const space = new HotSpace({
    folder: "/hot",
    reserveBytes: 100,
    clock: jumpingClock(),
    statFs: () => Promise.resolve({ total: 2000, free }),
    relieve() {
      relieved++;
      free += 500;
      return Promise.resolve();
    },
  });
  await space.reserve(850);
  assert.equal(relieved, 0);
  free = 150;
  await space.reserve(300);
  assert.equal(relieved, 1);
  free = 150;
  await assert.rejects(space.reserve(300), (e: FsError) => e.code === "no_space" && /100/.test(e.message));
  assert.equal(relieved, 1, "not at every write");
});
