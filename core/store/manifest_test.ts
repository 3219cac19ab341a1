/** Manifests: round trips, reading ranges, what an insertion changes, holes, and blobs that are not manifests. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { hasCode } from "../fs/error.ts";
import { MAX_CHUNK } from "./chunker.ts";
import { hex, sha256 } from "./hash.ts";
import {
  type BuiltManifest,
  type ChunkRef,
  type ChunkSpan,
  decodeManifest,
  decodeSegment,
  encodeManifest,
  ManifestBuilder,
  MAX_INLINE_CHUNKS,
  MAX_SEGMENT_CHUNKS,
  MIN_SEGMENT_CHUNKS,
  type SegmentBlob,
} from "./manifest.ts";
import { xorshift } from "./testing/bytes.ts";
import { isZeroChunk, zeroChunkHash } from "./zeros.ts";

/** `count` different chunks whose identities depend on the seed. */
function someChunks(seed: number, count: number): ChunkRef[] {
  const next = xorshift(seed);
  return Array.from({ length: count }, () => {
    const word = next();
    return { hash: sha256(new Uint8Array(new Uint32Array([word, seed]).buffer)), length: 1 + word % MAX_CHUNK };
  });
}

function loader(built: BuiltManifest): (hash: Uint8Array) => Uint8Array {
  const byHash = new Map(built.segments.map((segment) => [hex(segment.hash), segment.blob]));
  return (hash) => {
    const blob = byHash.get(hex(hash));
    assert.ok(blob, "the manifest asks only for its own segments");
    return blob;
  };
}

function plain(spans: readonly ChunkSpan[]): string[] {
  return spans.map(({ hash, length, offset }) => `${offset}+${length} ${hex(hash)}`);
}

function withOffsets(chunks: readonly ChunkRef[]): ChunkSpan[] {
  let offset = 0;
  return chunks.map(({ hash, length }) => {
    const span = { hash, length, offset };
    offset += length;
    return span;
  });
}

async function allChunks(built: BuiltManifest): Promise<ChunkSpan[]> {
  const all: ChunkSpan[] = [];
  for await (const batch of decodeManifest(built.blob, built.hash).chunks(loader(built))) all.push(...batch);
  return all;
}

const counts = fc.oneof(
  fc.nat(40),
  fc.constantFrom(1023, 1024, 1025, 2048, 5000),
  fc.integer({ min: 1000, max: 6000 }),
);

Deno.test("what is built is what is read, whole and by range", async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(), counts, fc.nat(), fc.nat(), async (seed, count, a, b) => {
      const chunks = withOffsets(someChunks(seed, count));
      const built = encodeManifest(chunks);
      const view = decodeManifest(built.blob, built.hash);
      assert.equal(view.size, chunks.reduce((sum, { length }) => sum + length, 0));
      assert.equal(view.chunkCount, count);
      assert.equal(view.kind, count <= MAX_INLINE_CHUNKS ? "chunks" : "segments");
      assert.deepEqual(plain(await allChunks(built)), plain(chunks));
      const from = view.size === 0 ? 0 : a % (view.size + 10);
      const length = b % (Math.min(view.size, 3_000_000) + 10);
      const expected = chunks.filter((c) => c.offset < from + length && c.offset + c.length > from && length > 0);
      assert.deepEqual(plain(await view.chunksIn(from, length, loader(built))), plain(expected));
      const sync = view.chunksInSync(from, length);
      if (view.kind === "chunks") assert.deepEqual(plain(sync ?? []), plain(expected));
      else assert.equal(sync, undefined);
    }),
    { numRuns: 60 },
  );
});

Deno.test("a read of one chunk of a large content fetches one segment", async () => {
  const chunks = withOffsets(someChunks(1, 20_000));
  const built = encodeManifest(chunks);
  const load = loader(built);
  let fetched = 0;
  const wanted = chunks[15_000];
  assert.ok(wanted);
  const found = await decodeManifest(built.blob).chunksIn(wanted.offset, 1, (hash) => {
    fetched++;
    return load(hash);
  });
  assert.deepEqual(plain(found), plain([wanted]));
  assert.equal(fetched, 1);
});

Deno.test("segments keep to their limits and average about 512 chunks", () => {
  const { segments } = encodeManifest(someChunks(2, 200_000));
  const sizes = segments.map((segment) => segment.count);
  sizes.slice(0, -1).forEach((n) => assert.ok(n >= MIN_SEGMENT_CHUNKS && n <= MAX_SEGMENT_CHUNKS, `${n} chunks`));
  const mean = 200_000 / sizes.length;
  assert.ok(mean > 430 && mean < 600, `mean ${mean}`);
});

Deno.test("an inserted chunk changes few segments", () => {
  const chunks = someChunks(3, 30_000);
  const before = new Set(encodeManifest(chunks).segments.map((segment) => hex(segment.hash)));
  const changed = [...chunks.slice(0, 12_345), ...someChunks(4, 1), ...chunks.slice(12_345)];
  const fresh = encodeManifest(changed).segments.filter((segment) => !before.has(hex(segment.hash)));
  assert.ok(fresh.length >= 1 && fresh.length <= 6, `${fresh.length} new segments`);
});

Deno.test("the segments handed out on the way are those a builder would return", () => {
  const chunks = someChunks(5, 10_000);
  const handed: SegmentBlob[] = [];
  const builder = new ManifestBuilder({ onSegment: (segment) => handed.push(segment) });
  for (const { hash, length } of chunks) builder.add(hash, length);
  const built = builder.finish();
  const whole = encodeManifest(chunks);
  assert.deepEqual(built.blob, whole.blob);
  assert.deepEqual(built.segments, []);
  assert.deepEqual(handed.map((s) => hex(s.hash)), whole.segments.map((s) => hex(s.hash)));
  handed.forEach((s) => assert.deepEqual(s.hash, sha256(s.blob)));
});

Deno.test("zero chunks in bulk give the manifest that zero chunks one by one give", () => {
  const zeros = zeroChunkHash(MAX_CHUNK);
  assert.ok(zeros);
  fc.assert(
    fc.property(fc.nat(3000), fc.nat(12_000), fc.nat(2000), (head, run, tail) => {
      const before = someChunks(6, head);
      const after = someChunks(7, tail);
      const quick = new ManifestBuilder();
      quick.addAll(before);
      quick.addZeroChunks(run);
      quick.addAll(after);
      const slow = new ManifestBuilder();
      slow.addAll(before);
      for (let i = 0; i < run; i++) slow.add(zeros, MAX_CHUNK);
      slow.addAll(after);
      assert.equal(quick.size, slow.size);
      assert.equal(quick.count, slow.count);
      assert.equal(hex(quick.finish().hash), hex(slow.finish().hash));
    }),
    { numRuns: 15 },
  );
});

Deno.test("a hole of a tebibyte takes one or two segments and a manifest of kilobytes", () => {
  const builder = new ManifestBuilder();
  builder.addZeroChunks(2 ** 40 / MAX_CHUNK);
  const built = builder.finish();
  assert.equal(built.size, 2 ** 40);
  assert.ok(built.segments.length <= 2);
  assert.ok(built.blob.length < 2 ** 21);
});

Deno.test("zero chunks are known by their hash, and nothing else is taken for one", () => {
  for (const length of [4096, 65536, MAX_CHUNK]) {
    assert.deepEqual(zeroChunkHash(length), sha256(new Uint8Array(length)));
    assert.ok(isZeroChunk(sha256(new Uint8Array(length)), length));
    const other = new Uint8Array(length);
    other[length - 1] = 1;
    assert.ok(!isZeroChunk(sha256(other), length));
  }
  assert.equal(zeroChunkHash(0), undefined);
  assert.equal(zeroChunkHash(MAX_CHUNK + 4096), undefined);
  assert.ok(!isZeroChunk(sha256(new Uint8Array(5000)), 5000));
  assert.ok(!isZeroChunk(sha256(new Uint8Array(4096)), 8192));
});

Deno.test("a builder refuses chunks that can't be", () => {
  const builder = new ManifestBuilder();
  const hash = new Uint8Array(32);
  for (const length of [0, -1, 1.5, MAX_CHUNK + 1]) {
    assert.throws(() => builder.add(hash, length), (error) => hasCode(error, "invalid_input"));
  }
  assert.throws(() => builder.add(new Uint8Array(31), 5), (error) => hasCode(error, "invalid_input"));
});

Deno.test("malformed blobs are corrupt, never something else", () => {
  const isCorrupt = (error: unknown) => hasCode(error, "corrupt");
  const inline = encodeManifest(someChunks(8, 3)).blob;
  const large = encodeManifest(someChunks(9, 3000));
  const change = (blob: Uint8Array, at: number, value: number) => {
    const copy = blob.slice();
    copy[at] = value;
    return copy;
  };
  const bad = [
    ...[0, 1, 9].map((n) => inline.subarray(0, n)),
    ...[inline, large.blob].flatMap((blob) => [
      change(blob, 0, 2), // version
      change(blob, 1, 2), // kind
      change(blob, 1, blob === inline ? 1 : 0), // the other kind
      change(blob, 2, (blob[2] ?? 0) ^ 1), // total
      change(blob, 9, 0xff), // total beyond 2^53
      blob.subarray(0, blob.length - 1),
      blob.subarray(0, -36),
    ]),
    change(inline, 10 + 32 + 3, 1), // a chunk of more than 16 MiB
    change(large.blob, 10 + 32 + 8, 0), // a segment's count
  ];
  bad.forEach((blob, i) => assert.throws(() => decodeManifest(blob), isCorrupt, `case ${i}`));
  assert.throws(() => decodeManifest(inline, sha256(large.blob)), isCorrupt);
  const segment = [...decodeManifest(large.blob).segments()][0];
  const blob = large.segments[0]?.blob;
  assert.ok(segment && blob);
  assert.equal(decodeSegment(blob, segment).length, segment.count);
  assert.throws(() => decodeSegment(blob.subarray(36), segment), isCorrupt);
  assert.throws(() => decodeSegment(change(blob, 34, (blob[34] ?? 0) ^ 1), segment), isCorrupt);
});

Deno.test("random damage to a blob gives corrupt or a manifest of the size it claims", () => {
  const blob = encodeManifest(someChunks(10, 20)).blob;
  fc.assert(
    fc.property(fc.nat(blob.length - 1), fc.integer({ min: 1, max: 255 }), (at, bits) => {
      const copy = blob.slice();
      copy[at] = (copy[at] ?? 0) ^ bits;
      try {
        const view = decodeManifest(copy);
        const spans = view.chunksInSync(0, view.size) ?? [];
        assert.equal(spans.reduce((sum, { length }) => sum + length, 0), view.size);
      } catch (error) {
        assert.ok(hasCode(error, "corrupt"), String(error));
      }
    }),
  );
});
