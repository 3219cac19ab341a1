/** LockTable: which owners hold which byte ranges of which files; knows no waiting, no time and no network. */

/** The last byte of a range that reaches to the end of the file, however long it grows (fcntl's l_len 0). */
export const LOCK_END = Number.MAX_SAFE_INTEGER;

/** fcntl (POSIX record and open file description) locks and flock(2) locks of one file know nothing of each other. */
export type LockFamily = "posix" | "flock";
export type LockType = "read" | "write";

/** Bytes `start` to `end`, both included. */
export interface LockRange {
  readonly start: number;
  readonly end: number;
}
export interface HeldLock extends LockRange {
  readonly owner: string;
  readonly type: LockType;
  /** Process that took it, for F_GETLK; means something on its own machine only. */
  readonly pid: number;
}
/** A lock with the file it is on. */
export interface FileLock extends HeldLock {
  readonly ino: number;
  readonly family: LockFamily;
}
/** A stretch of a range and what an owner holds there; null: nothing. */
export interface LockSegment extends LockRange {
  readonly type: LockType | null;
}

/** Files are counted far below 2^52, so file and family fit one number. */
const keyOf = (ino: number, family: LockFamily): number => ino * 2 + (family === "flock" ? 1 : 0);
const overlap = (a: LockRange, b: LockRange): boolean => a.start <= b.end && b.start <= a.end;

export class LockTable {
  /** Sorted by start; the locks of one owner are disjoint, and neighbours of one type are one lock. */
  readonly #files = new Map<number, HeldLock[]>();

  /** Number of files with locks. */
  get size(): number {
    return this.#files.size;
  }

  /** The first lock of another owner that keeps `owner` from this one, null when there is none. */
  conflict(ino: number, family: LockFamily, wanted: Omit<HeldLock, "pid">): HeldLock | null {
    for (const held of this.#files.get(keyOf(ino, family)) ?? []) {
      if (held.start > wanted.end) break;
      if (held.owner === wanted.owner || held.end < wanted.start) continue;
      if (held.type === "write" || wanted.type === "write") return held;
    }
    return null;
  }
  /** All of them. */
  *conflicts(ino: number, family: LockFamily, wanted: Omit<HeldLock, "pid">): Generator<HeldLock> {
    for (const held of this.#files.get(keyOf(ino, family)) ?? []) {
      if (held.owner === wanted.owner || !overlap(held, wanted)) continue;
      if (held.type === "write" || wanted.type === "write") yield held;
    }
  }

  /** Gives the lock, whoever else holds what; it replaces what its owner has in the range (fcntl(2), F_SETLK). */
  put(ino: number, family: LockFamily, lock: HeldLock): void {
    const kept = this.#without(ino, family, lock.owner, lock);
    let { start, end } = lock;
    const rest: HeldLock[] = [];
    for (const held of kept) {
      const joins = held.owner === lock.owner && held.type === lock.type &&
        held.start <= (end === LOCK_END ? LOCK_END : end + 1) &&
        start <= (held.end === LOCK_END ? LOCK_END : held.end + 1);
      if (joins) {
        start = Math.min(start, held.start);
        end = Math.max(end, held.end);
      } else rest.push(held);
    }
    const { owner, type, pid } = lock;
    const at = rest.findIndex((held) => held.start > start);
    rest.splice(at < 0 ? rest.length : at, 0, { start, end, owner, type, pid });
    this.#files.set(keyOf(ino, family), rest);
  }

  /** Takes away what the owner has in the range. Was there anything? */
  clear(ino: number, family: LockFamily, owner: string, range: LockRange = { start: 0, end: LOCK_END }): boolean {
    const before = this.#files.get(keyOf(ino, family));
    if (before === undefined || !before.some((held) => held.owner === owner && overlap(held, range))) return false;
    const rest = this.#without(ino, family, owner, range);
    if (rest.length === 0) this.#files.delete(keyOf(ino, family));
    else this.#files.set(keyOf(ino, family), rest);
    return true;
  }

  #without(ino: number, family: LockFamily, owner: string, range: LockRange): HeldLock[] {
    const rest: HeldLock[] = [];
    let split = false;
    for (const held of this.#files.get(keyOf(ino, family)) ?? []) {
      if (held.owner !== owner || !overlap(held, range)) {
        rest.push(held);
        continue;
      }
      if (held.start < range.start) rest.push({ ...held, end: range.start - 1 });
      if (held.end > range.end) {
        rest.push({ ...held, start: range.end + 1 });
        split = true;
      }
    }
    return split ? rest.sort((a, b) => a.start - b.start) : rest;
  }

  /** The range cut where what the owner holds changes, from left to right. */
  segments(ino: number, family: LockFamily, owner: string, range: LockRange): LockSegment[] {
    const out: LockSegment[] = [];
    let at = range.start;
    for (const held of this.#files.get(keyOf(ino, family)) ?? []) {
      if (held.owner !== owner || !overlap(held, range)) continue;
      const start = Math.max(held.start, range.start);
      const end = Math.min(held.end, range.end);
      if (at < start) out.push({ start: at, end: start - 1, type: null });
      out.push({ start, end, type: held.type });
      if (end >= range.end) return out;
      at = end + 1;
    }
    out.push({ start: at, end: range.end, type: null });
    return out;
  }

  /** Does the owner hold anything of the file? */
  holds(ino: number, family: LockFamily, owner: string): boolean {
    return this.#files.get(keyOf(ino, family))?.some((held) => held.owner === owner) ?? false;
  }
  of(ino: number, family: LockFamily): readonly HeldLock[] {
    return this.#files.get(keyOf(ino, family)) ?? [];
  }
  /** Every lock there is. Removing what was yielded is allowed meanwhile. */
  *all(): Generator<FileLock> {
    for (const [key, locks] of this.#files) {
      const family: LockFamily = key % 2 === 1 ? "flock" : "posix";
      const ino = Math.floor(key / 2);
      for (const lock of locks) yield { ...lock, ino, family };
    }
  }
}
