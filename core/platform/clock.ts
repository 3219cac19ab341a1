/** The clock and timers: the only place that reads real time or sets real timers. */
import { clearImmediate, setImmediate } from "node:timers";

export interface Clock {
  /** Wall clock, milliseconds since 1970, fractional. May jump. */
  now(): number;
  /** Milliseconds of a clock that never jumps; its zero means nothing. */
  monotonic(): number;
  /** Resolves after `ms` milliseconds; rejects with the signal's reason when aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `callback` once after `ms`; the result cancels it. Doesn't keep the process alive when `unref`. */
  after(ms: number, callback: () => void, unref?: boolean): () => void;
  /** Calls `callback` every `ms`; the result cancels it. Never keeps the process alive. */
  every(ms: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep(ms, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = () => {
        clearTimeout(id);
        reject(signal?.reason);
      };
      const id = setTimeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, ms);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  },
  after(ms, callback, unref = false) {
    const id = setTimeout(callback, ms);
    if (unref) Deno.unrefTimer(id);
    return () => clearTimeout(id);
  },
  every(ms, callback) {
    const id = setInterval(callback, ms);
    Deno.unrefTimer(id);
    return () => clearInterval(id);
  },
};

/** Calls `callback` once everything that can go on by itself has done so (a turn of the event loop); the result cancels it. */
export function nextTurn(callback: () => void): () => void {
  const id = setImmediate(callback);
  return () => clearImmediate(id);
}

/** A wall-clock reading split as the index keeps times. */
export function splitTime(ms: number): { sec: number; nsec: number } {
  const sec = Math.floor(ms / 1000);
  return { sec, nsec: Math.floor((ms - sec * 1000) * 1e6) };
}

/**
 * Times of changes: of two within one millisecond of the clock the second one is later too, by a microsecond, as on a disk
 * with finer times (multigrain timestamps, fs/inode.c). What compares times to see a change (make, rsync, git) sees it.
 */
export class ChangeTimes {
  readonly #clock: Clock;
  #last = -1;
  #within = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }
  now(): { sec: number; nsec: number } {
    const ms = Math.floor(this.#clock.now());
    this.#within = ms === this.#last ? Math.min(this.#within + 1, 999) : 0;
    this.#last = ms;
    const { sec, nsec } = splitTime(ms);
    return { sec, nsec: nsec + this.#within * 1000 };
  }
}

/** A signal that aborts with a TimeoutError after `ms`, or earlier with `parent`. */
export function timeoutSignal(ms: number, parent?: AbortSignal): AbortSignal {
  const own = AbortSignal.timeout(ms);
  return parent === undefined ? own : AbortSignal.any([own, parent]);
}
