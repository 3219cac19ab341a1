/** The server's locks: between devices, over broken connections, after restarts, and files that one device owns. */
import assert from "node:assert/strict";
import { handClock, turns } from "../../tests/support/hand_clock.ts";
import { FsError } from "../fs/error.ts";
import { LOCK_END } from "../locks/lock_table.ts";
import { type LockRuns, SharedLocks } from "./shared_locks.ts";

const LEASE = 30_000;
function house(disk: { runs: LockRuns } = { runs: { runs: [], devices: [] } }, run = "run1") {
  const clock = handClock();
  const recalls: string[] = [];
  const connected = new Set<number>();
  const locks = new SharedLocks({
    clock,
    run,
    leaseMs: LEASE,
    memory: {
      load: () => Promise.resolve(disk.runs),
      save: (runs) => {
        disk.runs = structuredClone(runs);
        return Promise.resolve();
      },
    },
    recall: (device, ino) => {
      if (!connected.has(device)) return false;
      recalls.push(`${device} ${ino}`);
      return true;
    },
    log: () => {},
  });
  const never = new AbortController().signal;
  let ticket = 1;
  return {
    disk,
    clock,
    locks,
    recalls,
    async come(device: number, claim: Partial<Parameters<SharedLocks["claim"]>[1]> = {}) {
      connected.add(device);
      locks.arrived(device);
      return await locks.claim(device, { run, locks: [], own: [], ...claim });
    },
    go(device: number) {
      connected.delete(device);
      locks.left(device);
    },
    ask: (device: number, more: Partial<Parameters<SharedLocks["lock"]>[1]> = {}, signal = never) =>
      locks.lock(device, { ...wire(), wait: false, ticket: ticket++, mayOwn: false, ...more }, signal),
    free: (device: number, owner = "p") =>
      locks.unlock(device, { ino: 5, flock: false, owner, start: 0, end: LOCK_END }),
  };
}
const wire = (more: { owner?: string; type?: "read" | "write"; start?: number; end?: number } = {}) => ({
  ino: 5,
  flock: false,
  owner: "p",
  type: "write" as const,
  start: 0,
  end: LOCK_END,
  pid: 42,
  ...more,
});
const held = (fresh = false) => ({ ...wire(), fresh });

Deno.test("two devices with the same owner number are not the same owner", async () => {
  const h = house();
  await h.locks.start();
  await h.come(1);
  await h.come(2);
  assert.equal((await h.ask(1)).state, "granted");
  assert.deepEqual(await h.ask(2), {
    state: "taken",
    own: false,
    by: { type: "write", start: 0, end: LOCK_END, pid: 0 },
  });
  assert.equal((await h.ask(1, { owner: "q" })).by?.pid, 42);
  const waits = h.ask(2, { wait: true, ticket: 77 });
  h.free(1);
  assert.equal((await waits).state, "granted");
  const again = h.ask(1, { wait: true, ticket: 78 });
  await turns();
  h.locks.cancel(1, 78);
  assert.equal((await again).state, "cancelled");
  const cut = new AbortController();
  const gone = h.ask(1, { wait: true }, cut.signal);
  await turns();
  cut.abort();
  assert.equal((await gone).state, "cancelled");
  await assert.rejects(h.ask(1, { start: 5, end: 4 }), (e) => e instanceof FsError && e.code === "invalid_input");
});

Deno.test("locks stand for the lease without a connection, then for whoever wants them first", async () => {
  const h = house();
  await h.locks.start();
  await h.come(1);
  await h.come(2);
  await h.ask(1);
  h.go(1);
  await h.clock.move(LEASE - 1);
  assert.equal((await h.ask(2)).state, "taken");
  assert.deepEqual(await h.come(1, { locks: [held()] }), { lost: [], own: [] }, "back within the lease");
  h.go(1);
  await h.clock.move(LEASE + 1);
  assert.deepEqual(await h.come(1, { locks: [held()] }), { lost: [], own: [] }, "late, but nobody wanted it");
  h.go(1);
  const waits = h.ask(2, { wait: true });
  await turns();
  await h.clock.move(LEASE + 1);
  assert.equal((await waits).state, "granted", "who waits is woken by the end of the lease");
  h.free(2);
  assert.deepEqual(
    await h.come(1, { locks: [held()] }),
    { lost: [0], own: [] },
    "free again, but another had it meanwhile",
  );
  assert.deepEqual(await h.come(1, { locks: [held(true)] }), { lost: [], own: [] }, "taken while away, and free");
});

Deno.test("what a device does not claim any more is free; a process has all its locks of a file or none", async () => {
  const h = house();
  await h.locks.start();
  await h.come(1);
  await h.come(2);
  await h.ask(1, { start: 0, end: 9 });
  await h.ask(1, { start: 20, end: 29 });
  h.go(1);
  await h.come(1, { locks: [{ ...held(), start: 20, end: 29 }] });
  assert.equal((await h.ask(2, { start: 0, end: 9 })).state, "granted");
  h.go(1);
  const claim = { locks: [{ ...held(), start: 20, end: 29 }, { ...held(true), start: 5, end: 6 }] };
  assert.deepEqual((await h.come(1, claim)).lost, [0, 1]);
  assert.equal((await h.ask(2, { start: 20, end: 29 })).state, "granted");
});

Deno.test("after a restart devices claim first, and only those who had locks are waited for", async () => {
  const first = house();
  await first.locks.start();
  await first.come(1);
  await first.come(2);
  await first.come(3);
  await first.ask(1);
  const second = house(first.disk, "run2");
  await second.locks.start();
  await second.come(2, { run: "run1" });
  const waits = second.ask(2);
  let answered = false;
  void waits.then(() => answered = true);
  await turns();
  assert.ok(!answered, "the one who had the lock is waited for");
  assert.deepEqual(await second.come(1, { run: "run1", locks: [held()] }), { lost: [], own: [] });
  assert.equal((await waits).state, "taken");
  const third = house(second.disk, "run3");
  await third.locks.start();
  await third.come(2, { run: "run2" });
  const late = third.ask(2);
  await third.clock.move(LEASE + 1);
  assert.equal((await late).state, "granted", "who does not come back is not waited for longer than the lease");
  assert.deepEqual((await third.come(1, { run: "run2", locks: [held()] })).lost, [0]);
  const fourth = house(third.disk, "run4");
  await fourth.locks.start();
  assert.deepEqual(
    (await fourth.come(1, { run: "run2", locks: [held()] })).lost,
    [0],
    "locks of the run before the last: another may have had them in between",
  );
});

Deno.test("a server that is killed within its grace time has forgotten nothing", async () => {
  const first = house();
  await first.locks.start();
  await first.come(1);
  await first.ask(1);
  const second = house(first.disk, "run2");
  await second.locks.start();
  await second.come(2, { run: "run1" });
  const third = house(second.disk, "run3");
  await third.locks.start();
  assert.deepEqual(await third.come(1, { run: "run1", locks: [held()] }), { lost: [], own: [] });
});

Deno.test("a device alone with a file owns its locks, and gives it back with what it holds when another asks", async () => {
  const h = house();
  await h.locks.start();
  await h.come(1);
  await h.come(2);
  assert.equal((await h.ask(1, { mayOwn: true })).own, true);
  const two = h.ask(2, { mayOwn: true });
  await turns();
  assert.deepEqual(h.recalls, ["1 5"]);
  h.locks.giveBack(1, { ino: 5, locks: [wire({ owner: "other", start: 3, end: 4 })] });
  assert.equal((await two).state, "taken");
  assert.deepEqual(
    await h.ask(2, { start: 0, end: 2, mayOwn: true }),
    { state: "granted", own: false, by: null },
    "others hold locks of it",
  );
  h.free(2);
  h.free(1, "other");
  assert.equal((await h.ask(2, { mayOwn: true })).own, false, "it would only be passed about");
  h.free(2);
  await h.clock.move(10_001);
  assert.equal((await h.ask(2, { mayOwn: true })).own, true);
});

Deno.test("a file whose owner is away: taken for now, free after the lease; back in time it is asked again", async () => {
  const h = house();
  await h.locks.start();
  await h.come(1);
  await h.come(2);
  await h.ask(1, { mayOwn: true });
  h.go(1);
  assert.equal((await h.ask(2)).state, "taken");
  const waits = h.ask(2, { wait: true });
  await turns();
  assert.deepEqual(await h.come(1, { locks: [held()], own: [5] }), { lost: [], own: [5] });
  assert.deepEqual(h.recalls, ["1 5"]);
  h.locks.giveBack(1, { ino: 5, locks: [] });
  assert.equal((await waits).state, "granted");
  h.free(2);
  await h.clock.move(10_001);
  await h.ask(1, { mayOwn: true });
  h.go(1);
  const other = h.ask(2, { wait: true });
  await turns();
  await h.clock.move(LEASE + 1);
  assert.equal((await other).state, "granted");
  h.free(2);
  assert.deepEqual(await h.come(1, { locks: [held()], own: [5] }), { lost: [0], own: [] });
});

Deno.test("a waiting request is not forgotten when the file is owned before it is asked for", async () => {
  const h = house();
  await h.locks.start();
  await h.come(1);
  await h.come(2);
  await h.ask(1, { mayOwn: true });
  const [two, three] = [h.ask(2, { wait: true, owner: "x" }), h.ask(2, { wait: true, owner: "y" })];
  await turns();
  h.locks.giveBack(1, { ino: 5, locks: [] });
  assert.equal((await two).state, "granted");
  h.free(2, "x");
  assert.equal((await three).state, "granted");
});
