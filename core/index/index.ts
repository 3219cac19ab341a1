/**
 * Index: the one asynchronous interface to what the filesystem knows: nodes, entries, contents, packs, the write-ahead
 * log and the change feed. SQLite implements it (sqlite_index.ts); another database can take its place.
 */
import type { DirEntry, Stat } from "../fs/stat.ts";
import type { FsErrorCode } from "../fs/error.ts";
import type { ChunkLocation, WantedChunk } from "./contents.ts";
import type { Written } from "./group_commit.ts";
import type { Change, Op, OpDone } from "./ops.ts";
import type { PackInfo, WalEntry } from "./packs.ts";

/** The `operation` of the error for requests that come together though some of them were applied before. */
export const GROUP_OVERLAP = "apply together";

/** Operations that are applied all or none. */
export interface ApplyRequest {
  /** The device's number, 0 for the server itself. */
  readonly device: number;
  /** The device's own ascending number of this request, 0: none. The same number is never applied twice. */
  readonly request: number;
  /**
   * Several requests in one, the numbers after `previous` up to `request`: refused (`unavailable`, operation
   * GROUP_OVERLAP) when some were applied before, and a failure is not remembered.
   */
  readonly group?: boolean;
  /** The device's request before this one must have been seen; else `unavailable`. 0 or left out: no check. */
  readonly previous?: number;
  /** The sender keeps it until it is durable and waits for nothing: the disk may be asked a little later. */
  readonly lazy?: boolean;
  /** Manifest blobs of the contents that the operations refer to. Their segments and chunks are stored already. */
  readonly manifests: readonly Uint8Array[];
  readonly ops: readonly Op[];
}
export interface ApplyResult {
  readonly done: readonly OpDone[];
  /** The nodes the operations concern, as they are afterwards. */
  readonly stats: readonly Stat[];
  /** The last change sequence number that is visible with this request. */
  readonly seq: number;
  /** The request had been applied before; `done` and `stats` are empty. */
  readonly repeated: boolean;
}
export interface DeviceInfo {
  readonly no: number;
  readonly id: string;
  readonly host: string;
  readonly firstSeen: number;
  readonly lastSeen: number;
  /** The highest request number applied. */
  readonly lastRequest: number;
}
export interface StoredChunk {
  readonly hash: Uint8Array;
  readonly offset: number;
  readonly stored: number;
  readonly raw: number;
  readonly flags: number;
}
export interface TokenInfo {
  readonly id: string;
  readonly scope: "read" | "write" | "admin";
  /** Only this subtree. */
  readonly path: string;
  readonly created: number;
  readonly expires: number | null;
}
/** A recorded outcome for a repeated request. */
export interface StoredFailure {
  readonly code: FsErrorCode;
  readonly message: string;
  readonly errno: number;
}

export interface Index {
  /** Identity of this tree: another one after a restore from an older backup. */
  readonly epoch: string;
  /** Change numbers above this one from an earlier run of the server may have been taken back by a crash. */
  readonly bootSeq: number;

  stat(ino: number): Promise<Stat | null>;
  /** The file, when this device made it or wrote it last; null: another did, or it is gone. */
  writtenBy(device: number, ino: number): Promise<Stat | null>;
  lookup(parent: number, name: string): Promise<Stat | null>;
  readDir(parent: number, after: string | null, limit: number): Promise<DirEntry[]>;
  readLink(ino: number): Promise<string>;
  pathOf(ino: number): Promise<string | null>;
  getXattr(ino: number, name: string): Promise<Uint8Array | null>;
  listXattr(ino: number): Promise<string[]>;
  counts(): Promise<{ nodes: number; bytes: number }>;
  allotIno(): Promise<number>;
  apply(request: ApplyRequest): Promise<Written<ApplyResult>>;

  missing(chunks: readonly WantedChunk[]): Promise<number[]>;
  chunks(hashes: readonly Uint8Array[]): Promise<(ChunkLocation | null)[]>;
  addSegment(blob: Uint8Array): Promise<void>;
  hasContent(hash: string): Promise<boolean>;
  manifest(hash: string): Promise<Uint8Array | null>;
  segment(hash: Uint8Array): Promise<Uint8Array | null>;
  tiersOf(content: string | null, all: number): Promise<number>;
  collect(before: number, limit: number): Promise<{ contents: number; chunks: number; bytes: number; packs: number }>;

  createPack(): Promise<number>;
  /** Chunks were appended to a pack whose bytes now end at `end`. Returns how many were not known before. */
  addChunks(packId: number, chunks: readonly StoredChunk[], end: number): Promise<number>;
  sealPack(id: number, name: string, bytes: number): Promise<Written<void>>;
  forgetPack(id: number): Promise<void>;
  pack(id: number): Promise<PackInfo | null>;
  packByName(name: string): Promise<PackInfo | null>;
  packsInState(state: number): Promise<PackInfo[]>;
  packPage(afterId: number, limit: number): Promise<PackInfo[]>;
  chunksOfPack(id: number): Promise<StoredChunk[]>;
  addTier(id: number, bit: number): Promise<Written<void>>;
  dropTier(id: number, bit: number, needed: number): Promise<Written<boolean>>;
  lostFrom(id: number, bit: number, again: boolean): Promise<Written<void>>;
  touchPacks(hits: ReadonlyMap<number, number>): Promise<void>;
  bytesOn(bit: number): Promise<number>;
  evictable(bit: number, needed: number): Promise<PackInfo[]>;

  walDue(tier: number, limit: number): Promise<WalEntry[]>;
  walNextDue(tier: number): Promise<number | null>;
  walPage(afterId: number, limit: number): Promise<WalEntry[]>;
  walCount(): Promise<{ entries: number; bytes: number }>;
  walFailed(id: number, error: string, notBefore: number): Promise<void>;
  walRetry(id: number | null): Promise<number>;
  putDone(entry: WalEntry): Promise<Written<void>>;
  deleteDone(entry: WalEntry): Promise<Written<void>>;

  lastSeq(): Promise<number>;
  /** Changes with a number above `after`, oldest first; null when some of them are not kept any more. */
  changesSince(after: number, limit: number): Promise<Change[] | null>;
  /** Calls `listener` with the changes of each request as soon as they are visible. Returns how to stop. */
  onChanges(listener: (changes: readonly Change[]) => void): () => void;

  /** The device with this id, made when it is new. */
  device(id: string, host: string): Promise<DeviceInfo>;
  devices(): Promise<DeviceInfo[]>;
  getMeta(key: string): Promise<string | null>;
  setMeta(key: string, value: string): Promise<void>;
  /** The answer given before under this idempotency key, or null. */
  answer(key: string): Promise<Uint8Array | null>;
  keepAnswer(key: string, result: Uint8Array): Promise<void>;
  addToken(hash: Uint8Array, token: TokenInfo): Promise<Written<void>>;
  tokenByHash(hash: Uint8Array): Promise<TokenInfo | null>;
  tokens(): Promise<TokenInfo[]>;
  revokeToken(id: string): Promise<boolean>;

  /** Resolves when all that was applied is on the disk. */
  settle(): Promise<void>;
  /** Empty when SQLite finds nothing wrong, else what it found. */
  check(): Promise<string[]>;
  close(): Promise<void>;
}
