/** HoleMaps: where the holes of contents are, remembered for the few that programs ask about one after the other. */
import { Extents } from "../store/extents.ts";
import { holesOf } from "../store/holes.ts";
import type { ContentCache } from "./content_cache.ts";
import type { LayerStack } from "./layers.ts";

const REMEMBERED = 64;
/** st_blksize of every mount: holes are told in whole blocks, as a disk filesystem would. */
const BLOCK = 4096;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

export class HoleMaps {
  readonly #cache: ContentCache;
  readonly #known = new Map<string, Extents>();

  constructor(cache: ContentCache) {
    this.#cache = cache;
  }

  /** The holes of a content; none when its manifest can't be had now, for data may be told where a hole is, not the reverse. */
  async of(content: string | null): Promise<Extents> {
    if (content === null) return new Extents();
    const known = this.#known.get(content);
    if (known !== undefined) return known;
    let holes: Extents;
    try {
      holes = await holesOf(await this.#cache.manifest(content), (hash) => this.#cache.segment(hash));
    } catch {
      return new Extents();
    }
    this.#known.set(content, holes);
    const [oldest] = this.#known.keys();
    if (this.#known.size > REMEMBERED && oldest !== undefined) this.#known.delete(oldest);
    return holes;
  }

  /** The ranges of a file with undelivered bytes that hold data, in whole blocks. */
  async dataOf(stack: LayerStack): Promise<Extents> {
    const base = stack.baseHoles > 0 ? await this.of(stack.base) : new Extents();
    const data = new Extents();
    for (const source of stack.sources(0, stack.size)) {
      if (source.kind === "zero") continue;
      if (source.kind === "layer") data.add(source.start, source.end);
      else for (const { start, end } of base.gaps(source.start, source.end)) data.add(start, end);
    }
    return inBlocks(data, stack.size);
  }
  /** The ranges of a delivered file that hold data, in whole blocks. `holes`: bytes of it that are. */
  async dataIn(content: string | null, size: number, holes: number): Promise<Extents> {
    const base = holes > 0 ? await this.of(content) : new Extents();
    return inBlocks(Extents.of(content === null ? [] : base.gaps(0, size)), size);
  }
}

function inBlocks(data: Extents, size: number): Extents {
  const out = new Extents();
  for (const { start, end } of data) {
    out.add(start - start % BLOCK, Math.min(size, Math.ceil(end / BLOCK) * BLOCK));
  }
  return out;
}

/**
 * lseek(2) with SEEK_DATA or SEEK_HOLE in a file of `size` bytes whose data is at `data`; null: ENXIO. The end of the
 * file counts as a hole.
 */
export function seek(data: Extents, size: number, offset: number, whence: number): number | null {
  if (offset < 0 || offset >= size) return null;
  const next = data.next(offset);
  if (whence === SEEK_DATA) return next === undefined ? null : Math.max(next.start, offset);
  return next === undefined || next.start > offset ? offset : next.end;
}

/** Bytes of a file with undelivered bytes that are holes; those of its base by their share, which the delivery counts. */
export function holeBytes(stack: LayerStack): number {
  let zeros = 0;
  let base = 0;
  for (const { kind, start, end } of stack.sources(0, stack.size)) {
    if (kind === "zero") zeros += end - start;
    else if (kind === "base") base += end - start;
  }
  const share = stack.baseSize === 0 ? 0 : stack.baseHoles * base / stack.baseSize;
  return Math.min(stack.size, zeros + Math.floor(share));
}
