/** Router: reads packs from the fastest tier that has them and falls to the next when one fails or has a bad copy. */
import { FsError, hasCode, toFsError } from "../fs/error.ts";
import { TierBit } from "../fs/stat.ts";
import type { Index } from "../index/index.ts";
import { PACK_DEAD } from "../index/schema.ts";
import type { PackInfo } from "../index/packs.ts";
import type { Clock } from "../platform/clock.ts";
import type { PackReader } from "../store/chunk_store.ts";
import { packKey } from "../store/open_pack.ts";
import type { OpenPacks } from "../store/open_packs.ts";
import { within } from "./health.ts";
import type { HotFiles } from "./hot_files.ts";
import type { Tier, TierSet } from "./tier.ts";

export interface RouterOptions {
  readonly index: Index;
  readonly tiers: TierSet;
  readonly openPacks: OpenPacks;
  readonly hotFiles: HotFiles;
  readonly clock: Clock;
  /** Longest wait for so many bytes from one tier, milliseconds. */
  readonly limitMs: (bytes: number) => number;
  /** A pack was read from a slower tier than the hot one. */
  readonly onSlowRead: (pack: PackInfo) => void;
  /** The tier's copy is missing or has wrong bytes; `good` gave the right ones, null: none did. */
  readonly onBadCopy: (pack: PackInfo, tier: Tier, error: FsError, good: Tier | null) => void;
  readonly log: (message: string) => void;
}

/** How often the accesses counted in memory are written to the index, milliseconds. */
const TOUCH_INTERVAL = 10_000;

export class Router implements PackReader {
  readonly #o: RouterOptions;
  readonly #hits = new Map<number, number>();
  /** Reads of slow tiers under way, so that two readers of the same bytes share one. */
  readonly #shared = new Map<string, Promise<Uint8Array>>();
  readonly #stopTouch: () => void;

  constructor(options: RouterOptions) {
    this.#o = options;
    this.#stopTouch = options.clock.every(TOUCH_INTERVAL, () => void this.flushHits().catch(() => {}));
  }

  async read<T>(
    packId: number,
    offset: number,
    length: number,
    decode: (bytes: Uint8Array) => T,
    signal?: AbortSignal,
  ): Promise<T> {
    this.#hits.set(packId, (this.#hits.get(packId) ?? 0) + 1);
    const open = this.#o.openPacks.get(packId);
    if (open !== undefined) {
      try {
        return decode(await open.read(offset, length));
      } catch (error) {
        // It may have been sealed and moved while it was read.
        if (this.#o.openPacks.get(packId) === open && !hasCode(error, "unavailable")) throw error;
      }
    }
    const pack = await this.#o.index.pack(packId);
    if (pack === null || pack.state === PACK_DEAD) {
      throw new FsError("not_found", `pack ${packId} is not there any more`, { operation: "read" });
    }
    if (pack.name === null) {
      throw new FsError("corrupt", `the file of pack ${packId}, which was being filled, is missing; run scrub`);
    }
    return await this.#readSealed(pack, pack.name, offset, length, decode, signal);
  }

  async #readSealed<T>(
    pack: PackInfo,
    name: string,
    offset: number,
    length: number,
    decode: (bytes: Uint8Array) => T,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    const bad: { tier: Tier; error: FsError }[] = [];
    const failures: string[] = [];
    for (const tier of this.#o.tiers.tiers) {
      if ((pack.tiers & tier.bit) === 0) continue;
      if (!tier.health.healthy) {
        failures.push(`${tier.name} is not answering (${tier.health.lastError?.message ?? "failed checks"})`);
        continue;
      }
      try {
        const value = decode(await this.#fetch(tier, name, offset, length, signal));
        if (tier.bit !== TierBit.local) tier.health.succeeded();
        for (const { tier: broken, error } of bad) this.#o.onBadCopy(pack, broken, error, tier);
        if (tier.bit !== TierBit.local) this.#o.onSlowRead(pack);
        return value;
      } catch (thrown) {
        const error = toFsError(thrown);
        if (signal?.aborted) throw error;
        if (error.code === "corrupt" || error.code === "not_found") bad.push({ tier, error });
        else tier.health.failed(error);
        failures.push(`${tier.name}: ${error.message}`);
        this.#o.log(`reading pack ${name} from ${tier.name} failed: ${error.message}`);
      }
    }
    for (const { tier: broken, error } of bad) this.#o.onBadCopy(pack, broken, error, null);
    const why = failures.length === 0 ? "no tier is known to hold it" : failures.join("; ");
    const code = bad.length > 0 && bad.length === failures.length ? "corrupt" : "unavailable";
    throw new FsError(code, `pack ${name} can't be read: ${why}`, { operation: "read", path: packKey(name) });
  }

  /** Exactly the bytes from this tier; time-limited. */
  #fetch(
    tier: Tier,
    name: string,
    offset: number,
    length: number,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    const { clock, hotFiles } = this.#o;
    const limit = this.#o.limitMs(length);
    if (tier.bit === TierBit.local) {
      return within(clock, limit, `read ${tier.place}`, () => hotFiles.read(name, offset, length), signal);
    }
    const key = `${tier.bit}/${name}/${offset}/${length}`;
    let shared = this.#shared.get(key);
    if (shared === undefined) {
      // Without the caller's signal: others may wait for the same bytes. The time limit ends it.
      shared = within(clock, limit, `read ${tier.place}`, async (own) => {
        const bytes = await tier.store.get(packKey(name), { offset, length, signal: own });
        if (bytes.length === length) return bytes;
        throw new FsError("corrupt", `${tier.name} answered ${bytes.length} bytes where ${length} were asked for`);
      }).finally(() => this.#shared.delete(key));
      shared.catch(() => {});
      this.#shared.set(key, shared);
    }
    const common = shared;
    return within(clock, limit, `read ${tier.place}`, () => common, signal);
  }

  /** Writes the counted accesses to the index. */
  async flushHits(): Promise<void> {
    if (this.#hits.size === 0) return;
    const hits = new Map(this.#hits);
    this.#hits.clear();
    await this.#o.index.touchPacks(hits);
  }

  async close(): Promise<void> {
    this.#stopTouch();
    await this.flushHits();
  }
}
