/**
 * Chunks of zeros: a hole in a sparse file costs nothing to store and nothing to read.
 *
 * A run of zeros is cut at MAX_CHUNK like any other run of one byte, so a long run is one and the same chunk again and
 * again. A chunk that is known to be zeros is never put into a pack: its hash says all. Known are the lengths that are
 * multiples of 4 KiB (MAX_CHUNK among them); a chunk of zeros of another length is an ordinary chunk.
 */
import { createHash } from "node:crypto";
import { MAX_CHUNK } from "./chunker.ts";
import { sameBytes } from "./hash.ts";

const STEP = 4096;

let table: Uint8Array<ArrayBuffer>[] | undefined;

/** SHA-256 of `length` zeros for each known length (256 KiB of hashing, once). */
function zeroHashes(): Uint8Array<ArrayBuffer>[] {
  if (table !== undefined) return table;
  const made: Uint8Array<ArrayBuffer>[] = [];
  const step = new Uint8Array(STEP);
  const state = createHash("sha256");
  for (let length = STEP; length <= MAX_CHUNK; length += STEP) {
    state.update(step);
    made.push(new Uint8Array(state.copy().digest()));
  }
  table = made;
  return made;
}

/** The hash of the chunk of `length` zeros when that is a known zero chunk, else undefined. Do not write to it. */
export function zeroChunkHash(length: number): Uint8Array<ArrayBuffer> | undefined {
  return length % STEP === 0 ? zeroHashes()[length / STEP - 1] : undefined;
}

/** Is this the chunk of `length` zeros? Then it is in no pack, and its bytes are known. */
export function isZeroChunk(hash: Uint8Array, length: number): boolean {
  const known = zeroChunkHash(length);
  return known !== undefined && known[0] === hash[0] && sameBytes(known, hash);
}
