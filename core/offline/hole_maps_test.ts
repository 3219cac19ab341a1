/** Holes of files with undelivered bytes: what is told as data, what as a hole, and what a punched layer reads as. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Extents } from "../store/extents.ts";
import { seek, SEEK_DATA, SEEK_HOLE } from "./hole_maps.ts";
import { LayerStack } from "./layers.ts";

const SIZE = 2000;
const stage = () => {
  throw new Error("too small for a staging file");
};

/** What a stack of layers over a base of ones reads as. */
function bytesOf(stack: LayerStack): Uint8Array {
  const out = new Uint8Array(stack.size).fill(9);
  for (const source of stack.sources(0, stack.size)) {
    const part = out.subarray(source.start, source.end);
    if (source.kind === "layer") source.layer.read(source.start, part);
    else part.fill(source.kind === "base" ? 1 : 0);
  }
  return out;
}

Deno.test("what is punched, written, cut and extended in layers reads as it does in one array", () => {
  const place = fc.tuple(fc.integer({ min: 0, max: SIZE }), fc.integer({ min: 1, max: 500 }));
  const step = fc.record({ op: fc.constantFrom("write", "punch", "truncate", "freeze"), place });
  fc.assert(fc.property(fc.array(step, { maxLength: 40 }), fc.integer({ min: 0, max: SIZE }), (steps, baseSize) => {
    const stack = new LayerStack("base", baseSize);
    let model = new Uint8Array(baseSize).fill(1);
    for (const { op, place: [at, length] } of steps) {
      const size = Math.max(model.length, op === "truncate" ? 0 : at + length);
      if (op === "write") {
        const grown = new Uint8Array(size);
        grown.set(model);
        model = grown.fill(2 + length % 5, at, at + length);
        stack.top().write(at, new Uint8Array(length).fill(2 + length % 5), stage);
      } else if (op === "punch") {
        model.fill(0, at, at + length);
        stack.top().punch(at, at + length);
      } else if (op === "truncate") {
        const cut = new Uint8Array(at);
        cut.set(model.subarray(0, at));
        model = cut;
        stack.top().truncate(at);
      } else if (stack.open !== null) stack.open.frozen = true;
    }
    assert.deepEqual(bytesOf(stack), model);
    // The same from the ranges a delivery is told: what is neither changed nor base is zeros.
    const { dirty, baseValid } = stack.changes(stack.layers.length);
    for (let at = 0; at < model.length; at++) {
      if (!dirty.covers(at, at + 1)) assert.equal(model[at], at < baseValid ? 1 : 0, `byte ${at}`);
    }
    assert.equal(stack.sparse || !model.includes(0), true);
  }));
});

Deno.test("lseek finds data and holes, the end is a hole, and behind it is nothing", () => {
  const data = Extents.of([{ start: 4096, end: 8192 }, { start: 20000, end: 30000 }]);
  const at = (offset: number, whence: number) => seek(data, 30000, offset, whence);
  assert.deepEqual([0, 5000, 8192, 29999].map((o) => at(o, SEEK_DATA)), [4096, 5000, 20000, 29999]);
  assert.deepEqual([0, 5000, 8192, 29999].map((o) => at(o, SEEK_HOLE)), [0, 8192, 8192, 30000]);
  assert.deepEqual([-1, 30000, 40000].map((o) => at(o, SEEK_HOLE)), [null, null, null]);
  assert.equal(seek(Extents.of([]), 10, 0, SEEK_DATA), null);
});
