/** The worker pool: the same chunks as inline, files with holes, cancellation, and threads that die. */
import assert from "node:assert/strict";
import { FsError, hasCode } from "../fs/error.ts";
import { removeTree, writeFile } from "../platform/files.ts";
import {
  closeFd,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  fallocateFd,
  ftruncateFd,
  lseekFd,
  O_CREAT,
  O_RDWR,
  openFd,
  pwriteFd,
  SEEK_DATA,
} from "../platform/posix.ts";
import { type SpawnWorker, spawnWorker } from "../platform/workers.ts";
import { chunkInline } from "./chunk_inline.ts";
import type { ChunkReply, ChunkRequest } from "./chunk_messages.ts";
import { ChunkPool, type FileBatch, packedAll } from "./chunk_pool.ts";
import { MAX_CHUNK } from "./chunker.ts";
import { FLAG_RAW, FLAG_ZSTD, unpackChunk } from "./codec.ts";
import { hex } from "./hash.ts";
import type { ChunkRef } from "./manifest.ts";
import { patternBytes } from "./testing/bytes.ts";
import { zeroChunkHash } from "./zeros.ts";

function plain(refs: Iterable<ChunkRef>): string[] {
  return Array.from(refs, ({ hash, length }) => `${length} ${hex(hash)}`);
}

function listed(lengths: Uint32Array, hashes: Uint8Array): ChunkRef[] {
  return Array.from(lengths, (length, i) => ({ hash: hashes.subarray(i * 32, i * 32 + 32), length }));
}

function expand(batches: readonly FileBatch[]): ChunkRef[] {
  const zeros = zeroChunkHash(MAX_CHUNK);
  assert.ok(zeros);
  return batches.flatMap(({ zeroChunks, lengths, hashes }) => [
    ...Array.from({ length: zeroChunks }, () => ({ hash: zeros, length: MAX_CHUNK })),
    ...listed(lengths, hashes),
  ]);
}

async function withFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await run(folder);
  } finally {
    await removeTree(folder);
  }
}

Deno.test("workers cut and hash like the inline path, and give the buffer back", async () => {
  await using pool = new ChunkPool();
  const contents = [0, 1, 20_000, 3_000_000].map((length, seed) => patternBytes(seed, length, "runs"));
  const results = await Promise.all(contents.map((bytes) => pool.process(bytes.slice().buffer, true)));
  results.forEach(({ buffer, lengths, hashes, consumed, packed }, i) => {
    const bytes = contents[i];
    assert.ok(bytes);
    assert.deepEqual(new Uint8Array(buffer), bytes);
    assert.equal(consumed, bytes.length);
    assert.equal(packed, undefined);
    assert.deepEqual(plain(listed(lengths, hashes)), plain(chunkInline(bytes)));
  });
});

Deno.test("an unfinished buffer leaves its rest, and says so before it is hashed", async () => {
  await using pool = new ChunkPool({ workers: 1 });
  const bytes = patternBytes(1, 1_000_000);
  const tails: Uint8Array[] = [];
  const { consumed, lengths } = await pool.process(bytes.slice().buffer, false, {
    offset: 1000,
    length: 900_000,
    onCut: (tail) => tails.push(tail),
  });
  assert.equal(lengths.reduce((a, b) => a + b, 0), consumed);
  assert.ok(consumed < 900_000 && 900_000 - consumed < MAX_CHUNK);
  assert.deepEqual(tails, [bytes.slice(1000 + consumed, 901_000)]);
  const whole = chunkInline(bytes.subarray(1000)).map(({ length }) => length);
  assert.deepEqual([...lengths], whole.slice(0, lengths.length));
});

Deno.test("workers compress what shrinks, with the cut or afterwards", async () => {
  await using pool = new ChunkPool();
  const bytes = new Uint8Array(2_000_000);
  bytes.set(patternBytes(1, 1_000_000, "text"));
  bytes.set(patternBytes(2, 1_000_000, "random"), 1_000_000);
  const refs = chunkInline(bytes);
  const raw = (i: number) => bytes.subarray(refs[i]?.offset ?? 0, (refs[i]?.offset ?? 0) + (refs[i]?.length ?? 0));
  const { packed } = await pool.process(bytes.slice().buffer, true, { compress: true });
  const later = await pool.pack(bytes.slice().buffer, refs);
  assert.ok(packed);
  assert.deepEqual(new Uint8Array(later.buffer), bytes);
  assert.deepEqual(later.packed, packed);
  const chunks = [...packedAll(packed, raw)];
  assert.equal(chunks.length, refs.length);
  chunks.forEach(({ stored, flags, rawLength }, i) => {
    assert.deepEqual(unpackChunk(stored, flags, rawLength, refs[i]?.hash), raw(i));
  });
  assert.equal(chunks[0]?.flags, FLAG_ZSTD);
  assert.equal(chunks.at(-1)?.flags, FLAG_RAW);
});

Deno.test("a file is chunked where it lies, holes included, like its bytes", async () => {
  await withFolder(async (folder) => {
    await using pool = new ChunkPool();
    const path = `${folder}/sparse`;
    const size = 45_000_000;
    const bytes = new Uint8Array(size);
    let holes = false;
    const fd = openFd(path, O_RDWR | O_CREAT);
    try {
      ftruncateFd(fd, size);
      // Data at both sides of a window's end, short data alone in a hole, data in front of and behind a large hole.
      for (const [at, length] of [[0, 9_000_000], [12_000_000, 5000], [30_000_000, 8_500_000], [40_000_001, 1]]) {
        const data = patternBytes(at ?? 0, length ?? 0);
        bytes.set(data, at);
        pwriteFd(fd, data, at ?? 0);
      }
      fallocateFd(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100_000, 2_000_000);
      bytes.fill(0, 100_000, 2_100_000);
      holes = lseekFd(fd, 1_000_000, SEEK_DATA) > 1_000_000;
    } finally {
      closeFd(fd);
    }
    const batches: FileBatch[] = [];
    assert.equal(await pool.processFile(path, undefined, (batch) => void batches.push(batch)), size);
    assert.deepEqual(plain(expand(batches)), plain(chunkInline(bytes)));
    if (holes) assert.ok(batches.some(({ zeroChunks }) => zeroChunks > 0), "holes are not read");
    let position = 0;
    for (const batch of batches) {
      assert.equal(batch.offset, position);
      position += expand([batch]).reduce((sum, { length }) => sum + length, 0);
    }
    assert.equal(position, size);

    const ranges = [{ offset: 50_000, length: 5_000_000 }, { offset: 20_000_000, length: 0 }, {
      offset: 13_000_000,
      length: 20_000_000,
    }];
    const found: FileBatch[] = [];
    await pool.processFile(path, ranges, (batch) => void found.push(batch));
    ranges.forEach(({ offset, length }, i) => {
      assert.deepEqual(
        plain(expand(found.filter(({ range }) => range === i))),
        plain(chunkInline(bytes.subarray(offset, offset + length))),
      );
    });
  });
});

Deno.test("a slow consumer gets one batch at a time", async () => {
  await withFolder(async (folder) => {
    await using pool = new ChunkPool({ workers: 1 });
    const bytes = patternBytes(7, 40_000_000);
    await writeFile(`${folder}/file`, bytes);
    let running = 0;
    const refs: ChunkRef[] = [];
    await pool.processFile(`${folder}/file`, undefined, async (batch) => {
      assert.equal(++running, 1);
      // Another task gets its turn on the same thread meanwhile.
      await pool.process(new ArrayBuffer(10), true);
      refs.push(...expand([batch]));
      running--;
    });
    assert.deepEqual(plain(refs), plain(chunkInline(bytes)));
  });
});

Deno.test("errors of a file keep their code and path", async () => {
  await withFolder(async (folder) => {
    await using pool = new ChunkPool();
    const missing = await pool.processFile(`${folder}/missing`, undefined, () => {}).catch((error) => error);
    assert.ok(hasCode(missing, "not_found"));
    assert.match(String(missing.message), /missing/);
    await writeFile(`${folder}/short`, new Uint8Array(100));
    await assert.rejects(
      pool.processFile(`${folder}/short`, [{ offset: 0, length: 200 }], () => {}),
      (error) => hasCode(error, "conflict"),
    );
  });
});

Deno.test("an error of the consumer and an abort both end a file's task and leave the worker fit", async () => {
  await withFolder(async (folder) => {
    await using pool = new ChunkPool({ workers: 1 });
    const path = `${folder}/file`;
    await writeFile(path, patternBytes(8, 60_000_000));
    let calls = 0;
    const failing = pool.processFile(path, undefined, () => {
      calls++;
      throw new FsError("no_space", "the disk is full");
    });
    await assert.rejects(failing, (error) => hasCode(error, "no_space"));
    const abort = new AbortController();
    const aborted = pool.processFile(path, undefined, async () => {
      calls++;
      // By the second answer the worker has also sent the next batch, which must not be delivered any more.
      for (let i = 0; i < 4; i++) await pool.process(new ArrayBuffer(10), true);
      abort.abort();
    }, { signal: abort.signal });
    await assert.rejects(aborted, (error) => hasCode(error, "cancelled"));
    await assert.rejects(
      pool.process(new ArrayBuffer(10), true, { signal: abort.signal }),
      (error) => hasCode(error, "cancelled"),
    );
    assert.equal((await pool.process(new ArrayBuffer(10), true)).consumed, 10);
    assert.equal(calls, 2, "one call for each of the two tasks");
    for (let tries = 0; isOpen(path); tries++) {
      assert.ok(tries < 200, "the worker closes the files");
      await pool.process(new ArrayBuffer(10), true);
    }
  });
});

/** Has this process a descriptor of the file? */
function isOpen(path: string): boolean {
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      if (Deno.readLinkSync(`/proc/self/fd/${name}`) === path) return true;
    } catch (error) {
      // The descriptor of the listing itself is gone by now.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return false;
}

/** The first workers die at their first message, the later ones are real. */
function spawnDying(deaths: number) {
  let started = 0;
  const spawn: SpawnWorker<ChunkRequest, ChunkReply> = (listener) =>
    spawnWorker(
      started++ < deaths
        ? "data:application/javascript,self.onmessage = () => { throw 'struck by lightning'; };"
        : new URL("./chunk_worker.ts", import.meta.url),
      "test",
      listener,
    );
  return { spawn, started: () => started };
}

Deno.test("a dead worker is replaced; a file is begun again, a lost buffer is reported", async () => {
  await withFolder(async (folder) => {
    const { spawn, started } = spawnDying(1);
    await using pool = new ChunkPool({ workers: 1, spawn });
    const bytes = patternBytes(9, 500_000);
    await writeFile(`${folder}/file`, bytes);
    const refs: ChunkRef[] = [];
    const [file, buffer] = await Promise.allSettled([
      pool.processFile(`${folder}/file`, undefined, (batch) => void refs.push(...expand([batch]))),
      pool.process(new ArrayBuffer(10), true),
    ]);
    assert.equal(file.status, "fulfilled");
    assert.deepEqual(plain(refs), plain(chunkInline(bytes)));
    assert.equal(buffer.status, "rejected");
    assert.ok(hasCode(buffer.reason, "internal"));
    assert.match(String(buffer.reason.message), /struck by lightning/);
    assert.equal((await pool.process(new ArrayBuffer(10), true)).consumed, 10);
    assert.equal(started(), 2);
  });
});

Deno.test("a file whose worker dies twice fails instead of trying for ever", async () => {
  const { spawn, started } = spawnDying(5);
  await using pool = new ChunkPool({ workers: 1, spawn });
  await assert.rejects(pool.processFile("/any", undefined, () => {}), (error) => hasCode(error, "internal"));
  assert.equal(started(), 2);
});

Deno.test("closing the pool ends what runs and refuses what comes", async () => {
  const pool = new ChunkPool();
  const running = pool.process(new ArrayBuffer(1_000_000), true);
  pool.close();
  await assert.rejects(running, (error) => hasCode(error, "cancelled"));
  await assert.rejects(pool.process(new ArrayBuffer(1), true), (error) => hasCode(error, "cancelled"));
});
