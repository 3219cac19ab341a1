/**
 * A folder of this machine as a filesystem. Nothing leads out of it: parents are opened without following any link
 * (openat2 RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS), and each operation names one entry of an open folder. Whole-file writes
 * go to a hidden temporary name and are synced, renamed into place, and the folder synced.
 */
import type {
  Backend,
  BackendTraits,
  CallOptions,
  FileTime,
  FileWriter,
  FsFull,
  FsXattr,
  ReadDirOptions,
  ReadOptions,
  StatFs,
  WriteOptions,
} from "../../core/fs/contract.ts";
import { Errno, FsError, hasCode, toFsError } from "../../core/fs/error.ts";
import { failure, noAttribute } from "../../core/fs/failure.ts";
import { makeFileWriter } from "../../core/fs/file_writer.ts";
import { basename, child, dirname, isWithin, requireNormal, split } from "../../core/fs/path.ts";
import { Serial } from "../../core/fs/serial.ts";
import { type DirEntry, kindOf, S_IFMT, type Stat } from "../../core/fs/stat.ts";
import { type Clock, systemClock } from "../../core/platform/clock.ts";
import {
  chmodAt,
  chownAt,
  copyRange,
  Fd,
  fsyncFd,
  getXattrAt,
  linkAt,
  listXattrAt,
  mkdirAt,
  namesIn,
  O_NONBLOCK,
  openAt,
  openFolder,
  openFolderBeneath,
  readLinkAt,
  removeXattrAt,
  renameAt,
  setXattrAt,
  statAt,
  statVfsAsync,
  symlinkAt,
  syncFilesystem,
  truncateFd,
  unlinkAt,
  utimesAt,
  writeFd,
} from "../../core/platform/dir.ts";
import {
  O_APPEND,
  O_CREAT,
  O_EXCL,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  preadFdAsync,
  syncFd,
} from "../../core/platform/posix.ts";
import { type Random, systemRandom } from "../../core/platform/random.ts";

export interface LocalBackendOptions {
  /** The folder, which exists: it is never made, lest an unmounted disk is taken for an empty one. */
  readonly root: string;
  /** Unfinished files of crashed writers are removed at this age, when their folder is listed; milliseconds. @default 24 hours */
  readonly staleMs?: number;
  readonly clock?: Clock;
  readonly random?: Random;
}

/** Unfinished files: beside their target, so that they are on its disk and inherit its folder's rules. */
const TEMP_PREFIX = ".~anyfs-";
const isTemp = (name: string) => name.startsWith(TEMP_PREFIX);
const STREAM_PIECE = 1 << 20;
/** Names sorted at once; larger folders are read again for the next ones, so memory stays bounded. */
const SORTED_NAMES = 200_000;
/** Entries looked at side by side. */
const STAT_BATCH = 64;

const TRAITS: BackendTraits = {
  backend: "local",
  caseSensitive: true,
  bytesInNames: true,
  emptyDirs: true,
  atomicRename: true,
  permissions: true,
  mtimePrecisionNs: 1,
  notes: [
    "write replaces the file's inode (that is what makes it atomic): another hard link keeps the old content",
    "no versions: a write with ifVersion other than 0 is refused",
    "rename across filesystems mounted inside the folder is refused (EXDEV)",
    `names that begin with ${TEMP_PREFIX} are hidden: they are unfinished writes`,
    "extended attributes, case and time precision are those of the disk's filesystem",
  ],
};

/** One entry of an open folder. */
interface Place extends Disposable {
  readonly folder: Fd;
  readonly name: string;
}

export class LocalBackend implements Backend, FsFull, FsXattr {
  readonly traits = TRAITS;
  readonly #rootPath: string;
  readonly #root: Fd;
  readonly #staleMs: number;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #appends = new Serial();
  /** Temporary files being written, by their inode's path: not to be taken for a crashed writer's. */
  readonly #unfinished = new Set<string>();

  constructor(root: Fd, options: LocalBackendOptions) {
    this.#root = root;
    this.#rootPath = options.root;
    this.#staleMs = options.staleMs ?? 24 * 3600_000;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
  }

  async #call<T>(
    operation: string,
    path: string,
    options: CallOptions | undefined,
    body: () => Promise<T>,
  ): Promise<T> {
    try {
      options?.signal?.throwIfAborted();
      requireNormal(path);
      return await body();
    } catch (error) {
      throw reword(error, operation, path);
    }
  }

  /** The folder of a path, open, and the name in it. The root itself is ".". */
  async #place(operation: string, path: string): Promise<Place> {
    if (path === "/") return { folder: this.#root, name: ".", [Symbol.dispose]: () => {} };
    const name = basename(path);
    if (isTemp(name)) {
      throw new FsError("invalid_input", `${operation} ${path}: names that begin with ${TEMP_PREFIX} are reserved`, {
        operation,
        path,
      });
    }
    const folder = await openFolderBeneath(this.#root, dirname(path).slice(1));
    return { folder, name, [Symbol.dispose]: () => folder[Symbol.dispose]() };
  }
  async #placeBelowRoot(operation: string, path: string): Promise<Place> {
    if (path === "/") throw new FsError("invalid_input", `${operation}: not on the root itself`, { operation, path });
    return await this.#place(operation, path);
  }

  async #statPlace(place: Place, path: string): Promise<Stat> {
    const stat = await statAt(place.folder, place.name, path);
    if (path === "/") stat.ino = 1;
    return stat;
  }
  /** Null when there is no such entry. */
  async #statOrNull(place: Place, path: string): Promise<Stat | null> {
    try {
      return await this.#statPlace(place, path);
    } catch (error) {
      if (hasCode(error, "not_found")) return null;
      throw error;
    }
  }

  /** Opens a regular file. O_NONBLOCK: a named pipe must not stop us. */
  async #openFile(place: Place, operation: string, path: string, flags: number, mode = 0o644): Promise<Fd> {
    if (path === "/") throw failure("is_a_directory", operation, path);
    const file = await openAt(place.folder, place.name, flags | O_NONBLOCK, mode, path);
    try {
      const kind = kindOf((await statAt(file, "", path)).mode);
      if (kind === "directory") throw failure("is_a_directory", operation, path);
      if (kind !== "file") throw new FsError("not_supported", `${operation} ${path}: not a regular file`, { path });
      return file;
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  read(path: string, options: ReadOptions = {}): Promise<Uint8Array> {
    return this.#call("read", path, options, async () => {
      using place = await this.#place("read", path);
      using file = await this.#openFile(place, "read", path, O_RDONLY);
      const { size } = await statAt(file, "", path);
      const offset = options.offset ?? 0;
      const into = new Uint8Array(Math.max(0, Math.min(size - offset, options.length ?? Infinity)));
      const got = into.length === 0 ? 0 : await preadFdAsync(file.number, into, offset);
      return got === into.length ? into : into.slice(0, got);
    });
  }

  openRead(path: string, options: ReadOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return this.#call("read", path, options, async () => {
      using place = await this.#place("read", path);
      const file = await this.#openFile(place, "read", path, O_RDONLY);
      let at = options.offset ?? 0;
      let left = options.length ?? Infinity;
      return new ReadableStream<Uint8Array>({
        pull: async (controller) => {
          try {
            options.signal?.throwIfAborted();
            const into = new Uint8Array(Math.min(STREAM_PIECE, left));
            const got = into.length === 0 ? 0 : await preadFdAsync(file.number, into, at);
            if (got === 0) {
              file[Symbol.dispose]();
              controller.close();
              return;
            }
            at += got;
            left -= got;
            controller.enqueue(got === into.length ? into : into.slice(0, got));
          } catch (error) {
            file[Symbol.dispose]();
            throw reword(error, "read", path);
          }
        },
        cancel: () => file[Symbol.dispose](),
      }, { highWaterMark: 0 });
    });
  }

  exists(path: string, options: CallOptions = {}): Promise<boolean> {
    return this.#call("exists", path, options, async () => {
      try {
        using place = await this.#place("exists", path);
        await statAt(place.folder, place.name, path);
        return true;
      } catch (error) {
        if (hasCode(error, "not_found") || hasCode(error, "not_a_directory")) return false;
        throw error;
      }
    });
  }
  stat(path: string, options: CallOptions = {}): Promise<Stat> {
    return this.#call("stat", path, options, async () => {
      using place = await this.#place("stat", path);
      return await this.#statPlace(place, path);
    });
  }

  /** What stands at the target of a write, after the write's conditions are met. */
  async #target(place: Place, path: string, options: WriteOptions): Promise<Stat | null> {
    if (path === "/") throw failure("is_a_directory", "write", path);
    if (options.ifVersion !== undefined && options.ifVersion !== 0) {
      throw new FsError("not_supported", `write ${path}: a local folder has no versions to compare`, { path });
    }
    const stat = await this.#statOrNull(place, path);
    if (stat === null) return null;
    if (options.exclusive || options.ifVersion === 0) throw failure("already_exists", "write", path);
    const kind = kindOf(stat.mode);
    if (kind === "directory") throw failure("is_a_directory", "write", path);
    if (kind === "symlink") throw failure("too_many_links", "write", path);
    if (kind === "other") throw new FsError("not_supported", `write ${path}: not a regular file`, { path });
    return stat;
  }

  /** A temporary file in the folder of `path`, and how it becomes the file. Owns the place and the descriptor. */
  async #begin(path: string, options: WriteOptions) {
    const place = await this.#place("write", path);
    try {
      await this.#target(place, path, options);
      const temp = `${TEMP_PREFIX}${this.#random.uuid()}`;
      const file = await openAt(place.folder, temp, O_RDWR | O_CREAT | O_EXCL, options.mode ?? 0o644, path);
      this.#unfinished.add(temp);
      // A mode that was asked for is meant: the umask applies to the default only.
      if (options.mode !== undefined) await chmodAt(place.folder, temp, options.mode & 0o7777, path);
      let moved = false;
      const end = () => {
        file[Symbol.dispose]();
        place[Symbol.dispose]();
        this.#unfinished.delete(temp);
      };
      return {
        file,
        commit: async (): Promise<Stat> => {
          // Asked again: much may have happened while the bytes came in.
          const existing = await this.#target(place, path, options);
          if (existing !== null) await this.#inherit(place, file, temp, existing, path);
          await syncFd(file.number);
          if (options.exclusive || options.ifVersion === 0) {
            // link(2) fails where rename(2) would replace.
            await linkAt(place.folder, temp, place.folder, place.name, path);
            await unlinkAt(place.folder, temp, "file", path);
          } else await renameAt(place.folder, temp, place.folder, place.name, path);
          moved = true;
          await this.#syncFolder(place.folder, path);
          const stat = await statAt(file, "", path);
          end();
          return stat;
        },
        discard: async () => {
          if (!moved) await unlinkAt(place.folder, temp, "file", path).catch(() => {});
          end();
        },
      };
    } catch (error) {
      place[Symbol.dispose]();
      throw error;
    }
  }

  /** A replaced file keeps its mode, owner and attributes, as far as we may set them. */
  async #inherit(place: Place, file: Fd, temp: string, existing: Stat, path: string): Promise<void> {
    const made = await statAt(file, "", path);
    if (made.uid !== existing.uid || made.gid !== existing.gid) {
      await chownAt(file, "", existing.uid, existing.gid, path).catch(() => {});
    }
    const mode = existing.mode & 0o7777;
    if ((made.mode & 0o7777) !== mode) await chmodAt(place.folder, temp, mode, path);
    const attributes = await listXattrAt(place.folder, place.name, path).catch(() => []);
    for (const attribute of attributes) {
      const value = await getXattrAt(place.folder, place.name, attribute, path).catch(() => null);
      if (value !== null) await setXattrAt(place.folder, temp, attribute, value, undefined, path).catch(() => {});
    }
  }

  /** `folder` was opened to name things only (O_PATH): open it again to sync it. */
  async #syncFolder(folder: Fd, path: string): Promise<void> {
    using real = await openFolderBeneath(folder, "", O_RDONLY);
    await fsyncFd(real, dirname(path));
  }

  write(path: string, data: Uint8Array, options: WriteOptions = {}): Promise<Stat> {
    return this.#call("write", path, options, async () => {
      const begun = await this.#begin(path, options);
      try {
        await writeFd(begun.file, data, 0, path);
        return await begun.commit();
      } catch (error) {
        await begun.discard();
        throw error;
      }
    });
  }

  openWrite(path: string, options: WriteOptions = {}): Promise<FileWriter> {
    return this.#call("write", path, options, async () => {
      const begun = await this.#begin(path, options);
      let at = 0;
      return makeFileWriter(path, {
        write: async (chunk) => {
          await writeFd(begun.file, chunk, at, path).catch((error) => {
            throw reword(error, "write", path);
          });
          at += chunk.length;
        },
        commit: () => this.#call("write", path, undefined, begun.commit),
        discard: begun.discard,
      }, options.signal);
    });
  }

  append(path: string, data: Uint8Array, options: CallOptions = {}): Promise<Stat> {
    // O_APPEND makes each write(2) atomic, also against other processes; the queue keeps one append's writes together.
    return this.#call("append", path, options, () =>
      this.#appends.run(path, async () => {
        using place = await this.#place("append", path);
        const created = await this.#target(place, path, {}) === null;
        using file = await this.#openFile(place, "append", path, O_WRONLY | O_APPEND | O_CREAT);
        const before = (await statAt(file, "", path)).size;
        try {
          await writeFd(file, data, null, path);
        } catch (error) {
          // A full disk may have taken a part. Only what is certainly ours is cut off again.
          const now = (await statAt(file, "", path)).size;
          if (now > before && now < before + data.length) await truncateFd(file, before, path).catch(() => {});
          throw error;
        }
        await syncFd(file.number);
        if (created) await this.#syncFolder(place.folder, path);
        return await statAt(file, "", path);
      }));
  }

  truncate(path: string, size: number, options: CallOptions = {}): Promise<Stat> {
    return this.#call("truncate", path, options, async () => {
      if (!Number.isSafeInteger(size) || size < 0) {
        throw new FsError("invalid_input", `truncate ${path}: ${size} is not a size`, { operation: "truncate", path });
      }
      using place = await this.#place("truncate", path);
      using file = await this.#openFile(place, "truncate", path, O_WRONLY);
      await truncateFd(file, size, path);
      await syncFd(file.number);
      return await statAt(file, "", path);
    });
  }

  copy(from: string, to: string, options: CallOptions = {}): Promise<Stat> {
    return this.#call("copy", from, options, async () => {
      requireNormal(to);
      using place = await this.#place("copy", from);
      using source = await this.#openFile(place, "copy", from, O_RDONLY);
      const stat = await statAt(source, "", from);
      const begun = await this.#begin(to, { mode: stat.mode & 0o7777 });
      try {
        await this.#copyBytes(source, begun.file, from, options.signal);
        return await begun.commit();
      } catch (error) {
        await begun.discard();
        throw error;
      }
    });
  }
  async #copyBytes(from: Fd, to: Fd, path: string, signal: AbortSignal | undefined): Promise<void> {
    let done = 0;
    try {
      while (true) {
        signal?.throwIfAborted();
        const copied = await copyRange(from, to, 64 << 20, path);
        if (copied === 0) break;
        done += copied;
      }
    } catch (error) {
      const errno = error instanceof FsError ? error.errno : 0;
      // These kernels and filesystems can't, or not between these two: by hand from where it stopped.
      const cannot = [Errno.EXDEV, Errno.EINVAL, Errno.EOPNOTSUPP, Errno.ENOSYS] as readonly number[];
      if (!cannot.includes(errno)) throw error;
    }
    const piece = new Uint8Array(STREAM_PIECE);
    while (true) {
      signal?.throwIfAborted();
      const got = await preadFdAsync(from.number, piece, done);
      if (got === 0) return;
      await writeFd(to, piece.subarray(0, got), done, path);
      done += got;
    }
  }

  rename(from: string, to: string, options: CallOptions = {}): Promise<void> {
    return this.#call("rename", from, options, async () => {
      requireNormal(to);
      using source = await this.#placeBelowRoot("rename", from);
      if (from !== to && isWithin(to, from) && kindOf((await this.#statPlace(source, from)).mode) === "directory") {
        throw new FsError("invalid_input", `rename ${from}: a directory can't be moved into itself (${to})`, {
          operation: "rename",
          path: from,
        });
      }
      using target = await this.#placeBelowRoot("rename", to);
      await renameAt(source.folder, source.name, target.folder, target.name, to);
      await this.#syncFolder(target.folder, to);
      if (dirname(from) !== dirname(to)) await this.#syncFolder(source.folder, from);
    });
  }

  removeFile(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("remove", path, options, async () => {
      if (path === "/") throw failure("is_a_directory", "remove", path);
      using place = await this.#place("remove", path);
      await unlinkAt(place.folder, place.name, "file", path);
      await this.#syncFolder(place.folder, path);
    });
  }

  async *readDir(path: string, options: ReadDirOptions = {}): AsyncIterable<DirEntry> {
    let after = options.after;
    let left = options.limit ?? Infinity;
    while (left > 0) {
      const last: string | undefined = after;
      const wanted = Math.min(left, SORTED_NAMES);
      const names: string[] = await this.#call("list", path, options, () => this.#namesAfter(path, last, wanted));
      for (let i = 0; i < names.length; i += STAT_BATCH) {
        const batch = names.slice(i, i + STAT_BATCH);
        for (const entry of await this.#call("list", path, options, () => this.#statAll(path, batch))) yield entry;
      }
      if (names.length < wanted) return;
      left -= names.length;
      after = names.at(-1);
    }
  }

  /** The first `wanted` names after `after`, sorted. One pass over the folder. */
  async #namesAfter(path: string, after: string | undefined, wanted: number): Promise<string[]> {
    using folder = await openFolderBeneath(this.#root, path.slice(1), O_RDONLY);
    let names: string[] = [];
    const keep = () => {
      names.sort();
      names = names.slice(0, wanted);
    };
    for await (const batch of namesIn(folder, path)) {
      for (const name of batch) {
        if (isTemp(name)) await this.#removeIfStale(folder, name);
        else if (after === undefined || name > after) names.push(name);
      }
      if (names.length > 2 * wanted + 10_000) keep();
    }
    keep();
    return names;
  }

  async #removeIfStale(folder: Fd, name: string): Promise<void> {
    if (this.#unfinished.has(name)) return;
    try {
      const { mtimeSec } = await statAt(folder, name);
      if (this.#clock.now() - mtimeSec * 1000 >= this.#staleMs) await unlinkAt(folder, name, "file", name);
    } catch {
      // Gone already, or not ours to remove: it stays hidden.
    }
  }

  async #statAll(path: string, names: readonly string[]): Promise<DirEntry[]> {
    using folder = await openFolderBeneath(this.#root, path.slice(1));
    const found = await Promise.allSettled(
      names.map(async (name) => ({ name, stat: await statAt(folder, name, child(path, name)) })),
    );
    const entries: DirEntry[] = [];
    for (const result of found) {
      if (result.status === "fulfilled") entries.push(result.value);
      else if (!hasCode(result.reason, "not_found")) throw result.reason;
    }
    return entries;
  }

  createDir(path: string, options: CallOptions & { readonly mode?: number } = {}): Promise<Stat> {
    return this.#call("mkdir", path, options, async () => {
      if (path === "/") throw failure("already_exists", "mkdir", path);
      using place = await this.#place("mkdir", path);
      await mkdirAt(place.folder, place.name, (options.mode ?? 0o755) & 0o7777, path);
      if (options.mode !== undefined) await chmodAt(place.folder, place.name, options.mode & 0o7777, path);
      return await this.#statPlace(place, path);
    });
  }
  createDirAll(path: string, options: CallOptions & { readonly mode?: number } = {}): Promise<void> {
    return this.#call("mkdir", path, options, async () => {
      let at = "/";
      for (const name of split(path)) {
        at = child(at, name);
        using place = await this.#place("mkdir", at);
        try {
          await mkdirAt(place.folder, place.name, (options.mode ?? 0o755) & 0o7777, at);
        } catch (error) {
          if (!hasCode(error, "already_exists")) throw error;
          const stat = await this.#statOrNull(place, at);
          if (stat !== null && kindOf(stat.mode) !== "directory") throw failure("already_exists", "mkdir", at);
        }
      }
    });
  }
  removeDir(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("rmdir", path, options, async () => {
      using place = await this.#placeBelowRoot("rmdir", path);
      try {
        await unlinkAt(place.folder, place.name, "folder", path);
      } catch (error) {
        if (!hasCode(error, "directory_not_empty") || await this.#emptyOfTemps(path) === 0) throw error;
        await unlinkAt(place.folder, place.name, "folder", path);
      }
      await this.#syncFolder(place.folder, path);
    });
  }
  /** Removes crashed writers' files, whatever their age, from a folder that shows nothing else. Returns how many. */
  async #emptyOfTemps(path: string): Promise<number> {
    using folder = await openFolderBeneath(this.#root, path.slice(1), O_RDONLY);
    const temps: string[] = [];
    for await (const batch of namesIn(folder, path)) {
      for (const name of batch) {
        if (!isTemp(name) || this.#unfinished.has(name)) return 0;
        temps.push(name);
      }
    }
    for (const name of temps) await unlinkAt(folder, name, "file", path);
    return temps.length;
  }

  removeDirAll(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("remove", path, options, async () => {
      try {
        if (path === "/") {
          await this.#removeContent("/", options.signal);
          return;
        }
        using place = await this.#place("remove", path);
        const stat = await this.#statOrNull(place, path);
        if (stat === null) return;
        if (kindOf(stat.mode) !== "directory") await unlinkAt(place.folder, place.name, "file", path);
        else {
          await this.#removeContent(path, options.signal);
          await unlinkAt(place.folder, place.name, "folder", path);
        }
        await this.#syncFolder(place.folder, path);
      } catch (error) {
        if (!hasCode(error, "not_found") && !hasCode(error, "not_a_directory")) throw error;
      }
    });
  }
  /** No descriptor stays open from one level to the next, so depth costs none; links are removed, never entered. */
  async #removeContent(path: string, signal: AbortSignal | undefined): Promise<void> {
    const pending = [path];
    while (true) {
      signal?.throwIfAborted();
      const at = pending.at(-1);
      if (at === undefined) return;
      const folders = await this.#removeFiles(at);
      if (folders.length > 0) {
        for (const name of folders) pending.push(child(at, name));
        continue;
      }
      pending.pop();
      if (pending.length === 0) return;
      using parent = await openFolderBeneath(this.#root, dirname(at).slice(1));
      await unlinkAt(parent, basename(at), "folder", at);
    }
  }
  /** Removes every file in a folder; returns the names of the folders in it. */
  async #removeFiles(path: string): Promise<string[]> {
    using folder = await openFolderBeneath(this.#root, path.slice(1), O_RDONLY);
    const folders: string[] = [];
    for await (const batch of namesIn(folder, path)) {
      await Promise.all(batch.map(async (name) => {
        try {
          await unlinkAt(folder, name, "file", child(path, name));
        } catch (error) {
          if (hasCode(error, "is_a_directory")) folders.push(name);
          else if (!hasCode(error, "not_found")) throw error;
        }
      }));
    }
    return folders;
  }

  symlink(target: string, path: string, options: CallOptions = {}): Promise<Stat> {
    return this.#call("symlink", path, options, async () => {
      if (path === "/") throw failure("already_exists", "symlink", path);
      using place = await this.#place("symlink", path);
      await symlinkAt(target, place.folder, place.name, path);
      return await this.#statPlace(place, path);
    });
  }
  readLink(path: string, options: CallOptions = {}): Promise<string> {
    return this.#call("readlink", path, options, async () => {
      using place = await this.#place("readlink", path);
      return await readLinkAt(place.folder, place.name, path);
    });
  }
  hardLink(existing: string, path: string, options: CallOptions = {}): Promise<Stat> {
    return this.#call("link", path, options, async () => {
      requireNormal(existing);
      if (path === "/") throw failure("already_exists", "link", path);
      using source = await this.#placeBelowRoot("link", existing);
      using target = await this.#place("link", path);
      await linkAt(source.folder, source.name, target.folder, target.name, path);
      return await this.#statPlace(target, path);
    });
  }

  chmod(path: string, mode: number, options: CallOptions = {}): Promise<void> {
    return this.#call("chmod", path, options, async () => {
      using place = await this.#place("chmod", path);
      await chmodAt(place.folder, place.name, mode & ~S_IFMT & 0o7777, path);
    });
  }
  chown(path: string, uid: number, gid: number, options: CallOptions = {}): Promise<void> {
    return this.#call("chown", path, options, async () => {
      using place = await this.#place("chown", path);
      await chownAt(place.folder, place.name, uid, gid, path);
    });
  }
  utimes(path: string, atime: FileTime, mtime: FileTime, options: CallOptions = {}): Promise<void> {
    return this.#call("utimes", path, options, async () => {
      using place = await this.#place("utimes", path);
      await utimesAt(place.folder, place.name, atime, mtime, path);
    });
  }

  getXattr(path: string, name: string, options: CallOptions = {}): Promise<Uint8Array> {
    return this.#call("getxattr", path, options, async () => {
      using place = await this.#place("getxattr", path);
      return await withAttribute("getxattr", path, name, getXattrAt(place.folder, place.name, name, path));
    });
  }
  setXattr(
    path: string,
    name: string,
    value: Uint8Array,
    options: CallOptions & { readonly mode?: "create" | "replace" } = {},
  ): Promise<void> {
    return this.#call("setxattr", path, options, async () => {
      using place = await this.#place("setxattr", path);
      await withAttribute(
        "setxattr",
        path,
        name,
        setXattrAt(place.folder, place.name, name, value, options.mode, path),
      );
    });
  }
  listXattr(path: string, options: CallOptions = {}): Promise<string[]> {
    return this.#call("listxattr", path, options, async () => {
      using place = await this.#place("listxattr", path);
      return await listXattrAt(place.folder, place.name, path);
    });
  }
  removeXattr(path: string, name: string, options: CallOptions = {}): Promise<void> {
    return this.#call("removexattr", path, options, async () => {
      using place = await this.#place("removexattr", path);
      await withAttribute("removexattr", path, name, removeXattrAt(place.folder, place.name, name, path));
    });
  }

  sync(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("sync", path, options, async () => {
      using place = await this.#place("sync", path);
      const kind = kindOf((await this.#statPlace(place, path)).mode);
      if (kind === "directory") {
        using folder = await openFolderBeneath(this.#root, path.slice(1), O_RDONLY);
        await fsyncFd(folder, path);
      } else if (kind === "file") {
        using file = await this.#openFile(place, "sync", path, O_RDONLY);
        await fsyncFd(file, path);
      }
      await this.#syncFolder(place.folder, path);
    });
  }
  syncAll(options: CallOptions = {}): Promise<void> {
    return this.#call("sync", "/", options, async () => {
      using folder = await openFolderBeneath(this.#root, "", O_RDONLY);
      await syncFilesystem(folder, "/");
    });
  }
  statFs(options: CallOptions = {}): Promise<StatFs> {
    return this.#call("statfs", "/", options, () => statVfsAsync(this.#rootPath));
  }
  close(): Promise<void> {
    this.#root[Symbol.dispose]();
    return Promise.resolve();
  }
}

/** ENODATA names the attribute, not the file. */
async function withAttribute<T>(operation: string, path: string, name: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof FsError && error.errno === Errno.ENODATA) throw noAttribute(operation, path, name);
    throw error;
  }
}

/** A system call's failure in the words of the operation that was asked for. */
function reword(error: unknown, operation: string, path: string): FsError {
  const failed = toFsError(error, { operation, path });
  // EEXIST of rmdir and rename means what ENOTEMPTY does (POSIX allows both).
  const code = failed.code === "already_exists" && (operation === "rename" || operation === "rmdir")
    ? "directory_not_empty"
    : failed.code;
  const { errno } = failed.details;
  if (errno === undefined || errno === Errno.ENODATA) return failed;
  return failure(code, operation, path, code === failed.code ? { errno, cause: failed } : { cause: failed });
}

/** Opens the folder. Throws unavailable when it is missing. */
export async function openLocalBackend(options: LocalBackendOptions): Promise<LocalBackend> {
  let root: Fd;
  try {
    root = await openFolder(options.root);
  } catch (error) {
    const failed = toFsError(error);
    if (failed.code !== "not_found" && failed.code !== "not_a_directory") throw failed;
    throw new FsError(
      "unavailable",
      `the folder ${options.root} does not exist: mount it, create it, or fix the path in the configuration`,
      { operation: "open", path: options.root, cause: failed },
    );
  }
  return new LocalBackend(root, options);
}
