/** Turns the file of one large content into that of another that was made from it, without moving what stays. */
import { hasCode } from "../fs/error.ts";
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
/** Bytes and ranges of layers that are copied at once; the rest of those in staging files later, piece by piece. */
const AT_ONCE = 16 * 1024 * 1024;
const RANGES_AT_ONCE = 2048;
/** Ranges copied in one go later. */
const RANGES_A_STEP = 64;

/** Bytes of a staging file that still have to be copied, through a descriptor of their own. */
export interface LaterPiece {
  readonly fd: number;
  readonly start: number;
  readonly end: number;
}
export interface Patched {
  /** Ranges that are as in the content it was made from. */
  readonly kept: Extents;
  /** Ranges that were written or are zeros. */
  readonly made: Extents;
  /** What is still to be copied. There, and only there, the file may have bytes of the content it was made from. */
  readonly later: readonly LaterPiece[];
}

/** The ranges of `a` inside of those of `b`. */
export function common(a: Extents, b: Extents): Extents {
  return Extents.of([...b].flatMap(({ start, end }) => a.intersect(start, end)));
}

/** Makes [start, end) of the file zeros, as a hole where the filesystem has such. */
export function punch(fd: number, start: number, end: number): void {
  if (start >= end) return;
  try {
    fallocateFd(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, end - start);
  } catch (error) {
    if (!hasCode(error, "not_supported")) throw error;
    zero(fd, start, end);
  }
}
/** Writes zeros where there is anything else. */
function zero(fd: number, start: number, end: number): void {
  for (let at = start; at < end; at += PIECE) {
    const bytes = new Uint8Array(Math.min(PIECE, end - at));
    preadFd(fd, bytes, at);
    if (bytes.some((byte) => byte !== 0)) pwriteFd(fd, bytes.fill(0), at);
  }
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
  let bytes = 0;
  let ranges = 0;
  const staging = new Map<Layer, number>();
  try {
    for (const source of sources) {
      const { start, end } = source;
      if (source.kind === "base") continue;
      if (source.kind === "zero") {
        punch(fd, start, Math.min(end, kept.end));
        made.add(start, end);
      } else if (bytes + end - start <= AT_ONCE && (ranges < RANGES_AT_ONCE || source.layer.stagingPath === null)) {
        copyLayer(fd, source.layer, start, end);
        made.add(start, end);
        bytes += end - start;
        ranges++;
      } else if (source.layer.stagingPath !== null) {
        const from = staging.get(source.layer) ?? openFd(source.layer.stagingPath, O_RDONLY);
        staging.set(source.layer, from);
        later.push({ fd: from, start, end });
      }
    }
  } catch (error) {
    for (const from of staging.values()) closeFd(from);
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

/** The copying of what was left for later. Ends by `close` or `take`, or when all of it is done. */
export class LaterCopy {
  #pieces: readonly LaterPiece[];
  #next = 0;
  /** Where in the next piece. */
  #at = 0;

  constructor(pieces: readonly LaterPiece[]) {
    this.#pieces = pieces;
  }
  get isOver(): boolean {
    return this.#next >= this.#pieces.length;
  }
  /** Copies about a MiB into the file; the ranges that were copied. */
  step(to: number): ByteRange[] {
    const done: ByteRange[] = [];
    let room = PIECE;
    for (let i = 0; i < RANGES_A_STEP && room > 0; i++) {
      const piece = this.#pieces[this.#next];
      if (piece === undefined) break;
      const start = Math.max(piece.start, this.#at);
      const end = Math.min(piece.end, start + room);
      const bytes = new Uint8Array(end - start);
      // The hole at the end of a staging file that was made longer is zeros here too.
      preadFd(piece.fd, bytes, start);
      pwriteFd(to, bytes, start);
      done.push({ start, end });
      room -= bytes.length;
      this.#at = end < piece.end ? end : 0;
      if (end === piece.end) this.#next++;
    }
    if (this.isOver) this.close();
    return done;
  }
  /** What is still to be copied, as far as it lies in `kept`, for another copy to go on with; this one is over. */
  take(kept: Extents): LaterPiece[] {
    const left = this.#pieces.slice(this.#next).flatMap(({ fd, start, end }, i) =>
      kept.intersect(i === 0 ? Math.max(start, this.#at) : start, end).map((range) => ({ fd, ...range }))
    );
    const used = new Set(left.map(({ fd }) => fd));
    for (const fd of new Set(this.#pieces.map((piece) => piece.fd))) if (!used.has(fd)) closeFd(fd);
    this.#pieces = [];
    return left;
  }
  close(): void {
    this.take(new Extents());
  }
}
