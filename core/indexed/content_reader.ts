/** ContentReader: the bytes of contents by identity, range by range, in bounded memory. */
import { FsError, toFsError } from "../fs/error.ts";
import type { Index } from "../index/index.ts";
import { hex, unhex } from "../store/hash.ts";
import { type ChunkSpan, decodeManifest, type ManifestView } from "../store/manifest.ts";
import type { ChunkStore } from "./core.ts";

/** Decoded manifests and segments that are kept. */
const VIEWS_KEPT = 256;
const SEGMENTS_KEPT = 64;
/** Pieces of a stream are joined up to this size: few large pieces travel faster than many small ones. */
const PIECE = 1024 * 1024;

/** A map that forgets what was used longest ago. */
class Recent<T> {
  readonly #limit: number;
  readonly #entries = new Map<string, T>();
  constructor(limit: number) {
    this.#limit = limit;
  }
  get(key: string): T | undefined {
    const found = this.#entries.get(key);
    if (found === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, found);
    return found;
  }
  set(key: string, value: T): void {
    this.#entries.set(key, value);
    if (this.#entries.size <= this.#limit) return;
    const oldest = this.#entries.keys().next().value;
    if (oldest !== undefined) this.#entries.delete(oldest);
  }
}

export class ContentReader {
  readonly #index: Index;
  readonly #chunks: ChunkStore;
  readonly #views = new Recent<ManifestView>(VIEWS_KEPT);
  readonly #segments = new Recent<Uint8Array>(SEGMENTS_KEPT);

  constructor(index: Index, chunks: ChunkStore) {
    this.#index = index;
    this.#chunks = chunks;
  }

  /** Throws not_found for an unknown content. */
  async view(hash: string): Promise<ManifestView> {
    const known = this.#views.get(hash);
    if (known !== undefined) return known;
    const blob = await this.#index.manifest(hash);
    if (blob === null) throw new FsError("not_found", `there is no content ${hash}`, { operation: "read", path: hash });
    const view = decodeManifest(blob, unhex(hash));
    this.#views.set(hash, view);
    return view;
  }

  /** A segment's chunk list. Throws corrupt when it is missing. */
  readonly segment = async (hash: Uint8Array): Promise<Uint8Array> => {
    const key = hex(hash);
    const known = this.#segments.get(key);
    if (known !== undefined) return known;
    const blob = await this.#index.segment(hash);
    if (blob === null) throw new FsError("corrupt", `segment ${key} is missing from the index; run scrub`);
    this.#segments.set(key, blob);
    return blob;
  };

  chunksOf(view: ManifestView, offset: number, length: number): Promise<ChunkSpan[]> {
    return view.chunksIn(offset, length, this.segment);
  }

  /** The bytes [offset, offset + length) that the content has, in order. Views: copy what is kept. */
  async *pieces(view: ManifestView, offset: number, length: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    const end = Math.min(view.size, offset + length);
    if (offset >= end) return;
    for await (const spans of view.chunks(this.segment, offset)) {
      const wanted = spans.filter((span) => span.offset < end);
      let i = 0;
      for await (const bytes of this.#chunks.readMany(wanted, signal)) {
        const span = wanted[i++];
        if (span === undefined) break;
        const from = Math.max(0, offset - span.offset);
        const to = Math.min(span.length, end - span.offset);
        yield from === 0 && to === bytes.length ? bytes : bytes.subarray(from, to);
      }
      if (wanted.length < spans.length) return;
    }
  }

  /** The range in one buffer, `memory` when that is large enough; shorter only at the end of the content. */
  async read(
    view: ManifestView,
    offset: number,
    length: number,
    signal?: AbortSignal,
    memory?: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const size = Math.max(0, Math.min(view.size - offset, length));
    const out = memory !== undefined && memory.length >= size ? memory.subarray(0, size) : new Uint8Array(size);
    let at = 0;
    for await (const piece of this.pieces(view, offset, out.length, signal)) {
      out.set(piece, at);
      at += piece.length;
    }
    if (at !== out.length) throw new FsError("corrupt", `${at} bytes came where ${out.length} were expected`);
    return out;
  }

  /** The range as a stream of pieces of up to 1 MiB, read as it is consumed. `find` is asked at the first read. */
  stream(
    find: () => Promise<ManifestView | null>,
    offset: number,
    length: number,
    signal?: AbortSignal,
  ): ReadableStream<Uint8Array<ArrayBuffer>> {
    let pieces: AsyncGenerator<Uint8Array> | undefined;
    let left = 0;
    let rest: Uint8Array | undefined;
    return new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull: async (controller) => {
        try {
          if (pieces === undefined) {
            const view = await find();
            left = view === null ? 0 : Math.max(0, Math.min(view.size - offset, length));
            pieces = view === null ? none() : this.pieces(view, offset, left, signal);
          }
          if (left === 0) {
            controller.close();
            return;
          }
          const out = new Uint8Array(Math.min(PIECE, left));
          let at = 0;
          while (at < out.length) {
            let piece: Uint8Array;
            if (rest === undefined) {
              const next = await pieces.next();
              if (next.done) throw new FsError("corrupt", `a content ended ${left - at} bytes early`);
              piece = next.value;
            } else piece = rest;
            const fitting = piece.length <= out.length - at ? piece : piece.subarray(0, out.length - at);
            out.set(fitting, at);
            at += fitting.length;
            rest = fitting.length < piece.length ? piece.subarray(fitting.length) : undefined;
          }
          left -= out.length;
          controller.enqueue(out);
          if (left === 0) controller.close();
        } catch (error) {
          throw toFsError(error, { operation: "read" });
        }
      },
      cancel: async () => {
        await pieces?.return(undefined);
      },
    }, { highWaterMark: 1 });
  }
}

async function* none(): AsyncGenerator<Uint8Array> {
  // Nothing to yield: the content is empty.
}
