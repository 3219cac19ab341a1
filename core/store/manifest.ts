/**
 * Manifests: which chunks make up a content. Two levels, so that neither making, reading nor changing one needs memory
 * in proportion to the file. The bytes are described in docs/format.md.
 */
import { FsError } from "../fs/error.ts";
import { MAX_CHUNK } from "./chunker.ts";
import { HASH_LENGTH, hex, sha256 } from "./hash.ts";
import { zeroChunkHash } from "./zeros.ts";

/** A chunk by identity; `length` in bytes, 1..MAX_CHUNK. */
export interface ChunkRef {
  readonly hash: Uint8Array;
  readonly length: number;
}

/** A chunk and where it begins in the content, in bytes. */
export interface ChunkSpan extends ChunkRef {
  readonly offset: number;
}

/** One entry of a manifest of kind "segments". `length` in bytes, `count` in chunks, `offset` in the content. */
export interface SegmentRef {
  readonly hash: Uint8Array;
  readonly length: number;
  readonly count: number;
  readonly offset: number;
}

/** A segment as the builder makes it: `blob` is the chunk list, `hash` its SHA-256. */
export interface SegmentBlob {
  readonly hash: Uint8Array;
  readonly blob: Uint8Array<ArrayBuffer>;
  readonly length: number;
  readonly count: number;
}

export interface BuiltManifest {
  /** SHA-256 of `blob`: the identity of the content. */
  readonly hash: Uint8Array<ArrayBuffer>;
  readonly blob: Uint8Array<ArrayBuffer>;
  /**
   * The segments `blob` refers to, each once, but for those that `addSegment` took over; empty for an inline manifest
   * and when `onSegment` took them.
   */
  readonly segments: readonly SegmentBlob[];
  /** Bytes of the content. */
  readonly size: number;
}

/** Fetches a segment's blob by its hash, and has checked that the blob has this hash. */
export type LoadSegment = (hash: Uint8Array) => Uint8Array | Promise<Uint8Array>;

export const MANIFEST_VERSION = 1;
/** Bytes of a chunk list entry: hash, length u32. */
export const CHUNK_ENTRY_LENGTH = HASH_LENGTH + 4;
/** Bytes of a segment entry: hash, byte length u64, chunk count u32. */
export const SEGMENT_ENTRY_LENGTH = HASH_LENGTH + 8 + 4;
/** Bytes before the first entry: version, kind, total size u64. */
export const MANIFEST_HEADER_LENGTH = 10;
/** A content of more chunks than this gets segments. */
export const MAX_INLINE_CHUNKS = 1024;
/** No segment but the last is shorter. */
export const MIN_SEGMENT_CHUNKS = 128;
/** No segment is longer. */
export const MAX_SEGMENT_CHUNKS = 2048;
/**
 * From MIN_SEGMENT_CHUNKS on, a segment ends with a chunk whose first four hash bytes (u32 little-endian) are a multiple
 * of this: 128 + 384 = 512 chunks on average.
 */
export const SEGMENT_DIVISOR = 384;

const KIND_CHUNKS = 0;
const KIND_SEGMENTS = 1;

/** Does a segment of `count` chunks end behind the chunk with this hash? */
function endsSegment(count: number, hash: Uint8Array, at: number): boolean {
  if (count < MIN_SEGMENT_CHUNKS) return false;
  if (count >= MAX_SEGMENT_CHUNKS) return true;
  const word = (hash[at] ?? 0) + (hash[at + 1] ?? 0) * 0x100 + (hash[at + 2] ?? 0) * 0x10000 +
    (hash[at + 3] ?? 0) * 0x1000000;
  return word % SEGMENT_DIVISOR === 0;
}

/** Entries of a fixed length, in a buffer that doubles. */
class EntryList {
  #bytes = new Uint8Array(64 * CHUNK_ENTRY_LENGTH);
  #view = new DataView(this.#bytes.buffer);
  length = 0;

  /** Room for `size` more bytes; returns where they begin. */
  #reserve(size: number): number {
    const at = this.length;
    this.length += size;
    if (this.length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.length));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return at;
  }

  addChunk(hash: Uint8Array, length: number): void {
    const at = this.#reserve(CHUNK_ENTRY_LENGTH);
    this.#bytes.set(hash, at);
    this.#view.setUint32(at + HASH_LENGTH, length, true);
  }

  addSegment(hash: Uint8Array, length: number, count: number): void {
    const at = this.#reserve(SEGMENT_ENTRY_LENGTH);
    this.#bytes.set(hash, at);
    this.#view.setBigUint64(at + HASH_LENGTH, BigInt(length), true);
    this.#view.setUint32(at + HASH_LENGTH + 8, count, true);
  }

  /** A copy of what is there. */
  copy(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.length);
  }

  /** What is there; valid until the next call. */
  view(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.length);
  }
}

/** Makes a manifest from chunks given in order. The same chunks give the same manifest, however they are given. */
export class ManifestBuilder {
  readonly #onSegment: ((segment: SegmentBlob) => void) | undefined;
  /** Chunks that are in no segment yet; as long as there are no segments, all of them. */
  #chunks = new EntryList();
  #pendingLength = 0;
  #pendingCount = 0;
  #segmentEntries: EntryList | undefined;
  readonly #segments = new Map<string, SegmentBlob>();
  #size = 0;
  #count = 0;

  /**
   * `onSegment` takes each segment as soon as it is complete (a repeated one at least once), so that a content of any size is
   * described in bounded memory; without it `finish` returns them.
   */
  constructor(options: { readonly onSegment?: (segment: SegmentBlob) => void } = {}) {
    this.#onSegment = options.onSegment;
  }

  /** Bytes of the chunks added so far. */
  get size(): number {
    return this.#size;
  }

  /** Number of chunks added so far. */
  get count(): number {
    return this.#count;
  }

  /** Appends a chunk. Throws invalid_input for a hash or a length that can't be. */
  add(hash: Uint8Array, length: number): void {
    if (hash.length !== HASH_LENGTH || !Number.isInteger(length) || length < 1 || length > MAX_CHUNK) {
      throw new FsError(
        "invalid_input",
        `a chunk of ${length} bytes with a hash of ${hash.length} bytes can't be in a manifest; ` +
          `a chunk has 1 to ${MAX_CHUNK} bytes and a hash ${HASH_LENGTH}`,
      );
    }
    this.#chunks.addChunk(hash, length);
    this.#size += length;
    this.#pendingLength += length;
    this.#pendingCount++;
    this.#count++;
    if (this.#segmentEntries !== undefined) {
      if (endsSegment(this.#pendingCount, hash, 0)) this.#endSegment();
    } else if (this.#count > MAX_INLINE_CHUNKS) {
      this.#startSegments();
    }
  }

  addAll(refs: Iterable<ChunkRef>): void {
    for (const { hash, length } of refs) this.add(hash, length);
  }

  /** Appends `count` chunks of MAX_CHUNK zeros; the cost grows with the segments they fill, not with `count`. */
  addZeroChunks(count: number): void {
    const zeros = zeroChunkHash(MAX_CHUNK);
    if (zeros === undefined) throw new FsError("internal", "the chunk of zeros has no known hash");
    let left = count;
    while (left > 0) {
      // Behind a segment's end, segments of zeros are all alike: make one, then repeat its entry.
      if (this.#segmentEntries !== undefined && this.#pendingCount === 0) {
        let perSegment = MIN_SEGMENT_CHUNKS;
        while (!endsSegment(perSegment, zeros, 0)) perSegment++;
        const repeats = Math.floor(left / perSegment) - 1;
        if (repeats > 0) {
          for (let i = 0; i < perSegment; i++) this.add(zeros, MAX_CHUNK);
          const last = this.#segmentEntries.view().slice(-SEGMENT_ENTRY_LENGTH, -SEGMENT_ENTRY_LENGTH + HASH_LENGTH);
          for (let i = 0; i < repeats; i++) this.#segmentEntries.addSegment(last, perSegment * MAX_CHUNK, perSegment);
          this.#count += repeats * perSegment;
          this.#size += repeats * perSegment * MAX_CHUNK;
          left -= (repeats + 1) * perSegment;
          continue;
        }
      }
      this.add(zeros, MAX_CHUNK);
      left--;
    }
  }

  /**
   * Appends a whole segment of another manifest without its chunks being known. Only possible where that gives what
   * its chunks would give: false, and nothing is appended, when the builder is not between two segments. The segment
   * must not be the last of its manifest, and its blob is not handed out again.
   */
  addSegment(segment: Omit<SegmentRef, "offset">): boolean {
    if (this.#segmentEntries === undefined || this.#pendingCount > 0) return false;
    this.#segmentEntries.addSegment(segment.hash, segment.length, segment.count);
    this.#size += segment.length;
    this.#count += segment.count;
    return true;
  }

  /** Ends the content. The builder is of no use afterwards. */
  finish(): BuiltManifest {
    if (!Number.isSafeInteger(this.#size)) {
      throw new FsError("file_too_large", `a content of ${this.#size} bytes is too large; the limit is 2^53 - 1`);
    }
    if (this.#segmentEntries !== undefined && this.#pendingCount > 0) this.#endSegment();
    const entries = (this.#segmentEntries ?? this.#chunks).view();
    const blob = new Uint8Array(MANIFEST_HEADER_LENGTH + entries.length);
    blob[0] = MANIFEST_VERSION;
    blob[1] = this.#segmentEntries === undefined ? KIND_CHUNKS : KIND_SEGMENTS;
    new DataView(blob.buffer).setBigUint64(2, BigInt(this.#size), true);
    blob.set(entries, MANIFEST_HEADER_LENGTH);
    return { hash: sha256(blob), blob, segments: [...this.#segments.values()], size: this.#size };
  }

  /** The content turned out to be too long for an inline manifest: cuts what is there into segments. */
  #startSegments(): void {
    const all = this.#chunks.copy();
    const view = new DataView(all.buffer);
    this.#segmentEntries = new EntryList();
    this.#chunks = new EntryList();
    this.#pendingCount = 0;
    this.#pendingLength = 0;
    for (let at = 0; at < all.length; at += CHUNK_ENTRY_LENGTH) {
      const length = view.getUint32(at + HASH_LENGTH, true);
      this.#chunks.addChunk(all.subarray(at, at + HASH_LENGTH), length);
      this.#pendingCount++;
      this.#pendingLength += length;
      if (endsSegment(this.#pendingCount, all, at)) this.#endSegment();
    }
  }

  #endSegment(): void {
    const blob = this.#chunks.copy();
    const segment = { hash: sha256(blob), blob, length: this.#pendingLength, count: this.#pendingCount };
    this.#segmentEntries?.addSegment(segment.hash, segment.length, segment.count);
    if (this.#onSegment !== undefined) this.#onSegment(segment);
    else this.#segments.set(hex(segment.hash), segment);
    this.#chunks.length = 0;
    this.#pendingLength = 0;
    this.#pendingCount = 0;
  }
}

/** The manifest of these chunks. */
export function encodeManifest(chunks: Iterable<ChunkRef>): BuiltManifest {
  const builder = new ManifestBuilder();
  builder.addAll(chunks);
  return builder.finish();
}

function corrupt(what: string): FsError {
  return new FsError("corrupt", `${what}; fetch it from another tier`);
}

/** A checked chunk list; `offsets[i]` is where chunk i begins, `offsets[count]` the length of all. */
class ChunkList {
  readonly offsets: Float64Array;
  readonly count: number;
  readonly #bytes: Uint8Array;

  /** `bytes` are entries back to back, the first chunk beginning at `start` of the content. Throws corrupt. */
  constructor(bytes: Uint8Array, start: number, what: string) {
    if (bytes.length % CHUNK_ENTRY_LENGTH !== 0) throw corrupt(`${what} ends in the middle of a chunk entry`);
    this.#bytes = bytes;
    this.count = bytes.length / CHUNK_ENTRY_LENGTH;
    this.offsets = new Float64Array(this.count + 1);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let offset = start;
    for (let i = 0; i < this.count; i++) {
      const length = view.getUint32(i * CHUNK_ENTRY_LENGTH + HASH_LENGTH, true);
      if (length < 1 || length > MAX_CHUNK) throw corrupt(`${what} has a chunk of ${length} bytes`);
      this.offsets[i] = offset;
      offset += length;
    }
    this.offsets[this.count] = offset;
  }

  get end(): number {
    return this.offsets[this.count] ?? 0;
  }

  span(i: number): ChunkSpan {
    const at = i * CHUNK_ENTRY_LENGTH;
    const offset = this.offsets[i] ?? 0;
    return { hash: this.#bytes.subarray(at, at + HASH_LENGTH), length: (this.offsets[i + 1] ?? 0) - offset, offset };
  }

  /** Appends to `into` the chunks that hold a byte of [from, to). */
  collect(from: number, to: number, into: ChunkSpan[]): void {
    for (let i = lastAtOrBefore(this.offsets, this.count, from); i < this.count; i++) {
      const span = this.span(i);
      if (span.offset >= to) break;
      if (span.offset + span.length > from) into.push(span);
    }
  }
}

/** Index of the last of the first `count` sorted numbers that is <= `value`; 0 when none is. */
function lastAtOrBefore(sorted: Float64Array, count: number, value: number): number {
  let low = 0;
  let high = count;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? 0) <= value) low = middle;
    else high = middle;
  }
  return low;
}

/** Chunks of a segment whose blob has been fetched. Throws corrupt when the blob is not what `segment` says. */
export function decodeSegment(blob: Uint8Array, segment: SegmentRef): ChunkSpan[] {
  const list = openSegment(blob, segment);
  return Array.from({ length: list.count }, (_, i) => list.span(i));
}

function openSegment(blob: Uint8Array, segment: SegmentRef): ChunkList {
  const what = `segment ${hex(segment.hash)}`;
  const list = new ChunkList(blob, segment.offset, what);
  if (list.count !== segment.count || list.end - segment.offset !== segment.length) {
    throw corrupt(
      `${what} has ${list.count} chunks of ${
        list.end - segment.offset
      } bytes, not ${segment.count} of ${segment.length}`,
    );
  }
  return list;
}

/** A checked manifest. Its hashes are views into the blob it was made from. */
export class ManifestView {
  /** Bytes of the content. */
  readonly size: number;
  readonly kind: "chunks" | "segments";
  readonly #chunks: ChunkList | undefined;
  readonly #entries: DataView;
  readonly #segmentOffsets: Float64Array;

  /** Throws corrupt when the blob is no manifest. Does not compare the blob with its hash: see `decodeManifest`. */
  constructor(blob: Uint8Array) {
    const version = blob[0];
    const kind = blob[1];
    if (blob.length < MANIFEST_HEADER_LENGTH) throw corrupt(`a manifest of ${blob.length} bytes is too short`);
    if (version !== MANIFEST_VERSION) {
      throw corrupt(`a manifest has the format version ${version}; this program knows ${MANIFEST_VERSION}`);
    }
    const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
    const size = view.getBigUint64(2, true);
    if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw corrupt(`a manifest claims ${size} bytes`);
    this.size = Number(size);
    const entries = blob.subarray(MANIFEST_HEADER_LENGTH);
    this.#entries = new DataView(entries.buffer, entries.byteOffset, entries.byteLength);
    let total: number;
    if (kind === KIND_CHUNKS) {
      this.kind = "chunks";
      this.#chunks = new ChunkList(entries, 0, "a manifest");
      if (this.#chunks.count > MAX_INLINE_CHUNKS) throw corrupt(`an inline manifest has ${this.#chunks.count} chunks`);
      this.#segmentOffsets = new Float64Array(1);
      total = this.#chunks.end;
    } else if (kind === KIND_SEGMENTS) {
      this.kind = "segments";
      if (entries.length % SEGMENT_ENTRY_LENGTH !== 0) {
        throw corrupt("a manifest ends in the middle of a segment entry");
      }
      const count = entries.length / SEGMENT_ENTRY_LENGTH;
      this.#segmentOffsets = new Float64Array(count + 1);
      total = 0;
      for (let i = 0; i < count; i++) {
        const { length, count: chunks } = this.#segment(i);
        if (chunks < 1 || chunks > MAX_SEGMENT_CHUNKS || length < chunks || length > chunks * MAX_CHUNK) {
          throw corrupt(`a manifest has a segment of ${chunks} chunks and ${length} bytes`);
        }
        total += length;
        this.#segmentOffsets[i + 1] = total;
      }
    } else {
      throw corrupt(`a manifest is of the unknown kind ${kind}`);
    }
    if (total !== this.size) throw corrupt(`a manifest claims ${this.size} bytes, its entries have ${total}`);
  }

  /** Number of segments; 0 for an inline manifest. */
  get segmentCount(): number {
    return this.#segmentOffsets.length - 1;
  }

  /** Number of chunks of the content. */
  get chunkCount(): number {
    if (this.#chunks !== undefined) return this.#chunks.count;
    let count = 0;
    for (let i = 0; i < this.segmentCount; i++) count += this.#segment(i).count;
    return count;
  }

  /** The segments in order (a content can have the same one several times); none for an inline manifest. */
  *segments(): Generator<SegmentRef> {
    for (let i = 0; i < this.segmentCount; i++) yield this.#segment(i);
  }

  /** The segment that holds the byte at `offset`; undefined behind the end and for an inline manifest. */
  segmentAt(offset: number): SegmentRef | undefined {
    if (this.kind === "chunks" || offset < 0 || offset >= this.size) return undefined;
    return this.#segment(lastAtOrBefore(this.#segmentOffsets, this.segmentCount, offset));
  }

  #segment(i: number): SegmentRef {
    const at = i * SEGMENT_ENTRY_LENGTH;
    return {
      hash: new Uint8Array(this.#entries.buffer, this.#entries.byteOffset + at, HASH_LENGTH),
      length: Number(this.#entries.getBigUint64(at + HASH_LENGTH, true)),
      count: this.#entries.getUint32(at + HASH_LENGTH + 8, true),
      offset: this.#segmentOffsets[i] ?? 0,
    };
  }

  /** The chunks of an inline manifest that hold a byte of the range; undefined when the manifest has segments. */
  chunksInSync(offset: number, length: number): ChunkSpan[] | undefined {
    if (this.#chunks === undefined) return undefined;
    const spans: ChunkSpan[] = [];
    if (length > 0) this.#chunks.collect(offset, offset + length, spans);
    return spans;
  }

  /** The chunks that hold a byte of [offset, offset + length); what lies behind the end of the content is left out. */
  async chunksIn(offset: number, length: number, loadSegment: LoadSegment): Promise<ChunkSpan[]> {
    const inline = this.chunksInSync(offset, length);
    if (inline !== undefined) return inline;
    const spans: ChunkSpan[] = [];
    for await (const part of this.#parts(offset, offset + length, loadSegment)) {
      part.collect(offset, offset + length, spans);
    }
    return spans;
  }

  /** All chunks from the one that holds `offset` on, in batches of at most MAX_SEGMENT_CHUNKS. */
  async *chunks(loadSegment: LoadSegment, offset = 0): AsyncGenerator<ChunkSpan[]> {
    const inline = this.chunksInSync(offset, Math.max(this.size - offset, 0));
    if (inline !== undefined) {
      if (inline.length > 0) yield inline;
      return;
    }
    for await (const part of this.#parts(offset, this.size, loadSegment)) {
      const spans: ChunkSpan[] = [];
      part.collect(offset, this.size, spans);
      yield spans;
    }
  }

  async *#parts(from: number, to: number, loadSegment: LoadSegment): AsyncGenerator<ChunkList> {
    if (to <= from || from >= this.size) return;
    const first = lastAtOrBefore(this.#segmentOffsets, this.segmentCount, from);
    for (let i = first; i < this.segmentCount; i++) {
      const segment = this.#segment(i);
      if (segment.offset >= to) break;
      const loaded = loadSegment(segment.hash);
      yield openSegment(loaded instanceof Uint8Array ? loaded : await loaded, segment);
    }
  }
}

/** Reads a manifest. With `hash` given, also checks that it is the blob's. Throws corrupt. */
export function decodeManifest(blob: Uint8Array, hash?: Uint8Array): ManifestView {
  if (hash !== undefined && hex(sha256(blob)) !== hex(hash)) {
    throw corrupt(`manifest ${hex(hash)} does not have the bytes its name says`);
  }
  return new ManifestView(blob);
}
