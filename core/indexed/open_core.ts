/** Opens a ServerCore: wires the index, the chunk store and the tiers together and starts their background work. */
import { toFsError } from "../fs/error.ts";
import type { ObjectStore } from "../fs/object_store.ts";
import { Serial } from "../fs/serial.ts";
import { TierBit } from "../fs/stat.ts";
import { SqliteIndex } from "../index/sqlite_index.ts";
import { type Clock, systemClock } from "../platform/clock.ts";
import { makeFolder } from "../platform/files.ts";
import { effectiveUser } from "../platform/posix.ts";
import { type Random, systemRandom } from "../platform/random.ts";
import { ActiveWriters } from "../store/active_writers.ts";
import { ChunkPool } from "../store/chunk_pool.ts";
import { OPEN_FOLDER, PackChunkStore } from "../store/chunk_store.ts";
import { OpenPacks } from "../store/open_packs.ts";
import { Evictor } from "../tiers/evictor.ts";
import { type Collected, collectGarbage } from "../tiers/garbage.ts";
import { Health } from "../tiers/health.ts";
import { HotFiles } from "../tiers/hot_files.ts";
import { HotSpace } from "../tiers/hot_space.ts";
import { HotStore } from "../tiers/hot_store.ts";
import { PackSource } from "../tiers/pack_source.ts";
import { Promoter } from "../tiers/promoter.ts";
import { Repairer } from "../tiers/repairer.ts";
import { Replicator } from "../tiers/replicator.ts";
import { Router } from "../tiers/router.ts";
import { Scrubber } from "../tiers/scrubber.ts";
import { TierControl } from "../tiers/tier_control.ts";
import { type Tier, type TierName, TierSet } from "../tiers/tier.ts";
import { TokenBucket } from "../tiers/token_bucket.ts";
import { ContentReader } from "./content_reader.ts";
import { ContentWriter } from "./content_writer.ts";
import type { ServerCore } from "./core.ts";
import { TieredFs } from "./indexed_fs.ts";
import { openStateFolder } from "./state_folder.ts";

export interface TierConfig {
  readonly store: ObjectStore;
  /** For people: a folder or `s3://bucket/prefix at endpoint`. */
  readonly place: string;
  /** Bytes at which eviction begins. @default never */
  readonly highWatermark?: number | null;
  /** Bytes down to which it goes. @default the high watermark */
  readonly lowWatermark?: number | null;
}

export interface ServerCoreConfig {
  /** Folder of the index; created when missing. */
  readonly stateDir: string;
  readonly tiers: {
    /** `path`: the local folder that `store` keeps its objects in; it exists. */
    readonly local: TierConfig & { readonly path: string };
    readonly nas?: TierConfig;
    readonly s3?: TierConfig;
  };
  readonly upload?: {
    /** Transfers at a time and tier. @default 4 */
    readonly transfers?: number;
    /** Bytes a second to all slower tiers together; null: no limit. @default null */
    readonly bytesPerSecond?: number | null;
    /** A pack is ended, and uploaded, at this size, bytes. @default 32 MiB */
    readonly flushBytes?: number;
    /** ... or this long after its first chunk, milliseconds. @default 30 s */
    readonly flushIntervalMs?: number;
    /** Longest wait for an answer of a tier, milliseconds, beside the time the bytes take. @default 30 s */
    readonly timeoutMs?: number;
  };
  readonly eviction?: {
    /** @default 60 s */
    readonly intervalMs?: number;
    /** @default 1 */
    readonly recencyWeight?: number;
    /** @default 1 */
    readonly frequencyWeight?: number;
  };
  /** Between two health checks of a tier, milliseconds. @default 30 s */
  readonly healthIntervalMs?: number;
  /** Longest wait for a read from one tier before the next is asked, milliseconds, beside the time the bytes take. @default 10 s */
  readonly readTimeoutMs?: number;
  /** Bytes a second below which a transfer counts as hanging. @default 100 kB/s */
  readonly slowestBytesPerSecond?: number;
  /** Packs promoted at a time; 0: none. @default 2 */
  readonly promotions?: number;
  /** So long after its last use something unreferenced is kept, milliseconds. @default 24 hours */
  readonly gcGraceMs?: number;
  /** Between two collections, milliseconds. @default 10 minutes */
  readonly gcIntervalMs?: number;
  /** Bytes of the hot disk that stay free for the index. @default 256 MiB, at most a twentieth of the disk */
  readonly reserveBytes?: number;
  /** Recently read chunks kept in memory, bytes. @default 32 MiB */
  readonly cacheBytes?: number;
  /** Threads that cut, hash and compress. @default 2 */
  readonly workers?: number;
  /** @default true */
  readonly compress?: boolean;
  /** Owner of what is created by path. @default the user of this process */
  readonly owner?: { readonly uid: number; readonly gid: number };
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: (message: string) => void;
  /** A group of changes was taken back: what was visible is not any more. */
  readonly onRollback?: (error: Error) => void;
}

/** ServerCore and what only its owner and tests need. */
export interface OpenServerCore extends ServerCore, AsyncDisposable {
  readonly fs: TieredFs;
  readonly tiers: TierControl;
  readonly chunks: PackChunkStore;
  /** Collects now what nobody needs any more. */
  collect(): Promise<Collected>;
  /** Resolves when no promotion and no repair runs. */
  quiet(): Promise<void>;
}

const MiB = 1024 * 1024;

/**
 * Throws unavailable when the state folder is in use, can't be written, or the local tier's folder is missing;
 * corrupt or not_supported when the index can't be read.
 */
export async function openServerCore(config: ServerCoreConfig): Promise<OpenServerCore> {
  const state = await openStateFolder(config.stateDir);
  const undo: (() => unknown)[] = [() => state[Symbol.dispose]()];
  try {
    return await wire(config, state.indexPath, state.stagingFolder, undo);
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }
}

async function wire(
  config: ServerCoreConfig,
  indexPath: string,
  stagingFolder: string,
  undo: (() => unknown)[],
): Promise<OpenServerCore> {
  const clock = config.clock ?? systemClock;
  const random = config.random ?? systemRandom;
  const log = config.log ?? (() => {});
  const compress = config.compress ?? true;
  const timeoutMs = config.upload?.timeoutMs ?? 30_000;
  const readTimeoutMs = config.readTimeoutMs ?? 10_000;
  const slowest = config.slowestBytesPerSecond ?? 100_000;
  const transfers = config.upload?.transfers ?? 4;
  const bandwidth = config.upload?.bytesPerSecond ?? null;
  // Transfers that share the permitted bandwidth are slow, and not hanging.
  const slowestUpload = bandwidth === null ? slowest : Math.min(slowest, bandwidth / (transfers * 4));
  const readLimit = (bytes: number) => readTimeoutMs + Math.ceil(bytes / slowest * 1000);
  const uploadLimit = (bytes: number) => timeoutMs + Math.ceil(bytes / slowestUpload * 1000);
  const local = config.tiers.local;
  // Also proves that the folder is there: an unmounted disk is not an empty tier.
  await local.store.head("check/open");

  const hotFiles = new HotFiles(local.path);
  undo.push(() => hotFiles.close());
  const kick = () => replicators.forEach((replicator) => replicator.kick());
  const makeTier = (name: TierName, tier: TierConfig, store: ObjectStore): Tier => ({
    name,
    bit: TierBit[name],
    store,
    place: tier.place,
    highWatermark: tier.highWatermark ?? null,
    lowWatermark: tier.lowWatermark ?? tier.highWatermark ?? null,
    health: new Health({
      store,
      clock,
      intervalMs: config.healthIntervalMs ?? 30_000,
      onChange(healthy) {
        log(healthy ? `${name} (${tier.place}) answers again` : `${name} (${tier.place}) does not answer any more`);
        if (healthy) index.walRetry(null).then(kick, (error) => log(toFsError(error).message));
      },
    }),
  });
  const hot = makeTier("local", local, new HotStore(local.store, hotFiles));
  const cold = (["nas", "s3"] as const).flatMap((name) => {
    const tier = config.tiers[name];
    return tier === undefined ? [] : makeTier(name, tier, tier.store);
  });
  const tiers = new TierSet([hot, ...cold]);

  const openPacks = new OpenPacks();
  const index = new SqliteIndex({
    path: indexPath,
    clock,
    random,
    hotBit: hot.bit,
    targets: cold.map(({ bit }) => bit),
    data: openPacks,
    onRollback(error) {
      log(`changes were taken back: ${error.message}`);
      chunks.invalidate();
      config.onRollback?.(error);
    },
  });
  undo.push(() => index.close());
  const serial = new Serial();
  const source = new PackSource(tiers, clock, readLimit);
  const repairer = new Repairer({ index, source, serial, limitMs: uploadLimit, clock, kick, log });
  const space = new HotSpace({
    folder: local.path,
    reserveBytes: config.reserveBytes ?? null,
    relieve: () => evictor.relieve(),
    clock,
  });
  const promotions = config.promotions ?? 2;
  const promoter = new Promoter({
    index,
    hot,
    source,
    serial,
    concurrency: promotions,
    limitMs: uploadLimit,
    clock,
    hasRoom: async (bytes) =>
      (hot.highWatermark === null || await index.bytesOn(hot.bit) + bytes <= hot.highWatermark) &&
      await space.hasRoom(bytes),
    log,
  });
  const router = new Router({
    index,
    tiers,
    openPacks,
    hotFiles,
    clock,
    limitMs: readLimit,
    onSlowRead: (pack) => promotions > 0 && promoter.want(pack),
    onBadCopy: (pack, tier) => void repairer.repair(pack, tier),
    log,
  });
  const pool = new ChunkPool({ workers: config.workers ?? 2 });
  undo.push(() => pool.close());
  await makeFolder(`${local.path}/${OPEN_FOLDER}`);
  const chunks = new PackChunkStore({
    index,
    openPacks,
    reader: router,
    pool,
    hotFolder: local.path,
    packBytes: config.upload?.flushBytes ?? 32 * MiB,
    packAgeMs: config.upload?.flushIntervalMs ?? 30_000,
    compress,
    cacheBytes: config.cacheBytes ?? 32 * MiB,
    clock,
    random,
    reserve: (bytes) => space.reserve(bytes),
    onSealed: kick,
    log,
  });
  const bucket = bandwidth === null ? null : new TokenBucket(bandwidth, clock);
  const replicators = tiers.tiers.map((tier) =>
    new Replicator({
      index,
      tier,
      source,
      serial,
      settled: (id) => chunks.settled(id),
      transfers,
      bucket: tier === hot ? null : bucket,
      limitMs: uploadLimit,
      clock,
      random,
      log,
    })
  );
  const evictor = new Evictor({
    index,
    tiers,
    serial,
    countAccesses: () => router.flushHits(),
    recencyWeight: config.eviction?.recencyWeight ?? 1,
    frequencyWeight: config.eviction?.frequencyWeight ?? 1,
    timeoutMs: readTimeoutMs,
    clock,
    log,
  });
  const scrubber = new Scrubber({
    index,
    tiers,
    openPacks,
    source,
    repairer,
    settled: (packId) => chunks.settled(packId),
    timeoutMs: readTimeoutMs,
    clock,
  });
  const writers = new ActiveWriters();
  const reader = new ContentReader(index, chunks);
  const writer = new ContentWriter({ index, chunks, pool, writers, compress, now: () => clock.now() });
  const owner = config.owner ?? effectiveUser();
  const fs = new TieredFs({
    index,
    reader,
    writer,
    tierBits: tiers.bits,
    clock,
    owner,
    stagingPath: () => `${stagingFolder}/${random.uuid()}`,
    space: () => space.available(),
  });
  await chunks.open();

  const closing = new AbortController();
  const collect = () =>
    collectGarbage({ index, writers, clock, graceMs: config.gcGraceMs ?? 86_400_000, onDead: kick }, closing.signal);
  const background = new Set<Promise<unknown>>();
  const regularly = (ms: number, what: string, work: () => Promise<unknown>) => {
    let busy = false;
    return clock.every(ms, () => {
      if (busy || closing.signal.aborted) return;
      busy = true;
      const run = work().catch((error) => {
        if (!closing.signal.aborted) log(`${what} failed: ${toFsError(error).message}`);
      }).finally(() => {
        busy = false;
        background.delete(run);
      });
      background.add(run);
    });
  };
  const stops = [
    regularly(config.eviction?.intervalMs ?? 60_000, "eviction", () => evictor.relieve(closing.signal)),
    regularly(config.gcIntervalMs ?? 600_000, "garbage collection", collect),
  ];
  for (const { health } of tiers.tiers) health.start();
  for (const replicator of replicators) replicator.start();

  const control = new TierControl({
    index,
    tiers,
    evictor,
    scrubber,
    clock,
    seal: () => chunks.seal(),
    kick,
    timeoutMs: readTimeoutMs,
  });
  let closed: Promise<void> | null = null;
  const close = async () => {
    closing.abort(new DOMException("the server is closing", "AbortError"));
    for (const stop of stops) stop();
    for (const { health } of tiers.tiers) health.stop();
    await Promise.all([...replicators.map((r) => r.close()), promoter.close(), repairer.close(), ...background]);
    const steps = [() => chunks.close(), () => router.close(), ...undo.reverse()];
    let failure: unknown;
    for (const step of steps) {
      try {
        await step();
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  };
  return {
    index,
    chunks,
    tiers: control,
    fs,
    collect,
    quiet: async () => {
      await promoter.settle();
      await repairer.settle();
    },
    close: () => closed ??= close(),
    [Symbol.asyncDispose]: () => closed ??= close(),
  };
}
