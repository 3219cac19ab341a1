/** Replicator: brings to one tier what the write-ahead log says it lacks, until it has it. Never gives up. */
import { FsError, toFsError } from "../fs/error.ts";
import type { ObjectSource } from "../fs/object_store.ts";
import type { Serial } from "../fs/serial.ts";
import type { Index } from "../index/index.ts";
import type { WalEntry } from "../index/packs.ts";
import { PACK_DEAD, PACK_SEALED } from "../index/schema.ts";
import type { Clock } from "../platform/clock.ts";
import type { Random } from "../platform/random.ts";
import { packKey } from "../store/open_pack.ts";
import { backoffMs } from "./backoff.ts";
import { within } from "./health.ts";
import type { PackSource } from "./pack_source.ts";
import type { Tier } from "./tier.ts";
import type { TokenBucket } from "./token_bucket.ts";

export interface ReplicatorOptions {
  readonly index: Index;
  readonly tier: Tier;
  readonly source: PackSource;
  /** Work on one pack of one tier runs one after the other; shared with whoever else changes tiers. */
  readonly serial: Serial;
  /** Resolves when the pack's file is in its place. */
  readonly settled: (packId: number) => Promise<void>;
  /** Transfers at a time. */
  readonly transfers: number;
  readonly bucket: TokenBucket | null;
  /** Longest wait for so many bytes to get there, milliseconds. */
  readonly limitMs: (bytes: number) => number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: (message: string) => void;
}

/** At least this often the log is looked at, milliseconds. */
const IDLE = 30_000;

/** The key under which work on a pack's copy in a tier is serialised. */
export function copyKey(bit: number, packId: number): string {
  return `${bit}/${packId}`;
}

export class Replicator {
  readonly #o: ReplicatorOptions;
  /** Entries being worked on, and their packs. */
  readonly #running = new Map<number, { readonly packId: number; readonly done: Promise<void> }>();
  readonly #stop = new AbortController();
  #wake: () => void = () => {};
  #kicked = false;
  #loop: Promise<void> | null = null;

  constructor(options: ReplicatorOptions) {
    this.#o = options;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  /** Something may have become due. */
  kick(): void {
    this.#kicked = true;
    this.#wake();
  }

  /** Stops; transfers under way are aborted and start anew another time. */
  async close(): Promise<void> {
    this.#stop.abort(new DOMException("the server is closing", "AbortError"));
    this.kick();
    await this.#loop;
    await Promise.all([...this.#running.values()].map(({ done }) => done));
  }

  async #run(): Promise<void> {
    const { clock, tier, log } = this.#o;
    while (!this.#stop.signal.aborted) {
      this.#kicked = false;
      let wait = IDLE;
      try {
        if (tier.health.healthy) wait = await this.#startDue();
      } catch (error) {
        log(`the write-ahead log of ${tier.name} can't be read: ${toFsError(error).message}`);
      }
      if (this.#kicked || this.#stop.signal.aborted) continue;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const stopTimer = clock.after(Math.max(1, wait), resolve, true);
      await promise;
      stopTimer();
    }
  }

  /** Starts what is due; returns for how long nothing else will be, milliseconds. */
  async #startDue(): Promise<number> {
    const { index, tier, transfers, clock } = this.#o;
    const room = transfers - this.#running.size;
    if (room <= 0) return IDLE;
    const busy = new Set([...this.#running.values()].map(({ packId }) => packId));
    const due = (await index.walDue(tier.bit, this.#running.size * 2 + room))
      .filter((entry) => !this.#running.has(entry.id) && !busy.has(entry.packId))
      .slice(0, room);
    for (const entry of due) {
      const done = this.#work(entry).finally(() => {
        this.#running.delete(entry.id);
        this.kick();
      });
      this.#running.set(entry.id, { packId: entry.packId, done });
    }
    if (due.length > 0 || this.#running.size > 0) return IDLE;
    const next = await index.walNextDue(tier.bit);
    return next === null ? IDLE : Math.min(IDLE, Math.max(1, next - clock.now()));
  }

  async #work(entry: WalEntry): Promise<void> {
    const { index, tier, serial, clock, random, log } = this.#o;
    try {
      await serial.run(
        copyKey(tier.bit, entry.packId),
        () => entry.op === "put" ? this.#put(entry) : this.#delete(entry),
      );
    } catch (thrown) {
      if (this.#stop.signal.aborted) return;
      const error = toFsError(thrown);
      const notBefore = Math.ceil(clock.now() + backoffMs(entry.attempts + 1, random.unit()));
      log(`${entry.op} of pack ${entry.object ?? entry.packId} on ${tier.name} failed: ${error.message}`);
      await index.walFailed(entry.id, error.message, notBefore).catch((e) => log(toFsError(e).message));
    }
  }

  async #put(entry: WalEntry): Promise<void> {
    const { index, tier, source, settled, bucket, limitMs } = this.#o;
    const signal = this.#stop.signal;
    await settled(entry.packId);
    const pack = await index.pack(entry.packId);
    if (pack === null || pack.state === PACK_DEAD) {
      // Nobody wants it there any more.
      await (await index.putDone(entry)).durable;
      return;
    }
    if (pack.state !== PACK_SEALED || pack.name === null) {
      throw new FsError("unavailable", `pack ${pack.id} is not whole yet`);
    }
    const named = { ...pack, name: pack.name };
    const key = packKey(pack.name);
    const copy = await source.find(named, { except: tier.bit, signal });
    const upload: ObjectSource = {
      size: copy.size,
      open: () => bucket === null ? copy.open() : bucket.limit(copy.open(), signal),
    };
    await this.#ask(limitMs(pack.bytes), (own) => tier.store.put(key, upload, { signal: own }));
    const found = await this.#ask(limitMs(0), (own) => tier.store.head(key, { signal: own }));
    if (found === null || found.size !== pack.bytes) {
      throw new FsError(
        "corrupt",
        `${tier.name} took ${key} but then had ${found?.size ?? "none"} of its ${pack.bytes} bytes`,
        { path: key },
      );
    }
    const written = await index.putDone(entry);
    await written.durable;
  }

  async #delete(entry: WalEntry): Promise<void> {
    const { index, tier, limitMs } = this.#o;
    const { object } = entry;
    if (object !== null) {
      await this.#ask(limitMs(0), (own) => tier.store.delete(packKey(object), { signal: own }));
    }
    const written = await index.deleteDone(entry);
    await written.durable;
  }

  /** One call to the tier, with a time limit, that its health learns from. */
  async #ask<T>(limit: number, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { tier, clock } = this.#o;
    try {
      const value = await within(clock, limit, tier.place, call, this.#stop.signal);
      tier.health.succeeded();
      return value;
    } catch (error) {
      if (!this.#stop.signal.aborted) tier.health.failed(error);
      throw error;
    }
  }
}
