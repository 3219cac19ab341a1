/** Packs: round trips, recovery of what a crash leaves, and every single damaged byte. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { hasCode } from "../fs/error.ts";
import { hex, sha256 } from "./hash.ts";
import {
  CHUNK_DATA_START,
  encodeHeader,
  FLAG_RAW,
  FLAG_ZSTD,
  FOOTER_LENGTH,
  packChunk,
  type PackEntry,
  PackTocBuilder,
  type ReadAt,
  readToc,
  RECORD_HEADER_LENGTH,
  scanOpenPack,
  unpackChunk,
  verifyPack,
} from "./pack.ts";
import { type ByteStyle, patternBytes } from "./testing/bytes.ts";

const isCorrupt = (error: unknown) => hasCode(error, "corrupt");

function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function readerOf(bytes: Uint8Array): ReadAt {
  return (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length));
}

interface Made {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly name: string;
  readonly entries: readonly PackEntry[];
}

function makePack(chunks: readonly Uint8Array[], compress = true): Made {
  const toc = new PackTocBuilder();
  const parts: Uint8Array[] = [encodeHeader()];
  for (const chunk of chunks) {
    const packed = packChunk(chunk, { compress });
    parts.push(toc.append(sha256(chunk), packed).header, packed.stored);
  }
  const { tail, name } = toc.finish();
  return { bytes: concat([...parts, tail]), name, entries: toc.entries };
}

function plain(entries: readonly PackEntry[]): string[] {
  return entries.map((e) => [hex(e.hash), e.offset, e.storedLength, e.rawLength, e.flags].join(" "));
}

const styles = fc.constantFrom<ByteStyle>("random", "text", "zeros");
const chunkList = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 3000 }), styles), { maxLength: 8 })
  .map((list) => list.map(([seed, length, style]) => patternBytes(seed, length, style)));

Deno.test("a finished pack gives back its table of contents and every chunk", async () => {
  await fc.assert(
    fc.asyncProperty(chunkList, fc.boolean(), async (chunks, compress) => {
      const { bytes, name, entries } = makePack(chunks, compress);
      const toc = await readToc(readerOf(bytes), bytes.length);
      assert.equal(toc.name, name);
      assert.equal(toc.layout, "records");
      assert.deepEqual(plain(toc.entries), plain(entries));
      toc.entries.forEach((entry, i) => {
        const stored = bytes.subarray(entry.offset, entry.offset + entry.storedLength);
        assert.deepEqual(unpackChunk(stored, entry.flags, entry.rawLength, entry.hash), chunks[i]);
        if (!compress) assert.equal(entry.flags, FLAG_RAW);
      });
      assert.deepEqual(await verifyPack(readerOf(bytes), bytes.length), toc);
    }),
    { numRuns: 60 },
  );
});

Deno.test("a table of contents larger than the first read is read whole", async () => {
  const chunks = Array.from({ length: 3000 }, (_, i) => patternBytes(i, 20));
  const { bytes, name } = makePack(chunks);
  let reads = 0;
  const toc = await readToc((offset, length) => {
    reads++;
    return readerOf(bytes)(offset, length);
  }, bytes.length);
  assert.equal(toc.name, name);
  assert.equal(toc.entries.length, 3000);
  assert.equal(reads, 2);
});

Deno.test("any first part of a pack yields the chunks that are whole in it", async () => {
  await fc.assert(
    fc.asyncProperty(chunkList, fc.nat(), async (chunks, cut) => {
      const { bytes, entries } = makePack(chunks);
      const size = cut % (bytes.length + 1);
      const found = await scanOpenPack(readerOf(bytes.subarray(0, size)), size);
      const whole = entries.filter((entry) => entry.offset + entry.storedLength <= size);
      assert.deepEqual(plain(found.entries), plain(whole));
      const last = whole.at(-1);
      const start = size < CHUNK_DATA_START ? 0 : CHUNK_DATA_START;
      assert.equal(found.end, last === undefined ? start : last.offset + last.storedLength);
      if (size < bytes.length) await assert.rejects(readToc(readerOf(bytes.subarray(0, size)), size), isCorrupt);
    }),
    { numRuns: 150 },
  );
});

Deno.test("a recovered pack can be continued and finished", async () => {
  const chunks = [1, 2, 3].map((seed) => patternBytes(seed, 500));
  const whole = makePack(chunks);
  const torn = whole.bytes.subarray(0, (whole.entries[2]?.offset ?? 0) + 100);
  const { entries, end } = await scanOpenPack(readerOf(torn), torn.length);
  assert.equal(entries.length, 2);
  const toc = new PackTocBuilder();
  for (const e of entries) toc.add(e.hash, e.offset, e.storedLength, e.rawLength, e.flags);
  assert.equal(toc.position, end);
  const third = packChunk(chunks[2] ?? new Uint8Array(0));
  const { header } = toc.append(sha256(third.stored), third);
  const { tail, name } = toc.finish();
  assert.deepEqual(concat([torn.subarray(0, end), header, third.stored, tail]), whole.bytes);
  assert.equal(name, whole.name);
});

Deno.test("verification notices every single flipped byte", async () => {
  const { bytes } = makePack([patternBytes(1, 300, "text"), patternBytes(2, 100), patternBytes(3, 400, "zeros")]);
  for (let at = 0; at < bytes.length; at++) {
    const damaged = bytes.slice();
    damaged[at] = (damaged[at] ?? 0) ^ (1 + at % 255);
    await assert.rejects(verifyPack(readerOf(damaged), damaged.length), isCorrupt, `byte ${at}`);
  }
});

Deno.test("a scan of a damaged pack yields only chunks that are right", async () => {
  await fc.assert(
    fc.asyncProperty(chunkList, fc.nat(), fc.integer({ min: 1, max: 255 }), async (chunks, where, bits) => {
      const { bytes, entries } = makePack(chunks);
      const at = where % bytes.length;
      bytes[at] = (bytes[at] ?? 0) ^ bits;
      const found = await scanOpenPack(readerOf(bytes), bytes.length);
      const intact = at < CHUNK_DATA_START ? [] : entries.filter((entry) => entry.offset + entry.storedLength <= at);
      const inRecords = entries.some((entry) => at < entry.offset + entry.storedLength);
      assert.deepEqual(plain(found.entries), plain(inRecords || at < CHUNK_DATA_START ? intact : entries));
    }),
    { numRuns: 100 },
  );
});

Deno.test("a file adopted as a pack is read through its tail, gaps included", async () => {
  const file = patternBytes(4, 10_000, "text");
  const toc = new PackTocBuilder("bare");
  for (const [from, to] of [[0, 3000], [3000, 4000], [6000, 9000]] as const) {
    toc.add(sha256(file.subarray(from, to)), from, to - from, to - from, FLAG_RAW);
  }
  const { tail, name } = toc.finish(file.length);
  const bytes = concat([file, tail]);
  const found = await verifyPack(readerOf(bytes), bytes.length);
  assert.equal(found.name, name);
  assert.equal(found.layout, "bare");
  assert.deepEqual(plain(found.entries), plain(toc.entries));
  bytes[3500] = (bytes[3500] ?? 0) ^ 1;
  await assert.rejects(verifyPack(readerOf(bytes), bytes.length), isCorrupt);
});

Deno.test("a store that answers short is not believed", async () => {
  const { bytes } = makePack([patternBytes(1, 3000)]);
  const short: ReadAt = (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length - 1));
  await assert.rejects(readToc(short, bytes.length), isCorrupt);
  await assert.rejects(scanOpenPack(short, bytes.length), isCorrupt);
});

Deno.test("a builder refuses chunks that can't be where they are said to be", () => {
  const toc = new PackTocBuilder();
  const hash = new Uint8Array(32);
  const refused = (...args: Parameters<PackTocBuilder["add"]>) =>
    assert.throws(() => toc.add(...args), (error) => hasCode(error, "invalid_input"));
  const start = CHUNK_DATA_START + RECORD_HEADER_LENGTH;
  refused(hash, start - 1, 10, 10, FLAG_RAW);
  refused(hash, start, 9, 10, FLAG_RAW);
  refused(hash, start, 0, 10, FLAG_ZSTD);
  refused(hash, start, 10, 300_000, FLAG_ZSTD);
  refused(hash, start, 10, 20, 2);
  refused(hash.subarray(1), start, 10, 10, FLAG_RAW);
  toc.add(hash, start, 10, 10, FLAG_RAW);
  assert.throws(() => toc.finish(toc.position + 1), (error) => hasCode(error, "invalid_input"));
  assert.equal(toc.finish().tail.length, 8 + 49 + FOOTER_LENGTH);
});

Deno.test("text is compressed, noise is not, and both come back", () => {
  fc.assert(
    fc.property(
      fc.nat(),
      fc.integer({ min: 1, max: 200_000 }),
      styles,
      fc.boolean(),
      (seed, length, style, compress) => {
        const bytes = patternBytes(seed, length, style);
        const packed = packChunk(bytes, { compress });
        assert.equal(packed.rawLength, length);
        if (packed.flags === FLAG_RAW) assert.deepEqual(packed.stored, bytes);
        else assert.ok(packed.stored.length <= length - length / 8);
        if (!compress || style === "random") assert.equal(packed.flags, FLAG_RAW);
        else if (length > 1000) assert.equal(packed.flags, FLAG_ZSTD);
        assert.deepEqual(unpackChunk(packed.stored, packed.flags, length, sha256(bytes)), bytes);
      },
    ),
    { numRuns: 50 },
  );
});

Deno.test("a damaged or lying stored chunk is corrupt", () => {
  const bytes = patternBytes(6, 50_000, "text");
  const { stored, flags } = packChunk(bytes);
  assert.equal(flags, FLAG_ZSTD);
  for (let length = 0; length < stored.length; length += 97) {
    assert.throws(() => unpackChunk(stored.subarray(0, length), flags, bytes.length), isCorrupt);
  }
  assert.throws(() => unpackChunk(stored, flags, bytes.length - 1), isCorrupt);
  assert.throws(() => unpackChunk(stored, flags, bytes.length + 1), isCorrupt);
  assert.throws(() => unpackChunk(stored, 2, bytes.length), isCorrupt);
  assert.throws(() => unpackChunk(stored, FLAG_RAW, bytes.length), isCorrupt);
  assert.throws(() => unpackChunk(stored, flags, bytes.length, sha256(stored)), isCorrupt);
});

Deno.test("a zstd bomb is stopped at the length that was promised", () => {
  const bomb = packChunk(new Uint8Array(262_144)).stored;
  assert.ok(bomb.length < 1000);
  assert.throws(() => unpackChunk(bomb, FLAG_ZSTD, 1000), isCorrupt);
});
