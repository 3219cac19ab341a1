/** Promoter: brings packs that were read from a slower tier back to the hot one, in the background, while there is room. */
import { toFsError } from "../fs/error.ts";
import type { Serial } from "../fs/serial.ts";
import type { Index } from "../index/index.ts";
import type { PackInfo } from "../index/packs.ts";
import { PACK_SEALED } from "../index/schema.ts";
import type { Clock } from "../platform/clock.ts";
import { packKey } from "../store/open_pack.ts";
import { within } from "./health.ts";
import type { PackSource } from "./pack_source.ts";
import { copyKey } from "./replicator.ts";
import type { Tier } from "./tier.ts";

export interface PromoterOptions {
  readonly index: Index;
  readonly hot: Tier;
  readonly source: PackSource;
  readonly serial: Serial;
  /** Packs fetched at a time. */
  readonly concurrency: number;
  /** Longest wait for so many bytes, milliseconds. */
  readonly limitMs: (bytes: number) => number;
  readonly clock: Clock;
  /** Is there room for so many bytes more on the hot tier, below its high watermark and on its disk? */
  readonly hasRoom: (bytes: number) => Promise<boolean>;
  readonly log: (message: string) => void;
}

/** Packs that wait; more are forgotten, the next read asks again. */
const QUEUE = 64;

export class Promoter {
  readonly #o: PromoterOptions;
  readonly #queue = new Map<number, PackInfo>();
  readonly #running = new Map<number, Promise<void>>();
  readonly #stop = new AbortController();

  constructor(options: PromoterOptions) {
    this.#o = options;
  }

  /** The pack was read from a slower tier. Many wishes for one pack are one fetch. */
  want(pack: PackInfo): void {
    if (this.#stop.signal.aborted || this.#running.has(pack.id) || this.#queue.size >= QUEUE) return;
    this.#queue.set(pack.id, pack);
    this.#next();
  }

  #next(): void {
    if (this.#running.size >= this.#o.concurrency) return;
    const next = this.#queue.values().next().value;
    if (next === undefined) return;
    this.#queue.delete(next.id);
    const work = this.#o.serial.run(copyKey(this.#o.hot.bit, next.id), () => this.#promote(next.id)).catch((error) => {
      if (!this.#stop.signal.aborted) this.#o.log(`pack ${next.name} was not promoted: ${toFsError(error).message}`);
    }).finally(() => {
      this.#running.delete(next.id);
      this.#next();
    });
    this.#running.set(next.id, work);
  }

  async #promote(id: number): Promise<void> {
    const { index, hot, source, clock } = this.#o;
    const signal = this.#stop.signal;
    const pack = await index.pack(id);
    if (pack === null || pack.name === null || pack.state !== PACK_SEALED || (pack.tiers & hot.bit) !== 0) return;
    if (signal.aborted || !await this.#o.hasRoom(pack.bytes)) return;
    const named = { ...pack, name: pack.name };
    const key = packKey(pack.name);
    const copy = await source.find(named, { except: hot.bit, signal });
    const limit = this.#o.limitMs(pack.bytes);
    await within(clock, limit, `promote ${key}`, (own) => hot.store.put(key, copy, { signal: own }), signal);
    await source.check(hot, named, false, signal);
    await (await index.addTier(id, hot.bit)).durable;
    const now = await index.pack(id);
    // It died meanwhile, and its deletion from here may have been done already.
    if (now === null || now.state !== PACK_SEALED) await hot.store.delete(key);
  }

  /** Resolves when nothing waits or runs. */
  async settle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running.values());
  }

  async close(): Promise<void> {
    this.#stop.abort(new DOMException("the server is closing", "AbortError"));
    this.#queue.clear();
    await this.settle();
  }
}
