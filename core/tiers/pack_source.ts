/** PackSource: a whole, checked copy of a pack from any tier that has one. */
import { FsError, toFsError } from "../fs/error.ts";
import type { ObjectSource } from "../fs/object_store.ts";
import type { PackInfo } from "../index/packs.ts";
import type { Clock } from "../platform/clock.ts";
import { packKey } from "../store/open_pack.ts";
import { readToc, verifyPack } from "../store/pack.ts";
import { within } from "./health.ts";
import type { Tier, TierSet } from "./tier.ts";

export interface CheckedCopy extends ObjectSource {
  readonly tier: Tier;
}

export class PackSource {
  readonly #tiers: TierSet;
  readonly #clock: Clock;
  readonly #limitMs: (bytes: number) => number;

  /** `limitMs`: longest wait for so many bytes, milliseconds. */
  constructor(tiers: TierSet, clock: Clock, limitMs: (bytes: number) => number) {
    this.#tiers = tiers;
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  /**
   * The fastest tier's copy, `except` left out, whose table of contents is intact and has the pack's name (`deep`:
   * whose every byte was checked). Throws unavailable or corrupt, naming every tier that was asked.
   */
  async find(
    pack: PackInfo & { readonly name: string },
    options: { readonly except?: number; readonly deep?: boolean; readonly signal?: AbortSignal } = {},
  ): Promise<CheckedCopy> {
    const failures: string[] = [];
    let damaged = false;
    for (const tier of this.#tiers.tiers) {
      if ((pack.tiers & tier.bit) === 0 || tier.bit === options.except) continue;
      if (!tier.health.healthy) {
        failures.push(`${tier.name} is not answering`);
        continue;
      }
      try {
        await this.check(tier, pack, options.deep ?? false, options.signal);
        const signal = options.signal === undefined ? {} : { signal: options.signal };
        return { tier, size: pack.bytes, open: () => tier.store.getStream(packKey(pack.name), signal) };
      } catch (thrown) {
        const error = toFsError(thrown);
        if (options.signal?.aborted) throw error;
        if (error.code === "corrupt" || error.code === "not_found") damaged = true;
        else tier.health.failed(error);
        failures.push(`${tier.name}: ${error.message}`);
      }
    }
    throw new FsError(
      damaged ? "corrupt" : "unavailable",
      `no tier has a good copy of pack ${pack.name}: ${failures.join("; ") || "none is known to hold it"}`,
      { path: packKey(pack.name) },
    );
  }

  /** Throws corrupt, not_found and what the store throws, unless the tier's copy is what it should be. */
  async check(
    tier: Tier,
    pack: PackInfo & { readonly name: string },
    deep: boolean,
    signal?: AbortSignal,
  ): Promise<void> {
    const key = packKey(pack.name);
    const readAt = (offset: number, length: number) =>
      within(
        this.#clock,
        this.#limitMs(length),
        `read ${tier.place}`,
        (own) => tier.store.get(key, { offset, length, signal: own }),
        signal,
      );
    const toc = deep ? await verifyPack(readAt, pack.bytes) : await readToc(readAt, pack.bytes);
    if (toc.name === pack.name) return;
    throw new FsError("corrupt", `object ${key} in ${tier.name} holds the pack ${toc.name}`, { path: key });
  }
}
