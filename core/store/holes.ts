/** The holes of a content: the ranges of it that its manifest says are zeros stored nowhere. */
import { Extents } from "./extents.ts";
import { type ChunkRef, decodeSegment, type LoadSegment, type ManifestView } from "./manifest.ts";
import { hex } from "./hash.ts";
import { isZeroChunk } from "./zeros.ts";

/** Bytes of these chunks that are zero chunks. */
export function zeroBytesOf(chunks: Iterable<ChunkRef>): number {
  let bytes = 0;
  for (const { hash, length } of chunks) if (isZeroChunk(hash, length)) bytes += length;
  return bytes;
}

/**
 * Every zero chunk of the content, neighbours merged. Costs one look at each segment, but segments of nothing but zeros,
 * which are all the same one, are looked at once. Throws what `loadSegment` throws.
 */
export async function holesOf(view: ManifestView, loadSegment: LoadSegment): Promise<Extents> {
  const holes = new Extents();
  const add = (spans: Iterable<ChunkRef & { readonly offset: number }>) => {
    for (const { hash, length, offset } of spans) {
      if (isZeroChunk(hash, length)) holes.add(offset, offset + length);
    }
  };
  const inline = view.chunksInSync(0, view.size);
  if (inline !== undefined) {
    add(inline);
    return holes;
  }
  const zeros = new Set<string>();
  for (const segment of view.segments()) {
    const name = hex(segment.hash);
    if (zeros.has(name)) {
      holes.add(segment.offset, segment.offset + segment.length);
      continue;
    }
    const spans = decodeSegment(await loadSegment(segment.hash), segment);
    if (spans.every(({ hash, length }) => isZeroChunk(hash, length))) zeros.add(name);
    add(spans);
  }
  return holes;
}
