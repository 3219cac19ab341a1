/** Turns the file of one large content into that of another that was made from it, without moving what stays. */
import { type ByteRange, Extents } from "../store/extents.ts";
import {
  closeFd,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  fallocateFd,
  ftruncateFd,
  O_RDONLY,
  openFd,
  preadFd,
  pwriteFd,
} from "../platform/posix.ts";
import type { Layer, Source } from "./layers.ts";

/** Bytes moved in one go. */
const PIECE = 1024 * 1024;
/** Bytes of layers that are copied at once; the rest of those in staging files later, piece by piece. */
const AT_ONCE = 16 * 1024 * 1024;

/** Bytes of a staging file that still have to be copied, through a descriptor of their own. */
export interface LaterPiece {
  readonly fd: number;
  readonly start: number;
  readonly end: number;
}
export interface Patched {
  /** Ranges that are as in the content it was made from. */
  readonly kept: Extents;
  /** Ranges that were written or are zeros. All others but `kept` and `later` read as zeros and are not known. */
  readonly made: Extents;
  readonly later: readonly LaterPiece[];
}

/** The ranges of `a` inside of those of `b`. */
export function common(a: Extents, b: Extents): Extents {
  return Extents.of([...b].flatMap(({ start, end }) => a.intersect(start, end)));
}

/** Makes [start, end) of the file zeros without writing them. Throws `not_supported` where the filesystem can't. */
export function punch(fd: number, start: number, end: number): void {
  if (start < end) fallocateFd(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, end - start);
}

/**
 * Applies `sources` (in order, from 0 to `size` without gaps, as LayerStack.sources gives them) to the file, which holds
 * the base's bytes or zeros in their place. Throws as the system calls do; the file is then of no use.
 */
export function patchFile(fd: number, size: number, sources: readonly Source[]): Patched {
  const kept = Extents.of(sources.filter(({ kind }) => kind === "base"));
  const made = new Extents();
  const later: LaterPiece[] = [];
  ftruncateFd(fd, kept.end);
  ftruncateFd(fd, size);
  let copied = 0;
  try {
    for (const source of sources) {
      const { start, end } = source;
      if (source.kind === "base") continue;
      if (source.kind === "zero" || copied + end - start > AT_ONCE) punch(fd, start, Math.min(end, kept.end));
      if (source.kind === "zero") made.add(start, end);
      else if (copied + end - start <= AT_ONCE) {
        copyLayer(fd, source.layer, start, end);
        made.add(start, end);
        copied += end - start;
      } else if (source.layer.stagingPath !== null) {
        later.push({ fd: openFd(source.layer.stagingPath, O_RDONLY), start, end });
      }
    }
  } catch (error) {
    for (const piece of later) closeFd(piece.fd);
    throw error;
  }
  return { kept, made, later };
}

function copyLayer(fd: number, layer: Layer, start: number, end: number): void {
  for (let at = start; at < end; at += PIECE) {
    const bytes = new Uint8Array(Math.min(PIECE, end - at));
    layer.read(at, bytes);
    pwriteFd(fd, bytes, at);
  }
}

/** Copies the ranges from one file to the same place of another. */
export function copyRanges(from: number, to: number, ranges: Extents): void {
  for (const { start, end } of ranges) {
    for (let at = start; at < end; at += PIECE) {
      const bytes = new Uint8Array(Math.min(PIECE, end - at));
      const length = preadFd(from, bytes, at);
      pwriteFd(to, bytes.subarray(0, length), at);
    }
  }
}

/** The copying of what was left for later. Ends by `close`, or when all of it is done. */
export class LaterCopy {
  #pieces: LaterPiece[];

  constructor(pieces: readonly LaterPiece[]) {
    this.#pieces = [...pieces];
  }
  get isOver(): boolean {
    return this.#pieces.length === 0;
  }
  /** Copies at most a MiB into the file; the range, null when nothing is left. */
  step(to: number): ByteRange | null {
    const [piece] = this.#pieces;
    if (piece === undefined) return null;
    const start = piece.start;
    const end = Math.min(piece.end, start + PIECE);
    const bytes = new Uint8Array(end - start);
    // The hole at the end of a staging file that was made longer is zeros here too.
    preadFd(piece.fd, bytes, start);
    pwriteFd(to, bytes, start);
    if (end < piece.end) this.#pieces[0] = { fd: piece.fd, start: end, end: piece.end };
    else {
      this.#pieces.shift();
      if (!this.#pieces.some(({ fd }) => fd === piece.fd)) closeFd(piece.fd);
    }
    return { start, end };
  }
  /** What is still to be copied, as far as it lies in `kept`, for another copy to go on with; this one is over. */
  take(kept: Extents): LaterPiece[] {
    const left = this.#pieces;
    this.#pieces = [];
    const taken = left.flatMap(({ fd, start, end }) => kept.intersect(start, end).map((range) => ({ fd, ...range })));
    const used = new Set(taken.map(({ fd }) => fd));
    for (const fd of new Set(left.map((piece) => piece.fd))) if (!used.has(fd)) closeFd(fd);
    return taken;
  }
  close(): void {
    this.take(new Extents());
  }
}
