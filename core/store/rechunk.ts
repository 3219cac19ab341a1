/**
 * The manifest of a changed content from the manifest it had before: only what was written, and the few chunks around
 * it, is read and hashed again. The result is exactly what chunking the whole new content would give, because a chunk's
 * cut depends on nothing before the chunk: from where a new cut falls on an old one, all is as it was.
 */
import { FsError, toFsError } from "../fs/error.ts";
import { AVG_CHUNK, type Chunker, MAX_CHUNK } from "./chunker.ts";
import { createChunker } from "./create_chunker.ts";
import type { Extents } from "./extents.ts";
import { sameBytes, sha256 } from "./hash.ts";
import {
  type BuiltManifest,
  type ChunkSpan,
  decodeSegment,
  type LoadSegment,
  ManifestBuilder,
  type ManifestView,
  type SegmentBlob,
  type SegmentRef,
} from "./manifest.ts";
import { isZeroChunk } from "./zeros.ts";

/** A chunk that was cut anew; `offset` in the new content. `bytes` are valid until the callback's promise resolves. */
export interface NewChunk extends ChunkSpan {
  readonly bytes: Uint8Array;
}

export interface RechunkInput {
  readonly base: ManifestView;
  readonly loadSegment: LoadSegment;
  /** The bytes written since. What lies at or behind `size` is ignored. */
  readonly dirty: Extents;
  /** Size of the new content in bytes. */
  readonly size: number;
  /**
   * So many bytes of the base still show where nothing was written; what is neither written nor base is zeros. Less
   * than both sizes after a truncation that was followed by an extension. @default {the smaller of both sizes}
   */
  readonly baseValid?: number;
  /** Reads exactly these bytes of the new content. */
  readonly readNew: (offset: number, length: number) => Promise<Uint8Array>;
  /**
   * Takes each new chunk, in order, one at a time (the store may have some of them already); chunks of known zeros,
   * which are stored nowhere, are left out.
   */
  readonly onChunk: (chunk: NewChunk) => void | Promise<void>;
  /** See ManifestBuilder: for contents whose segments are not to be kept in memory. */
  readonly onSegment?: (segment: SegmentBlob) => void;
  readonly chunker?: Chunker;
  readonly signal?: AbortSignal | undefined;
}

export interface Rechunked extends BuiltManifest {
  /** Bytes taken over by reference, bytes asked of `readNew`, bytes known to be zeros. */
  readonly reusedBytes: number;
  readonly readBytes: number;
  readonly zeroBytes: number;
}

/** At most this much of a long written range is read at a time. */
const WINDOW = 4 * 1024 * 1024;

/**
 * Makes the new manifest. Memory: one window, one segment and the manifest itself. Throws what the callbacks throw,
 * corrupt when a read comes back short, cancelled.
 */
export async function rechunk(input: RechunkInput): Promise<Rechunked> {
  return await new Rechunk(input).run();
}

class Rechunk {
  readonly #input: RechunkInput;
  readonly #baseValid: number;
  readonly #base: BaseCursor;
  readonly #builder: ManifestBuilder;
  readonly #chunker: Chunker;
  /** Bytes of the new content that have been read: [windowStart, windowStart + window.length). */
  #window = new Uint8Array(0);
  #windowStart = 0;
  #reused = 0;
  #read = 0;
  #zeros = 0;

  constructor(input: RechunkInput) {
    this.#input = input;
    const { base, size, baseValid = Infinity, onSegment } = input;
    this.#baseValid = Math.min(baseValid, base.size, size);
    this.#base = new BaseCursor(base, input.loadSegment);
    this.#builder = new ManifestBuilder(onSegment === undefined ? {} : { onSegment });
    this.#chunker = input.chunker ?? createChunker();
  }

  async run(): Promise<Rechunked> {
    const { size, signal } = this.#input;
    // Every `at` is a cut of the new content.
    for (let at = 0; at < size;) {
      if (signal?.aborted) throw abortError(signal);
      at += await this.#reuse(at) || await this.#knownZeros(at) || await this.#cutAnew(at);
    }
    const built = this.#builder.finish();
    return { ...built, reusedBytes: this.#reused, readBytes: this.#read, zeroBytes: this.#zeros };
  }

  /** Is [start, end) as it was in the base? */
  #isClean(start: number, end: number): boolean {
    return end <= this.#baseValid && !this.#input.dirty.overlaps(start, end);
  }

  /** Takes over the segment or the chunk that begins here, if it is unchanged; returns its length, else 0. */
  async #reuse(at: number): Promise<number> {
    if (at >= this.#baseValid) return 0;
    const { base, size } = this.#input;
    const segment = base.segmentAt(at);
    if (segment !== undefined && segment.offset === at) {
      const end = at + segment.length;
      if (end < base.size && this.#isClean(at, end) && this.#builder.addSegment(segment)) {
        this.#reused += segment.length;
        return segment.length;
      }
    }
    const span = await this.#base.at(at);
    if (span === undefined || span.offset !== at) return 0;
    const end = at + span.length;
    // The base's last chunk ended because the base did: that holds again only if the new content ends there too.
    if (!this.#isClean(at, end) || (end === base.size && end !== size)) return 0;
    this.#builder.add(span.hash, span.length);
    this.#reused += span.length;
    return span.length;
  }

  /** Appends the whole chunks of zeros that are known to begin here without reading; returns their length. */
  async #knownZeros(at: number): Promise<number> {
    const count = Math.floor((await this.#zerosEnd(at) - at) / MAX_CHUNK);
    if (count > 0) this.#builder.addZeroChunks(count);
    this.#zeros += count * MAX_CHUNK;
    return count * MAX_CHUNK;
  }

  /** Up to where the new content is known to be zeros from `at` on: holes of the base, and what it was extended by. */
  async #zerosEnd(at: number): Promise<number> {
    const { dirty, size } = this.#input;
    const written = Math.min(dirty.next(at)?.start ?? size, size);
    let end = at;
    while (end < written && end < this.#baseValid) {
      const zeros = await this.#base.zerosEnd(end);
      if (zeros === end) return end;
      end = Math.min(zeros, written, this.#baseValid);
    }
    return end < this.#baseValid ? end : Math.max(end, written);
  }

  /** Reads and cuts the chunk that begins here; returns its length. */
  async #cutAnew(at: number): Promise<number> {
    const { size, onChunk } = this.#input;
    let length = 0;
    for (;;) {
      const start = at - this.#windowStart;
      const end = this.#windowStart + this.#window.length;
      if (start >= 0 && end > at) {
        length = this.#chunker.cut(this.#window, start, this.#window.length, end === size);
        if (length > 0) break;
      }
      await this.#extendWindow(at);
    }
    const start = at - this.#windowStart;
    const bytes = this.#window.subarray(start, start + length);
    const hash = sha256(bytes);
    this.#builder.add(hash, length);
    if (!isZeroChunk(hash, length)) await onChunk({ hash, length, offset: at, bytes });
    return length;
  }

  /** Reads on behind what the window holds of [at, ...), by as much as the chunk is likely to need. */
  async #extendWindow(at: number): Promise<void> {
    const { dirty, size, readNew } = this.#input;
    const held = this.#windowStart + this.#window.length;
    const kept = held > at && this.#windowStart <= at
      ? this.#window.subarray(at - this.#windowStart)
      : new Uint8Array(0);
    const from = at + kept.length;
    const written = dirty.next(from);
    // An unchanged chunk of the base is read whole: its end is the likeliest next cut, and it is stored in one piece.
    const span = from < this.#baseValid ? await this.#base.at(from) : undefined;
    let to = span === undefined ? from + AVG_CHUNK : span.offset + span.length;
    if (written !== undefined && written.start <= from) to = Math.max(to, Math.min(written.end, at + WINDOW));
    to = Math.min(to, size);
    const bytes = await readNew(from, to - from);
    if (bytes.length !== to - from) {
      throw new FsError(
        "corrupt",
        `${bytes.length} bytes came back at ${from} of a file where ${to - from} were expected`,
      );
    }
    this.#read += bytes.length;
    this.#window = new Uint8Array(kept.length + bytes.length);
    this.#window.set(kept);
    this.#window.set(bytes, kept.length);
    this.#windowStart = at;
  }
}

/** The chunks of the base, found by offset; keeps the segment it was last asked about. */
class BaseCursor {
  readonly #view: ManifestView;
  readonly #loadSegment: LoadSegment;
  #spans: readonly ChunkSpan[] = [];
  #start = 0;
  #end = 0;
  #zeroSegment: Uint8Array | undefined;

  constructor(view: ManifestView, loadSegment: LoadSegment) {
    this.#view = view;
    this.#loadSegment = loadSegment;
  }

  /** The chunk that holds the byte at `offset`; undefined behind the end. */
  async at(offset: number): Promise<ChunkSpan | undefined> {
    if (offset >= this.#view.size) return undefined;
    if (offset < this.#start || offset >= this.#end) await this.#load(offset);
    let low = 0;
    let high = this.#spans.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((this.#spans[middle]?.offset ?? Infinity) <= offset) low = middle;
      else high = middle;
    }
    return this.#spans[low];
  }

  /** Where the zero chunk, or the segment of nothing else, that holds `offset` ends; `offset` when there is none. */
  async zerosEnd(offset: number): Promise<number> {
    const segment = this.#view.segmentAt(offset);
    if (segment !== undefined && await this.#isZeroSegment(segment)) return segment.offset + segment.length;
    const span = await this.at(offset);
    return span !== undefined && isZeroChunk(span.hash, span.length) ? span.offset + span.length : offset;
  }

  /** Remembers the last such segment, because those of a hole are all the same one. */
  async #isZeroSegment(segment: SegmentRef): Promise<boolean> {
    if (this.#zeroSegment !== undefined && sameBytes(this.#zeroSegment, segment.hash)) return true;
    await this.at(segment.offset);
    if (!this.#spans.every(({ hash, length }) => isZeroChunk(hash, length))) return false;
    this.#zeroSegment = segment.hash.slice();
    return true;
  }

  async #load(offset: number): Promise<void> {
    const segment = this.#view.segmentAt(offset);
    if (segment === undefined) {
      this.#spans = this.#view.chunksInSync(0, this.#view.size) ?? [];
      this.#start = 0;
      this.#end = this.#view.size;
      return;
    }
    this.#spans = decodeSegment(await this.#loadSegment(segment.hash), segment);
    this.#start = segment.offset;
    this.#end = segment.offset + segment.length;
  }
}

function abortError(signal: AbortSignal): FsError {
  const error = toFsError(signal.reason);
  return error.code === "internal" ? new FsError("cancelled", "the operation was cancelled", { cause: error }) : error;
}
