/** TieredFs: the filesystem made of index, chunks and tiers, by path. What it acknowledges is on the disk. */
import type {
  BackendTraits,
  CallOptions,
  FileTime,
  FileWriter,
  ReadDirOptions,
  ReadOptions,
  StatFs,
  WriteOptions,
} from "../fs/contract.ts";
import { FsError, hasCode, throwIfCancelled, toFsError } from "../fs/error.ts";
import { failure, noAttribute } from "../fs/failure.ts";
import { makeFileWriter } from "../fs/file_writer.ts";
import { checkName, PATH_MAX } from "../fs/names.ts";
import { Serial } from "../fs/serial.ts";
import { type DirEntry, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Stat } from "../fs/stat.ts";
import type { ApplyResult, Index } from "../index/index.ts";
import { type Op, ROOT_INO, type Time } from "../index/ops.ts";
import { type Clock, splitTime } from "../platform/clock.ts";
import { INLINE_LIMIT } from "../store/chunk_inline.ts";
import { Extents } from "../store/extents.ts";
import { hex } from "../store/hash.ts";
import { type ChunkRef, encodeManifest, type ManifestView } from "../store/manifest.ts";
import { decodeManifest } from "../store/manifest.ts";
import type { ContentReader } from "./content_reader.ts";
import { type ContentWriter, Feed, type StoredContent } from "./content_writer.ts";
import type { IndexedFs } from "./core.ts";
import { FileHandle } from "./file_handle.ts";

export interface TieredFsOptions {
  readonly index: Index;
  readonly reader: ContentReader;
  readonly writer: ContentWriter;
  /** TierBits of all configured tiers. */
  readonly tierBits: number;
  readonly clock: Clock;
  /** Owner of new nodes. */
  readonly owner: { readonly uid: number; readonly gid: number };
  /** A path for a staging file that nothing else uses. */
  readonly stagingPath: () => string;
  /** Room of the place where new bytes go, bytes. */
  readonly space: () => Promise<{ total: number; free: number }>;
}

/** The tier mask as an extended attribute: read-only, on regular files. */
export const TIERS_XATTR = "user.anyfs.tiers";
const PAGE = 200;
/** Operations applied in one transaction while a tree is removed. */
const REMOVE_BATCH = 256;
/** How often an operation is tried again that lost a race for its names. */
const RACES = 32;
const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;

const type = (stat: Stat) => stat.mode & S_IFMT;

export class TieredFs implements IndexedFs {
  readonly traits: BackendTraits = {
    backend: "indexed",
    caseSensitive: true,
    bytesInNames: true,
    emptyDirs: true,
    atomicRename: true,
    permissions: true,
    mtimePrecisionNs: 1,
    notes: ["versions: ifVersion works", "a copy shares its bytes with the original and takes no room"],
  };
  readonly #o: TieredFsOptions;
  readonly #index: Index;
  /** Changes that are made from what the file holds now run one after the other. */
  readonly #changes = new Serial();

  constructor(options: TieredFsOptions) {
    this.#o = options;
    this.#index = options.index;
  }

  // --- paths ---

  #components(operation: string, path: string): string[] {
    if (!path.startsWith("/")) {
      throw new FsError("invalid_input", `${operation} ${JSON.stringify(path)}: a path begins with "/"`, {
        operation,
        path,
      });
    }
    if (path.length > PATH_MAX) {
      throw new FsError("name_too_long", `${operation}: the path is longer than ${PATH_MAX} bytes`, {
        operation,
        path,
      });
    }
    if (path === "/") return [];
    const parts = path.slice(1).split("/");
    for (const part of parts) checkName(part);
    return parts;
  }

  /** The node a path names. Follows no symlink. Throws not_found, not_a_directory. */
  async #resolve(operation: string, path: string): Promise<Stat> {
    let at = await this.#root();
    for (const part of this.#components(operation, path)) {
      if (type(at) !== S_IFDIR) throw failure("not_a_directory", operation, path);
      const next = await this.#index.lookup(at.ino, part);
      if (next === null) throw failure("not_found", operation, path);
      at = next;
    }
    return at;
  }
  async #root(): Promise<Stat> {
    const root = await this.#index.stat(ROOT_INO);
    if (root === null) throw new FsError("corrupt", "the index has no root folder; restore it from a backup");
    return root;
  }

  /** The folder that holds the last component, and that component's name. The root has none. */
  async #parent(operation: string, path: string): Promise<{ dir: Stat; name: string } | null> {
    const parts = this.#components(operation, path);
    const name = parts.pop();
    if (name === undefined) return null;
    const dir = await this.#resolve(operation, `/${parts.join("/")}`).catch((error) => {
      throw rename(error, operation, path);
    });
    if (type(dir) !== S_IFDIR) throw failure("not_a_directory", operation, path);
    return { dir, name };
  }

  #time(): Time {
    return splitTime(this.#o.clock.now());
  }

  /** Applies all or none, and waits until it is on the disk. */
  async #apply(
    operation: string,
    path: string,
    ops: readonly Op[],
    manifests: readonly Uint8Array[] = [],
  ): Promise<ApplyResult> {
    try {
      const { value, durable } = await this.#index.apply({ device: 0, request: 0, manifests, ops });
      await durable;
      return value;
    } catch (error) {
      throw rename(error, operation, path);
    }
  }

  /** Runs `attempt` again when the names it had looked up were changed by someone else in between. */
  async #racing<T>(attempt: () => Promise<T | typeof AGAIN>): Promise<T> {
    for (let tries = 0; tries < RACES; tries++) {
      const result = await attempt();
      if (result !== AGAIN) return result;
    }
    throw new FsError("conflict", "the names kept changing while the operation was tried; try again");
  }

  async #one(result: ApplyResult, ino: number): Promise<Stat> {
    const stat = result.stats.find((s) => s.ino === ino);
    if (stat === undefined) throw new FsError("not_found", "the file was removed meanwhile");
    return await this.#withTier(stat);
  }
  async #withTier(stat: Stat): Promise<Stat> {
    if (type(stat) !== S_IFREG) return stat;
    return { ...stat, tiers: await this.#index.tiersOf(stat.content, this.#o.tierBits) };
  }
  async withTiers(stats: Stat[]): Promise<Stat[]> {
    return await Promise.all(stats.map((stat) => this.#withTier(stat)));
  }

  // --- reading ---

  async stat(path: string, options: CallOptions = {}): Promise<Stat> {
    throwIfCancelled(options.signal);
    return await this.#withTier(await this.#resolve("stat", path));
  }
  lstat(path: string, options: CallOptions = {}): Promise<Stat> {
    return this.stat(path, options);
  }
  async exists(path: string, options: CallOptions = {}): Promise<boolean> {
    throwIfCancelled(options.signal);
    try {
      await this.#resolve("exists", path);
      return true;
    } catch (error) {
      if (hasCode(error, "not_found") || hasCode(error, "not_a_directory")) return false;
      throw error;
    }
  }

  async #regular(operation: string, path: string): Promise<Stat> {
    const stat = await this.#resolve(operation, path);
    this.#requireRegular(stat, operation, path);
    return stat;
  }
  #requireRegular(stat: Stat, operation: string, path: string): void {
    if (type(stat) === S_IFREG) return;
    if (type(stat) === S_IFDIR) throw failure("is_a_directory", operation, path);
    if (type(stat) === S_IFLNK) throw failure("too_many_links", operation, path);
    throw new FsError("invalid_input", `${operation} ${path}: not a regular file`, { operation, path });
  }

  async read(path: string, options: ReadOptions = {}): Promise<Uint8Array> {
    const { offset, length } = range("read", path, options);
    throwIfCancelled(options.signal);
    const { content } = await this.#regular("read", path);
    if (content === null) return new Uint8Array();
    return await this.#o.reader.read(await this.#o.reader.view(content), offset, length, options.signal);
  }
  async openRead(path: string, options: ReadOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const { offset, length } = range("read", path, options);
    throwIfCancelled(options.signal);
    const { content } = await this.#regular("read", path);
    const view = content === null ? null : await this.#o.reader.view(content);
    return this.#o.reader.stream(() => Promise.resolve(view), offset, length, options.signal);
  }
  readContent(hash: string, offset: number, length: number, signal?: AbortSignal): ReadableStream<Uint8Array> {
    return this.#o.reader.stream(() => this.#o.reader.view(hash), offset, length, signal);
  }
  async contentBytes(
    hash: string,
    offset: number,
    length: number,
    signal?: AbortSignal,
    memory?: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { reader } = this.#o;
    const bytes = await reader.read(await reader.view(hash), offset, length, signal, memory);
    if (bytes.length < length) throw new FsError("corrupt", `content ${hash} ends before byte ${offset + length}`);
    return bytes;
  }
  contentView(hash: string): Promise<ManifestView> {
    return this.#o.reader.view(hash);
  }
  chunksOf(view: ManifestView, offset: number, length: number): Promise<ChunkRef[]> {
    return this.#o.reader.chunksOf(view, offset, length);
  }

  // --- writing ---

  async write(path: string, data: Uint8Array, options: WriteOptions = {}): Promise<Stat> {
    throwIfCancelled(options.signal);
    if (data.length > INLINE_LIMIT) await this.#checkTarget("write", path, options);
    for (let tries = 0;; tries++) {
      using content = await this.#o.writer.fromBytes(data, options.signal);
      try {
        return await this.#setContent("write", path, content, options);
      } catch (error) {
        // A chunk it was told is stored was collected since (a hold of another process ran out): send all again.
        if (tries > 0 || !(error instanceof FsError) || error.details.operation !== "add content") throw error;
      }
    }
  }

  async openWrite(path: string, options: WriteOptions = {}): Promise<FileWriter> {
    throwIfCancelled(options.signal);
    await this.#checkTarget("write", path, options);
    const feed = new Feed();
    const stored = this.#writeStream(path, feed.readable, options);
    feed.endsWith(stored);
    return makeFileWriter(path, {
      write: (bytes) => feed.push(bytes),
      commit() {
        feed.end();
        return stored;
      },
      async discard() {
        feed.fail(new FsError("cancelled", `write ${path}: the writer gave up`, { operation: "write", path }));
        await stored.catch(() => {});
      },
    }, options.signal);
  }
  async #writeStream(path: string, readable: ReadableStream<Uint8Array>, options: WriteOptions): Promise<Stat> {
    using content = await this.#o.writer.fromStream(readable, options.signal);
    return await this.#setContent("write", path, content, options);
  }

  /** Fails early, before any byte is taken, where the write can't succeed. */
  async #checkTarget(operation: string, path: string, options: WriteOptions): Promise<void> {
    const parent = await this.#parent(operation, path);
    if (parent === null) throw failure("is_a_directory", operation, path);
    const found = await this.#index.lookup(parent.dir.ino, parent.name);
    this.#checkConditions(operation, path, found, options);
  }
  #checkConditions(operation: string, path: string, found: Stat | null, options: WriteOptions): void {
    if (found !== null) this.#requireRegular(found, operation, path);
    if (found !== null && options.exclusive) throw failure("already_exists", operation, path);
    const version = found?.version ?? 0;
    if (options.ifVersion !== undefined && options.ifVersion !== version) {
      throw new FsError(
        "conflict",
        `${operation} ${path}: its version is ${version}, not ${options.ifVersion}; read it again`,
        { operation, path },
      );
    }
  }

  /** The file at `path` becomes this content, created when it is missing. */
  async #setContent(operation: string, path: string, content: StoredContent, options: WriteOptions): Promise<Stat> {
    const id = content.manifest === null ? null : hex(content.manifest.hash);
    const manifests = content.manifest === null ? [] : [content.manifest.blob];
    return await this.#place(operation, path, id, content.size, manifests, options);
  }

  async #place(
    operation: string,
    path: string,
    content: string | null,
    size: number,
    manifests: readonly Uint8Array[],
    options: WriteOptions,
  ): Promise<Stat> {
    return await this.#racing(async () => {
      const parent = await this.#parent(operation, path);
      if (parent === null) throw failure("is_a_directory", operation, path);
      const { dir, name } = parent;
      const found = await this.#index.lookup(dir.ino, name);
      this.#checkConditions(operation, path, found, options);
      const time = this.#time();
      const ops: Op[] = [];
      let ino = found?.ino ?? 0;
      if (found === null) {
        ino = await this.#index.allotIno();
        const mode = S_IFREG | ((options.mode ?? 0o644) & 0o7777);
        ops.push({ t: "create", parent: dir.ino, name, ino, mode, ...this.#o.owner, rdev: 0, time });
      }
      if (found !== null || content !== null) {
        // A conditional write names the version it is based on, so that a change in between is a conflict.
        const base = found === null ? null : options.ifVersion ?? null;
        ops.push({ t: "content", ino, base, content, size, time });
      }
      try {
        return await this.#one(await this.#apply(operation, path, ops, manifests), ino);
      } catch (error) {
        if (hasCode(error, "not_found") || (found === null && hasCode(error, "already_exists"))) return AGAIN;
        throw error;
      }
    });
  }

  async append(path: string, data: Uint8Array, options: CallOptions = {}): Promise<Stat> {
    return await this.#changes.run(path, () =>
      this.#racing(async () => {
        throwIfCancelled(options.signal);
        const parent = await this.#parent("append", path);
        if (parent === null) throw failure("is_a_directory", "append", path);
        const found = await this.#index.lookup(parent.dir.ino, parent.name);
        if (found === null) {
          try {
            return await this.write(path, data, { ...options, ifVersion: 0 });
          } catch (error) {
            if (hasCode(error, "conflict")) return AGAIN;
            throw error;
          }
        }
        this.#requireRegular(found, "append", path);
        const dirty = Extents.of([{ start: found.size, end: found.size + data.length }]);
        const tail = (at: number, length: number) => data.subarray(at - found.size, at - found.size + length);
        return await this.change(
          "append",
          path,
          found,
          { dirty, size: found.size + data.length },
          tail,
          options.signal,
        );
      }));
  }

  async truncate(path: string, size: number, options: CallOptions = {}): Promise<Stat> {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new FsError("invalid_input", `truncate ${path}: ${size} is not a size in bytes`, { path });
    }
    return await this.#changes.run(path, () =>
      this.#racing(async () => {
        throwIfCancelled(options.signal);
        const found = await this.#regular("truncate", path);
        const nothing = () => new Uint8Array();
        return await this.change("truncate", path, found, { dirty: new Extents(), size }, nothing, options.signal);
      }));
  }

  /**
   * Gives the file of `base` its changed content: `dirty` bytes come from `written`, the others from what it held.
   * AGAIN when someone else changed it meanwhile.
   */
  async change(
    operation: string,
    path: string,
    base: Stat,
    change: { dirty: Extents; size: number; baseValid?: number },
    written: (offset: number, length: number) => Uint8Array | Promise<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<Stat | typeof AGAIN> {
    const { reader, writer } = this.#o;
    const view = base.content === null ? EMPTY : await reader.view(base.content);
    const baseValid = Math.min(change.baseValid ?? Infinity, view.size, change.size);
    const readNew = async (offset: number, length: number): Promise<Uint8Array> => {
      const out = new Uint8Array(length);
      for (const part of change.dirty.intersect(offset, offset + length)) {
        out.set(await written(part.start, part.end - part.start), part.start - offset);
      }
      for (const gap of change.dirty.gaps(offset, offset + length)) {
        const end = Math.min(gap.end, baseValid);
        if (end <= gap.start) continue;
        out.set(await reader.read(view, gap.start, end - gap.start, signal), gap.start - offset);
      }
      return out;
    };
    using content = await writer.fromChange({
      base: view,
      loadSegment: reader.segment,
      dirty: change.dirty,
      size: change.size,
      baseValid,
      readNew,
      signal,
    });
    const id = content.manifest === null ? null : hex(content.manifest.hash);
    const manifests = content.manifest === null ? [] : [content.manifest.blob];
    const op: Op = {
      t: "content",
      ino: base.ino,
      base: base.version,
      content: id,
      size: content.size,
      time: this.#time(),
    };
    try {
      return await this.#one(await this.#apply(operation, path, [op], manifests), base.ino);
    } catch (error) {
      if (hasCode(error, "conflict") || hasCode(error, "not_found")) return AGAIN;
      throw error;
    }
  }

  /** Opens a file to read and write in place. `create`: also one that does not exist yet. */
  async open(
    path: string,
    options: CallOptions & { readonly create?: boolean; readonly exclusive?: boolean; readonly mode?: number } = {},
  ): Promise<FileHandle> {
    if (options.create && (options.exclusive || !await this.exists(path))) {
      try {
        const mode = options.mode === undefined ? {} : { mode: options.mode };
        await this.#place("open", path, null, 0, [], { exclusive: true, ...mode });
      } catch (error) {
        if (options.exclusive || !hasCode(error, "already_exists")) throw error;
      }
    }
    const found = await this.#regular("open", path);
    const { reader } = this.#o;
    return new FileHandle({
      stat: (ino) => this.#index.stat(ino),
      readContent: async (content, offset, length, signal) =>
        await reader.read(await reader.view(content), offset, length, signal),
      change: async (base, change, written) => {
        const done = await this.change("write", path, base, change, written);
        return done === AGAIN ? null : done;
      },
      stagingPath: this.#o.stagingPath,
    }, found);
  }

  async copy(from: string, to: string, options: CallOptions = {}): Promise<Stat> {
    throwIfCancelled(options.signal);
    const source = await this.#regular("copy", from);
    return await this.#place("copy", to, source.content, source.size, [], { mode: source.mode & 0o7777 });
  }

  async rename(from: string, to: string, options: CallOptions = {}): Promise<void> {
    throwIfCancelled(options.signal);
    const source = await this.#parent("rename", from);
    const target = await this.#parent("rename", to);
    if (source === null || target === null) {
      throw new FsError("invalid_input", `rename ${from} ${to}: the root folder can't be moved or replaced`, {
        operation: "rename",
        path: from,
      });
    }
    await this.#apply("rename", from, [{
      t: "rename",
      parent: source.dir.ino,
      name: source.name,
      newParent: target.dir.ino,
      newName: target.name,
      flags: 0,
      ino: 0,
      time: this.#time(),
    }]);
  }

  async removeFile(path: string, options: CallOptions = {}): Promise<void> {
    throwIfCancelled(options.signal);
    const parent = await this.#parent("remove", path);
    if (parent === null) throw failure("is_a_directory", "remove", path);
    await this.#apply("remove", path, [{
      t: "unlink",
      parent: parent.dir.ino,
      name: parent.name,
      ino: 0,
      time: this.#time(),
    }]);
  }

  // --- folders ---

  async *readDir(path: string, options: ReadDirOptions = {}): AsyncGenerator<DirEntry> {
    const dir = await this.#resolve("list", path);
    if (type(dir) !== S_IFDIR) throw failure("not_a_directory", "list", path);
    let after = options.after ?? null;
    let left = options.limit ?? Infinity;
    while (left > 0) {
      throwIfCancelled(options.signal);
      const page = await this.#index.readDir(dir.ino, after, Math.min(PAGE, left));
      for (const entry of page) yield { name: entry.name, stat: await this.#withTier(entry.stat) };
      const last = page.at(-1);
      if (last === undefined || page.length < PAGE) return;
      after = last.name;
      left -= page.length;
    }
  }

  async createDir(path: string, options: CallOptions & { readonly mode?: number } = {}): Promise<Stat> {
    throwIfCancelled(options.signal);
    const parent = await this.#parent("mkdir", path);
    if (parent === null) throw failure("already_exists", "mkdir", path);
    const mode = S_IFDIR | ((options.mode ?? 0o755) & 0o7777);
    return await this.#create("mkdir", path, parent, mode);
  }
  async #create(
    operation: string,
    path: string,
    parent: { dir: Stat; name: string },
    mode: number,
    target?: string,
  ): Promise<Stat> {
    const { dir, name } = parent;
    const ino = await this.#index.allotIno();
    const time = this.#time();
    const op: Op = { t: "create", parent: dir.ino, name, ino, mode, ...this.#o.owner, rdev: 0, time };
    return await this.#one(
      await this.#apply(operation, path, [target === undefined ? op : { ...op, target }]),
      ino,
    );
  }

  async createDirAll(path: string, options: CallOptions & { readonly mode?: number } = {}): Promise<void> {
    const parts = this.#components("mkdir", path);
    for (let i = 1; i <= parts.length; i++) {
      const part = `/${parts.slice(0, i).join("/")}`;
      try {
        const found = await this.#resolve("mkdir", part);
        if (type(found) !== S_IFDIR) throw failure("already_exists", "mkdir", part);
        continue;
      } catch (error) {
        if (!hasCode(error, "not_found")) throw error;
      }
      try {
        await this.createDir(part, options);
      } catch (error) {
        // Somebody else was faster.
        if (!hasCode(error, "already_exists") || type(await this.#resolve("mkdir", part)) !== S_IFDIR) throw error;
      }
    }
  }

  async removeDir(path: string, options: CallOptions = {}): Promise<void> {
    throwIfCancelled(options.signal);
    const parent = await this.#parent("rmdir", path);
    if (parent === null) {
      throw new FsError("invalid_input", "rmdir /: the root folder can't be removed", { operation: "rmdir", path });
    }
    await this.#apply("rmdir", path, [{
      t: "rmdir",
      parent: parent.dir.ino,
      name: parent.name,
      ino: 0,
      time: this.#time(),
    }]);
  }

  async removeDirAll(path: string, options: CallOptions = {}): Promise<void> {
    const parent = await this.#parent("remove", path).catch((error) => {
      if (hasCode(error, "not_found") || hasCode(error, "not_a_directory")) return undefined;
      throw error;
    });
    if (parent === undefined) return;
    if (parent === null) {
      await this.#empty(ROOT_INO, path, options.signal);
      return;
    }
    await this.#racing(async () => {
      const found = await this.#index.lookup(parent.dir.ino, parent.name);
      if (found === null) return;
      if (type(found) === S_IFDIR) await this.#empty(found.ino, path, options.signal);
      const gone = await this.#removeEntries(path, parent.dir.ino, [{ name: parent.name, stat: found }]);
      return gone ? undefined : AGAIN;
    });
  }

  /** Removes all that is in a folder, folder by folder, in batches that don't grow with the tree. */
  async #empty(ino: number, path: string, signal: AbortSignal | undefined): Promise<void> {
    const stack: { ino: number; from: { parent: number; entry: DirEntry } | null }[] = [{ ino, from: null }];
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      throwIfCancelled(signal);
      const page = await this.#index.readDir(top.ino, null, REMOVE_BATCH);
      const folder = page.find((entry) => type(entry.stat) === S_IFDIR);
      const files = page.filter((entry) => type(entry.stat) !== S_IFDIR);
      if (files.length > 0) await this.#removeEntries(path, top.ino, files);
      else if (folder !== undefined) {
        stack.push({ ino: folder.stat.ino, from: { parent: top.ino, entry: folder } });
      } else {
        stack.pop();
        if (top.from !== null) await this.#removeEntries(path, top.from.parent, [top.from.entry]);
      }
    }
  }

  /** False when not all could be removed, because something changed meanwhile: look again. */
  async #removeEntries(path: string, parent: number, entries: readonly DirEntry[]): Promise<boolean> {
    const time = this.#time();
    const op = ({ name, stat }: DirEntry): Op => ({
      t: type(stat) === S_IFDIR ? "rmdir" : "unlink",
      parent,
      name,
      ino: stat.ino,
      time,
    });
    const changed = (error: unknown) =>
      hasCode(error, "not_found") || hasCode(error, "conflict") || hasCode(error, "directory_not_empty");
    try {
      await this.#apply("remove", path, entries.map(op));
      return true;
    } catch (error) {
      if (!changed(error)) throw error;
    }
    for (const entry of entries) {
      try {
        await this.#apply("remove", path, [op(entry)]);
      } catch (error) {
        if (!changed(error)) throw error;
      }
    }
    return false;
  }

  // --- links, attributes ---

  async symlink(target: string, path: string, options: CallOptions = {}): Promise<Stat> {
    throwIfCancelled(options.signal);
    if (target === "" || target.includes("\0")) {
      throw new FsError("invalid_input", `symlink ${path}: ${JSON.stringify(target)} is not a target`, { path });
    }
    if (target.length > PATH_MAX) {
      throw new FsError("name_too_long", `symlink ${path}: the target is longer than ${PATH_MAX} bytes`, { path });
    }
    const parent = await this.#parent("symlink", path);
    if (parent === null) throw failure("already_exists", "symlink", path);
    return await this.#create("symlink", path, parent, S_IFLNK | 0o777, target);
  }
  async readLink(path: string): Promise<string> {
    const found = await this.#resolve("readlink", path);
    try {
      return await this.#index.readLink(found.ino);
    } catch (error) {
      throw rename(error, "readlink", path);
    }
  }
  async hardLink(existing: string, path: string, options: CallOptions = {}): Promise<Stat> {
    throwIfCancelled(options.signal);
    const found = await this.#resolve("link", existing);
    if (type(found) === S_IFDIR) throw failure("permission_denied", "link", existing);
    const parent = await this.#parent("link", path);
    if (parent === null) throw failure("already_exists", "link", path);
    const op: Op = { t: "link", ino: found.ino, parent: parent.dir.ino, name: parent.name, time: this.#time() };
    return await this.#one(await this.#apply("link", path, [op]), found.ino);
  }

  async #attr(
    operation: string,
    path: string,
    fields: { mode?: number; uid?: number; gid?: number; atime?: Time; mtime?: Time },
  ): Promise<void> {
    const found = await this.#resolve(operation, path);
    await this.#apply(operation, path, [{ t: "attr", ino: found.ino, ...fields, time: this.#time() }]);
  }
  async chmod(path: string, mode: number): Promise<void> {
    if (!Number.isInteger(mode) || mode < 0 || mode > 0o7777) {
      throw new FsError("invalid_input", `chmod ${path}: ${mode} is not a mode of 0 to 0o7777`, { path });
    }
    const found = await this.#resolve("chmod", path);
    // As chmod(2) of a link itself on Linux: its mode means nothing.
    if (type(found) === S_IFLNK) throw failure("not_supported", "chmod", path);
    await this.#attr("chmod", path, { mode });
  }
  async chown(path: string, uid: number, gid: number): Promise<void> {
    const good = (id: number) => Number.isInteger(id) && id >= 0 && id < 2 ** 32;
    if (!good(uid) || !good(gid)) {
      throw new FsError("invalid_input", `chown ${path}: ${uid}:${gid} are not user and group numbers`, { path });
    }
    await this.#attr("chown", path, { uid, gid });
  }
  async utimes(path: string, atime: FileTime, mtime: FileTime): Promise<void> {
    for (const { sec, nsec } of [atime, mtime]) {
      if (!Number.isSafeInteger(sec) || !Number.isInteger(nsec) || nsec < 0 || nsec > 999_999_999) {
        throw new FsError("invalid_input", `utimes ${path}: ${sec} s ${nsec} ns is not a time`, { path });
      }
    }
    await this.#attr("utimes", path, { atime, mtime });
  }

  async getXattr(path: string, name: string): Promise<Uint8Array> {
    const found = await this.#resolve("getxattr", path);
    if (name === TIERS_XATTR && type(found) === S_IFREG) {
      const { tiers } = await this.#withTier(found);
      return new TextEncoder().encode(`0x${tiers.toString(16)}`);
    }
    const value = await this.#index.getXattr(found.ino, name);
    if (value === null) throw noAttribute("getxattr", path, name);
    return value;
  }
  async setXattr(
    path: string,
    name: string,
    value: Uint8Array,
    options: CallOptions & { readonly mode?: "create" | "replace" } = {},
  ): Promise<void> {
    throwIfCancelled(options.signal);
    this.#checkXattr("setxattr", path, name);
    const found = await this.#resolve("setxattr", path);
    const flags = options.mode === "create" ? XATTR_CREATE : options.mode === "replace" ? XATTR_REPLACE : 0;
    await this.#apply("setxattr", path, [{
      t: "setxattr",
      ino: found.ino,
      name,
      value: value.slice(),
      flags,
      time: this.#time(),
    }]);
  }
  async listXattr(path: string): Promise<string[]> {
    return await this.#index.listXattr((await this.#resolve("listxattr", path)).ino);
  }
  async removeXattr(path: string, name: string): Promise<void> {
    this.#checkXattr("removexattr", path, name);
    const found = await this.#resolve("removexattr", path);
    await this.#apply("removexattr", path, [{ t: "removexattr", ino: found.ino, name, time: this.#time() }]);
  }
  #checkXattr(operation: string, path: string, name: string): void {
    if (name === TIERS_XATTR) {
      throw new FsError(
        "permission_denied",
        `${operation} ${path}: ${name} says where the bytes are and can't be set`,
        {
          operation,
          path,
        },
      );
    }
    if (name === "" || name.includes("\0")) {
      throw new FsError("invalid_input", `${operation} ${path}: ${JSON.stringify(name)} is not an attribute name`, {
        operation,
        path,
      });
    }
  }

  // --- the whole ---

  async sync(path: string): Promise<void> {
    await this.#resolve("sync", path);
    await this.#index.settle();
  }
  async syncAll(): Promise<void> {
    await this.#index.settle();
  }
  async statFs(): Promise<StatFs> {
    const { nodes } = await this.#index.counts();
    return { ...await this.#o.space(), files: MAX_NODES, freeFiles: MAX_NODES - nodes };
  }
}

/** A bound for `df -i`: nothing else depends on it. */
const MAX_NODES = 2 ** 40;
/** The manifest of no bytes. */
const EMPTY = decodeManifest(encodeManifest([]).blob);
/** Somebody else changed what the operation was based on. */
export const AGAIN = Symbol("again");

function range(operation: string, path: string, options: ReadOptions): { offset: number; length: number } {
  const { offset = 0, length = Number.MAX_SAFE_INTEGER } = options;
  const good = (n: number) => Number.isSafeInteger(n) && n >= 0;
  if (good(offset) && good(length)) return { offset, length: Math.min(length, Number.MAX_SAFE_INTEGER - offset) };
  throw new FsError("invalid_input", `${operation} ${path}: offset and length must be whole numbers of 0 or more`, {
    operation,
    path,
  });
}

/** The error of a part, told in terms of the operation and the path the caller knows. */
function rename(error: unknown, operation: string, path: string): FsError {
  const cause = toFsError(error, { operation, path });
  if (cause.details.operation === "add content") return cause;
  const details = { ...cause.details, operation, path, cause };
  return new FsError(
    cause.code,
    cause.message.includes(path) ? cause.message : `${operation} ${path}: ${cause.message}`,
    details,
  );
}
