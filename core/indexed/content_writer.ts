/** ContentWriter: bytes in, chunks in the store and a manifest out. Nothing refers to them before the caller does. */
import type { Index } from "../index/index.ts";
import type { ActiveWriters } from "../store/active_writers.ts";
import { chunkInline, INLINE_LIMIT } from "../store/chunk_inline.ts";
import { type ChunkPool, packedAll } from "../store/chunk_pool.ts";
import type { PackChunkStore } from "../store/chunk_store.ts";
import { chunkStream } from "../store/chunk_stream.ts";
import { type BuiltManifest, encodeManifest, ManifestBuilder, type SegmentBlob } from "../store/manifest.ts";
import { rechunk, type RechunkInput } from "../store/rechunk.ts";

export interface ContentWriterOptions {
  readonly index: Index;
  readonly chunks: PackChunkStore;
  readonly pool: ChunkPool;
  readonly writers: ActiveWriters;
  readonly compress: boolean;
  readonly now: () => number;
}

/** A content that is stored, and a hold on its chunks until a node refers to it. */
export interface StoredContent extends Disposable {
  /** Null for no bytes. */
  readonly manifest: BuiltManifest | null;
  readonly size: number;
}

/** New chunks of a change are gathered to this size before they are stored. */
const GATHER = 1024 * 1024;

export class ContentWriter {
  readonly #o: ContentWriterOptions;

  constructor(options: ContentWriterOptions) {
    this.#o = options;
  }

  /** Stores the bytes; they must not change meanwhile. */
  async fromBytes(bytes: Uint8Array, signal?: AbortSignal): Promise<StoredContent> {
    if (bytes.length > INLINE_LIMIT) return await this.fromStream(inPieces(bytes), signal);
    const hold = this.#o.writers.begin(this.#o.now());
    try {
      const refs = chunkInline(bytes);
      await this.#o.chunks.put(
        refs.map(({ hash, offset, length }) => ({ hash, bytes: bytes.subarray(offset, offset + length) })),
      );
      return stored(bytes.length === 0 ? null : encodeManifest(refs), bytes.length, hold);
    } catch (error) {
      hold[Symbol.dispose]();
      throw error;
    }
  }

  /** Stores what the stream yields. Throws what it throws, no_space, cancelled; then only unreferenced chunks remain. */
  async fromStream(stream: ReadableStream<Uint8Array>, signal?: AbortSignal): Promise<StoredContent> {
    const { index, chunks, pool, compress } = this.#o;
    const hold = this.#o.writers.begin(this.#o.now());
    try {
      const segments: SegmentBlob[] = [];
      const builder = new ManifestBuilder({ onSegment: (segment) => void segments.push(segment) });
      for await (const batch of chunkStream(stream, pool, { signal, compress })) {
        const { bytes, refs, packed } = batch;
        const raw = (i: number) => {
          const ref = refs[i];
          return ref === undefined ? bytes.subarray(0, 0) : bytes.subarray(ref.offset, ref.offset + ref.length);
        };
        if (packed === undefined) {
          await chunks.put(refs.map(({ hash }, i) => ({ hash, bytes: raw(i) })));
        } else {
          const missing = new Set(await chunks.missing(refs));
          const forms = [...packedAll(packed, raw)];
          await chunks.putPacked(refs.flatMap(({ hash }, i) => {
            const form = forms[i];
            return missing.has(i) && form !== undefined ? { hash, packed: form } : [];
          }));
        }
        builder.addAll(refs);
        for (const { blob } of segments.splice(0)) await index.addSegment(blob);
      }
      const size = builder.size;
      const manifest = builder.finish();
      for (const { blob } of segments.splice(0)) await index.addSegment(blob);
      return stored(size === 0 ? null : manifest, size, hold);
    } catch (error) {
      hold[Symbol.dispose]();
      throw error;
    }
  }

  /** Stores a changed content from the one it is based on; see core/store/rechunk.ts. */
  async fromChange(input: Omit<RechunkInput, "onChunk" | "onSegment">): Promise<StoredContent> {
    const { index, chunks } = this.#o;
    const hold = this.#o.writers.begin(this.#o.now());
    try {
      const segments: SegmentBlob[] = [];
      let gathered: { hash: Uint8Array; bytes: Uint8Array }[] = [];
      let bytesGathered = 0;
      const flush = async () => {
        await chunks.put(gathered);
        gathered = [];
        bytesGathered = 0;
        for (const { blob } of segments.splice(0)) await index.addSegment(blob);
      };
      const manifest = await rechunk({
        ...input,
        onSegment: (segment) => void segments.push(segment),
        onChunk: async ({ hash, bytes }) => {
          gathered.push({ hash, bytes: bytes.slice() });
          bytesGathered += bytes.length;
          if (bytesGathered >= GATHER) await flush();
        },
      });
      await flush();
      return stored(manifest.size === 0 ? null : manifest, manifest.size, hold);
    } catch (error) {
      hold[Symbol.dispose]();
      throw error;
    }
  }
}

function stored(manifest: BuiltManifest | null, size: number, hold: Disposable): StoredContent {
  return { manifest, size, [Symbol.dispose]: () => hold[Symbol.dispose]() };
}

function inPieces(bytes: Uint8Array): ReadableStream<Uint8Array> {
  const PIECE = 4 * 1024 * 1024;
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      controller.enqueue(bytes.subarray(at, at + PIECE));
      at += PIECE;
      if (at >= bytes.length) controller.close();
    },
  }, { highWaterMark: 0 });
}

/** Bytes that are pushed, as a stream that is read: the push resolves when the bytes have been taken. */
export class Feed {
  readonly readable: ReadableStream<Uint8Array>;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #taken: () => void = () => {};
  #ended: (() => Promise<unknown>) | null = null;
  #done: Promise<unknown> = Promise.resolve();

  constructor() {
    this.readable = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#taken(),
      cancel: () => this.#taken(),
    }, { highWaterMark: 0 });
  }

  /** `done` is the reader's end: once it has failed, a push fails with its error. */
  endsWith(done: Promise<unknown>): void {
    const end = () => done;
    this.#done = done;
    done.then(() => this.#ended = end, () => {
      this.#ended = end;
      this.#taken();
    });
  }

  async push(bytes: Uint8Array): Promise<void> {
    if (this.#ended !== null) await this.#ended();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#taken = resolve;
    // A copy of what is small: the reader may hold a small beginning for longer than the writer keeps its buffer.
    try {
      this.#controller?.enqueue(bytes.length <= INLINE_LIMIT ? bytes.slice() : bytes);
    } catch (error) {
      // The reader has given up; its end says why.
      await this.#done;
      throw error;
    }
    await promise;
    if (this.#ended !== null) await this.#ended();
  }
  end(): void {
    this.#controller?.close();
  }
  fail(error: unknown): void {
    this.#controller?.error(error);
  }
}
