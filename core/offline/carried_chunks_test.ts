/** Which chunks are left out, and that none is left out that was not sent. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { CarriedChunks } from "./carried_chunks.ts";

const chunk = (n: number) => ({ hash: new Uint8Array(32).fill(n), n });

Deno.test("a chunk is sent once until the set is cleared", () => {
  const carried = new CarriedChunks();
  assert.deepEqual(carried.lacking([chunk(1), chunk(2), chunk(1)]).map(({ n }) => n), [1, 2]);
  assert.deepEqual(carried.lacking([chunk(2), chunk(3)]).map(({ n }) => n), [3]);
  carried.clear();
  assert.deepEqual(carried.lacking([chunk(2)]).map(({ n }) => n), [2]);
});

Deno.test("what it leaves out was sent before, whatever is asked", () => {
  fc.assert(fc.property(fc.array(fc.array(fc.nat(40)), { maxLength: 30 }), (requests) => {
    const carried = new CarriedChunks();
    const sent = new Set<number>();
    for (const request of requests) {
      for (const { n } of carried.lacking(request.map(chunk))) sent.add(n);
      for (const n of request) assert.ok(sent.has(n));
    }
  }));
});

Deno.test("it forgets the oldest chunks instead of growing for ever", () => {
  const carried = new CarriedChunks();
  const numbered = (n: number) => {
    const hash = new Uint8Array(32);
    new DataView(hash.buffer).setUint32(0, n);
    return { hash };
  };
  for (let n = 0; n < 20_000; n++) carried.lacking([numbered(n)]);
  assert.equal(carried.lacking([numbered(0)]).length, 1);
  assert.equal(carried.lacking([numbered(19_999)]).length, 0);
});
