/** Repairer: replaces a copy of a pack that turned out to be missing or wrong by a good one from another tier. */
import { hasCode, toFsError } from "../fs/error.ts";
import type { Serial } from "../fs/serial.ts";
import { TierBit } from "../fs/stat.ts";
import type { Index } from "../index/index.ts";
import type { PackInfo } from "../index/packs.ts";
import { PACK_SEALED } from "../index/schema.ts";
import type { Clock } from "../platform/clock.ts";
import { packKey } from "../store/open_pack.ts";
import { within } from "./health.ts";
import type { PackSource } from "./pack_source.ts";
import { copyKey } from "./replicator.ts";
import type { Tier } from "./tier.ts";

export interface RepairerOptions {
  readonly index: Index;
  readonly source: PackSource;
  readonly serial: Serial;
  /** Longest wait for so many bytes, milliseconds. */
  readonly limitMs: (bytes: number) => number;
  readonly clock: Clock;
  /** New entries of the write-ahead log are there. */
  readonly kick: () => void;
  readonly log: (message: string) => void;
}

export class Repairer {
  readonly #o: RepairerOptions;
  readonly #running = new Map<string, Promise<boolean>>();
  readonly #stop = new AbortController();

  constructor(options: RepairerOptions) {
    this.#o = options;
  }

  /**
   * Makes sure of the damage and mends it: true when the tier has a good copy again, or will have one by the log.
   * False when the copy is fine after all, or no other tier has a good one.
   */
  repair(pack: PackInfo, tier: Tier): Promise<boolean> {
    const key = copyKey(tier.bit, pack.id);
    let work = this.#running.get(key);
    if (work === undefined) {
      work = this.#o.serial.run(key, () => this.#repair(pack.id, tier)).catch((error) => {
        const { message } = toFsError(error);
        if (!this.#stop.signal.aborted) {
          this.#o.log(`the bad copy of pack ${pack.name} on ${tier.name} is not mended: ${message}`);
        }
        return false;
      }).finally(() => this.#running.delete(key));
      this.#running.set(key, work);
    }
    return work;
  }

  async #repair(id: number, tier: Tier): Promise<boolean> {
    const { index, source, log } = this.#o;
    const signal = this.#stop.signal;
    const pack = await index.pack(id);
    if (pack === null || pack.name === null || pack.state !== PACK_SEALED || (pack.tiers & tier.bit) === 0) {
      return false;
    }
    const named = { ...pack, name: pack.name };
    try {
      await source.check(tier, named, true, signal);
      return false;
    } catch (error) {
      // An outage is no proof of damage.
      if (!hasCode(error, "corrupt") && !hasCode(error, "not_found")) throw error;
    }
    const copy = await source.find(named, { except: tier.bit, deep: true, signal });
    log(`pack ${pack.name} is missing or damaged on ${tier.name}: it is replaced by the copy of ${copy.tier.name}`);
    if (tier.bit !== TierBit.local) {
      await (await index.lostFrom(id, tier.bit, true)).durable;
      this.#o.kick();
      return true;
    }
    const key = packKey(pack.name);
    const limit = this.#o.limitMs(pack.bytes);
    try {
      await within(this.#o.clock, limit, `repair ${key}`, (own) => tier.store.put(key, copy, { signal: own }), signal);
    } catch (error) {
      if (!hasCode(error, "no_space")) throw error;
      // The others have it: without a copy here nothing is wrong any more.
      await (await index.lostFrom(id, tier.bit, false)).durable;
      await tier.store.delete(key);
    }
    return true;
  }

  /** Resolves when nothing runs. */
  async settle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running.values());
  }

  async close(): Promise<void> {
    this.#stop.abort(new DOMException("the server is closing", "AbortError"));
    await this.settle();
  }
}
