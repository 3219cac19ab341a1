/** Streams: the same chunks however the bytes arrive, bounded read-ahead, errors, early ends. */
import assert from "node:assert/strict";
import { FsError, hasCode } from "../fs/error.ts";
import { chunkInline } from "./chunk_inline.ts";
import { ChunkPool, packedAll } from "./chunk_pool.ts";
import { type ChunkBatch, chunkStream, type ChunkStreamOptions } from "./chunk_stream.ts";
import { unpackChunk } from "./codec.ts";
import { hex, sha256 } from "./hash.ts";
import { patternBytes, xorshift } from "./testing/bytes.ts";

interface Source {
  readonly stream: ReadableStream<Uint8Array>;
  readonly delivered: () => number;
  readonly cancelled: () => boolean;
}

/** A stream of `bytes` in pieces of changing size; throws `failure` at the end when given. */
function source(bytes: Uint8Array, largest: number, failure?: Error): Source {
  const next = xorshift(largest);
  let at = 0;
  let cancelled = false;
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at === bytes.length) {
        if (failure === undefined) controller.close();
        else controller.error(failure);
        return;
      }
      const end = Math.min(bytes.length, at + 1 + next() % largest);
      controller.enqueue(bytes.slice(at, end));
      at = end;
    },
    cancel() {
      cancelled = true;
    },
  }, { highWaterMark: 0 });
  return { stream, delivered: () => at, cancelled: () => cancelled };
}

async function collect(stream: ReadableStream<Uint8Array>, pool: ChunkPool, options?: ChunkStreamOptions) {
  const batches: ChunkBatch[] = [];
  for await (const batch of chunkStream(stream, pool, options)) batches.push(batch);
  return batches;
}

Deno.test("a stream gives the chunks of its bytes, whatever the pieces and batches", async () => {
  await using pool = new ChunkPool();
  for (const length of [0, 1, 65_536, 65_537, 300_000, 1_048_576, 5_000_000]) {
    const bytes = patternBytes(length, length, length % 2 === 0 ? "runs" : "random");
    const expected = chunkInline(bytes).map(({ hash, length, offset }) => `${offset} ${length} ${hex(hash)}`);
    for (const [largest, batchSize] of [[1000, 300_000], [200_000, 262_144], [3_000_000, 1_048_576]] as const) {
      if (length > 1_048_576 && largest === 1000) continue;
      const batches = await collect(source(bytes, largest).stream, pool, { batchSize });
      const found = batches.flatMap(({ refs, offset: base, bytes: part }) =>
        refs.map(({ hash, length, offset }) => {
          assert.deepEqual(sha256(part.subarray(offset, offset + length)), hash);
          return `${base + offset} ${length} ${hex(hash)}`;
        })
      );
      assert.deepEqual(found, expected);
      assert.equal(batches.reduce((sum, batch) => sum + batch.bytes.length, 0), length);
    }
  }
});

Deno.test("released memory is used again without harm to the batches that are still held", async () => {
  await using pool = new ChunkPool();
  const bytes = patternBytes(9, 6_000_000);
  const held: ChunkBatch[] = [];
  let count = 0;
  for await (const batch of chunkStream(source(bytes, 200_000).stream, pool, { batchSize: 262_144 })) {
    assert.deepEqual(batch.bytes, bytes.subarray(batch.offset, batch.offset + batch.bytes.length));
    if (count++ % 5 === 0) held.push(batch);
    else batch.release();
    if (count === 3) batch.release();
  }
  for (const batch of held) {
    assert.deepEqual(batch.bytes, bytes.subarray(batch.offset, batch.offset + batch.bytes.length));
  }
});

Deno.test("a stream can be compressed on the way", async () => {
  await using pool = new ChunkPool();
  const bytes = patternBytes(1, 2_000_000, "text");
  let stored = 0;
  for await (const batch of chunkStream(source(bytes, 100_000).stream, pool, { batchSize: 524_288, compress: true })) {
    const raw = (i: number) => {
      const { offset = 0, length = 0 } = batch.refs[i] ?? {};
      return batch.bytes.subarray(offset, offset + length);
    };
    assert.ok(batch.packed);
    for (const [i, chunk] of [...packedAll(batch.packed, raw)].entries()) {
      assert.deepEqual(unpackChunk(chunk.stored, chunk.flags, chunk.rawLength, batch.refs[i]?.hash), raw(i));
      stored += chunk.stored.length;
    }
  }
  assert.ok(stored < bytes.length * 0.8);
});

Deno.test("a consumer that does not ask stops the stream after a few batches", async () => {
  await using pool = new ChunkPool();
  const bytes = patternBytes(2, 20_000_000);
  const { stream, delivered, cancelled } = source(bytes, 100_000);
  const batches = chunkStream(stream, pool, { batchSize: 1_000_000 });
  assert.ok(!(await batches.next()).done);
  // Each hop through the pool gives the read-ahead time to go as far as it ever will.
  let before = -1;
  for (let quiet = 0; quiet < 20; quiet++) {
    await pool.process(new ArrayBuffer(100_000), true);
    if (delivered() !== before) quiet = 0;
    before = delivered();
  }
  assert.ok(delivered() <= 4_500_000, `${delivered()} bytes were read ahead`);
  await batches.return(undefined);
  assert.ok(cancelled());
});

Deno.test("an error of the stream reaches the consumer", async () => {
  await using pool = new ChunkPool();
  for (const length of [10, 3_000_000]) {
    const failing = source(patternBytes(3, length), 50_000, new FsError("unavailable", "the client went away"));
    await assert.rejects(
      collect(failing.stream, pool, { batchSize: 500_000 }),
      (error) => hasCode(error, "unavailable"),
    );
  }
});

Deno.test("an abort ends the iteration with cancelled and cancels the stream", async () => {
  await using pool = new ChunkPool();
  const abort = new AbortController();
  const { stream, cancelled } = source(patternBytes(4, 9_000_000), 100_000);
  const run = async () => {
    for await (const _ of chunkStream(stream, pool, { batchSize: 500_000, signal: abort.signal })) abort.abort();
  };
  await assert.rejects(run(), (error) => hasCode(error, "cancelled"));
  assert.ok(cancelled());
});

Deno.test("an abort while the stream says nothing ends the iteration", async () => {
  await using pool = new ChunkPool();
  const abort = new AbortController();
  const silent = new ReadableStream<Uint8Array>({ pull: () => new Promise(() => {}) });
  const run = collect(silent, pool, { signal: abort.signal });
  abort.abort();
  await assert.rejects(run, (error) => hasCode(error, "cancelled"));
});

Deno.test("a pool that closes ends the iteration", async () => {
  const pool = new ChunkPool();
  const run = async () => {
    for await (
      const _ of chunkStream(source(patternBytes(5, 9_000_000), 100_000).stream, pool, { batchSize: 500_000 })
    ) {
      pool.close();
    }
  };
  await assert.rejects(run(), (error) => hasCode(error, "cancelled"));
});
