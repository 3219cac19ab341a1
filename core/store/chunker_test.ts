/** Where chunks are cut: both implementations, any split of the input, the limits, and what an insertion moves. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { type Chunker, MAX_CHUNK, MIN_CHUNK } from "./chunker.ts";
import { TsChunker } from "./chunker_ts.ts";
import { WasmChunker } from "./chunker_wasm.ts";
import { hex, sha256 } from "./hash.ts";
import { patternBytes } from "./testing/bytes.ts";

const ts = new TsChunker();
const wasm = new WasmChunker();

function cuts(chunker: Chunker, bytes: Uint8Array): number[] {
  return [...chunker.cutAll(bytes, 0, bytes.length, true)];
}

/** The definition, word for word and one byte a step: what both implementations must agree with. */
function cutsByDefinition(bytes: Uint8Array, gear: Int32Array): number[] {
  const lengths: number[] = [];
  for (let start = 0; start < bytes.length;) {
    const limit = Math.min(bytes.length - start, 262144);
    let length = limit;
    let h = 0;
    for (let i = 16384; i < limit; i++) {
      h = ((h << 1) + (gear[bytes[start + i] ?? 0] ?? 0)) | 0;
      if ((h & (i < 65536 ? 0x7fffe000 : 0x7ffe0000)) === 0) {
        length = i + 1;
        break;
      }
    }
    lengths.push(length);
    start += length;
  }
  return lengths;
}

const content = fc.record({
  seed: fc.nat(),
  length: fc.oneof(fc.nat(1_500_000), fc.constantFrom(0, 1, MIN_CHUNK, MIN_CHUNK + 1, 65536, MAX_CHUNK, MAX_CHUNK + 1)),
  style: fc.constantFrom("random" as const, "text" as const, "runs" as const),
});

Deno.test("both chunkers cut as the definition says", async () => {
  const { gearTable } = await import("./chunker.ts");
  const gear = gearTable();
  fc.assert(
    fc.property(content, ({ seed, length, style }) => {
      const bytes = patternBytes(seed, length, style);
      const expected = cutsByDefinition(bytes, gear);
      assert.deepEqual(cuts(ts, bytes), expected);
      assert.deepEqual(cuts(wasm, bytes), expected);
    }),
    { numRuns: 40 },
  );
});

Deno.test("chunks add up to the content and keep to the limits", () => {
  fc.assert(
    fc.property(content, ({ seed, length, style }) => {
      const lengths = cuts(wasm, patternBytes(seed, length, style));
      assert.equal(lengths.reduce((a, b) => a + b, 0), length);
      lengths.forEach((one, i) => {
        assert.ok(one <= MAX_CHUNK);
        if (i < lengths.length - 1) assert.ok(one > MIN_CHUNK);
        else assert.ok(one > 0);
      });
    }),
    { numRuns: 40 },
  );
});

Deno.test("cuts do not depend on how the input arrives", () => {
  fc.assert(
    fc.property(
      content,
      fc.array(fc.integer({ min: 1, max: 400_000 }), { minLength: 1, maxLength: 20 }),
      fc.boolean(),
      ({ seed, length, style }, pieces, one) => {
        const bytes = patternBytes(seed, length, style);
        for (const chunker of [ts, wasm]) {
          const found: number[] = [];
          let start = 0;
          let end = 0;
          for (let turn = 0; end < bytes.length; turn++) {
            end = Math.min(bytes.length, end + (pieces[turn % pieces.length] ?? 1));
            const final = end === bytes.length;
            const lengths = one
              ? untilZero(() => chunker.cut(bytes, start, end, final), (n) => (start += n))
              : [...chunker.cutAll(bytes, start, end, final)];
            if (!one) start += lengths.reduce((a, b) => a + b, 0);
            assert.ok(end - start < MAX_CHUNK, "less than one chunk stays undecided");
            found.push(...lengths);
          }
          assert.deepEqual(found, cuts(ts, bytes));
        }
      },
    ),
    { numRuns: 40 },
  );
});

function untilZero(next: () => number, take: (n: number) => void): number[] {
  const all: number[] = [];
  for (let n = next(); n > 0; n = next()) {
    all.push(n);
    take(n);
  }
  return all;
}

Deno.test("bytes in the workspace are cut like bytes elsewhere", () => {
  const bytes = patternBytes(3, 9_000_000, "random");
  const room = wasm.workspace(bytes.length);
  room.set(bytes);
  assert.deepEqual([...wasm.cutAll(room, 0, room.length, true)], cuts(ts, bytes));
  assert.deepEqual([...wasm.cutAll(room, 1000, 5_000_000, false)], [...ts.cutAll(bytes, 1000, 5_000_000, false)]);
  assert.equal(wasm.cut(room, 7, room.length, true), ts.cut(bytes, 7, bytes.length, true));
  assert.deepEqual(room, bytes, "chunking does not write into the workspace");
});

Deno.test("a run of equal bytes, whatever the byte, is cut at the maximum", () => {
  for (let value = 0; value < 256; value++) {
    assert.equal(wasm.cut(new Uint8Array(MAX_CHUNK + 1).fill(value), 0, MAX_CHUNK + 1, true), MAX_CHUNK);
  }
});

Deno.test("an insertion changes only the chunks beside it", () => {
  const bytes = patternBytes(11, 8_000_000, "random");
  const changed = new Uint8Array(bytes.length + 5);
  changed.set(bytes.subarray(0, 3_000_000));
  changed.set([1, 2, 3, 4, 5], 3_000_000);
  changed.set(bytes.subarray(3_000_000), 3_000_005);
  const identities = (content: Uint8Array) => {
    let at = 0;
    return cuts(wasm, content).map((n) => hex(sha256(content.subarray(at, at += n))));
  };
  const before = new Set(identities(bytes));
  const fresh = identities(changed).filter((id) => !before.has(id));
  assert.ok(fresh.length >= 1 && fresh.length <= 4, `${fresh.length} new chunks`);
});

Deno.test("the average chunk of random bytes is near 64 KiB", () => {
  const bytes = patternBytes(5, 30_000_000, "random");
  const mean = bytes.length / cuts(wasm, bytes).length;
  assert.ok(mean > 55_000 && mean < 85_000, `mean ${mean}`);
});
