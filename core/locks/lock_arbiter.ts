/** LockArbiter: a LockTable with those who wait for what others hold, and the detection of waits that could never end. */
import { type FileLock, type HeldLock, LOCK_END, type LockFamily, type LockRange, LockTable } from "./lock_table.ts";

export type LockOutcome =
  | { readonly state: "granted" }
  /** `by` stands in the way. */
  | { readonly state: "taken"; readonly by: HeldLock }
  /** Waiting would close a circle of owners that wait for each other (EDEADLK). */
  | { readonly state: "deadlock" }
  | { readonly state: "cancelled" };
/** The answer, or the promise of one and a way to give up. */
export type LockTicket = LockOutcome | { readonly answer: Promise<LockOutcome>; cancel(): void };

interface Waiter {
  readonly lock: FileLock;
  settle(outcome: LockOutcome): void;
}

const GRANTED: LockOutcome = { state: "granted" };

export class LockArbiter {
  readonly table = new LockTable();
  /** In the order they came. */
  readonly #waiters = new Set<Waiter>();
  readonly #yields: (owner: string) => boolean;
  readonly #onYield: (lock: FileLock) => void;

  /**
   * Locks of owners that `yields` says yes to stand in nobody's way: who conflicts with one takes it away, with all that
   * owner holds of the file, which `onYield` is told.
   */
  constructor(yields: (owner: string) => boolean = () => false, onYield: (lock: FileLock) => void = () => {}) {
    this.#yields = yields;
    this.#onYield = onYield;
  }

  get waiting(): number {
    return this.#waiters.size;
  }
  /** Does anybody wait for a lock of the file? */
  isAwaited(ino: number): boolean {
    for (const { lock } of this.#waiters) if (lock.ino === ino) return true;
    return false;
  }

  /** What F_GETLK tells: the lock that stands in the way, or null. */
  test(lock: FileLock): HeldLock | null {
    for (const held of this.table.conflicts(lock.ino, lock.family, lock)) {
      if (!this.#yields(held.owner)) return held;
    }
    return null;
  }

  /** Gives the lock, says why not, or waits. */
  acquire(lock: FileLock, wait: boolean): LockTicket {
    const by = this.test(lock);
    if (by === null) {
      this.#grant(lock);
      return GRANTED;
    }
    // flock(2): a lock that can't be converted at once is given up before the new one is waited for (fs/locks.c).
    if (lock.family === "flock") this.release(lock.ino, "flock", lock.owner);
    if (!wait) return { state: "taken", by };
    if (this.#closesCircle(lock)) return { state: "deadlock" };
    const { promise, resolve } = Promise.withResolvers<LockOutcome>();
    const waiter: Waiter = { lock, settle: resolve };
    this.#waiters.add(waiter);
    return {
      answer: promise,
      cancel: () => {
        if (this.#waiters.delete(waiter)) resolve({ state: "cancelled" });
      },
    };
  }

  #grant(lock: FileLock): void {
    for (const held of [...this.table.conflicts(lock.ino, lock.family, lock)]) {
      if (!this.table.clear(lock.ino, lock.family, held.owner)) continue;
      this.#onYield({ ...held, ino: lock.ino, family: lock.family });
    }
    this.table.put(lock.ino, lock.family, lock);
    // Write to read: others may read now.
    if (lock.type === "read" && this.#waiters.size > 0) this.wake(lock.ino, lock.family);
  }

  /** Takes away what the owner has in the range; those who waited for it get it. */
  release(ino: number, family: LockFamily, owner: string, range: LockRange = { start: 0, end: LOCK_END }): void {
    if (this.table.clear(ino, family, owner, range)) this.wake(ino, family);
  }

  /** Looks again at who waits for the file. */
  wake(ino: number, family: LockFamily): void {
    for (const waiter of [...this.#waiters]) {
      const { lock } = waiter;
      if (lock.ino !== ino || lock.family !== family || !this.#waiters.has(waiter)) continue;
      if (this.test(lock) === null) {
        this.#waiters.delete(waiter);
        this.#grant(lock);
        waiter.settle(GRANTED);
      } else if (this.#closesCircle(lock)) {
        this.#waiters.delete(waiter);
        waiter.settle({ state: "deadlock" });
      }
    }
  }

  /**
   * Would `lock`'s owner wait for itself? Follows who waits for whom through all files; flock(2) waits are left out, as
   * in fs/locks.c (posix_locks_deadlock), because their owner is a descriptor that several processes share.
   */
  #closesCircle(lock: FileLock): boolean {
    if (lock.family === "flock") return false;
    const seen = new Set<string>();
    const ahead = this.#blockers(lock);
    for (let owner = ahead.pop(); owner !== undefined; owner = ahead.pop()) {
      if (owner === lock.owner) return true;
      if (seen.has(owner)) continue;
      seen.add(owner);
      for (const { lock: wanted } of this.#waiters) {
        if (wanted.owner === owner && wanted.family === "posix") ahead.push(...this.#blockers(wanted));
      }
    }
    return false;
  }
  #blockers(lock: FileLock): string[] {
    const owners: string[] = [];
    for (const held of this.table.conflicts(lock.ino, lock.family, lock)) {
      if (!this.#yields(held.owner)) owners.push(held.owner);
    }
    return owners;
  }
}
