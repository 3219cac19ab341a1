/**
 * ContentCache: file contents on the client's disk, by identity. Small ones lie back to back in slab files (a cache with
 * one file an object makes ext4 slow under churn), large ones each in a sparse file of their own that fills chunk by
 * chunk. Whatever arrives is verified against its manifest before it is kept; contents never change, so neither does
 * what is cached.
 */
import { crc32 } from "node:zlib";
import { FsError } from "../fs/error.ts";
import type { Calls, ServerLink } from "../remote/protocol.ts";
import type { Source } from "./layers.ts";
import { common, copyRanges, LaterCopy, type Patched, patchFile, punch } from "./patch_file.ts";
import { ReadAhead, type ReadPlan } from "./read_ahead.ts";
import { MAX_CHUNK } from "../store/chunker.ts";
import { chunkInline } from "../store/chunk_inline.ts";
import { Extents } from "../store/extents.ts";
import { hex, sameBytes, sha256, unhex } from "../store/hash.ts";
import { type ChunkSpan, decodeManifest, encodeManifest, type ManifestView } from "../store/manifest.ts";
import { SpareBuffers } from "../store/spare_buffers.ts";
import { isZeroChunk } from "../store/zeros.ts";
import { Statements } from "../index/statements.ts";
import type { Clock } from "../platform/clock.ts";
import { info, listFolder, makeFolder, readText, removeTree } from "../platform/files.ts";
import {
  closeFd,
  type FileMark,
  ftruncateFd,
  makeFolderNow,
  markOfFd,
  O_CREAT,
  O_RDWR,
  openFd,
  preadFd,
  pwriteFd,
  renamePath,
  unlinkPath,
} from "../platform/posix.ts";
import { type Database, openDatabase } from "../platform/sqlite.ts";

/** Contents up to this many bytes go into slabs, whole. */
export const SMALL_CONTENT = 256 * 1024;
const SLAB_BYTES = 32 * 1024 * 1024;
/** What is fetched with one request to the server at most. */
const WINDOW = 4 * 1024 * 1024;
/** Answers of so many bytes and more share a few buffers, bytes each, that are used again. */
const SPARE_FROM = 1024 * 1024;
const SPARE_LENGTH = WINDOW + 2 * MAX_CHUNK;
const SPARE_BUFFERS = 4;
/** Requests under way for bytes nobody waits for yet, of all contents together. */
const AHEAD_REQUESTS = 12;
/** Bytes of a content that is copied where its file can't be taken over for what was made from it. */
const COPIED = 16 * 1024 * 1024;
/** How long after the start it is looked for what a kill left. */
const ORPHANS_MS = 10_000;
/** Manifests kept before it is looked which of them nothing here needs. */
const MANIFESTS_KEPT = 1000;
/** Large files that keep their descriptor and map in memory though nobody has them open. */
const IDLE_BIG = 64;

const SCHEMA = `
CREATE TABLE IF NOT EXISTS small(hash BLOB PRIMARY KEY, slab INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS small_slab ON small(slab);
CREATE TABLE IF NOT EXISTS big(hash BLOB PRIMARY KEY, size INTEGER NOT NULL, present TEXT NOT NULL, bytes INTEGER NOT NULL, used INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests(hash BLOB PRIMARY KEY, blob BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS held(hash BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
`;

/** Of the schema. Another one is no loss: the cache begins anew. */
const SCHEMA_VERSION = 2;

interface Fetching {
  readonly start: number;
  readonly end: number;
  readonly done: Promise<void>;
}
interface Big {
  readonly hash: string;
  readonly size: number;
  fd: number;
  readonly present: Extents;
  /** The part of what is present that is known to hold the right bytes: fetched or compared since the start, and untouched by others. */
  readonly verified: Extents;
  /** The file as our last write left it. */
  mark: FileMark | null;
  opens: number;
  dirty: boolean;
  used: number;
  fetching: Fetching[];
  /** The copying of what was written here, while it goes on. */
  filling: LaterCopy | null;
  readonly ahead: ReadAhead;
  view: ManifestView | null;
}
interface Place {
  readonly slab: Slab;
  readonly offset: number;
  readonly length: number;
  /** CRC-32 of the bytes. */
  readonly sum: number;
}
interface Slab {
  readonly number: number;
  readonly fd: number;
  readonly path: string;
  end: number;
}

export interface ContentCacheOptions {
  /** A folder of its own. */
  readonly folder: string;
  /** Bytes the cache may take. What programs have open may go beyond for a while. */
  readonly maxBytes: number;
  /** Fetch what a reader will probably want next. */
  readonly prefetch: boolean;
  readonly clock: Clock;
  readonly link: () => ServerLink;
  readonly log?: (message: string) => void;
}

export interface CacheStats {
  readonly smallContents: number;
  readonly smallBytes: number;
  readonly bigContents: number;
  readonly bigBytes: number;
  readonly maxBytes: number;
  readonly hits: number;
  readonly misses: number;
}

export class ContentCache {
  readonly #options: ContentCacheOptions;
  readonly #db: Database;
  readonly #sql: Statements;
  readonly #big = new Map<string, Big>();
  readonly #small = new Map<string, Place>();
  readonly #scratch = new Uint8Array(SMALL_CONTENT);
  readonly #slabs = new Map<number, Slab>();
  /** For what is on its way from the server to the disk. */
  readonly #spare = new SpareBuffers(SPARE_BUFFERS);
  readonly #fetchingSmall = new Map<string, Promise<Uint8Array<ArrayBuffer>>>();
  #slab: Slab | null = null;
  #aheadRequests = 0;
  #evicting = false;
  #closed = false;
  #manifestsKept = 0;
  /** Up to this row they were there when it was last looked. */
  #manifestsUntil = 0;
  #hits = 0;
  #misses = 0;
  #stopSaving: () => void;

  private constructor(options: ContentCacheOptions, db: Database) {
    this.#options = options;
    this.#db = db;
    this.#sql = new Statements(db);
    this.#stopSaving = options.clock.every(2000, () => {
      try {
        this.#save();
      } catch (error) {
        options.log?.(`cache: ${error instanceof Error ? error.message : error}`);
      }
    });
    options.clock.after(ORPHANS_MS, () => void this.#dropOrphans().catch(() => {}), true);
  }

  /** Opens or creates the cache. After a power cut (another boot without a clean close) it begins empty: nothing in it was synced. */
  static async open(options: ContentCacheOptions): Promise<ContentCache> {
    const { folder } = options;
    const boot = await readText("/proc/sys/kernel/random/boot_id").catch(() => "unknown");
    const read = async () => {
      await makeFolder(`${folder}/big`);
      await makeFolder(`${folder}/slabs`);
      const db = openDatabase(`${folder}/cache.db`);
      db.exec(
        "PRAGMA journal_mode=wal; PRAGMA synchronous=off; PRAGMA cache_size=-8192; PRAGMA wal_autocheckpoint=4000",
      );
      db.exec(SCHEMA);
      return db;
    };
    let db: Database;
    try {
      db = await read();
    } catch {
      await removeTree(folder);
      db = await read();
    }
    const row = db.prepare("SELECT value FROM state WHERE key = 'boot'").get() as { value: string } | undefined;
    const version = db.prepare("PRAGMA user_version").get()?.["user_version"];
    if (row?.value !== boot || version !== SCHEMA_VERSION) {
      db.close();
      await removeTree(folder);
      db = await read();
      db.exec(`PRAGMA user_version = ${SCHEMA_VERSION}`);
    }
    db.prepare("INSERT INTO state(key, value) VALUES('boot', ?) ON CONFLICT(key) DO UPDATE SET value=excluded.value")
      .run(boot);
    const cache = new ContentCache(options, db);
    await cache.#openSlabs();
    return cache;
  }

  async #openSlabs(): Promise<void> {
    const rows = this.#sql.rows("SELECT slab, max(offset + length) FROM small GROUP BY slab ORDER BY slab");
    for (const row of rows) {
      const number = row[0] as number;
      const path = this.#slabPath(number);
      const found = await info(path);
      if (found === null || found.size < (row[1] as number)) {
        this.#sql.run("DELETE FROM small WHERE slab = ?", number);
        continue;
      }
      this.#slabs.set(number, { number, fd: openFd(path, O_RDWR), path, end: row[1] as number });
    }
  }
  #slabPath(number: number): string {
    return `${this.#options.folder}/slabs/${number}`;
  }
  #bigPath(hash: string): string {
    return `${this.#options.folder}/big/${hash}`;
  }

  // --- small contents ---

  #findSmall(hash: string): Place | null {
    const known = this.#small.get(hash);
    if (known !== undefined) return known;
    const row = this.#sql.row("SELECT slab, offset, length, sum FROM small WHERE hash = ?", unhex(hash));
    if (row === undefined) return null;
    const slab = this.#slabs.get(row[0] as number);
    if (slab === undefined) return null;
    const place = { slab, offset: row[1] as number, length: row[2] as number, sum: row[3] as number };
    if (this.#small.size >= 16_384) {
      for (const oldest of this.#small.keys()) {
        this.#small.delete(oldest);
        break;
      }
    }
    this.#small.set(hash, place);
    return place;
  }

  /** Keeps a small content, whole. The caller vouches that the bytes are the content. A full disk is no error: it isn't kept. */
  putSmall(hash: string, bytes: Uint8Array<ArrayBuffer>): void {
    if (bytes.length > SMALL_CONTENT || bytes.length > this.#options.maxBytes || this.#findSmall(hash) !== null) return;
    try {
      if (this.#slab === null || this.#slab.end + bytes.length > SLAB_BYTES) this.#newSlab();
      const slab = this.#slab;
      if (slab === null) return;
      pwriteFd(slab.fd, bytes, slab.end);
      this.#sql.run(
        `INSERT INTO small(hash, slab, offset, length, sum) VALUES(?,?,?,?,?)
         ON CONFLICT(hash) DO UPDATE SET slab=excluded.slab, offset=excluded.offset, sum=excluded.sum`,
        unhex(hash),
        slab.number,
        slab.end,
        bytes.length,
        crc32(bytes),
      );
      slab.end += bytes.length;
    } catch (error) {
      this.#options.log?.(`cache: a content could not be kept: ${error instanceof Error ? error.message : error}`);
    }
  }
  #newSlab(): void {
    let number = 1;
    for (const known of this.#slabs.keys()) number = Math.max(number, known + 1);
    const path = this.#slabPath(number);
    makeFolderNow(`${this.#options.folder}/slabs`);
    this.#slab = { number, fd: openFd(path, O_RDWR | O_CREAT), path, end: 0 };
    this.#slabs.set(number, this.#slab);
    this.#evict();
  }
  /** Reads from a slab, and compares the whole content with its sum: disks and people change bytes. */
  #readSmall(hash: string, place: Place, offset: number, into: Uint8Array<ArrayBuffer>): boolean {
    const all = into.length === place.length ? into : this.#scratch.subarray(0, place.length);
    if (preadFd(place.slab.fd, all, place.offset) !== place.length || crc32(all) !== place.sum) {
      this.#options.log?.(`cache: content ${hash} is damaged in ${place.slab.path}; it is fetched again`);
      this.#small.delete(hash);
      this.#sql.run("DELETE FROM small WHERE hash = ?", unhex(hash));
      return false;
    }
    if (all !== into) into.set(all.subarray(offset, offset + into.length));
    return true;
  }
  #dropSlab(slab: Slab): void {
    this.#sql.run("DELETE FROM small WHERE slab = ?", slab.number);
    for (const [hash, place] of this.#small) if (place.slab === slab) this.#small.delete(hash);
    this.#slabs.delete(slab.number);
    closeFd(slab.fd);
    unlinkPath(slab.path);
    if (this.#slab === slab) this.#slab = null;
  }

  async #fetchSmall(hash: string, size: number, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    let fetching = this.#fetchingSmall.get(hash);
    if (fetching === undefined) {
      this.#misses++;
      fetching = (async () => {
        const bytes = await this.#options.link().readContent(hash, 0, size);
        await this.#verifyWhole(hash, bytes);
        this.putSmall(hash, bytes);
        return bytes;
      })().finally(() => this.#fetchingSmall.delete(hash));
      fetching.catch(() => {});
      this.#fetchingSmall.set(hash, fetching);
    }
    return await raceAbort(fetching, signal);
  }
  async #verifyWhole(hash: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (hex(encodeManifest(chunkInline(bytes)).hash) === hash) return;
    // Cut otherwise by its writer: compare chunk by chunk.
    const view = await this.manifest(hash);
    for (const span of await view.chunksIn(0, view.size, (segment) => this.segment(segment))) {
      verify(hash, span, bytes.subarray(span.offset, span.offset + span.length));
    }
    if (view.size !== bytes.length) throw new FsError("corrupt", `content ${hash} came with the wrong length`);
  }

  // --- manifests ---

  /** The manifest of a content, from the cache or the server. Throws not_found, unavailable. */
  async manifest(hash: string): Promise<ManifestView> {
    const kept = this.#sql.row("SELECT blob FROM manifests WHERE hash = ?", unhex(hash));
    if (kept !== undefined) return decodeManifest(kept[0] as Uint8Array);
    const blob: Calls["manifest"]["result"] = await this.#options.link().call("manifest", { content: hash });
    if (blob === null) throw new FsError("not_found", `the server does not know content ${hash} any more`);
    const view = decodeManifest(blob, unhex(hash));
    this.keepManifest(unhex(hash), blob);
    return view;
  }
  /** Keeps a manifest or a segment; the caller vouches for it. On a full disk it isn't kept. */
  keepManifest(hash: Uint8Array, blob: Uint8Array): void {
    try {
      this.#keepManifest(hash, blob);
    } catch (error) {
      this.#options.log?.(`cache: a manifest could not be kept: ${error instanceof Error ? error.message : error}`);
    }
  }
  #keepManifest(hash: Uint8Array, blob: Uint8Array): void {
    this.#sql.run("INSERT INTO manifests(hash, blob) VALUES(?,?) ON CONFLICT(hash) DO NOTHING", hash, blob);
    this.#manifestsKept++;
  }
  /** A segment's blob, from the cache or the server. */
  async segment(hash: Uint8Array): Promise<Uint8Array> {
    const kept = this.#sql.row("SELECT blob FROM manifests WHERE hash = ?", hash);
    if (kept !== undefined) return kept[0] as Uint8Array;
    const blob = await this.#options.link().call("segment", { hash });
    if (blob === null || !sameBytes(sha256(blob), hash)) {
      throw new FsError("corrupt", `the server has no good copy of segment ${hex(hash)}`);
    }
    this.keepManifest(hash, blob);
    return blob;
  }

  // --- large contents ---

  #openBig(hash: string, size: number): Big {
    let big = this.#big.get(hash);
    if (big !== undefined) return big;
    const row = this.#sql.row("SELECT present, size FROM big WHERE hash = ?", unhex(hash));
    makeFolderNow(`${this.#options.folder}/big`);
    const fd = openFd(this.#bigPath(hash), O_RDWR | O_CREAT);
    const present = row === undefined ? new Extents() : Extents.fromArray(JSON.parse(row[0] as string) as number[]);
    if (row === undefined) {
      // What a kill left of another content must not pass for the zeros of this one.
      ftruncateFd(fd, 0);
      ftruncateFd(fd, size);
    }
    big = this.#newBig(hash, size, fd, present, new Extents());
    this.#big.set(hash, big);
    this.#trim(big);
    return big;
  }
  #newBig(hash: string, size: number, fd: number, present: Extents, verified: Extents): Big {
    return {
      hash,
      size,
      fd,
      present,
      verified,
      mark: null,
      opens: 0,
      dirty: false,
      used: this.#options.clock.now(),
      fetching: [],
      filling: null,
      ahead: new ReadAhead(size),
      view: null,
    };
  }
  /** Closes what nobody uses, but not what is about to be used. */
  #trim(wanted: Big): void {
    if (this.#big.size <= IDLE_BIG) return;
    for (const big of this.#big.values()) {
      if (this.#big.size <= IDLE_BIG) return;
      if (big === wanted || big.opens > 0) continue;
      this.#saveBig(big);
      closeFd(big.fd);
      this.#big.delete(big.hash);
    }
  }
  #saveBig(big: Big): void {
    this.#sql.run(
      `INSERT INTO big(hash, size, present, bytes, used) VALUES(?,?,?,?,?)
       ON CONFLICT(hash) DO UPDATE SET present=excluded.present, bytes=excluded.bytes, used=excluded.used`,
      unhex(big.hash),
      big.size,
      JSON.stringify(big.present.toArray()),
      big.present.total,
      big.used,
    );
    big.dirty = false;
  }
  #save(): void {
    let saved = false;
    for (const big of this.#big.values()) {
      if (!big.dirty) continue;
      this.#saveBig(big);
      saved = true;
    }
    if (saved) this.#evict();
    if (this.#manifestsKept > MANIFESTS_KEPT) this.#trimManifests();
  }
  /**
   * Drops the manifests of contents that are not here, and the segments of no manifest that is; not those that came since
   * the last time, for what is delivered now begins with them.
   */
  #trimManifests(): void {
    this.#manifestsKept = 0;
    const until = this.#manifestsUntil;
    this.#manifestsUntil = (this.#sql.row("SELECT coalesce(max(rowid), 0) FROM manifests")?.[0] ?? 0) as number;
    const needed = new Set<string>();
    const here = "SELECT hash, blob FROM manifests WHERE hash IN (SELECT hash FROM big) OR rowid > ?";
    for (const row of this.#sql.rows(here, until)) {
      needed.add(hex(row[0] as Uint8Array));
      // A segment's blob is no manifest.
      if (this.#sql.row("SELECT 1 FROM big WHERE hash = ?", row[0] as Uint8Array) === undefined) continue;
      for (const { hash } of decodeManifest(row[1] as Uint8Array).segments()) needed.add(hex(hash));
    }
    for (const row of this.#sql.rows("SELECT hash FROM manifests WHERE rowid <= ?", until)) {
      const hash = row[0] as Uint8Array;
      if (!needed.has(hex(hash))) this.#sql.run("DELETE FROM manifests WHERE hash = ?", hash);
    }
  }
  /** Large files that no content has: left by a kill. */
  async #dropOrphans(): Promise<void> {
    for (const name of await listFolder(`${this.#options.folder}/big`)) {
      if (!this.#closed && !this.#isKnown(name)) unlinkPath(this.#bigPath(name));
    }
  }

  /** Takes over a whole file that holds exactly this content. The file must be on the same filesystem. */
  adopt(hash: string, size: number, path: string): void {
    if (this.#big.has(hash) || size <= SMALL_CONTENT) {
      unlinkPath(path);
      return;
    }
    try {
      makeFolderNow(`${this.#options.folder}/big`);
      renamePath(path, this.#bigPath(hash));
    } catch (error) {
      // Somebody removed the folder: it will be fetched when it is wanted.
      this.#options.log?.(
        `cache: content ${hash} could not be kept: ${error instanceof Error ? error.message : error}`,
      );
      return;
    }
    const present = new Extents();
    present.add(0, size);
    const big = this.#newBig(hash, size, openFd(this.#bigPath(hash), O_RDWR), present, present.clone());
    big.mark = markOfFd(big.fd);
    big.dirty = true;
    this.#big.set(hash, big);
    this.#saveBig(big);
    this.#trim(big);
    this.#evict();
  }

  /**
   * Keeps a large content that was made here from another, as far as its bytes are here: `sources` from 0 to `size`, as
   * LayerStack.sources gives them. The file of `from` is taken over unless somebody uses it; then a small one is copied.
   * None of it counts as compared with the manifest, so it is before it is shown. Returns whether a content that was held is
   * not here any more. A failure is no error: it isn't kept.
   */
  derive(hash: string, size: number, from: { hash: string; size: number } | null, sources: readonly Source[]): boolean {
    if (size <= SMALL_CONTENT || hash === from?.hash || this.#isKnown(hash)) return false;
    try {
      return this.#derive(hash, size, from, sources);
    } catch (error) {
      this.#options.log?.(
        `cache: content ${hash} could not be kept: ${error instanceof Error ? error.message : error}`,
      );
      this.#dropBig(hash);
      return false;
    }
  }
  #isKnown(hash: string): boolean {
    return this.#big.has(hash) || this.#sql.row("SELECT 1 FROM big WHERE hash = ?", unhex(hash)) !== undefined;
  }
  #derive(
    hash: string,
    size: number,
    from: { hash: string; size: number } | null,
    sources: readonly Source[],
  ): boolean {
    makeFolderNow(`${this.#options.folder}/big`);
    const base = from !== null && from.size > SMALL_CONTENT && this.#isKnown(from.hash)
      ? this.#openBig(from.hash, from.size)
      : null;
    if (base !== null) watch(base);
    const held = base !== null && this.#isHeld(base.hash);
    const users = base === null ? 0 : base.opens - (base.filling === null ? 0 : 1);
    const taken = base !== null && users === 0 && base.fetching.length === 0 &&
      (!held || base.present.total > COPIED);
    let fd: number;
    let present = new Extents();
    if (taken) {
      fd = base.fd;
      present = base.present;
      // In this order: a kill in between must not leave a content that is said to be where it is not.
      this.#big.delete(base.hash);
      this.#sql.run("DELETE FROM big WHERE hash = ?", unhex(base.hash));
      try {
        renamePath(this.#bigPath(base.hash), this.#bigPath(hash));
      } catch (error) {
        base.filling?.close();
        closeFd(fd);
        throw error;
      }
    } else {
      fd = openFd(this.#bigPath(hash), O_RDWR | O_CREAT);
      ftruncateFd(fd, 0);
      if (base !== null && base.present.total <= COPIED) {
        copyRanges(base.fd, fd, base.present);
        present = base.present.clone();
      } else if (from !== null && base === null && from.size <= SMALL_CONTENT) {
        const whole = new Uint8Array(from.size);
        if (from.size > 0 && this.readNow(from.hash, from.size, 0, whole)) {
          pwriteFd(fd, whole, 0);
          present.add(0, from.size);
        }
      }
    }
    let patched: Patched;
    try {
      patched = patchFile(fd, size, sources);
    } catch (error) {
      if (taken) base.filling?.close();
      closeFd(fd);
      throw error;
    }
    const { kept, made, later } = patched;
    const here = common(present, kept);
    for (const { start, end } of made) here.add(start, end);
    const derived = this.#newBig(hash, size, fd, here, new Extents());
    derived.mark = markOfFd(fd);
    this.#big.set(hash, derived);
    if (held) this.hold(hash);
    this.#saveBig(derived);
    // What it takes is looked at with the next ones that are saved.
    derived.dirty = true;
    const left = taken ? [...base.filling?.take(kept) ?? [], ...later] : later;
    if (left.length > 0) void this.#fill(derived, new LaterCopy(left));
    this.#trim(derived);
    return held && taken;
  }
  async #fill(big: Big, copy: LaterCopy): Promise<void> {
    big.opens++;
    big.filling = copy;
    try {
      while (!this.#closed && !copy.isOver) {
        watch(big);
        for (const { start, end } of copy.step(big.fd)) big.present.add(start, end);
        big.mark = markOfFd(big.fd);
        big.dirty = true;
        await this.#options.clock.sleep(0);
      }
    } catch (error) {
      this.#options.log?.(
        `cache: content ${big.hash} is kept in part: ${error instanceof Error ? error.message : error}`,
      );
    } finally {
      copy.close();
      big.filling = null;
      big.opens--;
    }
  }

  // --- reading ---

  /** A program has the content open: it is not evicted until `release`. */
  retain(hash: string, size: number): void {
    if (size > SMALL_CONTENT) this.#openBig(hash, size).opens++;
  }
  release(hash: string, size: number): void {
    const big = size > SMALL_CONTENT ? this.#big.get(hash) : undefined;
    if (big !== undefined && big.opens > 0) big.opens--;
  }

  /** Fills `into` at once if all of its bytes are here; false when they are not. The range lies inside the content. */
  readNow(hash: string, size: number, offset: number, into: Uint8Array<ArrayBuffer>): boolean {
    if (size <= SMALL_CONTENT) {
      const place = this.#findSmall(hash);
      if (place === null || place.length < offset + into.length) return false;
      if (!this.#readSmall(hash, place, offset, into)) return false;
      this.#hits++;
      return true;
    }
    const big = this.#openBig(hash, size);
    watch(big);
    if (!big.verified.covers(offset, offset + into.length)) return false;
    big.used = this.#options.clock.now();
    this.#hits++;
    const done = preadFd(big.fd, into, offset) === into.length;
    if (!big.present.covers(0, size)) this.#fetchAhead(big, big.ahead.read(offset, into.length));
    return done;
  }

  /** As readNow, fetching what is missing. Throws unavailable when the server is away. */
  async read(
    hash: string,
    size: number,
    offset: number,
    length: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array<ArrayBuffer>> {
    if (size <= SMALL_CONTENT) {
      const now = new Uint8Array(length);
      if (this.readNow(hash, size, offset, now)) return now;
      return (await this.#fetchSmall(hash, size, signal)).slice(offset, offset + length);
    }
    const big = this.#openBig(hash, size);
    const into = new Uint8Array(length);
    big.opens++;
    try {
      watch(big);
      await this.#verify(big, offset, offset + length);
      const plan = big.ahead.read(offset, length);
      if (!big.present.covers(offset, offset + length)) {
        this.#misses++;
        const missing = this.#fetch(big, plan.now.start, plan.now.end);
        this.#fetchAhead(big, plan);
        try {
          await raceAbort(missing, signal);
        } catch (error) {
          // No room to keep it is no reason not to show it.
          if (!(error instanceof FsError) || error.code !== "no_space") throw error;
          return await raceAbort(this.#direct(big, offset, length), signal);
        }
      } else this.#fetchAhead(big, plan);
      if (preadFd(big.fd, into, offset) < length) {
        throw new FsError("corrupt", `the cached content ${hash} is cut short`);
      }
      return into;
    } finally {
      big.opens--;
    }
  }

  #fetchAhead(big: Big, { ahead }: ReadPlan): void {
    if (!this.#options.prefetch) return;
    for (const { start, end } of ahead) {
      for (let at = start; at < end; at += WINDOW) {
        const stop = Math.min(end, at + WINDOW);
        if (this.#aheadRequests >= AHEAD_REQUESTS || big.present.covers(at, stop)) continue;
        this.#aheadRequests++;
        this.#fetch(big, at, stop).catch(() => {}).finally(() => this.#aheadRequests--);
      }
    }
  }

  /** Bytes from the server, verified and not kept. */
  async #direct(big: Big, offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const view = big.view ??= await this.manifest(big.hash);
    const spans = await view.chunksIn(offset, length, (hash) => this.segment(hash));
    const first = spans[0]?.offset ?? offset;
    const last = spans.at(-1);
    if (last === undefined) throw new FsError("corrupt", `content ${big.hash} has no bytes at ${offset}`);
    const bytes = await this.#options.link().readContent(big.hash, first, last.offset + last.length - first);
    for (const span of spans) {
      verify(big.hash, span, bytes.subarray(span.offset - first, span.offset - first + span.length));
    }
    return bytes.slice(offset - first, offset - first + length);
  }

  /** Compares what an earlier run left here, or others wrote to, with the manifest; drops from `present` what is wrong. */
  async #verify(big: Big, start: number, end: number): Promise<void> {
    for (const gap of big.verified.gaps(start, end)) {
      if (!big.present.overlaps(gap.start, gap.end)) continue;
      let spans: ChunkSpan[];
      try {
        const view = big.view ??= await this.manifest(big.hash);
        spans = await view.chunksIn(gap.start, gap.end - gap.start, (hash) => this.segment(hash));
      } catch (error) {
        // Offline, or when the server has forgotten it, without the manifest: better than nothing.
        const away = error instanceof FsError && ["unavailable", "timeout", "not_found"].includes(error.code);
        if (!away) throw error;
        this.#options.log?.(`cache: content ${big.hash} can't be compared now: ${error.message}`);
        for (const here of big.present.intersect(gap.start, gap.end)) big.verified.add(here.start, here.end);
        continue;
      }
      for (const span of spans) {
        const until = span.offset + span.length;
        if (!big.present.covers(span.offset, until)) continue;
        const bytes = new Uint8Array(span.length);
        if (preadFd(big.fd, bytes, span.offset) === span.length && sameBytes(sha256(bytes), span.hash)) {
          big.verified.add(span.offset, until);
          continue;
        }
        this.#options.log?.(`cache: content ${big.hash} is damaged at byte ${span.offset}; it is fetched again`);
        big.present.subtract(span.offset, until);
        big.dirty = true;
        // Holes are not fetched, neither of this content nor of one made from it.
        pwriteFd(big.fd, new Uint8Array(span.length), span.offset);
        big.mark = markOfFd(big.fd);
      }
    }
  }

  /** Makes [start, end) present. Its file stays open meanwhile. */
  async #fetch(big: Big, start: number, end: number): Promise<void> {
    big.opens++;
    try {
      await this.#fetchMissing(big, start, end);
    } finally {
      big.opens--;
    }
  }
  async #fetchMissing(big: Big, start: number, end: number): Promise<void> {
    for (;;) {
      const busy = big.fetching.find((f) => f.start < end && f.end > start);
      if (busy === undefined) break;
      await busy.done.catch(() => {});
      if (big.present.covers(start, end)) return;
    }
    const view = big.view ??= await this.manifest(big.hash);
    const spans = (await view.chunksIn(start, end - start, (hash) => this.segment(hash)))
      .filter((span) => !big.present.covers(span.offset, span.offset + span.length));
    const first = spans[0];
    const last = spans.at(-1);
    if (first === undefined || last === undefined) return;
    // Another reader may have begun meanwhile.
    if (big.fetching.some((f) => f.start < last.offset + last.length && f.end > first.offset)) {
      return await this.#fetchMissing(big, start, end);
    }
    const fetching: Fetching = {
      start: first.offset,
      end: last.offset + last.length,
      done: this.#fetchSpans(big, spans),
    };
    big.fetching.push(fetching);
    try {
      await fetching.done;
    } finally {
      big.fetching = big.fetching.filter((f) => f !== fetching);
    }
  }

  async #fetchSpans(big: Big, spans: readonly ChunkSpan[]): Promise<void> {
    let at = 0;
    while (at < spans.length) {
      const first = spans[at];
      if (first === undefined) break;
      if (isZeroChunk(first.hash, first.length)) {
        // The file is sparse, but what was made from another content may have bytes of that here.
        watch(big);
        punch(big.fd, first.offset, first.offset + first.length);
        big.mark = markOfFd(big.fd);
        big.present.add(first.offset, first.offset + first.length);
        big.verified.add(first.offset, first.offset + first.length);
        at++;
        continue;
      }
      let until = at;
      let end = first.offset;
      for (let next = spans[until]; next !== undefined && next.offset === end; next = spans[until]) {
        if (isZeroChunk(next.hash, next.length) || end - first.offset > WINDOW + MAX_CHUNK) break;
        end += next.length;
        until++;
      }
      const length = end - first.offset;
      const memory = length < SPARE_FROM ? undefined : this.#spare.take(Math.max(length, SPARE_LENGTH));
      const bytes = await this.#options.link().readContent(big.hash, first.offset, length, undefined, memory);
      for (const span of spans.slice(at, until)) {
        const piece = bytes.subarray(span.offset - first.offset, span.offset - first.offset + span.length);
        verify(big.hash, span, piece);
      }
      watch(big);
      pwriteFd(big.fd, bytes, first.offset);
      if (length >= SPARE_FROM) this.#spare.give(new Uint8Array(bytes.buffer));
      big.mark = markOfFd(big.fd);
      big.present.add(first.offset, end);
      big.verified.add(first.offset, end);
      at = until;
    }
    big.dirty = true;
  }

  /** The content is not evicted, and does not count against the cache's size, until `keepOnly` leaves it out. */
  hold(hash: string): void {
    this.#sql.run("INSERT INTO held(hash) VALUES(?) ON CONFLICT DO NOTHING", unhex(hash));
  }
  /** Exactly these are held from now on. */
  keepOnly(hashes: ReadonlySet<string>): void {
    for (const row of this.#sql.rows("SELECT hash FROM held")) {
      if (!hashes.has(hex(row[0] as Uint8Array))) {
        this.#sql.run("DELETE FROM held WHERE hash = ?", row[0] as Uint8Array);
      }
    }
    for (const hash of hashes) this.hold(hash);
    this.#evict();
  }
  #isHeld(hash: string): boolean {
    return this.#sql.row("SELECT 1 FROM held WHERE hash = ?", unhex(hash)) !== undefined;
  }
  /** Brings all of a content here. Throws unavailable and the like. */
  async fetch(hash: string, size: number): Promise<void> {
    if (this.isComplete(hash, size)) return;
    if (size <= SMALL_CONTENT) return void await this.#fetchSmall(hash, size);
    const big = this.#openBig(hash, size);
    big.opens++;
    try {
      for (let at = 0; at < size; at += WINDOW) await this.#fetch(big, at, Math.min(size, at + WINDOW));
    } finally {
      big.opens--;
    }
  }

  /** The plain file that holds a whole large content, open while the content is retained; null when it is not one. */
  plainFile(hash: string, size: number): number | null {
    if (size <= SMALL_CONTENT || !this.isComplete(hash, size)) return null;
    return this.#big.get(hash)?.fd ?? null;
  }

  /** Is every byte of the content here? */
  isComplete(hash: string, size: number): boolean {
    if (size <= SMALL_CONTENT) return this.#findSmall(hash) !== null;
    return this.#openBig(hash, size).present.covers(0, size);
  }

  // --- room ---

  #evict(): void {
    if (this.#evicting) return;
    this.#evicting = true;
    try {
      this.#evictNow();
    } finally {
      this.#evicting = false;
    }
  }
  #evictNow(): void {
    const sum = (query: string) => (this.#sql.row(query)?.[0] as number | undefined) ?? 0;
    let total = sum("SELECT coalesce(sum(bytes), 0) FROM big WHERE hash NOT IN (SELECT hash FROM held)");
    for (const slab of this.#slabs.values()) total += slab.end;
    total -= sum("SELECT coalesce(sum(length), 0) FROM small WHERE hash IN (SELECT hash FROM held)");
    if (total <= this.#options.maxBytes) return;
    const target = this.#options.maxBytes * 0.9;
    const bigs = "SELECT hash, bytes FROM big WHERE hash NOT IN (SELECT hash FROM held) ORDER BY used";
    for (const row of this.#sql.rows(bigs)) {
      if (total <= target) return;
      const hash = hex(row[0] as Uint8Array);
      const big = this.#big.get(hash);
      if (big !== undefined && big.opens > 0) continue;
      this.#dropBig(hash);
      total -= row[1] as number;
    }
    for (const slab of [...this.#slabs.values()]) {
      if (total <= target) return;
      if (slab === this.#slab) continue;
      const held = this.#heldIn(slab);
      total -= slab.end - held.reduce((bytes, content) => bytes + content.bytes.length, 0);
      this.#dropSlab(slab);
      for (const { hash, bytes } of held) this.putSmall(hash, bytes);
    }
  }
  /** Contents in the slab that must stay. */
  #heldIn(slab: Slab): { hash: string; bytes: Uint8Array<ArrayBuffer> }[] {
    const query = "SELECT hash, offset, length FROM small WHERE slab = ? AND hash IN (SELECT hash FROM held)";
    return this.#sql.rows(query, slab.number).flatMap((row) => {
      const bytes = new Uint8Array(row[2] as number);
      return preadFd(slab.fd, bytes, row[1] as number) === bytes.length
        ? [{ hash: hex(row[0] as Uint8Array), bytes }]
        : [];
    });
  }
  #dropBig(hash: string): void {
    const big = this.#big.get(hash);
    if (big !== undefined) {
      closeFd(big.fd);
      this.#big.delete(hash);
    }
    this.#sql.run("DELETE FROM big WHERE hash = ?", unhex(hash));
    this.#sql.run("DELETE FROM manifests WHERE hash = ?", unhex(hash));
    unlinkPath(this.#bigPath(hash));
  }

  /** Drops all that no program has open and that is not held. Returns the bytes that were freed. */
  clear(): number {
    let freed = 0;
    this.#save();
    for (const row of this.#sql.rows("SELECT hash, bytes FROM big")) {
      const hash = hex(row[0] as Uint8Array);
      const big = this.#big.get(hash);
      if (this.#isHeld(hash) || (big !== undefined && big.opens > 0)) continue;
      freed += row[1] as number;
      this.#dropBig(hash);
    }
    for (const big of [...this.#big.values()]) {
      if (big.opens === 0 && !this.#isHeld(big.hash)) this.#dropBig(big.hash);
    }
    for (const slab of [...this.#slabs.values()]) {
      const held = this.#heldIn(slab);
      freed += slab.end;
      this.#dropSlab(slab);
      for (const { hash, bytes } of held) {
        freed -= bytes.length;
        this.putSmall(hash, bytes);
      }
    }
    return freed;
  }

  stats(): CacheStats {
    const small = this.#sql.row("SELECT count(*), coalesce(sum(length), 0) FROM small");
    this.#save();
    const big = this.#sql.row("SELECT count(*), coalesce(sum(bytes), 0) FROM big");
    return {
      smallContents: (small?.[0] as number | undefined) ?? 0,
      smallBytes: (small?.[1] as number | undefined) ?? 0,
      bigContents: (big?.[0] as number | undefined) ?? 0,
      bigBytes: (big?.[1] as number | undefined) ?? 0,
      maxBytes: this.#options.maxBytes,
      hits: this.#hits,
      misses: this.#misses,
    };
  }

  close(): void {
    this.#closed = true;
    this.#stopSaving();
    for (const big of this.#big.values()) {
      this.#saveBig(big);
      closeFd(big.fd);
    }
    this.#big.clear();
    for (const slab of this.#slabs.values()) closeFd(slab.fd);
    this.#slabs.clear();
    this.#db.close();
  }
}

/** Notices when others have written to the file. */
function watch(big: Big): void {
  const now = markOfFd(big.fd);
  const before = big.mark;
  const same = before !== null && before.mtimeSec === now.mtimeSec && before.mtimeNsec === now.mtimeNsec &&
    before.size === now.size;
  if (same) return;
  if (before !== null) big.verified.clear();
  big.mark = now;
}

function verify(content: string, span: ChunkSpan, bytes: Uint8Array): void {
  if (bytes.length !== span.length || !sameBytes(sha256(bytes), span.hash)) {
    throw new FsError(
      "corrupt",
      `bytes ${span.offset} to ${span.offset + span.length} of content ${content} arrived wrong`,
    );
  }
}

/** The promise, or the signal's reason as soon as it is aborted. */
function raceAbort<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}
