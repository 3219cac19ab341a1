/** Re-chunking against a whole new chunking of a model, and how little it reads. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { hasCode } from "../fs/error.ts";
import { chunkInline } from "./chunk_inline.ts";
import { MAX_CHUNK } from "./chunker.ts";
import { createChunker } from "./create_chunker.ts";
import { Extents } from "./extents.ts";
import { hex, sha256 } from "./hash.ts";
import { type BuiltManifest, decodeManifest, encodeManifest, ManifestBuilder } from "./manifest.ts";
import { rechunk, type Rechunked, type RechunkInput } from "./rechunk.ts";
import { type ByteStyle, patternBytes } from "./testing/bytes.ts";
import { isZeroChunk } from "./zeros.ts";

/** A file that changes, and what an overlay notes about the changes. */
class Model {
  bytes: Uint8Array;
  readonly dirty = new Extents();
  baseValid: number;

  constructor(base: Uint8Array) {
    this.bytes = base.slice();
    this.baseValid = base.length;
  }

  write(offset: number, data: Uint8Array): void {
    if (data.length === 0) return;
    if (offset + data.length > this.bytes.length) this.truncate(offset + data.length);
    this.bytes.set(data, offset);
    this.dirty.add(offset, offset + data.length);
  }

  truncate(size: number): void {
    const next = new Uint8Array(size);
    next.set(this.bytes.subarray(0, size));
    this.bytes = next;
    this.baseValid = Math.min(this.baseValid, size);
    this.dirty.truncate(size);
  }
}

function loaderOf(...manifests: readonly BuiltManifest[]) {
  const blobs = new Map(manifests.flatMap(({ segments }) => segments.map(({ hash, blob }) => [hex(hash), blob])));
  return (hash: Uint8Array) => {
    const blob = blobs.get(hex(hash));
    assert.ok(blob);
    return blob;
  };
}

interface Outcome extends Rechunked {
  readonly newChunks: number;
}

async function run(base: BuiltManifest, model: Model, extra: Partial<RechunkInput> = {}): Promise<Outcome> {
  let running = 0;
  let newChunks = 0;
  let position = 0;
  const result = await rechunk({
    base: decodeManifest(base.blob),
    loadSegment: loaderOf(base),
    dirty: model.dirty,
    size: model.bytes.length,
    baseValid: model.baseValid,
    readNew: (offset, length) => {
      assert.ok(length > 0 && offset + length <= model.bytes.length, "reads stay inside the content");
      return Promise.resolve(model.bytes.subarray(offset, offset + length));
    },
    onChunk: async ({ hash, length, offset, bytes }) => {
      assert.equal(++running, 1, "one chunk at a time");
      assert.ok(offset >= position);
      position = offset + length;
      await Promise.resolve();
      assert.deepEqual(bytes, model.bytes.subarray(offset, offset + length));
      assert.deepEqual(sha256(bytes), hash);
      assert.ok(!isZeroChunk(hash, length));
      newChunks++;
      running--;
    },
    ...extra,
  });
  return { ...result, newChunks };
}

const style = fc.constantFrom<ByteStyle>("random", "text", "runs", "zeros");
const change = fc.oneof(
  { weight: 4, arbitrary: fc.record({ at: fc.nat(), seed: fc.nat(), length: fc.nat(3000), style }) },
  { weight: 2, arbitrary: fc.record({ at: fc.nat(), seed: fc.nat(), length: fc.nat(600_000), style }) },
  { weight: 1, arbitrary: fc.record({ to: fc.nat() }) },
);

Deno.test("after any writes and truncations the manifest is that of the whole new content", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({ seed: fc.nat(), length: fc.nat(3_000_000), style }),
      fc.array(change, { maxLength: 6 }),
      async (start, changes) => {
        const bytes = patternBytes(start.seed, start.length, start.style);
        const model = new Model(bytes);
        for (const one of changes) {
          const position = ("to" in one ? one.to : one.at) % (model.bytes.length + 400_000);
          if ("to" in one) model.truncate(position);
          else model.write(position, patternBytes(one.seed, one.length, one.style));
        }
        const result = await run(encodeManifest(chunkInline(bytes)), model);
        assert.equal(result.size, model.bytes.length);
        assert.equal(hex(result.hash), hex(encodeManifest(chunkInline(model.bytes)).hash));
      },
    ),
    { numRuns: 150 },
  );
});

// Chunking a large content takes time: one of 100 MB and 1500 chunks serves several tests.
const LARGE = patternBytes(77, 110_000_000);
const LARGE_MANIFEST = encodeManifest(chunkInline(LARGE));

Deno.test("small writes into a large content read a few chunks each, and few segments", async () => {
  assert.ok(LARGE_MANIFEST.segments.length > 2);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ at: fc.nat(LARGE.length - 5000), length: fc.integer({ min: 1, max: 4096 }) }), {
        minLength: 1,
        maxLength: 3,
      }),
      async (writes) => {
        const model = new Model(LARGE);
        for (const { at, length } of writes) model.write(at, patternBytes(at, length));
        const { hash, readBytes, reusedBytes, newChunks, size } = await run(LARGE_MANIFEST, model);
        assert.equal(size, LARGE.length);
        assert.ok(readBytes <= writes.length * 6 * MAX_CHUNK, `${readBytes} bytes read for ${writes.length} writes`);
        assert.ok(newChunks <= writes.length * 8);
        assert.ok(reusedBytes >= size - writes.length * 6 * MAX_CHUNK);
        // The identity is checked below; here it must at least have changed.
        assert.notEqual(hex(hash), hex(LARGE_MANIFEST.hash));
      },
    ),
    { numRuns: 8 },
  );
});

Deno.test("a large content's new manifest is that of a whole new chunking", async () => {
  const model = new Model(LARGE);
  model.write(60_000_000, patternBytes(1, 10_000));
  model.write(LARGE.length, patternBytes(2, 300_000));
  const { hash, segments, readBytes } = await run(LARGE_MANIFEST, model);
  const whole = encodeManifest(chunkInline(model.bytes));
  assert.equal(hex(hash), hex(whole.hash));
  assert.ok(readBytes < 3_000_000, `${readBytes} bytes read`);
  const known = new Set([...LARGE_MANIFEST.segments, ...segments].map((segment) => hex(segment.hash)));
  for (const segment of whole.segments) assert.ok(known.has(hex(segment.hash)), "every segment is old or handed out");
});

Deno.test("nothing written means nothing read and the same identity", async () => {
  const { hash, readBytes, newChunks } = await run(LARGE_MANIFEST, new Model(LARGE));
  assert.equal(hex(hash), hex(LARGE_MANIFEST.hash));
  assert.equal(readBytes + newChunks, 0);
});

Deno.test("truncating reads the chunk that is cut in two", async () => {
  const model = new Model(LARGE);
  model.truncate(70_000_001);
  const { readBytes, newChunks, size } = await run(LARGE_MANIFEST, model);
  assert.equal(size, 70_000_001);
  assert.ok(readBytes <= MAX_CHUNK && newChunks === 1, `${readBytes} bytes, ${newChunks} chunks`);
});

/** A content too large to hold: data at some places, zeros elsewhere. */
function sparseReader(parts: ReadonlyMap<number, Uint8Array>) {
  return (offset: number, length: number) => {
    const out = new Uint8Array(length);
    for (const [at, data] of parts) {
      const from = Math.max(at, offset);
      const to = Math.min(at + data.length, offset + length);
      if (from < to) out.set(data.subarray(from - at, to - at), from - offset);
    }
    return Promise.resolve(out);
  };
}

Deno.test("extending by a tebibyte, and writing into the hole, reads next to nothing", async () => {
  const bytes = patternBytes(5, 500_000);
  const base = encodeManifest(chunkInline(bytes));
  const parts = new Map([[0, bytes]]);
  const common = { onChunk: () => {}, size: 2 ** 40 + 12_345 };
  const extended = await rechunk({
    ...common,
    base: decodeManifest(base.blob),
    loadSegment: loaderOf(base),
    dirty: new Extents(),
    readNew: sparseReader(parts),
  });
  assert.ok(extended.readBytes < 3 * MAX_CHUNK, `${extended.readBytes} bytes read`);
  // One byte into the hole moves all cuts behind it, and still none of it is read.
  const at = 2 ** 39 + 7;
  parts.set(at, new Uint8Array([1]));
  const written = await rechunk({
    ...common,
    base: decodeManifest(extended.blob),
    loadSegment: loaderOf(extended),
    dirty: Extents.of([{ start: at, end: at + 1 }]),
    readNew: sparseReader(parts),
  });
  assert.ok(written.readBytes < 6 * MAX_CHUNK, `${written.readBytes} bytes read`);
  assert.equal(written.size, common.size);
  const around = await decodeManifest(written.blob).chunksIn(at, 1, loaderOf(extended, written));
  assert.equal(around.length, 1);
  const [chunk] = around;
  assert.ok(chunk);
  assert.deepEqual(sha256(await sparseReader(parts)(chunk.offset, chunk.length)), chunk.hash);
});

/** A content too large to hold at once: `block` again and again, but for a hole and what has been written. */
class Virtual {
  readonly written = new Map<number, Uint8Array>();
  readonly #block = patternBytes(13, 32_000_000);

  constructor(public size: number, readonly holeStart: number, readonly holeEnd: number) {}

  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(length);
    for (let at = 0; at < length;) {
      const from = (offset + at) % this.#block.length;
      const part = this.#block.subarray(from, from + length - at);
      out.set(part, at);
      at += part.length;
    }
    const clear = (from: number) => Math.min(Math.max(from - offset, 0), length);
    out.fill(0, clear(this.holeStart), clear(this.holeEnd));
    for (const [at, data] of this.written) {
      for (let i = Math.max(0, offset - at); i < data.length && at + i < offset + length; i++) {
        out[at + i - offset] = data[i] ?? 0;
      }
    }
    return out;
  }

  /** The manifest by the long way; only the inside of the hole is not read. */
  manifest(): BuiltManifest {
    const chunker = createChunker();
    const builder = new ManifestBuilder();
    const writes = [...this.written];
    const isZeros = (at: number) =>
      at >= this.holeStart && at + MAX_CHUNK <= this.holeEnd &&
      !writes.some(([write, data]) => write < at + MAX_CHUNK && write + data.length > at);
    for (let at = 0; at < this.size;) {
      if (isZeros(at)) {
        builder.addZeroChunks(1);
        at += MAX_CHUNK;
        continue;
      }
      const bytes = this.read(at, Math.min(this.size - at, 4_000_000));
      let done = 0;
      for (const length of chunker.cutAll(bytes, 0, bytes.length, at + bytes.length === this.size)) {
        builder.add(sha256(bytes.subarray(done, done + length)), length);
        done += length;
        if (isZeros(at + done)) break;
      }
      at += done;
    }
    return builder.finish();
  }
}

Deno.test("whole segments are taken over by reference, and only where that changes nothing", async () => {
  const content = new Virtual(3_700_000_000, 200_000_000, 3_500_000_000);
  const base = content.manifest();
  const segments = [...decodeManifest(base.blob).segments()];
  const endOf = (i: number) => (segments[i]?.offset ?? 0) + (segments[i]?.length ?? 0);
  const dataSegments = segments.findIndex((_, i) => endOf(i) > content.holeStart);
  assert.ok(dataSegments >= 2 && segments.length > 8, `${dataSegments} of ${segments.length} segments`);
  const [lastChunk] = await decodeManifest(base.blob).chunksIn(endOf(segments.length - 4) - 1, 1, loaderOf(base));
  assert.ok(lastChunk);
  const size = content.size;
  for (
    const [at, length] of [
      [10, 100], // at the start
      [size, 500_000], // behind the end: the last segment ended because the content did
      [endOf(0) - 10, 5], // the end of a segment's last chunk moves
      [endOf(dataSegments + 1) - 10, 5],
      // The chunk that ends a segment gets another hash but ends where it did: the segment goes on, into the next one.
      [lastChunk.offset + 100, 5],
      [1_000_000_007, 300_000], // in the hole: all cuts up to its end move
      [200_000_000 - 3, 6],
      [3_500_000_000 - 3, 6],
    ] as const
  ) {
    content.written.clear();
    content.written.set(at, patternBytes(at, length));
    content.size = Math.max(size, at + length);
    let loaded = 0;
    const load = loaderOf(base);
    const result = await rechunk({
      base: decodeManifest(base.blob),
      loadSegment: (hash) => {
        loaded++;
        return load(hash);
      },
      dirty: Extents.of([{ start: at, end: at + length }]),
      size: content.size,
      readNew: (offset, length) => Promise.resolve(content.read(offset, length)),
      onChunk: () => {},
    });
    assert.equal(hex(result.hash), hex(content.manifest().hash), `after a write at ${at}`);
    assert.ok(result.readBytes < length + 6 * MAX_CHUNK, `${result.readBytes} bytes read for ${length} at ${at}`);
    assert.ok(loaded <= 14, `${loaded} segments loaded`);
  }
});

Deno.test("segments can be handed out on the way", async () => {
  const model = new Model(LARGE);
  model.write(1000, patternBytes(3, 10));
  const handed: string[] = [];
  const { segments, hash } = await run(LARGE_MANIFEST, model, { onSegment: ({ hash }) => handed.push(hex(hash)) });
  assert.deepEqual(segments, []);
  const whole = await run(LARGE_MANIFEST, model);
  assert.deepEqual(handed, whole.segments.map((segment) => hex(segment.hash)));
  assert.equal(hex(hash), hex(whole.hash));
});

Deno.test("a short read, a failing callback and an abort end it", async () => {
  const bytes = patternBytes(6, 1_000_000);
  const base = encodeManifest(chunkInline(bytes));
  const model = new Model(bytes);
  model.write(500_000, new Uint8Array(10));
  const short = (offset: number, length: number) => Promise.resolve(bytes.subarray(offset, offset + length - 1));
  await assert.rejects(run(base, model, { readNew: short }), (error) => hasCode(error, "corrupt"));
  await assert.rejects(
    run(base, model, { onChunk: () => Promise.reject(new Error("full")) }),
    /full/,
  );
  await assert.rejects(run(base, model, { signal: AbortSignal.abort() }), (error) => hasCode(error, "cancelled"));
});

Deno.test("an empty base and an empty result are contents like others", async () => {
  const nothing = new ManifestBuilder().finish();
  const model = new Model(new Uint8Array(0));
  assert.equal(hex((await run(nothing, model)).hash), hex(nothing.hash));
  model.write(0, patternBytes(8, 100));
  const some = await run(nothing, model);
  assert.equal(hex(some.hash), hex(encodeManifest(chunkInline(model.bytes)).hash));
  const emptied = new Model(patternBytes(8, 100));
  emptied.truncate(0);
  assert.equal(hex((await run(some, emptied)).hash), hex(nothing.hash));
});
