/** TierControl: what people and commands may ask of the tiers as a whole. */
import { FsError, throwIfCancelled } from "../fs/error.ts";
import type { Index } from "../index/index.ts";
import type { WalEntry } from "../index/packs.ts";
import type { EvictReport, Tiers, TierStatus } from "../indexed/core.ts";
import type { Clock } from "../platform/clock.ts";
import type { Evictor } from "./evictor.ts";
import { within } from "./health.ts";
import type { Scrubber } from "./scrubber.ts";
import type { TierSet } from "./tier.ts";

export interface TierControlOptions {
  readonly index: Index;
  readonly tiers: TierSet;
  readonly evictor: Evictor;
  readonly scrubber: Scrubber;
  readonly clock: Clock;
  /** Ends the pack that is being filled. */
  readonly seal: () => Promise<void>;
  /** Entries of the log may run. */
  readonly kick: () => void;
  readonly timeoutMs: number;
}

const PAGE = 256;
/** How often `flush` looks, milliseconds. */
const LOOK = 50;

export class TierControl implements Tiers {
  readonly bits: number;
  readonly #o: TierControlOptions;

  constructor(options: TierControlOptions) {
    this.#o = options;
    this.bits = options.tiers.bits;
  }

  async status(): Promise<TierStatus[]> {
    const { index, tiers, clock, timeoutMs } = this.#o;
    return await Promise.all(tiers.tiers.map(async (tier) => ({
      bit: tier.bit,
      name: tier.name,
      place: tier.place,
      bytes: await index.bytesOn(tier.bit),
      highWatermark: tier.highWatermark,
      lowWatermark: tier.lowWatermark,
      healthy: tier.health.healthy,
      lastError: tier.health.lastError?.message ?? null,
      free: tier.health.healthy
        ? await within(
          clock,
          Math.min(timeoutMs, 2000),
          `space ${tier.place}`,
          (signal) => tier.store.space({ signal }),
        )
          .then((space) => space?.free ?? null, () => null)
        : null,
    })));
  }

  evict(
    options: { tier?: "local" | "nas"; to?: number; dryRun?: boolean; signal?: AbortSignal },
  ): Promise<EvictReport[]> {
    return this.#o.evictor.evict(options);
  }

  async flush(
    options: {
      timeoutMs?: number;
      signal?: AbortSignal;
      onProgress?: (left: { entries: number; bytes: number }) => void;
    },
  ): Promise<void> {
    const { index, clock, seal, kick } = this.#o;
    const start = clock.monotonic();
    await seal();
    await index.settle();
    await index.walRetry(null);
    kick();
    // Work that comes in later is not waited for: with a busy writer the log is never empty.
    const last = await this.#lastEntry();
    for (let shown = -1;;) {
      throwIfCancelled(options.signal);
      const left = await index.walCount();
      if (left.entries !== shown) options.onProgress?.(left);
      shown = left.entries;
      const [oldest] = await index.walPage(0, 1);
      if (oldest === undefined || oldest.id > last) return;
      if (options.timeoutMs !== undefined && clock.monotonic() - start >= options.timeoutMs) {
        throw new FsError(
          "timeout",
          `flush: ${left.entries} entries (${left.bytes} bytes) still wait; ${await this.#why()}`,
          { operation: "flush", limit: options.timeoutMs },
        );
      }
      await clock.sleep(LOOK, options.signal);
    }
  }
  async #lastEntry(): Promise<number> {
    let last = 0;
    for await (const { id } of this.wal()) last = id;
    return last;
  }
  async #why(): Promise<string> {
    for await (const entry of this.wal()) {
      if (entry.lastError !== null) return `the last error was: ${entry.lastError}`;
    }
    return "give it more time";
  }

  async retry(id: number | null): Promise<number> {
    const woken = await this.#o.index.walRetry(id);
    this.#o.kick();
    return woken;
  }

  async *wal(): AsyncGenerator<WalEntry> {
    for (let after = 0;;) {
      const page = await this.#o.index.walPage(after, PAGE);
      yield* page;
      const last = page.at(-1);
      if (last === undefined || page.length < PAGE) return;
      after = last.id;
    }
  }

  scrub(
    options: { repair?: boolean; deep?: boolean; signal?: AbortSignal },
  ): Promise<{ checked: number; problems: string[]; repaired: number }> {
    return this.#o.scrubber.scrub(options);
  }
}
