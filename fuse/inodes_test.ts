/** The lookup counts against a plain Map, over generated sequences. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { LookupCounts } from "./inodes.ts";

Deno.test("lookup counts agree with a plain map over any sequence of references, pages and forgets", () => {
  // Few distinct numbers, so that chains form and deletions hit their middle; some beyond 32 bits.
  const ino = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }).map((n) => n * 2 ** 33 + 7));
  const step = fc.oneof(
    fc.record({ add: ino }),
    fc.record({ drop: ino, count: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ page: ino }),
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
    const counts = new LookupCounts();
    const model = new Map<number, number>();
    const paged = new Set<number>();
    for (const each of steps) {
      if ("add" in each) {
        counts.add(each.add);
        model.set(each.add, (model.get(each.add) ?? 0) + 1);
      } else if ("page" in each) {
        counts.markPages(each.page);
        if (model.has(each.page)) paged.add(each.page);
      } else {
        const left = (model.get(each.drop) ?? 0) - each.count;
        if (left > 0) model.set(each.drop, left);
        else {
          model.delete(each.drop);
          paged.delete(each.drop);
        }
        assert.equal(counts.drop(each.drop, each.count), left <= 0);
      }
    }
    assert.equal(counts.size, model.size);
    for (const [key, count] of model) {
      assert.equal(counts.get(key), count);
      assert.equal(counts.mayHavePages(key), paged.has(key));
    }
    assert.deepEqual([...counts.keys()].sort((a, b) => a - b), [...model.keys()].sort((a, b) => a - b));
  }));
});

Deno.test("the table grows with what the kernel holds and shrinks when it forgets", () => {
  const counts = new LookupCounts();
  const empty = counts.bytes;
  for (let ino = 1; ino <= 100_000; ino++) counts.add(ino);
  assert.equal(counts.size, 100_000);
  assert.ok(counts.bytes / counts.size < 40, `${counts.bytes / counts.size} bytes an inode`);
  for (let ino = 100_000; ino > 0; ino--) assert.ok(counts.drop(ino, 1));
  assert.equal(counts.size, 0);
  assert.equal(counts.bytes, empty);
});
