/** Chunks and hashes bytes on the calling thread: for what is too small to be worth a hop to a worker. */
import type { Chunker } from "./chunker.ts";
import { createChunker } from "./create_chunker.ts";
import { sha256 } from "./hash.ts";
import type { ChunkSpan } from "./manifest.ts";

/** Up to this many bytes the hop to a worker (20-65 µs) is not worth it. */
export const INLINE_LIMIT = 64 * 1024;

let chunker: Chunker | undefined;

/** The chunks of a whole content. Blocks for about 1 ms a MB. */
export function chunkInline(bytes: Uint8Array): ChunkSpan[] {
  chunker ??= createChunker();
  const spans: ChunkSpan[] = [];
  let offset = 0;
  for (const length of chunker.cutAll(bytes, 0, bytes.length, true)) {
    spans.push({ hash: sha256(bytes.subarray(offset, offset + length)), length, offset });
    offset += length;
  }
  return spans;
}
