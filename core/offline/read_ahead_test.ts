/** What is fetched for readers of a large content. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { FIRST_WINDOW, MAX_WINDOW, ReadAhead } from "./read_ahead.ts";

const MiB = 1024 * 1024;

/** Reads in order; returns the bytes asked for when the reader had come to `upTo`. */
function sequential(ahead: ReadAhead, from: number, upTo: number, step: number): number {
  let asked = from;
  for (let at = from; at < upTo; at += step) {
    const plan = ahead.read(at, step);
    asked = Math.max(asked, plan.now.end, ...plan.ahead.map(({ end }) => end));
  }
  return asked;
}

Deno.test("who looks at the head of a file does not fetch the rest of it", () => {
  const { now, ahead } = new ReadAhead(1e9).read(0, 4096);
  assert.deepEqual(now, { start: 0, end: FIRST_WINDOW });
  assert.deepEqual(ahead, []);
});

Deno.test("a reader from the beginning is read ahead of, further and further, up to a bound", () => {
  const ahead = new ReadAhead(1e9);
  assert.ok(sequential(ahead, 0, MiB, 131_072) <= 4 * MiB);
  const asked = sequential(ahead, MiB, 100 * MiB, 131_072);
  assert.ok(asked >= 100 * MiB + MAX_WINDOW / 2, `${asked}`);
  assert.ok(asked <= 100 * MiB + 2 * MAX_WINDOW, `${asked}`);
});

Deno.test("several readers of one file, in pieces that come out of order, are all read ahead of", () => {
  const ahead = new ReadAhead(1e9);
  const asked = new Map<number, number>();
  for (let n = 0; n < 64; n++) {
    for (const start of [0, 200 * MiB, 400 * MiB, 600 * MiB]) {
      // As the kernel does with two requests under way.
      const at = start + (n ^ 1) * 131_072;
      const plan = ahead.read(at, 131_072);
      for (const { end } of [plan.now, ...plan.ahead]) asked.set(start, Math.max(asked.get(start) ?? 0, end));
    }
  }
  for (const [start, end] of asked) assert.ok(end >= start + 64 * 131_072 + 4 * MiB, `${start}: ${end - start}`);
});

Deno.test("reads at equal distances are foreseen, forwards and backwards", () => {
  for (const stride of [10 * MiB, -10 * MiB]) {
    const ahead = new ReadAhead(1e9);
    const first = stride > 0 ? 0 : 900 * MiB;
    const foreseen = new Set<number>();
    let known = 0;
    for (let n = 0; n < 20; n++) {
      const at = first + n * stride;
      if (foreseen.has(at)) known++;
      for (const { start, end } of ahead.read(at, 4096).ahead) {
        assert.equal(end - start, 4096);
        foreseen.add(start);
      }
    }
    assert.ok(known >= 14, `${known} of 20`);
  }
});

Deno.test("a random reader gets little more than it asks for", () => {
  fc.assert(fc.property(fc.array(fc.nat(999), { minLength: 1, maxLength: 200 }), (places) => {
    const ahead = new ReadAhead(1000 * 64 * MiB);
    let asked = 0;
    for (const place of places) {
      const plan = ahead.read(place * 64 * MiB + (asked % 7) * 4096, 4096);
      asked += plan.now.end - plan.now.start + plan.ahead.reduce((sum, { start, end }) => sum + end - start, 0);
    }
    // Places that are read again are taken for streams.
    const again = places.length - new Set(places).size;
    assert.ok(asked <= places.length * (FIRST_WINDOW + 4 * 4096) + again * MAX_WINDOW);
  }));
});

Deno.test("whatever is read, what is fetched now covers it, and nothing lies outside the content", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 40 * MiB }),
    fc.array(fc.tuple(fc.double({ min: 0, max: 0.999, noNaN: true }), fc.integer({ min: 1, max: 2 * MiB })), {
      maxLength: 60,
    }),
    (size, reads) => {
      const ahead = new ReadAhead(size);
      for (const [where, wanted] of reads) {
        const offset = Math.floor(where * size);
        const length = Math.min(wanted, size - offset);
        const plan = ahead.read(offset, length);
        assert.ok(plan.now.start <= offset && plan.now.end >= offset + length);
        for (const { start, end } of [plan.now, ...plan.ahead]) {
          assert.ok(start >= 0 && start < end && end <= size);
        }
      }
    },
  ));
});
