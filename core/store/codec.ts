/** How a chunk's bytes are stored: as they are, or compressed with zstd (RFC 8878) where that saves enough. */
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { FsError } from "../fs/error.ts";
import { MAX_CHUNK } from "./chunker.ts";
import { hex, sameBytes, sha256 } from "./hash.ts";

/** Stored as it is. */
export const FLAG_RAW = 0;
/** Stored as one zstd frame. */
export const FLAG_ZSTD = 1;

/** A chunk as it goes into a pack. `stored` may be a view of the bytes it was made from. */
export interface PackedChunk {
  readonly flags: number;
  readonly stored: Uint8Array;
  readonly rawLength: number;
}

const SAMPLE = 4096;
const OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

/**
 * The stored form of a chunk. Compressed only when that saves at least one eighth; bytes whose first 4 KiB shrink by
 * less than a sixteenth are taken for incompressible. `compress: false` turns compression off.
 */
export function packChunk(bytes: Uint8Array, options: { readonly compress?: boolean } = {}): PackedChunk {
  const raw = { flags: FLAG_RAW, stored: bytes, rawLength: bytes.length };
  if (options.compress === false || bytes.length < 64) return raw;
  if (bytes.length > 2 * SAMPLE) {
    const sample = zstdCompressSync(bytes.subarray(0, SAMPLE), OPTIONS);
    if (sample.length > SAMPLE - SAMPLE / 16) return raw;
  }
  const stored = zstdCompressSync(bytes, OPTIONS);
  if (stored.length > bytes.length - bytes.length / 8) return raw;
  return { flags: FLAG_ZSTD, stored: plainView(stored), rawLength: bytes.length };
}

/**
 * The chunk's bytes. With `hash` given they are also checked against it; without, the caller must (`verifyChunk`).
 * Throws corrupt when the stored form is damaged or its length is not `rawLength`. The result may be `stored` itself.
 */
export function unpackChunk(stored: Uint8Array, flags: number, rawLength: number, hash?: Uint8Array): Uint8Array {
  const raw = decode(stored, flags, rawLength);
  // zstd of truncated input can yield nothing without an error: the length says so, the hash says the rest.
  if (raw.length !== rawLength) throw corrupt(`a stored chunk has ${raw.length} bytes, not ${rawLength}`);
  if (hash !== undefined) verifyChunk(raw, hash);
  return raw;
}

function decode(stored: Uint8Array, flags: number, rawLength: number): Uint8Array {
  if (rawLength < 1 || rawLength > MAX_CHUNK) throw corrupt(`a stored chunk claims ${rawLength} bytes`);
  if (flags === FLAG_RAW) return stored;
  if (flags !== FLAG_ZSTD) throw corrupt(`a stored chunk has the unknown flags ${flags}`);
  try {
    return plainView(zstdDecompressSync(stored, { maxOutputLength: rawLength }));
  } catch (error) {
    throw corrupt("a compressed chunk does not decompress", error);
  }
}

/** Throws corrupt unless the bytes have this hash. */
export function verifyChunk(bytes: Uint8Array, hash: Uint8Array): void {
  if (!sameBytes(sha256(bytes), hash)) throw corrupt(`chunk ${hex(hash)} does not have the bytes its name says`);
}

function plainView(buffer: Uint8Array): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

function corrupt(what: string, cause?: unknown): FsError {
  return new FsError("corrupt", `${what}; fetch it from another tier`, { cause });
}
