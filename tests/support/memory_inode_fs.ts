/** A complete InodeFs in memory: the reference that the kernel protocol is tested against. Answers everything at once. */
import { Errno, errorFromErrno, FsError } from "../../core/fs/error.ts";
import { checkName } from "../../core/fs/names.ts";
import {
  type AttrChange,
  type Awaitable,
  type Caller,
  type InodeFs,
  type KernelNotifier,
  type LockRequest,
  type OpenResult,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
  type WriteFlags,
} from "../../core/fs/inode_fs.ts";
import { type DirEntry, type ListedName, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Stat } from "../../core/fs/stat.ts";
import type { StatFs } from "../../core/fs/contract.ts";
import { splitTime } from "../../core/platform/clock.ts";

const O_EXCL = 0o200;
const O_TRUNC = 0o1000;
const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;
const FALLOC_KEEP_SIZE = 1;
const FALLOC_PUNCH_HOLE = 2;
const FALLOC_ZERO_RANGE = 16;
const SEEK_DATA = 3;
const BLOCK = 4096;
/** Largest file: what one buffer may hold without fuss. */
const MAX_SIZE = 2 ** 32;

interface Node {
  readonly stat: Stat;
  data: Uint8Array;
  children: Map<string, number> | null;
  /** Names in order, made when listed. */
  listing: string[] | null;
  target: string;
  readonly xattrs: Map<string, Uint8Array>;
  opens: number;
  /** The kernel may hold it: kept after the last unlink until forgotten. */
  known: boolean;
  locks: LockRequest[];
}

interface Waiter {
  readonly retry: () => boolean;
}

function fail(errno: number, message: string): never {
  throw errorFromErrno(errno, message);
}

export interface MemoryInodeFsOptions {
  /** Wall clock in milliseconds. @default Date.now */
  readonly now?: () => number;
  /** Files' bytes altogether. @default 1 GiB */
  readonly capacity?: number;
  readonly cacheDirs?: boolean;
  /** Owner of the root. @default 0, 0 */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

export class MemoryInodeFs implements InodeFs {
  notifier: KernelNotifier | null = null;
  readonly cacheDirs: boolean;
  readonly #nodes = new Map<number, Node>();
  readonly #handles = new Map<number, { ino: number; flags: number }>();
  readonly #waiters = new Set<Waiter>();
  readonly #now: () => number;
  readonly #capacity: number;
  #nextIno = 2;
  #nextFh = 1;
  #bytes = 0;
  destroyed = false;
  /** Calls of `forget`, `flush`, `release`: for tests. */
  readonly calls = { forget: 0, flush: 0, release: 0, fsync: 0, lookup: 0, readdir: 0, read: 0 };

  constructor(options: MemoryInodeFsOptions = {}) {
    this.#now = options.now ?? (() => Date.now());
    this.#capacity = options.capacity ?? 2 ** 30;
    this.cacheDirs = options.cacheDirs ?? true;
    const root = this.#node(1, S_IFDIR | 0o755, { pid: 0, ...(options.owner ?? { uid: 0, gid: 0 }) });
    root.children = new Map();
    root.stat.nlink = 2;
  }

  /** Nodes in memory, unlinked ones that are still held included. */
  get nodeCount(): number {
    return this.#nodes.size;
  }
  get openHandles(): number {
    return this.#handles.size;
  }

  attach(notifier: KernelNotifier): void {
    this.notifier = notifier;
  }

  #node(ino: number, mode: number, caller: Caller): Node {
    const { sec, nsec } = splitTime(this.#now());
    const node: Node = {
      stat: {
        ino,
        mode,
        nlink: 1,
        uid: caller.uid,
        gid: caller.gid,
        rdev: 0,
        size: 0,
        atimeSec: sec,
        atimeNsec: nsec,
        mtimeSec: sec,
        mtimeNsec: nsec,
        ctimeSec: sec,
        ctimeNsec: nsec,
        btimeSec: sec,
        btimeNsec: nsec,
        version: 1,
        content: null,
        tiers: 0,
      },
      data: new Uint8Array(0),
      children: null,
      listing: null,
      target: "",
      xattrs: new Map(),
      opens: 0,
      known: false,
      locks: [],
    };
    this.#nodes.set(ino, node);
    return node;
  }

  #get(ino: number): Node {
    return this.#nodes.get(ino) ?? fail(Errno.ESTALE, `node ${ino} is gone`);
  }

  #dir(ino: number): Node & { children: Map<string, number> } {
    const node = this.#get(ino);
    if (node.children === null) fail(Errno.ENOTDIR, `node ${ino} is not a directory`);
    return node as Node & { children: Map<string, number> };
  }

  #child(parent: number, name: string): Node {
    const ino = this.#dir(parent).children.get(name);
    return ino === undefined ? fail(Errno.ENOENT, `${name} does not exist`) : this.#get(ino);
  }

  #touch(node: Node, modified: boolean): void {
    const { sec, nsec } = splitTime(this.#now());
    node.stat.ctimeSec = sec;
    node.stat.ctimeNsec = nsec;
    if (modified) {
      node.stat.mtimeSec = sec;
      node.stat.mtimeNsec = nsec;
    }
    node.stat.version++;
  }

  #answer(node: Node): Stat {
    node.known = true;
    return node.stat;
  }

  #add(parent: number, name: string, node: Node): void {
    const dir = this.#dir(parent);
    dir.children.set(name, node.stat.ino);
    dir.listing = null;
    if (node.children !== null) dir.stat.nlink++;
    this.#touch(dir, true);
  }

  #take(parent: number, name: string, node: Node): void {
    const dir = this.#dir(parent);
    dir.children.delete(name);
    dir.listing = null;
    if (node.children !== null) dir.stat.nlink--;
    this.#touch(dir, true);
  }

  #dropLink(node: Node): void {
    node.stat.nlink = node.children !== null ? 0 : node.stat.nlink - 1;
    this.#touch(node, false);
    this.#reap(node);
  }

  #reap(node: Node): void {
    if (node.stat.nlink > 0 || node.opens > 0 || node.known) return;
    this.#bytes -= node.data.length;
    this.#nodes.delete(node.stat.ino);
  }

  #new(parent: number, name: string, mode: number, caller: Caller): Node {
    checkName(name);
    const dir = this.#dir(parent);
    if (dir.stat.nlink === 0) fail(Errno.ENOENT, "the directory was removed");
    if (dir.children.has(name)) fail(Errno.EEXIST, `${name} exists`);
    const node = this.#node(this.#nextIno++, mode, caller);
    if ((dir.stat.mode & 0o2000) !== 0) {
      node.stat.gid = dir.stat.gid;
      if ((mode & S_IFMT) === S_IFDIR) node.stat.mode |= 0o2000;
    }
    if ((mode & S_IFMT) === S_IFDIR) {
      node.children = new Map();
      node.stat.nlink = 2;
    }
    this.#add(parent, name, node);
    return node;
  }

  #resize(node: Node, size: number): void {
    if (size > MAX_SIZE) fail(Errno.EFBIG, "the file is too large");
    if (size > node.data.length) {
      const room = Math.max(size, Math.min(node.data.length * 2, node.data.length + (64 << 20)), 64);
      if (this.#bytes + room - node.data.length > this.#capacity) fail(Errno.ENOSPC, "the filesystem is full");
      const grown = new Uint8Array(room);
      grown.set(node.data.subarray(0, node.stat.size));
      this.#bytes += room - node.data.length;
      node.data = grown;
    } else if (size < node.stat.size) {
      node.data.fill(0, size, node.stat.size);
      if (size === 0) {
        this.#bytes -= node.data.length;
        node.data = new Uint8Array(0);
      }
    }
    node.stat.size = size;
  }

  lookup(parent: number, name: string, _caller: Caller): Stat | null {
    this.calls.lookup++;
    const ino = this.#dir(parent).children.get(name);
    return ino === undefined ? null : this.#answer(this.#get(ino));
  }

  forget(ino: number): void {
    this.calls.forget++;
    const node = this.#nodes.get(ino);
    if (node === undefined) return;
    node.known = false;
    this.#reap(node);
  }

  getattr(ino: number, _fh: number | undefined): Stat {
    return this.#get(ino).stat;
  }

  setattr(ino: number, change: AttrChange, _fh: number | undefined, _caller: Caller): Stat {
    const node = this.#get(ino);
    const { stat } = node;
    if (change.size !== undefined) {
      if (node.children !== null) fail(Errno.EISDIR, "a directory has no size");
      this.#resize(node, change.size);
      this.#touch(node, true);
    }
    if (change.mode !== undefined) stat.mode = (stat.mode & S_IFMT) | change.mode;
    if (change.killSuidgid === true) this.#killSuidgid(node);
    if (change.uid !== undefined) stat.uid = change.uid;
    if (change.gid !== undefined) stat.gid = change.gid;
    this.#touch(node, false);
    const now = splitTime(this.#now());
    if (change.atime !== undefined) {
      const time = change.atime === "now" ? now : change.atime;
      stat.atimeSec = time.sec;
      stat.atimeNsec = time.nsec;
    }
    if (change.mtime !== undefined) {
      const time = change.mtime === "now" ? now : change.mtime;
      stat.mtimeSec = time.sec;
      stat.mtimeNsec = time.nsec;
    }
    return stat;
  }

  #killSuidgid(node: Node): void {
    const { stat } = node;
    if (node.children !== null) return;
    stat.mode &= ~0o4000;
    if ((stat.mode & 0o010) !== 0) stat.mode &= ~0o2000;
  }

  readlink(ino: number): string {
    return this.#get(ino).target;
  }

  symlink(parent: number, name: string, target: string, caller: Caller): Stat {
    const node = this.#new(parent, name, S_IFLNK | 0o777, caller);
    node.target = target;
    node.stat.size = target.length;
    return this.#answer(node);
  }

  mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Stat {
    const node = this.#new(parent, name, mode, caller);
    node.stat.rdev = rdev;
    return this.#answer(node);
  }

  mkdir(parent: number, name: string, mode: number, caller: Caller): Stat {
    return this.#answer(this.#new(parent, name, S_IFDIR | mode, caller));
  }

  unlink(parent: number, name: string, _caller: Caller): void {
    const node = this.#child(parent, name);
    if (node.children !== null) fail(Errno.EISDIR, `${name} is a directory`);
    this.#take(parent, name, node);
    this.#dropLink(node);
  }

  rmdir(parent: number, name: string, _caller: Caller): void {
    const node = this.#child(parent, name);
    if (node.children === null) fail(Errno.ENOTDIR, `${name} is not a directory`);
    if (node.children.size > 0) fail(Errno.ENOTEMPTY, `${name} is not empty`);
    this.#take(parent, name, node);
    this.#dropLink(node);
  }

  rename(
    parent: number,
    name: string,
    newParent: number,
    newName: string,
    flags: number,
    _caller: Caller,
  ): void {
    checkName(newName);
    if ((flags & RENAME_WHITEOUT) !== 0) fail(Errno.EINVAL, "no whiteouts here");
    const node = this.#child(parent, name);
    const targetIno = this.#dir(newParent).children.get(newName);
    const target = targetIno === undefined ? undefined : this.#get(targetIno);
    if ((flags & RENAME_EXCHANGE) !== 0) {
      if (target === undefined) fail(Errno.ENOENT, `${newName} does not exist`);
      this.#take(parent, name, node);
      this.#take(newParent, newName, target);
      this.#add(newParent, newName, node);
      this.#add(parent, name, target);
      return;
    }
    if (target === node) return;
    if (target !== undefined) {
      if ((flags & RENAME_NOREPLACE) !== 0) fail(Errno.EEXIST, `${newName} exists`);
      if (target.children !== null) {
        if (node.children === null) fail(Errno.EISDIR, `${newName} is a directory`);
        if (target.children.size > 0) fail(Errno.ENOTEMPTY, `${newName} is not empty`);
      } else if (node.children !== null) fail(Errno.ENOTDIR, `${newName} is not a directory`);
      this.#take(newParent, newName, target);
      this.#dropLink(target);
    }
    this.#take(parent, name, node);
    this.#add(newParent, newName, node);
    this.#touch(node, false);
  }

  link(ino: number, newParent: number, newName: string, _caller: Caller): Stat {
    const node = this.#get(ino);
    if (node.children !== null) fail(Errno.EPERM, "a directory can't have two names");
    if (this.#dir(newParent).children.has(newName)) fail(Errno.EEXIST, `${newName} exists`);
    node.stat.nlink++;
    this.#add(newParent, newName, node);
    this.#touch(node, false);
    return this.#answer(node);
  }

  #openNode(node: Node, flags: number): OpenResult {
    node.opens++;
    const fh = this.#nextFh++;
    this.#handles.set(fh, { ino: node.stat.ino, flags });
    return { fh, keepCache: true };
  }

  open(ino: number, flags: number, caller: Caller, killSuidgid: boolean): OpenResult {
    const node = this.#get(ino);
    if (node.children !== null) fail(Errno.EISDIR, "a directory can't be opened as a file");
    if ((flags & O_TRUNC) !== 0) {
      if (killSuidgid) this.setattr(ino, { killSuidgid }, undefined, caller);
      this.#resize(node, 0);
      this.#touch(node, true);
    }
    return this.#openNode(node, flags);
  }

  create(
    parent: number,
    name: string,
    mode: number,
    flags: number,
    caller: Caller,
  ): { stat: Stat; open: OpenResult } {
    const existing = this.#dir(parent).children.get(name);
    if (existing !== undefined && (flags & O_EXCL) === 0) {
      return { open: this.open(existing, flags, caller, false), stat: this.#answer(this.#get(existing)) };
    }
    const node = this.#new(parent, name, S_IFREG | mode, caller);
    return { stat: this.#answer(node), open: this.#openNode(node, flags) };
  }

  tmpfile(parent: number, mode: number, flags: number, caller: Caller): { stat: Stat; open: OpenResult } {
    this.#dir(parent);
    const node = this.#node(this.#nextIno++, S_IFREG | mode, caller);
    node.stat.nlink = 0;
    return { stat: this.#answer(node), open: this.#openNode(node, flags) };
  }

  read(ino: number, _fh: number, offset: number, into: Uint8Array): number | Promise<Uint8Array> {
    this.calls.read++;
    const node = this.#get(ino);
    const end = Math.min(offset + into.length, node.stat.size);
    if (offset >= end) return 0;
    into.set(node.data.subarray(offset, end));
    return end - offset;
  }

  write(ino: number, _fh: number, offset: number, data: Uint8Array, flags: WriteFlags): Awaitable<number> {
    const node = this.#get(ino);
    const at = flags.append === true ? node.stat.size : offset;
    if (at + data.length > node.stat.size) this.#resize(node, at + data.length);
    node.data.set(data, at);
    if (flags.killSuidgid) this.#killSuidgid(node);
    this.#touch(node, true);
    return data.length;
  }

  flush(ino: number, _fh: number, lockOwner: bigint): void {
    this.calls.flush++;
    this.#unlockOwner(this.#get(ino), lockOwner, false);
  }

  fsync(_ino: number, _fh: number, _dataOnly: boolean): void {
    this.calls.fsync++;
  }

  release(ino: number, fh: number, lockOwner: bigint, flock: boolean): void {
    this.calls.release++;
    if (!this.#handles.delete(fh)) throw new FsError("internal", `handle ${fh} was released twice`);
    const node = this.#get(ino);
    if (flock) this.#unlockOwner(node, lockOwner, true);
    node.opens--;
    this.#reap(node);
  }

  readdir(ino: number, after: string | null, limit: number): DirEntry[] {
    this.calls.readdir++;
    const dir = this.#dir(ino);
    dir.listing ??= [...dir.children.keys()].sort();
    const names = dir.listing;
    let low = 0;
    let high = names.length;
    while (after !== null && low < high) {
      const middle = (low + high) >>> 1;
      if ((names[middle] ?? "") <= after) low = middle + 1;
      else high = middle;
    }
    const page: DirEntry[] = [];
    for (let i = low; i < names.length && page.length < limit; i++) {
      const name = names[i] ?? "";
      const node = this.#get(dir.children.get(name) ?? 0);
      // READDIRPLUS gives the kernel a reference; whether this is one can't be told from here.
      page.push({ name, stat: { ...this.#answer(node) } });
    }
    return page;
  }

  readnames(ino: number, after: string | null, limit: number): ListedName[] {
    return this.readdir(ino, after, limit).map(({ name, stat: { ino, mode } }) => ({ name, stat: { ino, mode } }));
  }

  fsyncdir(_ino: number): void {
    this.calls.fsync++;
  }

  statfs(): StatFs {
    return {
      total: this.#capacity,
      free: this.#capacity - this.#bytes,
      files: this.#nodes.size + 1e6,
      freeFiles: 1e6,
    };
  }

  getxattr(ino: number, name: string): Uint8Array {
    return this.#get(ino).xattrs.get(name) ?? fail(Errno.ENODATA, `no attribute ${name}`);
  }

  setxattr(ino: number, name: string, value: Uint8Array, flags: number): void {
    const node = this.#get(ino);
    if (name.startsWith("system.")) fail(Errno.EOPNOTSUPP, `${name}: no such namespace here`);
    const exists = node.xattrs.has(name);
    if (flags === XATTR_CREATE && exists) fail(Errno.EEXIST, `attribute ${name} exists`);
    if (flags === XATTR_REPLACE && !exists) fail(Errno.ENODATA, `no attribute ${name}`);
    node.xattrs.set(name, value);
    this.#touch(node, false);
  }

  listxattr(ino: number): string[] {
    return [...this.#get(ino).xattrs.keys()];
  }

  removexattr(ino: number, name: string): void {
    const node = this.#get(ino);
    if (!node.xattrs.delete(name)) fail(Errno.ENODATA, `no attribute ${name}`);
    this.#touch(node, false);
  }

  fallocate(ino: number, _fh: number, mode: number, offset: number, length: number): void {
    const node = this.#get(ino);
    const end = offset + length;
    if ((mode & ~(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE)) !== 0) {
      fail(Errno.EOPNOTSUPP, `fallocate mode ${mode}`);
    }
    if ((mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE)) !== 0) {
      node.data.fill(0, Math.min(offset, node.stat.size), Math.min(end, node.stat.size));
    }
    if ((mode & FALLOC_KEEP_SIZE) === 0 && end > node.stat.size) this.#resize(node, end);
    this.#touch(node, true);
  }

  lseek(ino: number, _fh: number, offset: number, whence: number): number {
    const { data, stat } = this.#get(ino);
    if (offset < 0 || offset >= stat.size) fail(Errno.ENXIO, "beyond the end of the file");
    for (let at = offset; at < stat.size; at = (Math.floor(at / BLOCK) + 1) * BLOCK) {
      const start = Math.floor(at / BLOCK) * BLOCK;
      const isData = data.subarray(start, Math.min(start + BLOCK, stat.size)).some((byte) => byte !== 0);
      if (isData === (whence === SEEK_DATA)) return at;
    }
    return whence === SEEK_DATA ? fail(Errno.ENXIO, "no data up to the end") : stat.size;
  }

  copyFileRange(
    inoIn: number,
    _fhIn: number,
    offsetIn: number,
    inoOut: number,
    fhOut: number,
    offsetOut: number,
    length: number,
  ): Awaitable<number> {
    const source = this.#get(inoIn);
    const end = Math.min(offsetIn + length, source.stat.size);
    if (offsetIn >= end) return 0;
    return this.write(inoOut, fhOut, offsetOut, source.data.slice(offsetIn, end), {
      killSuidgid: true,
      fromCache: false,
    });
  }

  // --- locks: fcntl(2) ranges by owner, flock(2) on the whole file ---

  #conflict(node: Node, wanted: LockRequest): LockRequest | undefined {
    return node.locks.find((held) =>
      held.flock === wanted.flock && held.owner !== wanted.owner && held.start <= wanted.end &&
      held.end >= wanted.start && (held.type === "write" || wanted.type === "write")
    );
  }

  #carve(node: Node, wanted: LockRequest): void {
    node.locks = node.locks.flatMap((held) => {
      if (held.flock !== wanted.flock || held.owner !== wanted.owner) return [held];
      if (held.end < wanted.start || held.start > wanted.end) return [held];
      const rest: LockRequest[] = [];
      if (held.start < wanted.start) rest.push({ ...held, end: wanted.start - 1 });
      if (held.end > wanted.end) rest.push({ ...held, start: wanted.end + 1 });
      return rest;
    });
  }

  #unlockOwner(node: Node, owner: bigint, flock: boolean): void {
    const before = node.locks.length;
    node.locks = node.locks.filter((held) => held.owner !== owner || held.flock !== flock);
    if (node.locks.length !== before) this.#wake();
  }

  #wake(): void {
    for (const waiter of this.#waiters) if (waiter.retry()) this.#waiters.delete(waiter);
  }

  getlk(ino: number, _fh: number, lock: LockRequest): LockRequest | null {
    return this.#conflict(this.#get(ino), lock) ?? null;
  }

  setlk(ino: number, _fh: number, lock: LockRequest, wait: boolean, signal: AbortSignal): Awaitable<void> {
    const node = this.#get(ino);
    const attempt = (): boolean => {
      if (lock.type !== "unlock" && this.#conflict(node, lock) !== undefined) return false;
      this.#carve(node, lock);
      if (lock.type !== "unlock") node.locks.push(lock);
      return true;
    };
    if (attempt()) {
      if (lock.type === "unlock") this.#wake();
      return;
    }
    if (!wait) fail(Errno.EAGAIN, "the range is locked");
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        retry: () => {
          if (!attempt()) return false;
          resolve();
          return true;
        },
      };
      this.#waiters.add(waiter);
      signal.addEventListener("abort", () => {
        this.#waiters.delete(waiter);
        reject(signal.reason);
      }, { once: true });
    });
  }

  syncfs(): void {}

  destroy(): void {
    this.destroyed = true;
  }
}
