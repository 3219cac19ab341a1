/** The chunker in TypeScript, four bytes a step: the fallback where WebAssembly does not load. */
import {
  AVG_CHUNK,
  type Chunker,
  gearTable,
  MASK_AFTER_AVG,
  MASK_BEFORE_AVG,
  MAX_CHUNK,
  maxChunkCount,
  MIN_CHUNK,
} from "./chunker.ts";

/**
 * Scans `bytes[from, to)` with gear state `h` (0 at the start of a chunk); returns the position behind the byte that
 * met the mask as a positive number, or -1 - h' (h' unsigned) when none did.
 */
function scan(gear: Int32Array, bytes: Uint8Array, from: number, to: number, state: number, mask: number): number {
  let h = state;
  let i = from;
  // Every index is inside its array, so the casts hide no undefined.
  for (const stop = to - 3; i < stop; i += 4) {
    const h0 = ((h << 1) + (gear[bytes[i] as number] as number)) | 0;
    const h1 = ((h0 << 1) + (gear[bytes[i + 1] as number] as number)) | 0;
    const h2 = ((h1 << 1) + (gear[bytes[i + 2] as number] as number)) | 0;
    h = ((h2 << 1) + (gear[bytes[i + 3] as number] as number)) | 0;
    if ((h0 & mask) === 0) return i + 1;
    if ((h1 & mask) === 0) return i + 2;
    if ((h2 & mask) === 0) return i + 3;
    if ((h & mask) === 0) return i + 4;
  }
  for (; i < to; i++) {
    h = ((h << 1) + (gear[bytes[i] as number] as number)) | 0;
    if ((h & mask) === 0) return i + 1;
  }
  return -1 - (h >>> 0);
}

export class TsChunker implements Chunker {
  readonly #gear = gearTable();

  cut(bytes: Uint8Array, offset: number, end: number, final: boolean): number {
    const available = end - offset;
    const undecided = final ? available : 0;
    if (available <= MIN_CHUNK) return undecided;
    const length = Math.min(available, MAX_CHUNK);
    const middle = offset + Math.min(length, AVG_CHUNK);
    const first = scan(this.#gear, bytes, offset + MIN_CHUNK, middle, 0, MASK_BEFORE_AVG);
    if (first > 0) return first - offset;
    const second = scan(this.#gear, bytes, middle, offset + length, (-1 - first) | 0, MASK_AFTER_AVG);
    if (second > 0) return second - offset;
    return length === MAX_CHUNK ? MAX_CHUNK : undecided;
  }

  cutAll(bytes: Uint8Array, offset: number, end: number, final: boolean): Uint32Array<ArrayBuffer> {
    const lengths = new Uint32Array(maxChunkCount(end - offset));
    let count = 0;
    for (let at = offset; at < end;) {
      const length = this.cut(bytes, at, end, final);
      if (length === 0) break;
      lengths[count++] = length;
      at += length;
    }
    return lengths.slice(0, count);
  }

  workspace(length: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(length);
  }
}
