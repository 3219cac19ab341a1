/** A set of bytes of a file as sorted, disjoint, non-adjacent half-open ranges: which bytes are dirty, cached, holes. */
import { FsError } from "../fs/error.ts";

/** The bytes from `start` up to, not including, `end`. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

export class Extents {
  /** Parallel: range i is [starts[i], ends[i]); ends[i] < starts[i + 1]. */
  #starts: number[] = [];
  #ends: number[] = [];

  /** The set of these ranges, which may overlap and come in any order. */
  static of(ranges: Iterable<ByteRange>): Extents {
    const extents = new Extents();
    for (const { start, end } of ranges) extents.add(start, end);
    return extents;
  }

  /** The inverse of `toArray`. Throws invalid_input unless the numbers are sorted, disjoint ranges. */
  static fromArray(flat: readonly number[]): Extents {
    const extents = new Extents();
    let last = -1;
    for (let i = 0; i < flat.length; i += 2) {
      const start = flat[i] ?? -1;
      const end = flat[i + 1] ?? -1;
      if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start <= last || end <= start) {
        throw new FsError(
          "invalid_input",
          `byte ranges must be sorted and disjoint; ${start}..${end} after ${last} is not`,
        );
      }
      extents.#starts.push(start);
      extents.#ends.push(end);
      last = end;
    }
    return extents;
  }

  /** Start and end of each range, in order, flat. */
  toArray(): number[] {
    return Array.from(
      { length: this.#starts.length * 2 },
      (_, i) => i % 2 === 0 ? this.#start(i / 2) : this.#end(i >> 1),
    );
  }

  clone(): Extents {
    const copy = new Extents();
    copy.#starts = this.#starts.slice();
    copy.#ends = this.#ends.slice();
    return copy;
  }

  /** Number of ranges. */
  get count(): number {
    return this.#starts.length;
  }

  get isEmpty(): boolean {
    return this.#starts.length === 0;
  }

  /** Number of bytes in the set. */
  get total(): number {
    let sum = 0;
    for (let i = 0; i < this.#starts.length; i++) sum += this.#end(i) - this.#start(i);
    return sum;
  }

  /** Where the last range ends; 0 for the empty set. */
  get end(): number {
    return this.#ends.at(-1) ?? 0;
  }

  /** The ranges in order. */
  *[Symbol.iterator](): Generator<ByteRange> {
    for (let i = 0; i < this.#starts.length; i++) yield { start: this.#start(i), end: this.#end(i) };
  }

  /** Adds the bytes [start, end); an empty range changes nothing. */
  add(start: number, end: number): void {
    if (end <= start) return;
    // The ranges that overlap or touch the new one merge with it.
    const first = this.#firstEndingAt(start);
    let last = first;
    while (last < this.#starts.length && this.#start(last) <= end) last++;
    const from = last > first ? Math.min(start, this.#start(first)) : start;
    const to = last > first ? Math.max(end, this.#end(last - 1)) : end;
    if (last - first === 1) {
      this.#starts[first] = from;
      this.#ends[first] = to;
    } else if (this.#starts.length === 0) {
      // Most sets never have more: an array that is pushed to has room for 17.
      this.#starts = [from];
      this.#ends = [to];
    } else {
      this.#starts.splice(first, last - first, from);
      this.#ends.splice(first, last - first, to);
    }
  }

  /** Takes the bytes [start, end) out. */
  subtract(start: number, end: number): void {
    if (end <= start) return;
    const first = this.#firstEndingAt(start + 1);
    let last = first;
    while (last < this.#starts.length && this.#start(last) < end) last++;
    if (last === first) return;
    const starts: number[] = [];
    const ends: number[] = [];
    if (this.#start(first) < start) {
      starts.push(this.#start(first));
      ends.push(start);
    }
    if (this.#end(last - 1) > end) {
      starts.push(end);
      ends.push(this.#end(last - 1));
    }
    this.#starts.splice(first, last - first, ...starts);
    this.#ends.splice(first, last - first, ...ends);
  }

  /** Takes out all bytes from `size` on. */
  truncate(size: number): void {
    this.subtract(size, Infinity);
  }

  clear(): void {
    this.#starts = [];
    this.#ends = [];
  }

  /** The parts of [start, end) that are in the set, in order. */
  intersect(start: number, end: number): ByteRange[] {
    const found: ByteRange[] = [];
    for (let i = this.#firstEndingAt(start + 1); i < this.#starts.length && this.#start(i) < end; i++) {
      const range = { start: Math.max(start, this.#start(i)), end: Math.min(end, this.#end(i)) };
      if (range.start < range.end) found.push(range);
    }
    return found;
  }

  /** The parts of [start, end) that are not in the set, in order. */
  gaps(start: number, end: number): ByteRange[] {
    const found: ByteRange[] = [];
    let at = start;
    for (const range of this.intersect(start, end)) {
      if (range.start > at) found.push({ start: at, end: range.start });
      at = range.end;
    }
    if (at < end) found.push({ start: at, end });
    return found;
  }

  /** Is every byte of [start, end) in the set? True for an empty range. */
  covers(start: number, end: number): boolean {
    if (end <= start) return true;
    const i = this.#firstEndingAt(start + 1);
    return i < this.#starts.length && this.#start(i) <= start && this.#end(i) >= end;
  }

  /** Is any byte of [start, end) in the set? */
  overlaps(start: number, end: number): boolean {
    if (end <= start) return false;
    const i = this.#firstEndingAt(start + 1);
    return i < this.#starts.length && this.#start(i) < end;
  }

  /** The first range that ends behind `position`, or undefined. */
  next(position: number): ByteRange | undefined {
    const i = this.#firstEndingAt(position + 1);
    return i < this.#starts.length ? { start: this.#start(i), end: this.#end(i) } : undefined;
  }

  #start(i: number): number {
    return this.#starts[i] ?? 0;
  }

  #end(i: number): number {
    return this.#ends[i] ?? 0;
  }

  /** Index of the first range whose end is >= `position`. */
  #firstEndingAt(position: number): number {
    let low = 0;
    let high = this.#ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#end(middle) < position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
