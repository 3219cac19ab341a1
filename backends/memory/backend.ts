/** A whole filesystem in memory, with everything the contract has but watching: for tests, caches and as the model of the rest. */
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
import { basename, dirname, isWithin, requireNormal, split } from "../../core/fs/path.ts";
import { type DirEntry, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Stat } from "../../core/fs/stat.ts";
import { type Clock, splitTime, systemClock } from "../../core/platform/clock.ts";

export interface MemoryBackendOptions {
  /** Bytes of all files together; more is `no_space`. @default unbounded */
  readonly capacity?: number;
  readonly clock?: Clock;
}

interface Node {
  readonly ino: number;
  /** Type and permission bits. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  atime: FileTime;
  mtime: FileTime;
  ctime: FileTime;
  readonly btime: FileTime;
  version: number;
  /** Of a file: its bytes are bytes[0, size). What a reader was given is never written again. */
  bytes: Uint8Array;
  size: number;
  /** Of a directory. */
  readonly children: Map<string, Node>;
  /** Of a symbolic link. */
  readonly target: string;
  readonly xattrs: Map<string, Uint8Array>;
}

const STREAM_PIECE = 65536;
const NO_BYTES = new Uint8Array(0);

const TRAITS: BackendTraits = {
  backend: "memory",
  caseSensitive: true,
  bytesInNames: true,
  emptyDirs: true,
  atomicRename: true,
  permissions: true,
  mtimePrecisionNs: 1,
  notes: ["the content is gone with the process, so there is nothing to sync"],
};

const typeOf = (node: Node) => node.mode & S_IFMT;
const isDir = (node: Node) => typeOf(node) === S_IFDIR;

export class MemoryBackend implements Backend, FsFull, FsXattr {
  readonly traits = TRAITS;
  readonly #capacity: number;
  readonly #clock: Clock;
  readonly #root: Node;
  #nextIno = 1;
  #version = 0;
  #used = 0;
  #nodes = 0;

  constructor(options: MemoryBackendOptions = {}) {
    this.#capacity = options.capacity ?? Number.MAX_SAFE_INTEGER;
    this.#clock = options.clock ?? systemClock;
    this.#root = this.#make(S_IFDIR | 0o755);
    this.#root.nlink = 2;
  }

  #make(mode: number, target = ""): Node {
    const now = splitTime(this.#clock.now());
    this.#nodes++;
    return {
      ino: this.#nextIno++,
      mode,
      nlink: isDirMode(mode) ? 2 : 1,
      uid: 0,
      gid: 0,
      atime: now,
      mtime: now,
      ctime: now,
      btime: now,
      version: ++this.#version,
      bytes: NO_BYTES,
      size: target === "" ? 0 : new TextEncoder().encode(target).length,
      children: new Map(),
      target,
      xattrs: new Map(),
    };
  }

  #touch(node: Node, content: boolean): void {
    const now = splitTime(this.#clock.now());
    node.ctime = now;
    if (content) node.mtime = now;
    node.version = ++this.#version;
  }

  /** Runs the synchronous body; what it throws, and an aborted signal, rejects. */
  #call<T>(operation: string, path: string, options: CallOptions | undefined, body: () => T): Promise<T> {
    try {
      if (options?.signal?.aborted) throw options.signal.reason;
      requireNormal(path);
      return Promise.resolve(body());
    } catch (error) {
      return Promise.reject(toFsError(error, { operation, path }));
    }
  }

  #find(operation: string, path: string): Node {
    let at = this.#root;
    for (const name of split(path)) {
      if (!isDir(at)) throw failure("not_a_directory", operation, path);
      const next = at.children.get(name);
      if (next === undefined) throw failure("not_found", operation, path);
      at = next;
    }
    return at;
  }
  #parent(operation: string, path: string): { parent: Node; name: string } {
    if (path === "/") throw new FsError("invalid_input", `${operation}: not on the root itself`, { operation, path });
    const parent = this.#find(operation, dirname(path));
    if (!isDir(parent)) throw failure("not_a_directory", operation, path);
    return { parent, name: basename(path) };
  }
  /** An existing regular file. */
  #file(operation: string, path: string): Node {
    const node = this.#find(operation, path);
    this.#requireFile(node, operation, path);
    return node;
  }
  #requireFile(node: Node, operation: string, path: string): void {
    if (isDir(node)) throw failure("is_a_directory", operation, path);
    if (typeOf(node) === S_IFLNK) throw failure("too_many_links", operation, path);
  }

  #account(path: string, from: number, to: number): void {
    if (to > from && this.#used - from + to > this.#capacity) {
      throw failure("no_space", "write", path, { limit: this.#capacity, usage: this.#used, requested: to - from });
    }
    this.#used += to - from;
  }
  #setContent(node: Node, path: string, bytes: Uint8Array, size: number): void {
    this.#account(path, node.size, size);
    node.bytes = bytes;
    node.size = size;
    this.#touch(node, true);
  }
  #link(parent: Node, name: string, node: Node): void {
    parent.children.set(name, node);
    if (isDir(node)) parent.nlink++;
    this.#touch(parent, true);
  }
  #unlink(parent: Node, name: string, node: Node): void {
    parent.children.delete(name);
    if (isDir(node)) {
      parent.nlink--;
      node.nlink = 0;
    } else {
      node.nlink--;
      this.#touch(node, false);
    }
    if (node.nlink === 0) {
      this.#nodes--;
      if (typeOf(node) === S_IFREG) this.#used -= node.size;
    }
    this.#touch(parent, true);
  }

  #stat(node: Node): Stat {
    return {
      ino: node.ino,
      mode: node.mode,
      nlink: node.nlink,
      uid: node.uid,
      gid: node.gid,
      rdev: 0,
      size: node.size,
      atimeSec: node.atime.sec,
      atimeNsec: node.atime.nsec,
      mtimeSec: node.mtime.sec,
      mtimeNsec: node.mtime.nsec,
      ctimeSec: node.ctime.sec,
      ctimeNsec: node.ctime.nsec,
      btimeSec: node.btime.sec,
      btimeNsec: node.btime.nsec,
      version: node.version,
      content: null,
      tiers: 0,
    };
  }

  read(path: string, options: ReadOptions = {}): Promise<Uint8Array> {
    return this.#call("read", path, options, () => {
      const node = this.#file("read", path);
      const offset = options.offset ?? 0;
      return node.bytes.slice(Math.min(offset, node.size), Math.min(node.size, offset + (options.length ?? Infinity)));
    });
  }

  openRead(path: string, options: ReadOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return this.#call("read", path, options, () => {
      const node = this.#file("read", path);
      const { bytes, size } = node;
      let at = options.offset ?? 0;
      const end = Math.min(size, at + (options.length ?? Infinity));
      return new ReadableStream<Uint8Array>({
        pull(controller) {
          if (options.signal?.aborted) throw toFsError(options.signal.reason, { operation: "read", path });
          if (at >= end) {
            controller.close();
            return;
          }
          controller.enqueue(bytes.slice(at, Math.min(end, at + STREAM_PIECE)));
          at += STREAM_PIECE;
        },
      }, { highWaterMark: 0 });
    });
  }

  exists(path: string, options: CallOptions = {}): Promise<boolean> {
    return this.#call("exists", path, options, () => {
      try {
        this.#find("exists", path);
        return true;
      } catch (error) {
        if (hasCode(error, "not_found") || hasCode(error, "not_a_directory")) return false;
        throw error;
      }
    });
  }
  stat(path: string, options: CallOptions = {}): Promise<Stat> {
    return this.#call("stat", path, options, () => this.#stat(this.#find("stat", path)));
  }

  /** The existing file, or null, after the conditions of the write are met. */
  #target(path: string, options: WriteOptions): { parent: Node; name: string; node: Node | null } {
    if (path === "/") throw failure("is_a_directory", "write", path);
    const { parent, name } = this.#parent("write", path);
    const node = parent.children.get(name) ?? null;
    if (node !== null && (options.exclusive || options.ifVersion === 0)) throw failure("already_exists", "write", path);
    if (node !== null) this.#requireFile(node, "write", path);
    if (options.ifVersion !== undefined && options.ifVersion !== 0 && options.ifVersion !== node?.version) {
      throw failure("conflict", "write", path);
    }
    return { parent, name, node };
  }
  #writeWhole(path: string, bytes: Uint8Array, options: WriteOptions): Stat {
    const { parent, name, node } = this.#target(path, options);
    if (node !== null) {
      this.#setContent(node, path, bytes, bytes.length);
      return this.#stat(node);
    }
    this.#account(path, 0, bytes.length);
    const made = this.#make(S_IFREG | ((options.mode ?? 0o644) & 0o7777));
    made.bytes = bytes;
    made.size = bytes.length;
    this.#link(parent, name, made);
    return this.#stat(made);
  }

  write(path: string, data: Uint8Array, options: WriteOptions = {}): Promise<Stat> {
    return this.#call("write", path, options, () => this.#writeWhole(path, data.slice(), options));
  }

  openWrite(path: string, options: WriteOptions = {}): Promise<FileWriter> {
    return this.#call("write", path, options, () => {
      this.#target(path, options);
      let buffer = new Uint8Array(1024);
      let size = 0;
      return makeFileWriter(path, {
        write: (chunk) => {
          if (size + chunk.length > buffer.length) {
            const grown = new Uint8Array(Math.max(buffer.length * 2, size + chunk.length));
            grown.set(buffer.subarray(0, size));
            buffer = grown;
          }
          buffer.set(chunk, size);
          size += chunk.length;
          return Promise.resolve();
        },
        commit: () =>
          this.#call("write", path, undefined, () => this.#writeWhole(path, buffer.slice(0, size), options)),
        discard: () => {
          buffer = NO_BYTES.slice();
          return Promise.resolve();
        },
      }, options.signal);
    });
  }

  append(path: string, data: Uint8Array, options: CallOptions = {}): Promise<Stat> {
    return this.#call("append", path, options, () => {
      const { node } = this.#target(path, {});
      if (node === null) return this.#writeWhole(path, data.slice(), {});
      const size = node.size + data.length;
      let bytes = node.bytes;
      if (size > bytes.length) {
        bytes = new Uint8Array(Math.max(size, bytes.length * 2));
        bytes.set(node.bytes.subarray(0, node.size));
      }
      this.#account(path, node.size, size);
      bytes.set(data, node.size);
      node.bytes = bytes;
      node.size = size;
      this.#touch(node, true);
      return this.#stat(node);
    });
  }

  truncate(path: string, size: number, options: CallOptions = {}): Promise<Stat> {
    return this.#call("truncate", path, options, () => {
      if (!Number.isSafeInteger(size) || size < 0) {
        throw new FsError("invalid_input", `truncate ${path}: ${size} is not a size`, { operation: "truncate", path });
      }
      const node = this.#file("truncate", path);
      if (this.#used - node.size + size > this.#capacity) {
        throw failure("no_space", "truncate", path, { limit: this.#capacity, usage: this.#used, requested: size });
      }
      const bytes = new Uint8Array(size);
      bytes.set(node.bytes.subarray(0, Math.min(size, node.size)));
      this.#setContent(node, path, bytes, size);
      return this.#stat(node);
    });
  }

  copy(from: string, to: string, options: CallOptions = {}): Promise<Stat> {
    return this.#call("copy", from, options, () => {
      requireNormal(to);
      const node = this.#file("copy", from);
      const { node: existing } = this.#target(to, {});
      if (existing === node) return this.#stat(node);
      return this.#writeWhole(to, node.bytes.slice(0, node.size), { mode: node.mode & 0o7777 });
    });
  }

  rename(from: string, to: string, options: CallOptions = {}): Promise<void> {
    return this.#call("rename", from, options, () => {
      requireNormal(to);
      const source = this.#parent("rename", from);
      const node = source.parent.children.get(source.name);
      if (node === undefined) throw failure("not_found", "rename", from);
      const target = this.#parent("rename", to);
      const existing = target.parent.children.get(target.name);
      if (existing === node) return;
      if (from !== to && isDir(node) && isWithin(to, from)) {
        throw new FsError("invalid_input", `rename ${from}: a directory can't be moved into itself (${to})`, {
          operation: "rename",
          path: from,
        });
      }
      if (existing !== undefined) {
        if (isDir(existing)) {
          if (!isDir(node)) throw failure("is_a_directory", "rename", to);
          if (existing.children.size > 0) throw failure("directory_not_empty", "rename", to);
        } else if (isDir(node)) throw failure("not_a_directory", "rename", to);
        this.#unlink(target.parent, target.name, existing);
      }
      source.parent.children.delete(source.name);
      if (isDir(node)) source.parent.nlink--;
      this.#touch(source.parent, true);
      this.#link(target.parent, target.name, node);
      this.#touch(node, false);
    });
  }

  removeFile(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("remove", path, options, () => {
      if (path === "/") throw failure("is_a_directory", "remove", path);
      const { parent, name } = this.#parent("remove", path);
      const node = parent.children.get(name);
      if (node === undefined) throw failure("not_found", "remove", path);
      if (isDir(node)) throw failure("is_a_directory", "remove", path);
      this.#unlink(parent, name, node);
    });
  }

  async *readDir(path: string, options: ReadDirOptions = {}): AsyncIterable<DirEntry> {
    const node = await this.#call("list", path, options, () => {
      const found = this.#find("list", path);
      if (!isDir(found)) throw failure("not_a_directory", "list", path);
      return found;
    });
    const { after, limit = Infinity } = options;
    const names = [...node.children.keys()].filter((name) => after === undefined || name > after).sort();
    let given = 0;
    for (const name of names) {
      if (given >= limit) return;
      if (options.signal?.aborted) throw toFsError(options.signal.reason, { operation: "list", path });
      const entry = node.children.get(name);
      if (entry === undefined) continue;
      given++;
      yield { name, stat: this.#stat(entry) };
    }
  }

  createDir(path: string, options: CallOptions & { readonly mode?: number } = {}): Promise<Stat> {
    return this.#call("mkdir", path, options, () => {
      if (path === "/") throw failure("already_exists", "mkdir", path);
      const { parent, name } = this.#parent("mkdir", path);
      if (parent.children.has(name)) throw failure("already_exists", "mkdir", path);
      const node = this.#make(S_IFDIR | ((options.mode ?? 0o755) & 0o7777));
      this.#link(parent, name, node);
      return this.#stat(node);
    });
  }
  createDirAll(path: string, options: CallOptions & { readonly mode?: number } = {}): Promise<void> {
    return this.#call("mkdir", path, options, () => {
      let at = this.#root;
      for (const name of split(path)) {
        let next = at.children.get(name);
        if (next === undefined) {
          next = this.#make(S_IFDIR | ((options.mode ?? 0o755) & 0o7777));
          this.#link(at, name, next);
        }
        if (!isDir(next)) throw failure("already_exists", "mkdir", path);
        at = next;
      }
    });
  }
  removeDir(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("rmdir", path, options, () => {
      const { parent, name } = this.#parent("rmdir", path);
      const node = parent.children.get(name);
      if (node === undefined) throw failure("not_found", "rmdir", path);
      if (!isDir(node)) throw failure("not_a_directory", "rmdir", path);
      if (node.children.size > 0) throw failure("directory_not_empty", "rmdir", path);
      this.#unlink(parent, name, node);
    });
  }
  removeDirAll(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("remove", path, options, () => {
      if (path === "/") {
        for (const [name, node] of [...this.#root.children]) this.#removeTree(this.#root, name, node);
        return;
      }
      try {
        const { parent, name } = this.#parent("remove", path);
        const node = parent.children.get(name);
        if (node !== undefined) this.#removeTree(parent, name, node);
      } catch (error) {
        if (!hasCode(error, "not_found") && !hasCode(error, "not_a_directory")) throw error;
      }
    });
  }
  #removeTree(parent: Node, name: string, node: Node): void {
    // Without recursion: a tree may be thousands of levels deep.
    const pending = [{ parent, name, node, entered: false }];
    while (true) {
      const top = pending.at(-1);
      if (top === undefined) return;
      if (!top.entered) {
        top.entered = true;
        for (const [name, node] of top.node.children) pending.push({ parent: top.node, name, node, entered: false });
        continue;
      }
      pending.pop();
      this.#unlink(top.parent, top.name, top.node);
    }
  }

  symlink(target: string, path: string, options: CallOptions = {}): Promise<Stat> {
    return this.#call("symlink", path, options, () => {
      if (target === "") throw new FsError("not_found", `symlink ${path}: the target is empty`, { path });
      if (path === "/") throw failure("already_exists", "symlink", path);
      const { parent, name } = this.#parent("symlink", path);
      if (parent.children.has(name)) throw failure("already_exists", "symlink", path);
      const node = this.#make(S_IFLNK | 0o777, target);
      this.#link(parent, name, node);
      return this.#stat(node);
    });
  }
  readLink(path: string, options: CallOptions = {}): Promise<string> {
    return this.#call("readlink", path, options, () => {
      const node = this.#find("readlink", path);
      if (typeOf(node) !== S_IFLNK) {
        throw new FsError("invalid_input", `readlink ${path}: not a symbolic link`, { operation: "readlink", path });
      }
      return node.target;
    });
  }
  hardLink(existing: string, path: string, options: CallOptions = {}): Promise<Stat> {
    return this.#call("link", path, options, () => {
      requireNormal(existing);
      const node = this.#find("link", existing);
      if (path === "/") throw failure("already_exists", "link", path);
      const { parent, name } = this.#parent("link", path);
      if (parent.children.has(name)) throw failure("already_exists", "link", path);
      if (isDir(node)) throw failure("permission_denied", "link", existing);
      this.#link(parent, name, node);
      node.nlink++;
      this.#touch(node, false);
      return this.#stat(node);
    });
  }

  chmod(path: string, mode: number, options: CallOptions = {}): Promise<void> {
    return this.#call("chmod", path, options, () => {
      const node = this.#find("chmod", path);
      if (typeOf(node) === S_IFLNK) throw failure("not_supported", "chmod", path);
      node.mode = typeOf(node) | (mode & 0o7777);
      this.#touch(node, false);
    });
  }
  chown(path: string, uid: number, gid: number, options: CallOptions = {}): Promise<void> {
    return this.#call("chown", path, options, () => {
      const node = this.#find("chown", path);
      node.uid = uid;
      node.gid = gid;
      this.#touch(node, false);
    });
  }
  utimes(path: string, atime: FileTime, mtime: FileTime, options: CallOptions = {}): Promise<void> {
    return this.#call("utimes", path, options, () => {
      const node = this.#find("utimes", path);
      this.#touch(node, false);
      node.atime = { sec: atime.sec, nsec: atime.nsec };
      node.mtime = { sec: mtime.sec, nsec: mtime.nsec };
    });
  }

  getXattr(path: string, name: string, options: CallOptions = {}): Promise<Uint8Array> {
    return this.#call("getxattr", path, options, () => {
      const value = this.#find("getxattr", path).xattrs.get(name);
      if (value === undefined) throw noAttribute("getxattr", path, name);
      return value.slice();
    });
  }
  setXattr(
    path: string,
    name: string,
    value: Uint8Array,
    options: CallOptions & { readonly mode?: "create" | "replace" } = {},
  ): Promise<void> {
    return this.#call("setxattr", path, options, () => {
      const node = this.#find("setxattr", path);
      if (options.mode === "create" && node.xattrs.has(name)) throw failure("already_exists", "setxattr", path);
      if (options.mode === "replace" && !node.xattrs.has(name)) throw noAttribute("setxattr", path, name);
      if (value.length > 65536) throw failure("invalid_input", "setxattr", path, { errno: Errno.ERANGE });
      node.xattrs.set(name, value.slice());
      this.#touch(node, false);
    });
  }
  listXattr(path: string, options: CallOptions = {}): Promise<string[]> {
    return this.#call("listxattr", path, options, () => [...this.#find("listxattr", path).xattrs.keys()]);
  }
  removeXattr(path: string, name: string, options: CallOptions = {}): Promise<void> {
    return this.#call("removexattr", path, options, () => {
      const node = this.#find("removexattr", path);
      if (!node.xattrs.delete(name)) throw noAttribute("removexattr", path, name);
      this.#touch(node, false);
    });
  }

  sync(path: string, options: CallOptions = {}): Promise<void> {
    return this.#call("sync", path, options, () => void this.#find("sync", path));
  }
  syncAll(options: CallOptions = {}): Promise<void> {
    return this.#call("sync", "/", options, () => {});
  }
  statFs(options: CallOptions = {}): Promise<StatFs> {
    return this.#call("statfs", "/", options, () => ({
      total: this.#capacity,
      free: this.#capacity - this.#used,
      files: this.#nodes,
      freeFiles: Number.MAX_SAFE_INTEGER - this.#nodes,
    }));
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

function isDirMode(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

/** An empty filesystem. */
export function openMemoryBackend(options: MemoryBackendOptions = {}): MemoryBackend {
  return new MemoryBackend(options);
}
