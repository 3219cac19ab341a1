/**
 * FileStorage: the thin, friendly face of a filesystem. It normalises paths, follows symbolic links, and has the names
 * Deno users know. It decides nothing: limits, rights and caches are layers below it.
 */
import { hasLinks, hasPermissions, hasStats, hasSymlinks, hasSync, hasTimes, hasXattr } from "./capability.ts";
import type { CallOptions, FileTime, FileWriter, Fs, ReadDirOptions, ReadOptions, StatFs } from "./contract.ts";
import { FsError, hasCode, toFsError } from "./error.ts";
import { failure } from "./failure.ts";
import { decodeName } from "./names.ts";
import { basename, child, normalise } from "./path.ts";
import { IterativePathResolver, NoopPathResolver, type PathResolver } from "./path_resolver.ts";
import { type DirEntry, kindOf, type Stat } from "./stat.ts";

export interface FileStorageOptions {
  /** @default iterative where the filesystem has symbolic links, else no-op */
  readonly resolver?: PathResolver;
}
export interface WriteFileOptions extends CallOptions {
  /** Add to the end instead of replacing. @default false */
  readonly append?: boolean;
  /** Fail with `already_exists` when there is a file. @default false */
  readonly createNew?: boolean;
  /** Permission bits of a file that is created. @default 0o644 */
  readonly mode?: number;
}
export interface WalkOptions extends CallOptions {
  /** Levels below the start; 0 is the start alone. @default unlimited */
  readonly maxDepth?: number;
  /** @default true */
  readonly includeDirs?: boolean;
}
export interface WalkEntry extends DirEntry {
  readonly path: string;
}

/**
 * @example
 * ```ts
 * const storage = new FileStorage(openMemoryBackend());
 * await storage.mkdir("/music/new", { recursive: true });
 * await storage.writeTextFile("/music/new/list.txt", "one\n");
 * console.log(await storage.readTextFile("music/./new/list.txt"));
 * ```
 */
export class FileStorage {
  readonly fs: Fs;
  readonly #resolver: PathResolver;

  constructor(fs: Fs, options: FileStorageOptions = {}) {
    this.fs = fs;
    this.#resolver = options.resolver ?? (hasSymlinks(fs) ? new IterativePathResolver(fs) : new NoopPathResolver());
  }

  /** The path of what `path` names, its last link followed. */
  #follow(path: string, options: CallOptions): Promise<string> {
    return this.#resolve(path, options, true);
  }
  /** The path of the entry itself, also when it is a link. */
  #entry(path: string, options: CallOptions): Promise<string> {
    return this.#resolve(path, options, false);
  }
  // deno-lint-ignore require-await -- a bad path rejects as everything else does
  async #resolve(path: string, options: CallOptions, followLast: boolean): Promise<string> {
    const signal = options.signal;
    if (signal?.aborted) throw toFsError(signal.reason, { path });
    return this.#resolver.resolve(normalise(path), { followLast, ...(signal === undefined ? {} : { signal }) });
  }

  /** All bytes, or a range. Throws not_found, is_a_directory. */
  async readFile(path: string, options: ReadOptions = {}): Promise<Uint8Array> {
    return await this.fs.read(await this.#follow(path, options), options);
  }
  /** As UTF-8; bytes that are none become the names' escape (see names.ts), so nothing is lost. */
  async readTextFile(path: string, options: CallOptions = {}): Promise<string> {
    return decodeName(await this.readFile(path, options));
  }
  async openReadable(path: string, options: ReadOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return await this.fs.openRead(await this.#follow(path, options), options);
  }

  /** Replaces (or, with `append`, extends) a file; durable when it resolves. A stream is stored whole or not at all. */
  async writeFile(
    path: string,
    data: Uint8Array | ReadableStream<Uint8Array>,
    options: WriteFileOptions = {},
  ): Promise<Stat> {
    const at = await this.#follow(path, options);
    if (options.append) {
      if (data instanceof Uint8Array) return await this.fs.append(at, data, options);
      let stat: Stat | undefined;
      for await (const chunk of data) stat = await this.fs.append(at, chunk, options);
      return stat ?? await this.fs.append(at, new Uint8Array(0), options);
    }
    const write = {
      exclusive: options.createNew ?? false,
      ...(options.mode === undefined ? {} : { mode: options.mode }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    };
    if (data instanceof Uint8Array) return await this.fs.write(at, data, write);
    const writer = await this.fs.openWrite(at, write);
    // The writer's own failure says more than the pipe's.
    await data.pipeTo(writer.writable, write).catch(() => {});
    return await writer.done;
  }
  async writeTextFile(path: string, text: string, options: WriteFileOptions = {}): Promise<Stat> {
    return await this.writeFile(path, new TextEncoder().encode(text), options);
  }
  /** A stream into a file that becomes visible whole once the stream is closed and `done` resolved. */
  async openWritable(path: string, options: WriteFileOptions = {}): Promise<FileWriter> {
    const at = await this.#follow(path, options);
    return await this.fs.openWrite(at, {
      exclusive: options.createNew ?? false,
      ...(options.mode === undefined ? {} : { mode: options.mode }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
  }
  async truncate(path: string, size = 0, options: CallOptions = {}): Promise<Stat> {
    return await this.fs.truncate(await this.#follow(path, options), size, options);
  }

  /** Throws already_exists, not_found (parent); with `recursive` an existing directory is fine. */
  async mkdir(
    path: string,
    options: CallOptions & { readonly recursive?: boolean; readonly mode?: number } = {},
  ): Promise<void> {
    if (options.recursive) await this.fs.createDirAll(await this.#follow(path, options), options);
    else await this.fs.createDir(await this.#entry(path, options), options);
  }

  /** Removes a file, a link itself, or a directory: an empty one, with `recursive` any. Throws not_found. */
  async remove(path: string, options: CallOptions & { readonly recursive?: boolean } = {}): Promise<void> {
    const at = await this.#entry(path, options);
    const stat = await this.fs.stat(at, options);
    if (kindOf(stat.mode) !== "directory") await this.fs.removeFile(at, options);
    else if (options.recursive) await this.fs.removeDirAll(at, options);
    else await this.fs.removeDir(at, options);
    this.#resolver.forget(at);
  }

  /** rename(2). Links in the last components are renamed and replaced themselves. */
  async rename(from: string, to: string, options: CallOptions = {}): Promise<void> {
    const source = await this.#entry(from, options);
    const target = await this.#entry(to, options);
    await this.fs.rename(source, target, options);
    this.#resolver.forget(source);
    this.#resolver.forget(target);
  }
  async copyFile(from: string, to: string, options: CallOptions = {}): Promise<Stat> {
    return await this.fs.copy(await this.#follow(from, options), await this.#follow(to, options), options);
  }

  /** Of what a link leads to. Throws not_found, also for a link that leads nowhere. */
  async stat(path: string, options: CallOptions = {}): Promise<Stat> {
    return await this.fs.stat(await this.#follow(path, options), options);
  }
  /** Of the link itself. */
  async lstat(path: string, options: CallOptions = {}): Promise<Stat> {
    return await this.fs.stat(await this.#entry(path, options), options);
  }
  /** False also for a link that leads nowhere or round in a circle. */
  async exists(path: string, options: CallOptions = {}): Promise<boolean> {
    try {
      return await this.fs.exists(await this.#follow(path, options), options);
    } catch (error) {
      if (hasCode(error, "too_many_links") || hasCode(error, "not_a_directory")) return false;
      throw error;
    }
  }
  /** The path with every link followed. Throws not_found when it leads nowhere. */
  async realPath(path: string, options: CallOptions = {}): Promise<string> {
    const at = await this.#follow(path, options);
    await this.fs.stat(at, options);
    return at;
  }

  async *readDir(path: string, options: ReadDirOptions = {}): AsyncIterable<DirEntry> {
    yield* this.fs.readDir(await this.#follow(path, options), options);
  }
  /** Everything below a directory, each directory before what is in it; links are shown, not followed. */
  async *walk(path: string, options: WalkOptions = {}): AsyncIterable<WalkEntry> {
    const start = await this.#follow(path, options);
    const call: CallOptions = options.signal === undefined ? {} : { signal: options.signal };
    const maxDepth = options.maxDepth ?? Infinity;
    const includeDirs = options.includeDirs ?? true;
    const stat = await this.fs.stat(start, call);
    const open: WalkEntry = { path: start, name: basename(start), stat };
    if (kindOf(stat.mode) !== "directory") {
      yield open;
      return;
    }
    if (includeDirs) yield open;
    // One open listing a level: memory grows with depth, not with the number of files.
    const levels: AsyncIterator<DirEntry>[] = [];
    const at: string[] = [];
    const enter = (directory: string) => {
      levels.push(this.fs.readDir(directory, call)[Symbol.asyncIterator]());
      at.push(directory);
    };
    try {
      if (maxDepth > 0) enter(start);
      while (true) {
        const level = levels.at(-1);
        const directory = at.at(-1);
        if (level === undefined || directory === undefined) return;
        const next = await level.next().catch((error: unknown) => {
          // A directory that was removed meanwhile has nothing left to show; the start itself had to be there.
          if (levels.length > 1 && hasCode(error, "not_found")) return { done: true, value: undefined } as const;
          throw error;
        });
        if (next.done) {
          levels.pop();
          at.pop();
          continue;
        }
        const { name, stat } = next.value;
        const entry = { path: child(directory, name), name, stat };
        const isDir = kindOf(stat.mode) === "directory";
        if (!isDir || includeDirs) yield entry;
        if (isDir && levels.length < maxDepth) enter(entry.path);
      }
    } finally {
      for (const level of levels) await level.return?.();
    }
  }

  /** `target` is stored as it is given. Throws already_exists, not_supported. */
  async symlink(target: string, path: string, options: CallOptions = {}): Promise<Stat> {
    const at = await this.#entry(path, options);
    if (!hasLinks(this.fs)) throw failure("not_supported", "symlink", path);
    if (target === "" || target.includes("\0")) {
      throw new FsError("invalid_input", `symlink ${path}: ${JSON.stringify(target)} is not a target`, { path });
    }
    const stat = await this.fs.symlink(target, at, options);
    this.#resolver.forget(at);
    return stat;
  }
  async readLink(path: string, options: CallOptions = {}): Promise<string> {
    const at = await this.#entry(path, options);
    if (!hasSymlinks(this.fs)) throw failure("not_supported", "readlink", path);
    return await this.fs.readLink(at, options);
  }
  /** A second name for an existing file. */
  async link(existing: string, path: string, options: CallOptions = {}): Promise<Stat> {
    const from = await this.#entry(existing, options);
    const to = await this.#entry(path, options);
    if (!hasLinks(this.fs)) throw failure("not_supported", "link", path);
    return await this.fs.hardLink(from, to, options);
  }

  async chmod(path: string, mode: number, options: CallOptions = {}): Promise<void> {
    const at = await this.#follow(path, options);
    if (!hasPermissions(this.fs)) throw failure("not_supported", "chmod", path);
    await this.fs.chmod(at, mode, options);
  }
  async chown(path: string, uid: number, gid: number, options: CallOptions = {}): Promise<void> {
    const at = await this.#follow(path, options);
    if (!hasPermissions(this.fs)) throw failure("not_supported", "chown", path);
    await this.fs.chown(at, uid, gid, options);
  }
  async utimes(path: string, atime: FileTime, mtime: FileTime, options: CallOptions = {}): Promise<void> {
    const at = await this.#follow(path, options);
    if (!hasTimes(this.fs)) throw failure("not_supported", "utimes", path);
    await this.fs.utimes(at, atime, mtime, options);
  }
  async getXattr(path: string, name: string, options: CallOptions = {}): Promise<Uint8Array> {
    const at = await this.#follow(path, options);
    if (!hasXattr(this.fs)) throw failure("not_supported", "getxattr", path);
    return await this.fs.getXattr(at, name, options);
  }

  /** What was acknowledged for this path is durable when it resolves. Filesystems without `sync` are always so. */
  async sync(path: string, options: CallOptions = {}): Promise<void> {
    const at = await this.#follow(path, options);
    if (hasSync(this.fs)) await this.fs.sync(at, options);
  }
  /** Null where the store tells no bounds. */
  async statFs(options: CallOptions = {}): Promise<StatFs | null> {
    return hasStats(this.fs) ? await this.fs.statFs(options) : null;
  }
}
