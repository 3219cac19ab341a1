/** PackChunkStore: chunks by identity. New ones are appended to the open pack, known ones are read from where they are. */
import { FsError, hasCode, toFsError } from "../fs/error.ts";
import type { ChunkLocation } from "../index/contents.ts";
import type { Index } from "../index/index.ts";
import { PACK_OPEN, PACK_SEALED } from "../index/schema.ts";
import type { ChunkStore } from "../indexed/core.ts";
import type { Clock } from "../platform/clock.ts";
import { openDiskFile, readDiskFolder, removeFromDisk } from "../platform/disk_file.ts";
import { info } from "../platform/files.ts";
import type { Random } from "../platform/random.ts";
import { ByteLru } from "./byte_lru.ts";
import { type ChunkPool, packedAll } from "./chunk_pool.ts";
import { hex, sha256 } from "./hash.ts";
import type { ChunkRef } from "./manifest.ts";
import { type ChunkToStore, movePackFile, OpenPack } from "./open_pack.ts";
import type { OpenPacks } from "./open_packs.ts";
import { FLAG_RAW, packChunk, scanOpenPack, unpackChunk, verifyChunk } from "./pack.ts";
import { isZeroChunk } from "./zeros.ts";

/** Reads bytes of packs from whatever tier has them. */
export interface PackReader {
  /**
   * The bytes [offset, offset + length) of the pack, given to `decode`, which throws `corrupt` when they are not what
   * they should be: then another tier is asked. Throws not_found when there is no such pack, corrupt, unavailable.
   */
  read<T>(
    packId: number,
    offset: number,
    length: number,
    decode: (bytes: Uint8Array) => T,
    signal?: AbortSignal,
  ): Promise<T>;
}

export interface PackChunkStoreOptions {
  readonly index: Index;
  readonly openPacks: OpenPacks;
  readonly reader: PackReader;
  readonly pool: ChunkPool;
  /** The hot tier's folder: open packs are in `~open/` of it, sealed ones at their object keys. */
  readonly hotFolder: string;
  /** A pack is ended at this size, bytes. */
  readonly packBytes: number;
  /** ... or this long after its first chunk, milliseconds. */
  readonly packAgeMs: number;
  readonly compress: boolean;
  /** Recently read chunks kept in memory, bytes. */
  readonly cacheBytes: number;
  readonly clock: Clock;
  readonly random: Random;
  /** Resolves when the hot tier has room for so many bytes more; throws no_space. */
  readonly reserve: (bytes: number) => Promise<void>;
  /** A pack was sealed and is in its final place. */
  readonly onSealed: () => void;
  readonly log: (message: string) => void;
}

/** Where open packs are, below the hot tier's folder; `~` is in no object key. */
export const OPEN_FOLDER = "~open";
/** Chunks that lie this close in a pack are read in one go, with what is between them. */
const MAX_GAP = 16 * 1024;
/** Stored bytes read in one go. */
const MAX_RUN = 1024 * 1024;
/** Runs that are fetched ahead of the consumer. */
const AHEAD = 2;
/** Chunks looked up in the index at a time. */
const LOOKUP = 64;
/** A read of at most so many chunks keeps them in the cache: a longer one is a stream, which seldom comes back. */
const CACHED_READ = 8;
/** Up to this many bytes are compressed on the calling thread. */
const INLINE_COMPRESS = 64 * 1024;

interface Run {
  readonly packId: number;
  readonly offset: number;
  end: number;
  readonly items: ChunkLocation[];
}

export class PackChunkStore implements ChunkStore {
  readonly #o: PackChunkStoreOptions;
  readonly #folder: string;
  readonly #cache: ByteLru;
  #current: OpenPack | null = null;
  #firstChunkAt = 0;
  #tail: Promise<unknown> = Promise.resolve();
  #appends = 0;
  /** Packs on their way from full to sealed and moved. */
  readonly #sealing = new Map<number, Promise<void>>();
  #mustRecover = false;
  #stopTimer: () => void = () => {};
  #closed = false;

  constructor(options: PackChunkStoreOptions) {
    this.#o = options;
    this.#folder = `${options.hotFolder}/${OPEN_FOLDER}`;
    this.#cache = new ByteLru(options.cacheBytes);
  }

  /** Recovers what an earlier run left unfinished and starts the clock of open packs. The folder exists. */
  async open(): Promise<void> {
    await this.#exclusive(() => this.#recover()).catch((error) => {
      // A full disk does not keep what is on it from being read.
      if (toFsError(error).code !== "no_space") throw error;
      this.#o.log(`packs of an earlier run can't be ended yet: ${toFsError(error).message}`);
    });
    const step = Math.min(1000, Math.max(10, this.#o.packAgeMs / 4));
    this.#stopTimer = this.#o.clock.every(step, () => void this.#sealIfOld().catch((e) => this.#o.log(String(e))));
  }

  /** One after the other. */
  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#tail.then(work, work);
    this.#tail = mine.catch(() => {});
    return mine;
  }

  // --- writing ---

  async put(
    chunks: readonly { hash: Uint8Array; bytes: Uint8Array }[],
    options: { verify?: boolean } = {},
  ): Promise<void> {
    if (options.verify) await this.#verifyAll(chunks);
    const missing = await this.#missing(chunks.map(({ hash, bytes }) => ({ hash, length: bytes.length })));
    if (missing.length === 0) return;
    const wanted = missing.flatMap((i) => chunks[i] ?? []);
    await this.putPacked(await this.#compress(wanted));
  }

  async #verifyAll(chunks: readonly { hash: Uint8Array; bytes: Uint8Array }[]): Promise<void> {
    let since = 0;
    for (const { hash, bytes } of chunks) {
      verifyChunk(bytes, hash);
      since += bytes.length;
      if (since < 2 * MAX_RUN) continue;
      since = 0;
      await this.#o.clock.sleep(0);
    }
  }

  /** Indices of those that are not stored, each hash once. */
  async #missing(chunks: readonly ChunkRef[]): Promise<number[]> {
    const seen = new Set<string>();
    return (await this.#o.index.missing(chunks)).filter((i) => {
      const key = hex(chunks[i]?.hash ?? new Uint8Array());
      return !seen.has(key) && seen.add(key);
    });
  }

  /** Which of these chunks are not stored? Each hash once. For callers that hold stored forms already. */
  missing(chunks: readonly ChunkRef[]): Promise<number[]> {
    return this.#missing(chunks);
  }

  async #compress(chunks: readonly { hash: Uint8Array; bytes: Uint8Array }[]): Promise<ChunkToStore[]> {
    const total = chunks.reduce((sum, { bytes }) => sum + bytes.length, 0);
    if (!this.#o.compress || total <= INLINE_COMPRESS) {
      return chunks.map(({ hash, bytes }) => ({ hash, packed: packChunk(bytes, { compress: this.#o.compress }) }));
    }
    const buffer = new Uint8Array(total);
    const places: { offset: number; length: number }[] = [];
    let at = 0;
    for (const { bytes } of chunks) {
      buffer.set(bytes, at);
      places.push({ offset: at, length: bytes.length });
      at += bytes.length;
    }
    const { packed } = await this.#o.pool.pack(buffer.buffer, places);
    const empty = new Uint8Array();
    const forms = [...packedAll(packed, (i) => chunks[i]?.bytes ?? empty)];
    return chunks.flatMap(({ hash }, i) => forms[i] === undefined ? [] : { hash, packed: forms[i] });
  }

  /** Stores chunks in their stored forms; `put` without the check which are known. */
  async putPacked(chunks: readonly ChunkToStore[]): Promise<void> {
    if (chunks.length === 0) return;
    const before = this.#appends;
    await this.#exclusive(async () => {
      let wanted = chunks;
      if (this.#appends !== before) {
        const refs = chunks.map(({ hash, packed }) => ({ hash, length: packed.rawLength }));
        wanted = (await this.#missing(refs)).flatMap((i) => chunks[i] ?? []);
      }
      for (let start = 0; start < wanted.length;) {
        let bytes = 0;
        let end = start;
        while (end < wanted.length && (end === start || bytes < this.#o.packBytes / 4)) {
          bytes += wanted[end]?.packed.stored.length ?? 0;
          end++;
        }
        await this.#append(wanted.slice(start, end), bytes);
        start = end;
      }
    });
  }

  async #append(chunks: readonly ChunkToStore[], bytes: number): Promise<void> {
    if (this.#closed) throw new FsError("unavailable", "the chunk store is closed");
    if (this.#mustRecover) await this.#recover();
    await this.#o.reserve(bytes);
    const pack = this.#current ?? await this.#begin();
    const stored = await pack.append(chunks);
    if (this.#firstChunkAt === 0) this.#firstChunkAt = this.#o.clock.now();
    this.#appends++;
    await this.#o.index.addChunks(pack.id, stored, pack.position);
    if (pack.position >= this.#o.packBytes) this.#startSeal(pack);
  }

  async #begin(): Promise<OpenPack> {
    const id = await this.#o.index.createPack();
    try {
      const pack = await OpenPack.create(this.#folder, id);
      this.#o.openPacks.add(pack);
      this.#current = pack;
      this.#firstChunkAt = 0;
      return pack;
    } catch (error) {
      await this.#o.index.forgetPack(id).catch(() => {});
      throw error;
    }
  }

  // --- sealing ---

  async #sealIfOld(): Promise<void> {
    if (this.#closed) return;
    // A pack that could not be ended, or what was taken back: not only the next writer sees to it.
    if (this.#mustRecover) return await this.seal();
    if (this.#current === null || this.#firstChunkAt === 0) return;
    if (this.#o.clock.now() - this.#firstChunkAt >= this.#o.packAgeMs) await this.seal();
  }

  /** Ends the pack that is being filled, if it holds anything; resolves when it is sealed and in its place. */
  async seal(): Promise<void> {
    await this.#exclusive(async () => {
      if (this.#mustRecover) await this.#recover();
      if (this.#current !== null && this.#current.chunkCount > 0) this.#startSeal(this.#current);
      await Promise.resolve();
    });
    await Promise.all(this.#sealing.values());
  }

  /** Resolves when the pack is not on its way to its place any more. */
  async settled(packId: number): Promise<void> {
    await this.#sealing.get(packId)?.catch(() => {});
  }

  #startSeal(pack: OpenPack): void {
    if (this.#current === pack) this.#current = null;
    const work = this.#sealPack(pack).catch((error) => {
      // The row is still open: recovery ends the pack from what is committed.
      this.#mustRecover = true;
      this.#o.log(`pack ${pack.id} could not be sealed: ${toFsError(error).message}`);
      throw error;
    }).finally(() => this.#sealing.delete(pack.id));
    work.catch(() => {});
    this.#sealing.set(pack.id, work);
  }

  /**
   * Order: tail on the disk, then the index says sealed, then the rename. A crash in between leaves either an open row,
   * whose file is cut back and ended again, or a sealed row whose file is still here and is moved at the next start.
   */
  async #sealPack(pack: OpenPack): Promise<void> {
    const { index, random, hotFolder } = this.#o;
    while (await index.packByName(pack.name()) !== null) {
      // The same chunks were once sealed in the same order: a chunk of chance, which nothing refers to, tells them apart.
      const salt = random.bytes(32);
      await pack.append([{ hash: sha256(salt), packed: { flags: FLAG_RAW, stored: salt, rawLength: salt.length } }]);
    }
    const { name, bytes } = await pack.end();
    await (await index.sealPack(pack.id, name, bytes)).durable;
    await pack.moveTo(hotFolder, name);
    this.#o.openPacks.remove(pack);
    this.#o.onSealed();
  }

  // --- recovery ---

  /** The index took changes back: what is in memory about open packs may be wrong. */
  invalidate(): void {
    this.#mustRecover = true;
  }

  /** Brings the files of open packs and the index together. Runs exclusively. */
  async #recover(): Promise<void> {
    const { index, openPacks, hotFolder, log } = this.#o;
    await Promise.allSettled(this.#sealing.values());
    await index.settle().catch(() => {});
    this.#mustRecover = false;
    this.#current = null;
    const rows = await index.packsInState(PACK_OPEN);
    const byFile = new Map(rows.map((row) => [`${row.id}.pack`, row]));
    const before = openPacks.all();
    let failed: FsError | null = null;
    for (const { name: file } of await readDiskFolder(this.#folder) ?? []) {
      const path = `${this.#folder}/${file}`;
      const id = Number(/^(\d+)\.pack$/.exec(file)?.[1] ?? 0);
      if (id === 0) continue;
      const open = openPacks.get(id);
      try {
        const row = await index.pack(id);
        if (row === null) {
          // Nothing that was acknowledged is in it: the index would know it.
          await removeFromDisk(path);
        } else if (row.state === PACK_SEALED && row.name !== null) {
          await movePackFile(path, hotFolder, row.name);
        } else if (row.state === PACK_OPEN) {
          byFile.delete(file);
          await this.#recoverPack(path, id, row.bytes);
        } else await removeFromDisk(path);
        if (open !== undefined) openPacks.remove(open);
      } catch (error) {
        // What is in it stays readable; it is tried again.
        failed ??= toFsError(error);
        this.#mustRecover = true;
        if (open !== undefined && openPacks.get(id) !== open) openPacks.remove(open);
      }
    }
    if (failed !== null) throw failed;
    for (const pack of before) openPacks.remove(pack);
    for (const row of byFile.values()) {
      if ((await index.chunksOfPack(row.id)).length === 0) await index.forgetPack(row.id);
      else log(`the file ${this.#folder}/${row.id}.pack is missing: ${row.bytes} bytes of chunks are lost; run scrub`);
    }
    await index.settle();
  }

  async #recoverPack(path: string, id: number, bytes: number): Promise<void> {
    const { index, openPacks, log } = this.#o;
    const file = await openDiskFile(path);
    let scanned: Awaited<ReturnType<typeof scanOpenPack>>;
    try {
      const size = Math.min(bytes, (await info(path))?.size ?? 0);
      scanned = await scanOpenPack(async (offset, length) => {
        const into = new Uint8Array(length);
        return into.subarray(0, await file.readAt(into, offset));
      }, size);
    } finally {
      file.close();
    }
    if (scanned.entries.length === 0 && (await index.chunksOfPack(id)).length === 0) {
      await index.forgetPack(id);
      await index.settle();
      await removeFromDisk(path);
      return;
    }
    if (scanned.end < bytes) {
      log(`${path} is damaged at byte ${scanned.end} of ${bytes}: it stays as it is; run scrub`);
      openPacks.add(OpenPack.damaged(path, id));
      return;
    }
    const pack = await OpenPack.reopen(path, id, scanned.entries);
    openPacks.add(pack);
    await this.#sealPack(pack);
  }

  // --- reading ---

  async read(chunk: ChunkRef, signal?: AbortSignal): Promise<Uint8Array> {
    for await (const bytes of this.readMany([chunk], signal)) return bytes;
    throw new FsError("internal", "a chunk was asked for and none came");
  }

  async *readMany(chunks: Iterable<ChunkRef>, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    const queue: Promise<readonly Uint8Array[]>[] = [];
    const pending = this.#plan(chunks);
    let ended = false;
    for (;;) {
      while (!ended && queue.length < AHEAD) {
        const next = await pending.next();
        if (next.done) ended = true;
        else {
          const work = next.value instanceof Uint8Array
            ? Promise.resolve([next.value])
            : this.#readRun(next.value.run, next.value.keep, signal);
          work.catch(() => {});
          queue.push(work);
        }
      }
      const first = queue.shift();
      if (first === undefined) return;
      if (signal?.aborted) throw toFsError(signal.reason);
      yield* await first;
    }
  }

  /** What to read in which go, in order; bytes that are known without reading as they are. */
  async *#plan(chunks: Iterable<ChunkRef>): AsyncGenerator<Uint8Array | { run: Run; keep: boolean }> {
    let run: Run | null = null;
    let seen = 0;
    const flush = () => {
      const done = run;
      run = null;
      return done === null ? null : { run: done, keep: seen <= CACHED_READ };
    };
    for (const batch of batches(chunks, LOOKUP)) {
      seen += batch.length;
      const locations = await this.#o.index.chunks(batch.map(({ hash }) => hash));
      for (const [i, { hash, length }] of batch.entries()) {
        const known = isZeroChunk(hash, length) ? new Uint8Array(length) : this.#cache.get(hex(hash));
        if (known !== undefined) {
          const before = flush();
          if (before !== null) yield before;
          yield known;
          continue;
        }
        const at = locations[i] ?? null;
        if (at === null) throw lost(hash);
        const end = at.offset + at.stored;
        const open: Run | null = run;
        if (
          open !== null && open.packId === at.packId && at.offset >= open.end && at.offset - open.end <= MAX_GAP &&
          end - open.offset <= MAX_RUN
        ) {
          open.items.push(at);
          open.end = end;
          continue;
        }
        const before = flush();
        if (before !== null) yield before;
        run = { packId: at.packId, offset: at.offset, end, items: [at] };
      }
    }
    const last = flush();
    if (last !== null) yield last;
  }

  async #readRun(run: Run, keep: boolean, signal: AbortSignal | undefined): Promise<readonly Uint8Array[]> {
    try {
      return await this.#fetch(run, keep, signal);
    } catch (error) {
      if (!hasCode(error, "not_found")) throw error;
      // The pack went away since its chunks were looked up: they may have been moved to another one.
      const again = await this.#o.index.chunks(run.items.map(({ hash }) => hash));
      const out: Uint8Array[] = [];
      for (const [i, at] of again.entries()) {
        if (at === null) throw lost(run.items[i]?.hash ?? new Uint8Array());
        const one = { packId: at.packId, offset: at.offset, end: at.offset + at.stored, items: [at] };
        out.push(...await this.#fetch(one, keep, signal));
      }
      return out;
    }
  }

  #fetch(run: Run, keep: boolean, signal: AbortSignal | undefined): Promise<readonly Uint8Array[]> {
    const decode = (bytes: Uint8Array) =>
      run.items.map((at) => {
        const start = at.offset - run.offset;
        return unpackChunk(bytes.subarray(start, start + at.stored), at.flags, at.raw, at.hash);
      });
    const read = this.#o.reader.read(run.packId, run.offset, run.end - run.offset, decode, signal);
    if (!keep) return read;
    return read.then((all) => {
      for (const [i, at] of run.items.entries()) {
        const bytes = all[i];
        // A copy: a view would keep the whole run alive.
        if (bytes !== undefined) this.#cache.set(hex(at.hash), bytes.slice());
      }
      return all;
    });
  }

  /** Seals what is open and ends. */
  async close(): Promise<void> {
    this.#stopTimer();
    try {
      await this.seal();
    } finally {
      this.#closed = true;
      await this.#tail;
      for (const pack of this.#o.openPacks.all()) this.#o.openPacks.remove(pack);
    }
  }
}

function lost(hash: Uint8Array): FsError {
  return new FsError("corrupt", `chunk ${hex(hash)} is in no pack that the index knows; run scrub`);
}

function* batches<T>(items: Iterable<T>, size: number): Generator<T[]> {
  let batch: T[] = [];
  for (const item of items) {
    batch.push(item);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
