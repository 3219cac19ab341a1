/** Extents against a plain array of booleans. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { hasCode } from "../fs/error.ts";
import { type ByteRange, Extents } from "./extents.ts";

const SIZE = 64;

const range = fc.tuple(fc.nat(SIZE), fc.nat(SIZE));
const step = fc.oneof(
  fc.record({ op: fc.constant("add" as const), range }),
  fc.record({ op: fc.constant("subtract" as const), range }),
  fc.record({ op: fc.constant("truncate" as const), range }),
);

function runs(bits: readonly boolean[], start: number, end: number, wanted: boolean): ByteRange[] {
  const found: { start: number; end: number }[] = [];
  for (let i = start; i < end; i++) {
    if ((bits[i] ?? false) !== wanted) continue;
    const last = found.at(-1);
    if (last?.end === i) last.end = i + 1;
    else found.push({ start: i, end: i + 1 });
  }
  return found;
}

Deno.test("extents do what a bitmap does", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), range, (steps, [from, to]) => {
      const extents = new Extents();
      const bits: boolean[] = Array(SIZE).fill(false);
      for (const { op, range: [a, b] } of steps) {
        if (op === "truncate") {
          extents.truncate(a);
          bits.fill(false, a);
        } else {
          extents[op](a, b);
          if (a < b) bits.fill(op === "add", a, b);
        }
        assert.deepEqual([...extents], runs(bits, 0, SIZE, true));
      }
      const inside = bits.slice(from, Math.max(from, to));
      assert.deepEqual(extents.intersect(from, to), runs(bits, from, to, true));
      assert.deepEqual(extents.gaps(from, to), runs(bits, from, to, false));
      assert.equal(extents.covers(from, to), inside.every(Boolean));
      assert.equal(extents.overlaps(from, to), inside.some(Boolean));
      assert.equal(extents.total, bits.filter(Boolean).length);
      assert.equal(extents.end, bits.lastIndexOf(true) + 1);
      assert.deepEqual(extents.next(from), runs(bits, 0, SIZE, true).find(({ end }) => end > from));
      assert.equal(extents.count, runs(bits, 0, SIZE, true).length);
      assert.equal(extents.isEmpty, !bits.includes(true));
      assert.deepEqual(Extents.fromArray(extents.toArray()).toArray(), extents.toArray());
      assert.deepEqual(Extents.of([...extents].reverse()).toArray(), extents.toArray());
    }),
    { numRuns: 1000 },
  );
});

Deno.test("a clone goes its own way", () => {
  const one = Extents.of([{ start: 0, end: 5 }]);
  const two = one.clone();
  two.add(10, 20);
  assert.deepEqual(one.toArray(), [0, 5]);
  assert.deepEqual(two.toArray(), [0, 5, 10, 20]);
});

Deno.test("an array that is no set of ranges is refused", () => {
  for (const flat of [[1], [2, 1], [1, 1], [0, 5, 5, 9], [0, 5, 4, 9], [-1, 3], [0.5, 2], [0, NaN]]) {
    assert.throws(() => Extents.fromArray(flat), (error) => hasCode(error, "invalid_input"), String(flat));
  }
});
