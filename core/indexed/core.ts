/** ServerCore: what `anyfs serve` is made of, as its parts see each other. */
import type { Fs, FsFull, FsXattr } from "../fs/contract.ts";
import type { StatFs } from "../fs/contract.ts";
import type { Stat } from "../fs/stat.ts";
import type { Index } from "../index/index.ts";
import type { WalEntry } from "../index/packs.ts";
import type { ChunkRef, ManifestView } from "../store/manifest.ts";

/** Chunks by identity, wherever their packs are. */
export interface ChunkStore {
  /**
   * Stores those that are not stored yet; visible at once, durable with the next durable commit of the index.
   * `bytes` must have the hash: callers that did not hash them themselves set `verify`. Throws no_space, corrupt.
   */
  put(chunks: readonly { hash: Uint8Array; bytes: Uint8Array }[], options?: { verify?: boolean }): Promise<void>;
  /** One chunk's bytes, always verified by hash; from the fastest tier that has it. Throws corrupt, unavailable. */
  read(chunk: ChunkRef, signal?: AbortSignal): Promise<Uint8Array>;
  /** Many chunks in order, with neighbours in one pack read in one go. Bounded memory. */
  readMany(chunks: Iterable<ChunkRef>, signal?: AbortSignal): AsyncIterable<Uint8Array>;
}

export interface TierStatus {
  readonly bit: number;
  readonly name: "local" | "nas" | "s3";
  /** Where it is, for people: a folder or `s3://bucket/prefix at endpoint`. */
  readonly place: string;
  readonly bytes: number;
  readonly highWatermark: number | null;
  readonly lowWatermark: number | null;
  readonly healthy: boolean;
  readonly lastError: string | null;
  /** Free bytes of the place, where it tells. */
  readonly free: number | null;
}
export interface EvictReport {
  readonly tier: string;
  readonly dryRun: boolean;
  readonly before: number;
  readonly after: number;
  readonly evicted: readonly { pack: string; bytes: number; score: number; why: string }[];
  /** Bytes that would have to go too but may not, by reason. */
  readonly kept: readonly { reason: string; packs: number; bytes: number }[];
}
export interface Tiers {
  /** TierBits of all configured tiers. */
  readonly bits: number;
  status(): Promise<TierStatus[]>;
  /** One pass. `to`: target size in bytes (default: the low watermark). */
  evict(
    options: { tier?: "local" | "nas"; to?: number; dryRun?: boolean; signal?: AbortSignal },
  ): Promise<EvictReport[]>;
  /** Seals what is being filled and waits until the write-ahead log is empty. Throws timeout. */
  flush(
    options: {
      timeoutMs?: number;
      signal?: AbortSignal;
      onProgress?: (left: { entries: number; bytes: number }) => void;
    },
  ): Promise<void>;
  /** Waiting entries may run now. Returns how many were woken. */
  retry(id: number | null): Promise<number>;
  wal(): AsyncIterable<WalEntry>;
  /** Everything in the store is consistent with the index: orphans, missing objects, wrong bytes. `repair` mends what can be. */
  scrub(
    options: { repair?: boolean; deep?: boolean; signal?: AbortSignal },
  ): Promise<{ checked: number; problems: string[]; repaired: number }>;
}
/** The whole tree by path. */
export interface IndexedFs extends FsFull, FsXattr {
  /** Stat with `tiers` filled in. */
  stat: Fs["stat"];
  /** Reads a range of a content by identity. Throws not_found for an unknown one. */
  readContent(hash: string, offset: number, length: number, signal?: AbortSignal): ReadableStream<Uint8Array>;
  /** The same in one buffer, `memory` when that is large enough. Throws corrupt when the content ends before. */
  contentBytes(
    hash: string,
    offset: number,
    length: number,
    signal?: AbortSignal,
    memory?: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>>;
  contentView(hash: string): Promise<ManifestView>;
  /** The chunks of a content that hold a byte of the range. */
  chunksOf(view: ManifestView, offset: number, length: number): Promise<ChunkRef[]>;
  /** Adds the tier mask to stats from the index. */
  withTiers(stats: Stat[]): Promise<Stat[]>;
  statFs(): Promise<StatFs>;
}
export interface ServerCore {
  readonly index: Index;
  readonly chunks: ChunkStore;
  readonly tiers: Tiers;
  readonly fs: IndexedFs;
  /** Stops background work, waits for what is under way, makes all durable. */
  close(): Promise<void>;
}
