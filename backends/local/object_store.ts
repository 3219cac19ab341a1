/**
 * An ObjectStore in a folder of a disk or a NAS: one file an object. An object is written under a temporary name, synced,
 * renamed into place, and its folder synced; so it is there whole or not at all, also after a power cut.
 */
import type { CallOptions } from "../../core/fs/contract.ts";
import { FsError, toFsError } from "../../core/fs/error.ts";
import {
  bytesSource,
  checkKey,
  checkRange,
  checkStore,
  missingObject,
  type ObjectInfo,
  type ObjectRange,
  type ObjectSource,
  type ObjectStore,
  resolveRange,
  shortObject,
  sizeMismatch,
  type StoreSpace,
} from "../../core/fs/object_store.ts";
import { type Clock, systemClock } from "../../core/platform/clock.ts";
import { statVfsAsync } from "../../core/platform/dir.ts";
import {
  createDiskFile,
  type DiskFile,
  makeDiskFolder,
  openDiskFile,
  readDiskFolder,
  removeFromDisk,
  renameOnDisk,
  syncDiskFolder,
} from "../../core/platform/disk_file.ts";
import { info } from "../../core/platform/files.ts";
import { hostname, pid } from "../../core/platform/process.ts";
import { type Random, systemRandom } from "../../core/platform/random.ts";

export interface LocalObjectStoreOptions {
  /** A folder that exists: it is never made, lest an unmounted NAS is taken for an empty one. */
  readonly folder: string;
  /** @default the folder */
  readonly name?: string;
  /** Longest wait for one call to the disk, milliseconds; then `timeout`. @default 30000 */
  readonly stepTimeoutMs?: number;
  /** Unfinished files of other machines are removed at this age, milliseconds. @default 24 hours */
  readonly staleMs?: number;
  readonly clock?: Clock;
  readonly random?: Random;
}

/** Where unfinished objects live. `~` is in no key, so nothing here is ever listed or read as an object. */
const TEMP_FOLDER = "~unfinished";
const STREAM_PIECE = 1 << 20;
/**
 * Calls to the disk at once. Each holds a thread of the runtime's pool until it ends, also when nobody waits for it any more:
 * a NAS that hangs must not take all of the pool, which has 32.
 */
const AT_ONCE = 8;
/** The calls of one folder: those under way, and what waits until one of them has ended. */
interface Turns {
  underWay: number;
  readonly waiting: Set<() => void>;
}
/** By folder: who could not open a store opens it anew, and what hangs still is the same. */
const turnsOf = new Map<string, Turns>();

export class LocalObjectStore implements ObjectStore {
  readonly name: string;
  readonly #root: string;
  readonly #stepTimeoutMs: number;
  readonly #staleMs: number;
  readonly #clock: Clock;
  readonly #random: Random;
  /** Folders known to exist. */
  readonly #folders = new Set<string>();
  readonly #unfinished = new Set<string>();
  readonly #turns: Turns;

  constructor(options: LocalObjectStoreOptions) {
    this.#root = options.folder.replace(/\/+$/, "") || "/";
    this.name = options.name ?? options.folder;
    this.#turns = turnsOf.get(this.#root) ?? { underWay: 0, waiting: new Set() };
    turnsOf.set(this.#root, this.#turns);
    this.#stepTimeoutMs = options.stepTimeoutMs ?? 30_000;
    this.#staleMs = options.staleMs ?? 24 * 3600_000;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
  }

  /** One call to the disk, given up (not stopped: nothing can) when it takes too long or the caller no longer waits. */
  #step<T>(operation: string, key: string, work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (signal?.aborted) return Promise.reject(toFsError(signal.reason, { operation, path: key }));
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        stopTimer();
        this.#turns.waiting.delete(begin);
        reject(toFsError(signal?.reason, { operation, path: key }));
      };
      const stopTimer = this.#clock.after(this.#stepTimeoutMs, () => {
        signal?.removeEventListener("abort", onAbort);
        this.#turns.waiting.delete(begin);
        reject(
          new FsError(
            "timeout",
            `${operation} ${key}: ${this.name} has not answered for ${
              this.#stepTimeoutMs / 1000
            } s; is the disk or NAS there?`,
            { operation, path: key, limit: this.#stepTimeoutMs },
          ),
        );
      });
      const settle = (then: () => void) => {
        stopTimer();
        signal?.removeEventListener("abort", onAbort);
        then();
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      const begin = () => {
        this.#turns.underWay++;
        work().finally(() => this.#ended()).then(
          (value) => settle(() => resolve(value)),
          (error) => settle(() => reject(this.#explain(error, key))),
        );
      };
      if (this.#turns.underWay < AT_ONCE) begin();
      else this.#turns.waiting.add(begin);
    });
  }
  #ended(): void {
    this.#turns.underWay--;
    const [next] = this.#turns.waiting;
    if (next === undefined) return;
    this.#turns.waiting.delete(next);
    next();
  }

  /** As #step; a file that is opened after nobody waits for it any more is closed again. */
  async #openStep(
    operation: string,
    key: string,
    open: () => Promise<DiskFile>,
    signal: AbortSignal | undefined,
  ): Promise<DiskFile> {
    let given = false;
    let opening: Promise<DiskFile> | undefined;
    try {
      const file = await this.#step(operation, key, () => opening = open(), signal);
      given = true;
      return file;
    } finally {
      if (!given) opening?.then((late) => late.close(), () => {});
    }
  }

  #explain(error: unknown, key: string): FsError {
    const failure = toFsError(error, { path: key });
    if (failure.code !== "access_denied" && failure.code !== "permission_denied") return failure;
    return new FsError(
      "access_denied",
      `${this.name}: ${failure.message}; give this user read and write access to ${this.#root}`,
      { ...failure.details, cause: failure },
    );
  }

  #path(key: string): string {
    return `${this.#root}/${key}`;
  }

  /** The root must be there already: a missing one is a tier that is not mounted, not an empty tier. */
  async #requireRoot(signal: AbortSignal | undefined): Promise<void> {
    const found = await this.#step("stat", this.#root, () => info(this.#root), signal);
    if (found === null) {
      throw new FsError(
        "unavailable",
        `the folder ${this.#root} of ${this.name} does not exist: mount it, create it, or fix the path in the configuration`,
        { operation: "open", path: this.#root },
      );
    }
  }

  async #makeFolders(folder: string, signal: AbortSignal | undefined): Promise<void> {
    if (folder === "" || this.#folders.has(folder)) return;
    const slash = folder.lastIndexOf("/");
    const parent = slash < 0 ? "" : folder.slice(0, slash);
    if (parent === "") await this.#requireRoot(signal);
    else await this.#makeFolders(parent, signal);
    const made = await this.#step("mkdir", folder, () => makeDiskFolder(this.#path(folder)), signal);
    // Also when another writer made it: its sync may not have happened yet.
    await this.#step("fsync", folder, () => syncDiskFolder(parent === "" ? this.#root : this.#path(parent)), signal);
    if (made || this.#folders.size < 100_000) this.#folders.add(folder);
  }

  async put(key: string, source: ObjectSource | Uint8Array, options: CallOptions = {}): Promise<void> {
    checkKey(key);
    const signal = options.signal;
    try {
      signal?.throwIfAborted();
      await this.#putOnce(key, source, signal);
    } catch (error) {
      if (!(error instanceof FsError) || error.code !== "not_found" || this.#folders.size === 0) {
        throw toFsError(error, { operation: "put", path: key });
      }
      // A folder known to exist was removed by someone: make it again, once.
      this.#folders.clear();
      await this.#putOnce(key, source, signal);
    }
  }

  async #putOnce(key: string, source: ObjectSource | Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    const slash = key.lastIndexOf("/");
    const folder = slash < 0 ? "" : key.slice(0, slash);
    await this.#makeFolders(TEMP_FOLDER, signal);
    await this.#makeFolders(folder, signal);
    const temp = `${TEMP_FOLDER}/${hostname()}~${pid()}~${this.#random.uuid()}`;
    const path = this.#path(temp);
    this.#unfinished.add(temp);
    try {
      await this.#fill(key, path, source instanceof Uint8Array ? bytesSource(source) : source, signal);
      await this.#step("rename", key, () => renameOnDisk(path, this.#path(key)), signal);
    } catch (error) {
      // Not awaited with the signal: an aborted put cleans up too, but a dead disk must not hold the caller.
      await this.#step("unlink", temp, () => removeFromDisk(path), undefined).catch(() => {});
      throw toFsError(error, { operation: "put", path: key });
    } finally {
      this.#unfinished.delete(temp);
    }
    await this.#step("fsync", key, () => syncDiskFolder(folder === "" ? this.#root : this.#path(folder)), signal);
  }

  async #fill(key: string, path: string, source: ObjectSource, signal: AbortSignal | undefined): Promise<void> {
    const file = await this.#openStep("create", key, () => createDiskFile(path), signal);
    const reader = source.open().getReader();
    let done = 0;
    try {
      while (true) {
        const { value, done: ended } = await this.#waiting(reader.read(), signal);
        if (ended) break;
        done += value.length;
        if (done > source.size) throw sizeMismatch(key, source.size, done);
        await this.#step("write", key, () => file.writeAll(value), signal);
      }
      if (done !== source.size) throw sizeMismatch(key, source.size, done);
      await this.#step("fdatasync", key, () => file.syncData(), signal);
    } catch (error) {
      reader.cancel(error).catch(() => {});
      throw error;
    } finally {
      file.close();
    }
  }

  /** The next piece of a source: as slow as it likes, but not beyond the caller's patience. */
  #waiting<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (signal === undefined) return work;
    return new Promise((resolve, reject) => {
      const onAbort = () => reject(toFsError(signal.reason, { operation: "put" }));
      signal.addEventListener("abort", onAbort, { once: true });
      work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
      if (signal.aborted) onAbort();
    });
  }

  async #open(key: string, signal: AbortSignal | undefined) {
    try {
      return await this.#openStep("open", key, () => openDiskFile(this.#path(key)), signal);
    } catch (error) {
      const failure = toFsError(error, { operation: "get", path: key });
      if (failure.code !== "not_found" && failure.code !== "not_a_directory") throw failure;
      await this.#requireRoot(signal);
      throw missingObject(key, this.name);
    }
  }

  async get(key: string, options: ObjectRange = {}): Promise<Uint8Array<ArrayBuffer>> {
    checkKey(key);
    checkRange(key, options);
    const signal = options.signal;
    const file = await this.#open(key, signal);
    try {
      let { offset, length } = options;
      if (offset === undefined || length === undefined || length === 0) {
        const size = await this.#step("stat", key, () => file.size(), signal);
        ({ offset, length } = resolveRange(key, size, options));
      }
      const out = new Uint8Array(length);
      const got = await this.#step("read", key, () => file.readAt(out, offset), signal);
      if (got < length) throw shortObject(key, offset + got, offset + length);
      return out;
    } finally {
      file.close();
    }
  }

  getStream(key: string, options: CallOptions = {}): ReadableStream<Uint8Array> {
    checkKey(key);
    const signal = options.signal;
    let file: DiskFile | undefined;
    let size = 0;
    let offset = 0;
    const close = () => {
      file?.close();
      file = undefined;
    };
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        try {
          if (file === undefined) {
            const opened = await this.#open(key, signal);
            file = opened;
            size = await this.#step("stat", key, () => opened.size(), signal);
          }
          const source = file;
          const piece = new Uint8Array(Math.min(STREAM_PIECE, size - offset));
          if (piece.length === 0) {
            close();
            controller.close();
            return;
          }
          const got = await this.#step("read", key, () => source.readAt(piece, offset), signal);
          if (got < piece.length) throw shortObject(key, offset + got, size);
          offset += got;
          controller.enqueue(piece);
        } catch (error) {
          close();
          throw toFsError(error, { operation: "get", path: key });
        }
      },
      cancel: close,
    }, { highWaterMark: 0 });
  }

  async head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    checkKey(key);
    const found = await this.#step("stat", key, () => info(this.#path(key)), options.signal);
    if (found?.isFile) return { key, size: found.size };
    await this.#requireRoot(options.signal);
    return null;
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    checkKey(key);
    const removed = await this.#step("unlink", key, () => removeFromDisk(this.#path(key)), options.signal);
    if (!removed) {
      await this.#requireRoot(options.signal);
      return;
    }
    const slash = key.lastIndexOf("/");
    const folder = slash < 0 ? this.#root : this.#path(key.slice(0, slash));
    await this.#step("fsync", key, () => syncDiskFolder(folder), options.signal);
  }

  async *list(prefix: string, after = "", options: CallOptions = {}): AsyncIterable<ObjectInfo> {
    await this.#requireRoot(options.signal);
    const slash = prefix.lastIndexOf("/");
    yield* this.#walk(slash < 0 ? "" : prefix.slice(0, slash + 1), prefix, after, options.signal);
  }

  /** `base` is "" or ends with a slash. Sorting a folder as "name/" yields the keys below it in their place. */
  async *#walk(
    base: string,
    prefix: string,
    after: string,
    signal: AbortSignal | undefined,
  ): AsyncIterable<ObjectInfo> {
    const path = base === "" ? this.#root : this.#path(base.slice(0, -1));
    const entries = await this.#step("list", base, () => readDiskFolder(path), signal);
    if (entries === null) return;
    const names = entries
      .filter((entry) => (entry.isFile || entry.isDirectory) && /^[a-z0-9_-][a-z0-9._-]*$/.test(entry.name))
      .map((entry) => entry.isDirectory ? `${base}${entry.name}/` : `${base}${entry.name}`)
      .sort();
    for (const key of names) {
      if (key.endsWith("/")) {
        if (!key.startsWith(prefix) && !prefix.startsWith(key)) continue;
        if (key < after && !after.startsWith(key)) continue;
        yield* this.#walk(key, prefix, after, signal);
        continue;
      }
      if (!key.startsWith(prefix) || key <= after) continue;
      const found = await this.#step("stat", key, () => info(this.#path(key)), signal);
      if (found?.isFile) yield { key, size: found.size };
    }
  }

  async check(options: CallOptions = {}): Promise<void> {
    await this.#requireRoot(options.signal);
    await checkStore(this, this.#random.uuid(), options.signal);
    await this.removeStale(options);
  }

  /** Removes what writers that are no more have left unfinished. Returns how many. */
  async removeStale(options: CallOptions = {}): Promise<number> {
    const folder = this.#path(TEMP_FOLDER);
    const entries = await this.#step("list", TEMP_FOLDER, () => readDiskFolder(folder), options.signal);
    let removed = 0;
    for (const { name } of entries ?? []) {
      const temp = `${TEMP_FOLDER}/${name}`;
      if (this.#unfinished.has(temp)) continue;
      const [host, process] = name.split("~");
      const found = await this.#step("stat", temp, () => info(`${folder}/${name}`), options.signal);
      if (found === null) continue;
      const old = this.#clock.now() - found.mtimeMs >= this.#staleMs;
      const dead = host === hostname() && process !== undefined && process !== String(pid()) &&
        await info(`/proc/${process}`) === null;
      if (!old && !dead) continue;
      if (await this.#step("unlink", temp, () => removeFromDisk(`${folder}/${name}`), options.signal)) removed++;
    }
    return removed;
  }

  async space(options: CallOptions = {}): Promise<StoreSpace | null> {
    const { total, free } = await this.#step("statfs", this.#root, () => statVfsAsync(this.#root), options.signal);
    return { total, free };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Opens a folder as a store and removes what crashed writers left in it. Throws `unavailable` when the folder is missing. */
export async function openLocalObjectStore(options: LocalObjectStoreOptions): Promise<LocalObjectStore> {
  const store = new LocalObjectStore(options);
  await store.head("check/open");
  await store.removeStale();
  return store;
}
