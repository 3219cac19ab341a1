/** Rate: a bucket of requests that fills evenly; who finds it empty waits (a mount) or is sent away (REST). */
import type { Clock } from "../platform/clock.ts";

/** A bucket holds the requests of so many seconds. */
const BURST_SECONDS = 1;

export class Rate {
  readonly #clock: Clock;
  readonly #perMs: number;
  readonly #capacity: number;
  #tokens: number;
  #at: number;

  /** `perSecond`: requests; Infinity for no limit. */
  constructor(clock: Clock, perSecond: number) {
    this.#clock = clock;
    this.#perMs = perSecond / 1000;
    this.#capacity = Math.max(1, perSecond * BURST_SECONDS);
    this.#tokens = this.#capacity;
    this.#at = clock.monotonic();
  }

  #fill(): void {
    const now = this.#clock.monotonic();
    this.#tokens = Math.min(this.#capacity, this.#tokens + (now - this.#at) * this.#perMs);
    this.#at = now;
  }

  /** Takes one request now, or says how many milliseconds until there is one (and takes none). */
  tryTake(): number {
    if (this.#perMs === Infinity) return 0;
    this.#fill();
    if (this.#tokens >= 1) {
      this.#tokens--;
      return 0;
    }
    return (1 - this.#tokens) / this.#perMs;
  }

  /** Takes one request; resolves when its turn has come. Those who wait are served in order. */
  async take(signal: AbortSignal): Promise<void> {
    if (this.#perMs === Infinity) return;
    this.#fill();
    this.#tokens--;
    if (this.#tokens < 0) await this.#clock.sleep(-this.#tokens / this.#perMs, signal);
  }
}

/** One Rate a key (token, address); those that were not used for a while are forgotten. */
export class Rates {
  readonly #clock: Clock;
  readonly #perSecond: number;
  readonly #byKey = new Map<string, Rate>();

  constructor(clock: Clock, perSecond: number) {
    this.#clock = clock;
    this.#perSecond = perSecond;
  }

  of(key: string): Rate {
    const found = this.#byKey.get(key);
    // Kept in order of their last use: the first is the one unused for longest.
    if (found !== undefined) this.#byKey.delete(key);
    const rate = found ?? new Rate(this.#clock, this.#perSecond);
    this.#byKey.set(key, rate);
    if (this.#byKey.size > 10_000) {
      const oldest = this.#byKey.keys().next();
      if (!oldest.done) this.#byKey.delete(oldest.value);
    }
    return rate;
  }
}
