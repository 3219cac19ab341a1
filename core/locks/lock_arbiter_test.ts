/** Waiting for locks: who gets one when, who is told that waiting is in vain, and that nobody waits without a reason. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { LockArbiter, type LockOutcome, type LockTicket } from "./lock_arbiter.ts";
import { type FileLock, LOCK_END, type LockFamily, type LockType } from "./lock_table.ts";

const lock = (
  owner: string,
  type: LockType,
  ino = 1,
  start = 0,
  end = LOCK_END,
  family: LockFamily = "posix",
): FileLock => ({ ino, family, owner, type, start, end, pid: 1 });
function pending(ticket: LockTicket): { answer: Promise<LockOutcome>; cancel(): void } {
  assert.ok("answer" in ticket, "it waits");
  return ticket;
}
const state = (ticket: LockTicket) => "state" in ticket ? ticket.state : "waits";

Deno.test("who waits gets the lock when it is released, in the order of coming", async () => {
  const arbiter = new LockArbiter();
  assert.equal(state(arbiter.acquire(lock("a", "write"), true)), "granted");
  assert.equal(state(arbiter.acquire(lock("b", "write"), false)), "taken");
  const b = pending(arbiter.acquire(lock("b", "write"), true));
  const c = pending(arbiter.acquire(lock("c", "read"), true));
  arbiter.release(1, "posix", "a");
  assert.deepEqual(await b.answer, { state: "granted" });
  assert.equal(arbiter.waiting, 1);
  arbiter.release(1, "posix", "b");
  assert.deepEqual(await c.answer, { state: "granted" });
  const d = pending(arbiter.acquire(lock("d", "write"), true));
  d.cancel();
  assert.deepEqual(await d.answer, { state: "cancelled" });
  arbiter.release(1, "posix", "c");
  assert.equal(arbiter.table.size, 0);
});

Deno.test("a write lock turned into a read lock lets other readers in", async () => {
  const arbiter = new LockArbiter();
  arbiter.acquire(lock("a", "write"), true);
  const b = pending(arbiter.acquire(lock("b", "read"), true));
  arbiter.acquire(lock("a", "read"), true);
  assert.deepEqual(await b.answer, { state: "granted" });
});

Deno.test("two owners that wait for each other across two files: the second is told", () => {
  const arbiter = new LockArbiter();
  arbiter.acquire(lock("a", "write", 1), true);
  arbiter.acquire(lock("b", "write", 2), true);
  pending(arbiter.acquire(lock("a", "write", 2), true));
  assert.deepEqual(arbiter.acquire(lock("b", "write", 1), true), { state: "deadlock" });
  assert.equal(state(arbiter.acquire(lock("b", "write", 1), false)), "taken");
});

Deno.test("two readers that both want to write: the second is told", () => {
  const arbiter = new LockArbiter();
  arbiter.acquire(lock("a", "read"), true);
  arbiter.acquire(lock("b", "read"), true);
  pending(arbiter.acquire(lock("a", "write"), true));
  assert.equal(state(arbiter.acquire(lock("b", "write"), true)), "deadlock");
});

Deno.test("flock: converting gives the old lock up first, so two that convert do not wait for ever", async () => {
  const arbiter = new LockArbiter();
  const flock = (owner: string, type: LockType) => lock(owner, type, 1, 0, LOCK_END, "flock");
  arbiter.acquire(flock("a", "read"), true);
  arbiter.acquire(flock("b", "read"), true);
  const a = pending(arbiter.acquire(flock("a", "write"), true));
  // Its own read lock is what the other waits for: nothing else is in the way.
  assert.equal(state(arbiter.acquire(flock("b", "write"), true)), "granted");
  arbiter.release(1, "flock", "b");
  assert.deepEqual(await a.answer, { state: "granted" });
});

Deno.test("the lock of an owner that yields is taken away whole, and told", () => {
  const told: FileLock[] = [];
  const arbiter = new LockArbiter((owner) => owner === "gone", (held) => told.push(held));
  arbiter.acquire(lock("gone", "write", 1, 0, 9), false);
  arbiter.acquire(lock("gone", "read", 1, 20, 29), false);
  assert.equal(arbiter.test(lock("a", "read", 1, 5, 5)), null);
  assert.equal(state(arbiter.acquire(lock("a", "read", 1, 40, 50), false)), "granted");
  assert.equal(told.length, 0);
  assert.equal(state(arbiter.acquire(lock("a", "read", 1, 5, 5), false)), "granted");
  assert.deepEqual(told.map(({ owner, start }) => [owner, start]), [["gone", 0]]);
  assert.equal(arbiter.table.holds(1, "posix", "gone"), false);
});

Deno.test("after any sequence no two locks exclude each other, who waits has a reason, and nobody waits for himself", async () => {
  const OWNERS = ["a", "b", "c", "d"];
  const step = fc.record({
    owner: fc.constantFrom(...OWNERS),
    ino: fc.constantFrom(1, 2),
    what: fc.constantFrom("read", "write", "unlock", "cancel"),
    start: fc.nat(5),
    length: fc.integer({ min: 1, max: 4 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const arbiter = new LockArbiter();
      /** What each owner waits for: a process waits for one lock at a time. */
      const waits = new Map<string, { lock: FileLock; cancel(): void }>();
      for (const { owner, ino, what, start, length } of steps) {
        const waiting = waits.get(owner);
        if (what === "cancel") waiting?.cancel();
        else if (waiting !== undefined) continue;
        else if (what === "unlock") arbiter.release(ino, "posix", owner, { start, end: start + length - 1 });
        else {
          const wanted = lock(owner, what, ino, start, start + length - 1);
          const ticket = arbiter.acquire(wanted, true);
          if ("answer" in ticket) {
            waits.set(owner, { lock: wanted, cancel: () => ticket.cancel() });
            void ticket.answer.then(() => waits.delete(owner));
          }
        }
        await Promise.resolve();
        await Promise.resolve();
        const all = [...arbiter.table.all()];
        for (const held of all) {
          assert.deepEqual(arbiter.table.conflict(held.ino, "posix", held), null, "two locks that exclude each other");
        }
        assert.equal(arbiter.waiting, waits.size);
        const blockers = new Map<string, string[]>();
        for (const [who, { lock: wanted }] of waits) {
          const by = [...arbiter.table.conflicts(wanted.ino, "posix", wanted)].map((held) => held.owner);
          assert.ok(by.length > 0, "waits for nothing");
          blockers.set(who, by);
        }
        const reaches = (from: string, to: string, seen: Set<string>): boolean =>
          (blockers.get(from) ?? []).some((next) => {
            if (next === to) return true;
            if (seen.has(next)) return false;
            seen.add(next);
            return reaches(next, to, seen);
          });
        for (const who of waits.keys()) assert.ok(!reaches(who, who, new Set()), "a circle");
      }
    }),
    { numRuns: 300 },
  );
});
