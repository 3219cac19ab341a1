/** Turns a byte stream into chunks batch by batch: reading, hashing and the consumer's work overlap in bounded memory. */
import { FsError, toFsError } from "../fs/error.ts";
import { chunkInline, INLINE_LIMIT } from "./chunk_inline.ts";
import type { ChunkPool, PackedChunks } from "./chunk_pool.ts";
import { MAX_CHUNK } from "./chunker.ts";
import { HASH_LENGTH } from "./hash.ts";
import type { ChunkSpan } from "./manifest.ts";

export interface ChunkBatch {
  /** The bytes of the chunks, back to back. They are the consumer's to keep. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** `offset` counts from the start of `bytes`. */
  readonly refs: readonly ChunkSpan[];
  /** Where `bytes` begin in the stream. */
  readonly offset: number;
  /** The stored forms, with `compress` only (see `packedAll`); undefined also for what was too small for a worker. */
  readonly packed: PackedChunks | undefined;
  /**
   * Lets the stream use the memory of `bytes` again, which must not be touched afterwards; calling it is optional. A new
   * buffer costs the main thread 1.9 ms for 4 MiB (page faults), a used one nothing.
   */
  release(): void;
}

export interface ChunkStreamOptions {
  readonly signal?: AbortSignal | undefined;
  /** Bytes read for a batch. @default {4 MiB} */
  readonly batchSize?: number;
  /** Also make the stored form of every chunk. @default {false} */
  readonly compress?: boolean;
}

const BATCH_SIZE = 4 * 1024 * 1024;
/** Batches that are being hashed or wait for the consumer; one more is being filled. */
const IN_FLIGHT = 2;

/**
 * The chunks of a stream in order. At most four batches are in memory, the one the consumer holds included; a slow
 * consumer slows the stream down. Ending the iteration early cancels the stream. Throws what the stream throws,
 * cancelled when aborted, and what `ChunkPool.process` throws.
 */
export async function* chunkStream(
  stream: ReadableStream<Uint8Array>,
  pool: ChunkPool,
  options: ChunkStreamOptions = {},
): AsyncGenerator<ChunkBatch> {
  const { signal, batchSize = BATCH_SIZE, compress = false } = options;
  const stop = new AbortController();
  const pieces = new Pieces(stream, signal);
  try {
    const start = await pieces.head(INLINE_LIMIT);
    if (start !== undefined) {
      if (start.length > 0) {
        yield { bytes: start, refs: chunkInline(start), offset: 0, packed: undefined, release() {} };
      }
      return;
    }
    const poolSignal = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
    const queue = new BatchQueue(IN_FLIGHT);
    const pump = fillBatches(pieces, pool, queue, batchSize, compress, poolSignal).then(
      () => queue.end(),
      (error) => queue.fail(error),
    );
    try {
      for (let next = await queue.take(); next !== undefined; next = await queue.take()) yield next;
    } finally {
      stop.abort();
      queue.close();
      await pieces.cancel();
      await pump;
    }
  } finally {
    await pieces.cancel();
  }
}

/** Reads the stream into buffers and hands them to the pool, each beginning with what the one before left over. */
async function fillBatches(
  pieces: Pieces,
  pool: ChunkPool,
  queue: BatchQueue,
  batchSize: number,
  compress: boolean,
  signal: AbortSignal,
): Promise<void> {
  let tail: Promise<Uint8Array> = Promise.resolve(new Uint8Array(0));
  let position = 0;
  const free: ArrayBuffer[] = [];
  for (let final = false; !final;) {
    // The rest of the batch before goes in front of what is read, so reading need not wait for it.
    const buffer = free.pop() ?? new ArrayBuffer(MAX_CHUNK + batchSize);
    const filled = await pieces.fill(new Uint8Array(buffer, MAX_CHUNK));
    final = filled < batchSize;
    const rest = await tail;
    const start = MAX_CHUNK - rest.length;
    new Uint8Array(buffer).set(rest, start);
    const offset = position - rest.length;
    position += filled;
    const cut = Promise.withResolvers<Uint8Array>();
    cut.promise.catch(() => {});
    tail = cut.promise;
    const length = rest.length + filled;
    const batch = pool.process(buffer, final, { offset: start, length, compress, signal, onCut: cut.resolve })
      .then(({ buffer, lengths, hashes, consumed, packed }) => {
        let at = 0;
        const refs = Array.from(lengths, (length, i) => {
          const ref = { hash: hashes.subarray(i * HASH_LENGTH, (i + 1) * HASH_LENGTH), length, offset: at };
          at += length;
          return ref;
        });
        let released = false;
        const release = () => {
          if (!released) free.push(buffer);
          released = true;
        };
        return { bytes: new Uint8Array(buffer, start, consumed), refs, offset, packed, release };
      });
    // Without this a failure before the cuts are known would leave the next turn waiting for them.
    batch.catch(cut.reject);
    if (!await queue.put(batch)) return;
  }
}

/** A stream read into buffers of our own size. */
class Pieces {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = () => void this.cancel();
  #pending: Uint8Array[] = [];
  #ended = false;

  constructor(stream: ReadableStream<Uint8Array>, signal: AbortSignal | undefined) {
    this.#reader = stream.getReader();
    this.#signal = signal;
    signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** All bytes when the stream ends within `limit`; else undefined, and nothing is lost. */
  async head(limit: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    let length = 0;
    const pieces: Uint8Array[] = [];
    while (length <= limit) {
      const piece = await this.#read();
      if (piece === undefined) {
        const all = new Uint8Array(length);
        let at = 0;
        for (const one of pieces) {
          all.set(one, at);
          at += one.length;
        }
        return all;
      }
      pieces.push(piece);
      length += piece.length;
    }
    this.#pending = pieces;
    return undefined;
  }

  /** Reads until `into` is full or the stream ends; returns the bytes read. */
  async fill(into: Uint8Array): Promise<number> {
    let at = 0;
    while (at < into.length) {
      const piece = this.#pending.shift() ?? await this.#read();
      if (piece === undefined) break;
      const fitting = piece.length <= into.length - at ? piece : piece.subarray(0, into.length - at);
      into.set(fitting, at);
      at += fitting.length;
      if (fitting.length < piece.length) this.#pending.unshift(piece.subarray(fitting.length));
    }
    return at;
  }

  async #read(): Promise<Uint8Array | undefined> {
    this.#throwIfAborted();
    if (this.#ended) return undefined;
    const { done, value } = await this.#reader.read();
    // An abort cancels the stream, which then looks as if it had ended.
    this.#throwIfAborted();
    if (done) this.#ended = true;
    return value;
  }

  #throwIfAborted(): void {
    if (!this.#signal?.aborted) return;
    const error = toFsError(this.#signal.reason);
    throw error.code === "internal" ? new FsError("cancelled", "the stream was aborted", { cause: error }) : error;
  }

  /** Stops the stream when it has not ended; its own failure to stop concerns nobody. */
  async cancel(): Promise<void> {
    this.#signal?.removeEventListener("abort", this.#onAbort);
    if (this.#ended) return;
    this.#ended = true;
    await this.#reader.cancel().catch(() => {});
  }
}

/** At most `limit` batches on their way from the pool to the consumer, in order. */
class BatchQueue {
  readonly #limit: number;
  readonly #batches: Promise<ChunkBatch>[] = [];
  #closed = false;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;
  #wake: () => void = () => {};

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Waits for room; false when nobody takes any more. */
  async put(batch: Promise<ChunkBatch>): Promise<boolean> {
    batch.catch(() => {});
    this.#batches.push(batch);
    this.#wake();
    while (this.#batches.length >= this.#limit && !this.#closed) await this.#change();
    return !this.#closed;
  }

  /** The next batch; undefined at the end. */
  async take(): Promise<ChunkBatch | undefined> {
    for (;;) {
      const batch = this.#batches.shift();
      if (batch !== undefined) {
        this.#wake();
        return await batch;
      }
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.#ended) return undefined;
      await this.#change();
    }
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  fail(error: unknown): void {
    this.#failure = { error };
    this.#wake();
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }

  /** Either side waits here, never both: one waits for room, the other for a batch. */
  #change(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    return promise;
  }
}
