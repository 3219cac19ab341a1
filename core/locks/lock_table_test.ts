/** LockTable compared with a model that writes down who holds what of every single byte. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { LOCK_END, LockTable, type LockType } from "./lock_table.ts";

const BYTES = 24;
/** The model's last byte stands for everything from there on. */
const end = (byte: number) => byte >= BYTES - 1 ? LOCK_END : byte;
const OWNERS = ["a", "b", "c"] as const;
type Owner = typeof OWNERS[number];
interface Step {
  readonly owner: Owner;
  readonly family: "posix" | "flock";
  readonly type: LockType | "unlock";
  readonly from: number;
  readonly length: number;
  /** Only if nobody else stands in the way, as F_SETLK does. */
  readonly polite: boolean;
}
const step: fc.Arbitrary<Step> = fc.record({
  owner: fc.constantFrom(...OWNERS),
  family: fc.constantFrom("posix", "flock"),
  type: fc.constantFrom("read", "write", "unlock"),
  from: fc.nat(BYTES - 1),
  length: fc.integer({ min: 1, max: BYTES }),
  polite: fc.boolean(),
});

Deno.test("ranges are split, merged and replaced as a model of single bytes says", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const table = new LockTable();
      const model = new Map<string, (LockType | null)[]>();
      const bytesOf = (family: string, owner: Owner) => {
        const key = `${family} ${owner}`;
        const bytes = model.get(key) ?? Array<LockType | null>(BYTES).fill(null);
        model.set(key, bytes);
        return bytes;
      };
      for (const { owner, family, type, from, length, polite } of steps) {
        const to = Math.min(BYTES - 1, from + length - 1);
        const range = { start: from, end: end(to) };
        if (type === "unlock") {
          const held = bytesOf(family, owner).slice(from, to + 1).some((byte) => byte !== null);
          assert.equal(table.clear(7, family, owner, range), held);
          bytesOf(family, owner).fill(null, from, to + 1);
        } else {
          const taken = OWNERS.some((other) =>
            other !== owner &&
            bytesOf(family, other).slice(from, to + 1).some((held) =>
              held === "write" || (held === "read" && type === "write")
            )
          );
          const wanted = { owner, type, ...range, pid: 1 };
          assert.equal(table.conflict(7, family, wanted) !== null, taken);
          assert.equal([...table.conflicts(7, family, wanted)].length > 0, taken);
          if (polite && taken) continue;
          table.put(7, family, wanted);
          bytesOf(family, owner).fill(type, from, to + 1);
        }
        for (const each of OWNERS) {
          const bytes = bytesOf(family, each);
          const seen = Array<LockType | null>(BYTES).fill(null);
          const own = table.of(7, family).filter((lock) => lock.owner === each);
          for (const lock of own) {
            for (let i = lock.start; i <= Math.min(lock.end, BYTES - 1); i++) {
              assert.equal(seen[i], null, "disjoint");
              seen[i] = lock.type;
            }
          }
          assert.deepEqual(seen, bytes);
          assert.equal(table.holds(7, family, each), own.length > 0);
          // As few locks as there are runs of equal bytes: neighbours are merged.
          const runs = bytes.filter((byte, i) => byte !== null && byte !== bytes[i - 1]).length;
          assert.equal(own.length, runs);
          const cut = table.segments(7, family, each, { start: 3, end: 17 });
          assert.deepEqual(cut.flatMap((s) => Array(s.end - s.start + 1).fill(s.type)), bytes.slice(3, 18));
        }
        const starts = table.of(7, family).map((lock) => lock.start);
        assert.deepEqual(starts, [...starts].sort((a, b) => a - b));
      }
      const left = [...table.all()].length;
      for (const lock of [...table.all()]) table.clear(lock.ino, lock.family, lock.owner);
      assert.equal(table.size, 0, `${left} locks were cleared`);
    }),
    { numRuns: 300 },
  );
});

Deno.test("a lock to the end of the file covers the last byte there can be, and may be cut in the middle", () => {
  const table = new LockTable();
  table.put(1, "posix", { owner: "a", type: "write", start: 0, end: LOCK_END, pid: 1 });
  table.clear(1, "posix", "a", { start: 10, end: 19 });
  assert.deepEqual(
    table.of(1, "posix").map(({ start, end }) => [start, end]),
    [[0, 9], [20, LOCK_END]],
  );
  assert.equal(table.conflict(1, "posix", { owner: "b", type: "read", start: 12, end: 13 }), null);
  assert.notEqual(table.conflict(1, "posix", { owner: "b", type: "read", start: LOCK_END, end: LOCK_END }), null);
  assert.equal(table.conflict(1, "flock", { owner: "b", type: "write", start: 0, end: 5 }), null);
});
