/** Evictor: lets packs leave a tier, the least wanted first, and only when every colder tier is known to have them now. */
import { FsError, throwIfCancelled, toFsError } from "../fs/error.ts";
import type { Serial } from "../fs/serial.ts";
import type { Index } from "../index/index.ts";
import { HITS_FADE_MS, type PackInfo } from "../index/packs.ts";
import type { EvictReport } from "../indexed/core.ts";
import type { Clock } from "../platform/clock.ts";
import { packKey } from "../store/open_pack.ts";
import { within } from "./health.ts";
import { copyKey } from "./replicator.ts";
import type { Tier, TierSet } from "./tier.ts";

export interface EvictorOptions {
  readonly index: Index;
  readonly tiers: TierSet;
  readonly serial: Serial;
  /** Brings the index up to date with the accesses counted in memory. */
  readonly countAccesses: () => Promise<void>;
  /** Weight of how long ago the last access was. */
  readonly recencyWeight: number;
  /** Weight of how many accesses the last 30 days had. */
  readonly frequencyWeight: number;
  /** Longest wait for one answer of a tier, milliseconds. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly log: (message: string) => void;
}

/** Packs that are confirmed at a time. */
const TOGETHER = 8;

type Named = PackInfo & { readonly name: string };

/** The higher, the longer a pack stays. `now` and the pack's times in milliseconds. */
export function evictionScore(pack: PackInfo, now: number, recencyWeight: number, frequencyWeight: number): number {
  const idle = Math.max(0, now - pack.lastAccess);
  const accesses = pack.hits * Math.max(0, 1 - idle / HITS_FADE_MS);
  return recencyWeight / Math.max(1, idle / 1000) + frequencyWeight * accesses;
}

export class Evictor {
  readonly #o: EvictorOptions;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: EvictorOptions) {
    this.#o = options;
  }

  /** Tiers above their high watermark come down to the low one. */
  async relieve(signal?: AbortSignal): Promise<void> {
    for (const tier of this.#o.tiers.tiers) {
      if (tier.highWatermark === null || await this.#o.index.bytesOn(tier.bit) <= tier.highWatermark) continue;
      const [report] = await this.evict({ tier: tier.name, ...(signal && { signal }) });
      for (const { reason, packs, bytes } of report?.kept ?? []) {
        this.#o.log(
          `${tier.name} stays above its low watermark: ${packs} packs (${bytes} bytes) can't leave: ${reason}`,
        );
      }
    }
  }

  /** See Tiers.evict. One pass at a time. */
  evict(
    options: { tier?: string; to?: number; dryRun?: boolean; signal?: AbortSignal },
  ): Promise<EvictReport[]> {
    const mine = this.#last.then(() => this.#evict(options));
    this.#last = mine.catch(() => {});
    return mine;
  }

  async #evict(
    options: { tier?: string; to?: number; dryRun?: boolean; signal?: AbortSignal },
  ): Promise<EvictReport[]> {
    const { to } = options;
    if (to !== undefined && !(Number.isSafeInteger(to) && to >= 0)) {
      throw new FsError("invalid_input", `evict: ${to} is not a size in bytes`, { operation: "evict" });
    }
    const chosen = this.#o.tiers.tiers.filter((tier) =>
      tier.name !== "s3" &&
      (options.tier === undefined ? to === undefined || tier.name === "local" : tier.name === options.tier)
    );
    if (options.tier !== undefined && chosen.length === 0) {
      const names = this.#o.tiers.tiers.map(({ name }) => name).join(", ");
      throw new FsError(
        "invalid_input",
        `evict: nothing can be evicted from ${options.tier}; the configured tiers are ${names}, and s3 keeps everything`,
        { operation: "evict" },
      );
    }
    const reports: EvictReport[] = [];
    for (const tier of chosen) {
      const target = to ?? tier.lowWatermark;
      if (target !== null) reports.push(await this.#evictTier(tier, target, options.dryRun ?? false, options.signal));
    }
    return reports;
  }

  async #evictTier(tier: Tier, target: number, dryRun: boolean, signal: AbortSignal | undefined): Promise<EvictReport> {
    const { index, clock, recencyWeight, frequencyWeight } = this.#o;
    await this.#o.countAccesses();
    const before = await index.bytesOn(tier.bit);
    const colder = this.#o.tiers.colderThan(tier);
    const needed = colder.reduce((bits, { bit }) => bits | bit, 0);
    const kept = new Map<string, { packs: number; bytes: number }>();
    const keep = (reason: string, bytes: number, packs = 1) => {
      const sum = kept.get(reason) ?? { packs: 0, bytes: 0 };
      kept.set(reason, { packs: sum.packs + packs, bytes: sum.bytes + bytes });
    };
    const evicted: EvictReport["evicted"][number][] = [];
    let size = before;
    // Without a colder tier every pack here is the last copy.
    const candidates = colder.length === 0 ? [] : await index.evictable(tier.bit, needed);
    const movable = candidates.reduce((sum, { bytes }) => sum + bytes, 0);
    if (size - movable > target) {
      const reason = colder.length === 0 ? "no colder tier is configured" : "not yet on every colder tier";
      keep(reason, before - movable, await this.#count(tier) - candidates.length);
    }
    const now = clock.now();
    const ranked = candidates
      .flatMap((pack) => pack.name === null ? [] : { pack: { ...pack, name: pack.name }, score: 0 })
      .map(({ pack }) => ({ pack, score: evictionScore(pack, now, recencyWeight, frequencyWeight) }))
      .sort((a, b) => a.score - b.score);
    for (let i = 0; i < ranked.length && size > target; i += TOGETHER) {
      throwIfCancelled(signal);
      const group = ranked.slice(i, i + TOGETHER);
      const answers = await Promise.all(group.map(({ pack }) => this.#confirm(pack, colder, signal)));
      for (const [j, { pack, score }] of group.entries()) {
        if (size <= target) break;
        const obstacle = answers[j] ?? null;
        if (obstacle !== null) {
          keep(obstacle, pack.bytes);
          continue;
        }
        if (!dryRun && !await this.#drop(pack, tier, needed)) continue;
        size -= pack.bytes;
        const idle = Math.round((now - pack.lastAccess) / 1000);
        const why = `last access ${idle} s ago, ${pack.hits} accesses; on ${
          colder.map(({ name }) => name).join(" and ")
        }`;
        evicted.push({ pack: pack.name, bytes: pack.bytes, score, why });
      }
    }
    return {
      tier: tier.name,
      dryRun,
      before,
      after: size,
      evicted,
      kept: size > target ? [...kept].map(([reason, sum]) => ({ reason, ...sum })) : [],
    };
  }

  async #count(tier: Tier): Promise<number> {
    let count = 0;
    const PAGE = 1000;
    for (let after = 0;;) {
      const page = await this.#o.index.packPage(after, PAGE);
      count += page.filter((pack) => (pack.tiers & tier.bit) !== 0).length;
      const last = page.at(-1);
      if (last === undefined || page.length < PAGE) return count;
      after = last.id;
    }
  }

  /** Null when every colder tier says now that it has the whole pack; else what stands in the way. */
  async #confirm(pack: Named, colder: readonly Tier[], signal: AbortSignal | undefined): Promise<string | null> {
    const { clock, timeoutMs, index, log } = this.#o;
    const key = packKey(pack.name);
    for (const tier of colder) {
      if (!tier.health.healthy) return `${tier.name} is not answering`;
      try {
        const found = await within(
          clock,
          timeoutMs,
          `head ${tier.place}`,
          (own) => tier.store.head(key, { signal: own }),
          signal,
        );
        if (found?.size === pack.bytes) continue;
        log(`${tier.name} should have pack ${pack.name} but has ${found?.size ?? "none"} of its ${pack.bytes} bytes`);
        await (await index.lostFrom(pack.id, tier.bit, true)).durable;
        return `${tier.name} has lost it`;
      } catch (error) {
        if (signal?.aborted) throw error;
        tier.health.failed(error);
        return `${tier.name} does not answer: ${toFsError(error).message}`;
      }
    }
    return null;
  }

  /** The index first, durably, the object after: a crash in between leaves an object nobody counts on, never the reverse. */
  async #drop(pack: Named, tier: Tier, needed: number): Promise<boolean> {
    return await this.#o.serial.run(copyKey(tier.bit, pack.id), async () => {
      const dropped = await this.#o.index.dropTier(pack.id, tier.bit, needed);
      await dropped.durable;
      if (!dropped.value) return false;
      try {
        await within(
          this.#o.clock,
          this.#o.timeoutMs,
          `delete ${tier.place}`,
          (own) => tier.store.delete(packKey(pack.name), { signal: own }),
        );
      } catch (error) {
        this.#o.log(
          `pack ${pack.name} left ${tier.name}, but its object could not be deleted: ${toFsError(error).message}`,
        );
      }
      return true;
    });
  }
}
