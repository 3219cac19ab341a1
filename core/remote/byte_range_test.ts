/** Tests of the Range header. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { parseRange } from "./byte_range.ts";

const part = (offset: number, length: number) => ({ kind: "part", offset, length });

Deno.test("ranges of RFC 9110 are understood", () => {
  assert.deepEqual(parseRange("bytes=0-0", 10), part(0, 1));
  assert.deepEqual(parseRange("bytes=2-4", 10), part(2, 3));
  assert.deepEqual(parseRange("bytes=2-", 10), part(2, 8));
  assert.deepEqual(parseRange("bytes=2-400", 10), part(2, 8));
  assert.deepEqual(parseRange("bytes=-3", 10), part(7, 3));
  assert.deepEqual(parseRange("bytes=-30", 10), part(0, 10));
  assert.deepEqual(parseRange("Bytes = 1 - 2 ", 10), part(1, 2));
});
Deno.test("what lies behind the end can't be satisfied", () => {
  for (const header of ["bytes=10-", "bytes=10-12", "bytes=-0"]) {
    assert.deepEqual(parseRange(header, 10), { kind: "unsatisfiable" });
  }
  assert.deepEqual(parseRange("bytes=0-", 0), { kind: "unsatisfiable" });
  assert.deepEqual(parseRange("bytes=-5", 0), { kind: "unsatisfiable" });
});
Deno.test("other units, several ranges and nonsense mean the whole", () => {
  for (
    const header of [null, "", "bytes", "bytes=", "bytes=-", "bytes=4-2", "bytes=0-1,3-4", "items=0-1", "bytes=a-b"]
  ) {
    assert.deepEqual(parseRange(header, 10), { kind: "whole" });
  }
});
Deno.test("a range is never outside the file", () => {
  fc.assert(fc.property(fc.nat(100), fc.option(fc.nat(120)), fc.option(fc.nat(120)), (size, first, last) => {
    const range = parseRange(`bytes=${first ?? ""}-${last ?? ""}`, size);
    if (range.kind !== "part") return;
    assert.ok(range.length > 0 && range.offset >= 0 && range.offset + range.length <= size);
  }));
});
