/**
 * InodeFs: a filesystem spoken to by inode number, as a kernel does. `fuse/` serves one, `core/offline` implements one.
 * Methods may answer at once (a plain value) or later (a promise): what is cached must be answered at once.
 * Failures are FsError, thrown or rejected; `errno` of it is what the kernel gets.
 */
import type { ListedEntry, ListedName, Stat } from "./stat.ts";
import type { StatFs } from "./contract.ts";

export type Awaitable<T> = T | Promise<T>;

/** Who asks: as the kernel's request header says. */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
}

/** Fields to change; a missing one stays. `now` for a time means the implementation's clock. */
export interface AttrChange {
  /** Permission bits 0..0o7777. */
  mode?: number;
  uid?: number;
  gid?: number;
  size?: number;
  atime?: { sec: number; nsec: number } | "now";
  mtime?: { sec: number; nsec: number } | "now";
  ctime?: { sec: number; nsec: number };
  /** Clear setuid, and setgid where group-executable (FATTR_KILL_SUIDGID). */
  killSuidgid?: boolean;
}

export interface OpenResult {
  /** File handle, a positive integer below 2^53, unique while open. */
  fh: number;
  /** The kernel may keep its page cache from earlier opens: the content did not change since. */
  keepCache: boolean;
  /** With `keepCache` false: the content is the same, only the next read is to be heard of. */
  onlyToHear?: boolean;
  /** Reads and writes bypass the page cache. */
  directIo?: boolean;
  /**
   * A plain file with all of the node's bytes: the kernel may read it by itself. Only on mounts that are never written:
   * who has the node open goes on reading these bytes, whatever others make of it.
   */
  backing?: { readonly fd: number; readonly key: string };
  /** Nothing depends on hearing of each close: `flush` is not called. For descriptors that only read. */
  noFlush?: boolean;
}

/** RENAME flags (linux/fs.h). */
export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;
/** A character device 0:0 takes the place of what was renamed; a filesystem that can't says EINVAL. */
export const RENAME_WHITEOUT = 4;

/** Flags of `write`. */
export interface WriteFlags {
  readonly killSuidgid: boolean;
  /** The write comes from the page cache (mmap), not from a write(2) of the caller. */
  readonly fromCache: boolean;
  /** The descriptor is in append mode (O_APPEND): the data belongs at the end, wherever that is by now. */
  readonly append?: boolean;
}

/** A POSIX or flock lock request. `end` is inclusive; Number.MAX_SAFE_INTEGER or more means to the end. */
export interface LockRequest {
  readonly owner: bigint;
  readonly start: number;
  readonly end: number;
  readonly type: "read" | "write" | "unlock";
  readonly pid: number;
  readonly flock: boolean;
}

/** How an InodeFs tells the kernel that something changed elsewhere. Never waits; safe to call from any method. */
export interface KernelNotifier {
  /** Drops cached attributes and, when `data`, cached pages of the node (whole file). */
  invalidateInode(ino: number, data: boolean): void;
  /** Drops the cached (also negative) entry. */
  invalidateEntry(parent: number, name: string): void;
  /** Every cached entry is looked up again at next use. */
  invalidateAll(): void;
  /** Has the kernel a reference on the node, so that `forget` will come? */
  holds?(ino: number): boolean;
  /**
   * Resolves when the kernel has heard of everything that was asked for so far, but for the pages of files that are being
   * read: an open waits for those by itself, and who names the node here. Never to be awaited by a read or lookup.
   */
  told?(ino?: number): Promise<void>;
}

export interface InodeFs {
  /** Called once, before the first request. */
  attach(notifier: KernelNotifier): void;
  /** Null: no such entry (cached as negative). Each non-null answer, also of mkdir/create/link/readDirPlus, is one reference the kernel holds. */
  lookup(parent: number, name: string, caller: Caller): Awaitable<Stat | null>;
  /** The kernel dropped its last reference to the node. */
  forget(ino: number): void;
  getattr(ino: number, fh: number | undefined): Awaitable<Stat>;
  setattr(ino: number, change: AttrChange, fh: number | undefined, caller: Caller): Awaitable<Stat>;
  readlink(ino: number): Awaitable<string>;
  symlink(parent: number, name: string, target: string, caller: Caller): Awaitable<Stat>;
  /** mode has type bits; regular files, fifos, sockets and devices. */
  mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Awaitable<Stat>;
  mkdir(parent: number, name: string, mode: number, caller: Caller): Awaitable<Stat>;
  unlink(parent: number, name: string, caller: Caller): Awaitable<void>;
  rmdir(parent: number, name: string, caller: Caller): Awaitable<void>;
  rename(
    parent: number,
    name: string,
    newParent: number,
    newName: string,
    flags: number,
    caller: Caller,
  ): Awaitable<void>;
  link(ino: number, newParent: number, newName: string, caller: Caller): Awaitable<Stat>;
  /** flags: O_* of linux/fcntl.h; O_TRUNC is honoured here, unless `signal` has been aborted before. `killSuidgid`: what is truncated loses setuid and setgid. */
  open(
    ino: number,
    flags: number,
    caller: Caller,
    killSuidgid: boolean,
    signal?: AbortSignal,
  ): Awaitable<OpenResult>;
  create(
    parent: number,
    name: string,
    mode: number,
    flags: number,
    caller: Caller,
  ): Awaitable<{ stat: Stat; open: OpenResult }>;
  /** An unnamed file in `parent` (O_TMPFILE). */
  tmpfile?(parent: number, mode: number, flags: number, caller: Caller): Awaitable<{ stat: Stat; open: OpenResult }>;
  /**
   * Reads up to into.length bytes at `offset`. Answering at once: fills `into` and returns the count. Later: a promise of
   * a buffer of its own (`into` must not be touched after the call returned). Short only at end of file.
   */
  read(ino: number, fh: number, offset: number, into: Uint8Array): number | Promise<Uint8Array>;
  /** `data` is valid only until the call returns: copy it before the first await. Returns bytes written. */
  write(ino: number, fh: number, offset: number, data: Uint8Array, flags: WriteFlags): Awaitable<number>;
  /** Every close(2) of a descriptor. An error here is close's error. */
  flush(ino: number, fh: number, lockOwner: bigint): Awaitable<void>;
  fsync(ino: number, fh: number, dataOnly: boolean): Awaitable<void>;
  /** The last descriptor is gone. `flock`: drop flock locks of the owner. */
  release(ino: number, fh: number, lockOwner: bigint, flock: boolean): void;
  /**
   * A directory is opened to be listed, with O_* of linux/fcntl.h. `keepCache`: the kernel may list what it has cached;
   * `counts`: for `readdir`. Never asks anybody. Without it both are true.
   */
  opendir?(ino: number, flags: number): { keepCache: boolean; counts: boolean };
  /** The node `..` names; null when it is not known. */
  parentOf?(ino: number): number | null;
  /**
   * A snapshot-free cursor: entries after `after` (null = start), at most `limit`, in a stable order. Is access of the
   * directory, unless `counts` is false (O_NOATIME).
   */
  readdir(ino: number, after: string | null, limit: number, counts?: boolean): Awaitable<ListedEntry[]>;
  /** As `readdir`, where only names, numbers and types are asked for. Left out: `readdir` tells them. */
  readnames?(ino: number, after: string | null, limit: number, counts?: boolean): Awaitable<ListedName[]>;
  /** May the kernel cache the listing (FOPEN_CACHE_DIR|KEEP_CACHE)? It is told by invalidateInode(dir, true) when it changed. */
  readonly cacheDirs: boolean;
  fsyncdir(ino: number): Awaitable<void>;
  statfs(): Awaitable<StatFs>;
  getxattr(ino: number, name: string): Awaitable<Uint8Array>;
  setxattr(ino: number, name: string, value: Uint8Array, flags: number): Awaitable<void>;
  /** trusted.* is for root only (xattr(7)). */
  listxattr(ino: number, caller: Caller): Awaitable<string[]>;
  removexattr(ino: number, name: string): Awaitable<void>;
  /** mode: FALLOC_FL_* of linux/falloc.h. */
  fallocate?(
    ino: number,
    fh: number,
    mode: number,
    offset: number,
    length: number,
    caller: Caller,
  ): Awaitable<void>;
  /** whence: SEEK_DATA 3, SEEK_HOLE 4. */
  lseek?(ino: number, fh: number, offset: number, whence: number): Awaitable<number>;
  copyFileRange?(
    inoIn: number,
    fhIn: number,
    offsetIn: number,
    inoOut: number,
    fhOut: number,
    offsetOut: number,
    length: number,
    caller: Caller,
  ): Awaitable<number>;
  /** Null when free, else the lock that stands in the way. */
  getlk?(ino: number, fh: number, lock: LockRequest): Awaitable<LockRequest | null>;
  /** Waits when `wait`; `signal` aborts the wait (INTERRUPT). Throws errno EAGAIN when taken and not waiting. */
  setlk?(ino: number, fh: number, lock: LockRequest, wait: boolean, signal: AbortSignal): Awaitable<void>;
  syncfs?(): Awaitable<void>;
  /** All handles are gone, nothing more will be asked. */
  destroy(): Awaitable<void>;
}
