/** OpenPack: the file of a pack that is being filled on the hot tier, from its header to its table of contents. */
import { FsError } from "../fs/error.ts";
import { Fd, truncateFd, writeFd } from "../platform/dir.ts";
import { makeDiskFolder, renameOnDisk, syncDiskFolder } from "../platform/disk_file.ts";
import { ftruncateFd, O_CREAT, O_RDWR, O_TRUNC, openFd, preadFdAsync, pwriteFd, syncFd } from "../platform/posix.ts";
import type { StoredChunk } from "../index/index.ts";
import {
  CHUNK_DATA_START,
  encodeHeader,
  encodeRecordHeader,
  type PackedChunk,
  type PackEntry,
  PackTocBuilder,
  RECORD_HEADER_LENGTH,
} from "./pack.ts";

/** A chunk in its stored form, on its way into a pack. */
export interface ChunkToStore {
  readonly hash: Uint8Array;
  readonly packed: PackedChunk;
}

/** Up to this many bytes a write to the page cache is done at once: the hop to another thread costs 40 µs. */
const SYNC_WRITE = 64 * 1024;
/** Records are gathered into writes of this size. */
const GATHER = 1024 * 1024;

/** The object key of a sealed pack on every tier. */
export function packKey(name: string): string {
  return `packs/${name.slice(0, 2)}/${name}.pack`;
}

/** One writer at a time: the owner serialises `append`, `end` and `moveTo`. Reads may come at any time. */
export class OpenPack {
  readonly id: number;
  readonly path: string;
  readonly #fd: Fd;
  readonly #toc: PackTocBuilder;
  #end: number;
  #scratch = new Uint8Array(0);
  #dirty = false;
  #syncing: Promise<void> | null = null;
  #failed: FsError | null = null;
  #readers = 0;
  #closing = false;

  private constructor(id: number, path: string, fd: Fd, toc: PackTocBuilder) {
    this.id = id;
    this.path = path;
    this.#fd = fd;
    this.#toc = toc;
    this.#end = toc.position;
  }

  /** Creates the file `<folder>/<id>.pack`; its name is on the disk when this resolves, its header with the first sync. */
  static async create(folder: string, id: number): Promise<OpenPack> {
    const path = `${folder}/${id}.pack`;
    // O_TRUNC: a rolled-back pack may have had the same number.
    const pack = new OpenPack(id, path, new Fd(openFd(path, O_RDWR | O_CREAT | O_TRUNC)), new PackTocBuilder());
    try {
      pwriteFd(pack.#fd.number, encodeHeader(), 0);
      pack.#dirty = true;
      await syncDiskFolder(folder);
      return pack;
    } catch (error) {
      pack.close();
      throw error;
    }
  }

  /** Goes on with a file whose chunks are `entries`; everything behind the last of them is cut off. */
  static async reopen(path: string, id: number, entries: readonly PackEntry[]): Promise<OpenPack> {
    const toc = new PackTocBuilder();
    for (const e of entries) toc.add(e.hash, e.offset, e.storedLength, e.rawLength, e.flags);
    const pack = new OpenPack(id, path, new Fd(openFd(path, O_RDWR)), toc);
    await truncateFd(pack.#fd, toc.position, path);
    pack.#dirty = true;
    return pack;
  }

  /** A file that can't be ended, because it is damaged: what is intact in it stays readable. */
  static damaged(path: string, id: number): OpenPack {
    return new OpenPack(id, path, new Fd(openFd(path, O_RDWR)), new PackTocBuilder());
  }

  /** Where the next record begins: bytes of header and records. */
  get position(): number {
    return this.#toc.position;
  }
  get chunkCount(): number {
    return this.#toc.entries.length;
  }
  /** Has it bytes that are not on the disk yet, or are on their way there? */
  get dirty(): boolean {
    return this.#dirty || this.#syncing !== null;
  }
  /** Bytes of the file, its tail included. */
  get size(): number {
    return this.#end;
  }

  /** Appends records. All or nothing: after no_space and the like the file ends where it did. */
  async append(chunks: readonly ChunkToStore[]): Promise<StoredChunk[]> {
    const stored: StoredChunk[] = [];
    const start = this.position;
    let at = start;
    for (const { hash, packed } of chunks) {
      const offset = at + RECORD_HEADER_LENGTH;
      stored.push({
        hash: hash.slice(),
        offset,
        stored: packed.stored.length,
        raw: packed.rawLength,
        flags: packed.flags,
      });
      at = offset + packed.stored.length;
    }
    try {
      await this.#writeRecords(chunks, start, at - start);
    } catch (error) {
      this.#cutBack(start);
      throw error;
    }
    for (const c of stored) this.#toc.add(c.hash, c.offset, c.stored, c.raw, c.flags);
    this.#end = this.position;
    this.#dirty = true;
    return stored;
  }

  async #writeRecords(chunks: readonly ChunkToStore[], start: number, total: number): Promise<void> {
    const wanted = Math.min(total, GATHER + RECORD_HEADER_LENGTH);
    // One writer at a time: large buffers are kept, or the collector lags behind a fast writer by hundreds of megabytes.
    if (this.#scratch.length < wanted) this.#scratch = new Uint8Array(wanted);
    const buffer = this.#scratch;
    let at = start;
    let filled = 0;
    const flush = async () => {
      if (filled === 0) return;
      const part = buffer.subarray(0, filled);
      if (total <= SYNC_WRITE) pwriteFd(this.#fd.number, part, at);
      else await writeFd(this.#fd, part, at, this.path);
      at += filled;
      filled = 0;
    };
    for (const { hash, packed } of chunks) {
      if (filled + RECORD_HEADER_LENGTH + packed.stored.length > buffer.length) await flush();
      buffer.set(encodeRecordHeader(hash, packed), filled);
      filled += RECORD_HEADER_LENGTH;
      buffer.set(packed.stored, filled);
      filled += packed.stored.length;
    }
    await flush();
  }

  #cutBack(size: number): void {
    try {
      ftruncateFd(this.#fd.number, size);
    } catch {
      // What is behind the last good record is overwritten by the next one, or cut off when the pack is recovered.
    }
  }

  /** Puts on the disk what was appended before the call. A failed one makes the pack unusable: the bytes may be lost. */
  async sync(): Promise<void> {
    while (this.#syncing !== null) await this.#syncing.catch(() => {});
    if (this.#failed !== null) throw this.#failed;
    if (!this.#dirty) return;
    this.#dirty = false;
    this.#syncing = syncFd(this.#fd.number);
    try {
      await this.#syncing;
    } catch (error) {
      // Whoever waits for these bytes must hear of it.
      this.#dirty = true;
      this.#failed = error instanceof FsError ? error : new FsError("internal", String(error), { path: this.path });
      throw this.#failed;
    } finally {
      this.#syncing = null;
    }
  }

  /** Writes the table of contents and syncs. Returns the pack's name and size in bytes. */
  async end(): Promise<{ name: string; bytes: number }> {
    const at = this.position;
    const { tail, name } = this.#toc.finish();
    try {
      await writeFd(this.#fd, tail, at, this.path);
    } catch (error) {
      this.#cutBack(at);
      throw error;
    }
    this.#end = at + tail.length;
    this.#dirty = true;
    await this.sync();
    return { name, bytes: this.#end };
  }

  /** The name `end` would give. */
  name(): string {
    return this.#toc.finish().name;
  }

  /** Renames the ended file to its object key below the hot tier's folder; durable when it resolves. */
  async moveTo(hotFolder: string, name: string): Promise<void> {
    await movePackFile(this.path, hotFolder, name);
  }

  /** Exactly these bytes. Throws corrupt when the file is shorter. */
  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#closing) throw new FsError("unavailable", `${this.path} was closed`, { path: this.path });
    const bytes = new Uint8Array(length);
    this.#readers++;
    try {
      const got = await preadFdAsync(this.#fd.number, bytes, offset);
      if (got === length) return bytes;
      throw new FsError("corrupt", `${this.path} has ${offset + got} bytes where ${offset + length} are needed`);
    } finally {
      this.#readers--;
      this.#closeIfUnused();
    }
  }

  /** Closes the descriptor as soon as nobody reads or syncs. */
  close(): void {
    this.#closing = true;
    if (this.#syncing !== null) this.#syncing.finally(() => this.#closeIfUnused()).catch(() => {});
    else this.#closeIfUnused();
  }
  #closeIfUnused(): void {
    if (this.#closing && this.#readers === 0 && this.#syncing === null) this.#fd[Symbol.dispose]();
  }
}

/** Renames a whole pack file to its place as an object of the hot tier's folder; durable when it resolves. */
export async function movePackFile(path: string, hotFolder: string, name: string): Promise<void> {
  const target = `${hotFolder}/${packKey(name)}`;
  const folder = target.slice(0, target.lastIndexOf("/"));
  if (await makeDiskFolder(`${hotFolder}/packs`)) await syncDiskFolder(hotFolder);
  if (await makeDiskFolder(folder)) await syncDiskFolder(`${hotFolder}/packs`);
  await renameOnDisk(path, target);
  await syncDiskFolder(folder);
  await syncDiskFolder(path.slice(0, path.lastIndexOf("/")));
}

/** Bytes of a pack without a chunk. */
export const EMPTY_PACK = CHUNK_DATA_START;
