/**
 * Content-defined chunking: where a byte string is cut so that an insertion moves only the cuts beside it.
 *
 * FastCDC with normalised chunking (Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication
 * Based Storage Systems", IEEE TPDS 2020), with a 32-bit gear hash. A chunk's cut depends on the chunk's own bytes and
 * on nothing before or after it, except that the last chunk ends with the content.
 */
/** No cut before this many bytes (only the last chunk of a content is shorter). */
export const MIN_CHUNK = 16 * 1024;
/** Where the condition for a cut becomes weaker: the size aimed at. */
export const AVG_CHUNK = 64 * 1024;
/** A cut at the latest after this many bytes. */
export const MAX_CHUNK = 256 * 1024;
/** A cut follows a byte where `gear hash & MASK_BEFORE_AVG` is 0, before AVG_CHUNK: 18 bits. */
export const MASK_BEFORE_AVG = 0x7fffe000;
/** The same from AVG_CHUNK on: 14 bits. */
export const MASK_AFTER_AVG = 0x7ffe0000;

/** Cuts bytes into chunks. Every implementation cuts alike. */
export interface Chunker {
  /**
   * Length of the first chunk of `bytes[offset, end)`, 0 < length <= MAX_CHUNK.
   * With `final` false the content goes on behind `end`: 0 means that more bytes are needed to decide. With `final`
   * true 0 means that there are no bytes at all.
   */
  cut(bytes: Uint8Array, offset: number, end: number, final: boolean): number;

  /**
   * Lengths of all chunks of `bytes[offset, end)`. With `final` false the undecided rest is left out, so the sum of
   * the lengths can be smaller than `end - offset` (by less than MAX_CHUNK).
   */
  cutAll(bytes: Uint8Array, offset: number, end: number, final: boolean): Uint32Array<ArrayBuffer>;

  /**
   * `length` bytes of the chunker's own memory, best filled and chunked in place: saves a copy where there is one to
   * save. Any later call that is given other bytes, or asks for a larger workspace, may overwrite or detach it.
   */
  workspace(length: number): Uint8Array<ArrayBuffer>;
}

/** Most chunks that `length` bytes can be cut into. */
export function maxChunkCount(length: number): number {
  return Math.ceil(length / MIN_CHUNK);
}

/**
 * The gear table: 256 numbers of 32 bits, the upper halves of splitmix64's first 256 outputs (Steele, Lea, Flood 2014)
 * from the state 0x1234567. A run of equal bytes of any value never meets a mask, so it is cut at MAX_CHUNK.
 */
export function gearTable(): Int32Array<ArrayBuffer> {
  const word = (1n << 64n) - 1n;
  const table = new Int32Array(256);
  let state = 0x1234567n;
  for (let i = 0; i < 256; i++) {
    state = (state + 0x9E3779B97F4A7C15n) & word;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xBF58476D1CE4E5B9n) & word;
    z = ((z ^ (z >> 27n)) * 0x94D049BB133111EBn) & word;
    z ^= z >> 31n;
    table[i] = Number(BigInt.asIntN(32, z >> 32n));
  }
  return table;
}
