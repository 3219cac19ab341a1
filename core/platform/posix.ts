/**
 * File calls of libc by FFI: real descriptors, exact errno, durable order. Synchronous ones take 0.2 µs plus the system
 * call; the ones that wait for a disk have a nonblocking twin that runs on another thread.
 */
import { encodeName } from "../fs/names.ts";
import { Errno, errorFromErrno } from "../fs/error.ts";
import { bindRare } from "./rare_calls.ts";

const libc = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  pread_async: { name: "pread", parameters: ["i32", "buffer", "usize", "i64"], result: "isize", nonblocking: true },
  fdatasync_async: { name: "fdatasync", parameters: ["i32"], result: "i32", nonblocking: true },
  sync_file_range_async: {
    name: "sync_file_range",
    parameters: ["i32", "i64", "i64", "u32"],
    result: "i32",
    nonblocking: true,
  },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
}).symbols;
const rare = bindRare("libc.so.6", {
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  fdatasync: { parameters: ["i32"], result: "i32" },
  fsync: { parameters: ["i32"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  rename: { parameters: ["buffer", "buffer"], result: "i32" },
  link: { parameters: ["buffer", "buffer"], result: "i32" },
  unlink: { parameters: ["buffer"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  posix_fadvise: { parameters: ["i32", "i64", "i64", "i32"], result: "i32" },
  mkdir: { parameters: ["buffer", "u32"], result: "i32" },
  statvfs: { parameters: ["buffer", "buffer"], result: "i32" },
  geteuid: { parameters: [], result: "u32" },
  getegid: { parameters: [], result: "u32" },
  mallopt: { parameters: ["i32", "i32"], result: "i32" },
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
});

function errnoView(): Int32Array {
  const location = rare.__errno_location();
  if (location === null) throw new Error("no errno location");
  return new Int32Array(Deno.UnsafePointerView.getArrayBuffer(location, 4));
}
const errnoCell = errnoView();

/** errno of the last synchronous call of this thread. Read it in the very next expression. */
function lastErrno(): number {
  return errnoCell[0] ?? 0;
}

/** mallopt(3): sets an option of the allocator; 1, or 0 when it does not know it. */
export const mallopt = (option: number, value: number): number => rare.mallopt(option, value);

/** asm-generic/resource.h */
const RLIMIT_NOFILE = 7;
/** getrlimit(2): descriptors that the process may have, and up to how many it may raise that itself. Not more than 2^53. */
export function fileLimit(): { soft: number; hard: number } {
  const limits = new BigUint64Array(2);
  rare.getrlimit(RLIMIT_NOFILE, limits);
  const [soft = 0, hard = 0] = Array.from(limits, (limit) => Math.min(Number(limit), Number.MAX_SAFE_INTEGER));
  return { soft, hard };
}
/** setrlimit(2). False: it is not allowed. */
export const setFileLimit = ({ soft, hard }: { soft: number; hard: number }): boolean =>
  rare.setrlimit(RLIMIT_NOFILE, BigUint64Array.of(BigInt(soft), BigInt(hard))) === 0;

/** open(2) flags (asm-generic/fcntl.h). */
export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_ACCMODE = 3;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
/** `__FMODE_EXEC` of the kernel's linux/fs.h: the file is opened to be run. */
export const FMODE_EXEC = 0o40;
export const O_NOATIME = 0o1000000;
export const O_TRUNC = 0o1000;
export const O_APPEND = 0o2000;
export const O_DIRECTORY = 0o200000;
export const O_NOFOLLOW = 0o400000;
export const O_CLOEXEC = 0o2000000;
/** fallocate(2) modes (linux/falloc.h). */
export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const FALLOC_FL_ZERO_RANGE = 16;
export const SEEK_END = 2;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

/** A path as the NUL-terminated bytes libc wants; bytes that are not UTF-8 survive (core/fs/names). */
export function pathBytes(path: string): Uint8Array<ArrayBuffer> {
  const bytes = encodeName(path);
  const out = new Uint8Array(bytes.length + 1);
  out.set(bytes);
  return out;
}

function fail(call: string, path: string, errno: number): never {
  throw errorFromErrno(errno, `${call} ${path}: ${errnoName(errno)}`, { operation: call, path });
}

/** The symbolic name of an errno, for messages. */
export function errnoName(errno: number): string {
  for (const [name, value] of Object.entries(Errno)) if (value === errno) return name;
  return `errno ${errno}`;
}

/** Opens a file; O_CLOEXEC is always added. Returns the descriptor. Throws by errno. */
export function openFd(path: string, flags: number, mode = 0o600): number {
  const fd = libc.open(pathBytes(path), flags | O_CLOEXEC, mode);
  if (fd < 0) fail("open", path, lastErrno());
  return fd;
}

export function closeFd(fd: number): void {
  libc.close(fd);
}

/** Reads until `into` is full or the file ends; returns bytes read. */
export function preadFd(fd: number, into: Uint8Array<ArrayBuffer>, offset: number): number {
  let done = 0;
  while (done < into.length) {
    const part = done === 0 ? into : into.subarray(done);
    const n = Number(libc.pread(fd, part, BigInt(part.length), BigInt(offset + done)));
    if (n < 0) {
      const errno = lastErrno();
      if (errno === Errno.EINTR) continue;
      fail("pread", `descriptor ${fd}`, errno);
    }
    if (n === 0) break;
    done += n;
  }
  return done;
}

/** As preadFd, on another thread: for bytes that may have to come from the disk. `into` must not be touched meanwhile. */
export async function preadFdAsync(fd: number, into: Uint8Array<ArrayBuffer>, offset: number): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const part = done === 0 ? into : into.subarray(done);
    const n = Number(await libc.pread_async(fd, part, BigInt(part.length), BigInt(offset + done)));
    // errno of another thread is out of reach: repeat synchronously to learn it, or to succeed after all.
    if (n < 0) return done + preadFd(fd, part, offset + done);
    if (n === 0) break;
    done += n;
  }
  return done;
}

/** Writes all of `from`. Throws no_space and the like; the file may then hold a part. */
export function pwriteFd(fd: number, from: Uint8Array<ArrayBuffer>, offset: number): void {
  let done = 0;
  while (done < from.length) {
    const part = done === 0 ? from : from.subarray(done);
    const n = Number(libc.pwrite(fd, part, BigInt(part.length), BigInt(offset + done)));
    if (n < 0) {
      const errno = lastErrno();
      if (errno === Errno.EINTR) continue;
      fail("pwrite", `descriptor ${fd}`, errno);
    }
    done += n;
  }
}

export function ftruncateFd(fd: number, size: number): void {
  if (rare.ftruncate(fd, BigInt(size)) !== 0) fail("ftruncate", `descriptor ${fd}`, lastErrno());
}

export function fallocateFd(fd: number, mode: number, offset: number, length: number): void {
  if (rare.fallocate(fd, mode, BigInt(offset), BigInt(length)) !== 0) {
    fail("fallocate", `descriptor ${fd}`, lastErrno());
  }
}

/** Data of the descriptor is on the disk when this resolves (fdatasync(2), on another thread). */
export async function syncFd(fd: number): Promise<void> {
  if (await libc.fdatasync_async(fd) === 0) return;
  // A second fdatasync after a failed one reports success on Linux without having written: never retry, report.
  throw errorFromErrno(Errno.EIO, `fdatasync of descriptor ${fd} failed`, { operation: "fdatasync" });
}

/** fsync(2) on this thread: the errno it failed with, 0 for none. */
export const fsyncFdErrno = (fd: number): number => rare.fsync(fd) === 0 ? 0 : lastErrno();

/**
 * The disk begins to write the descriptor's data from `offset` on, so that a later syncFd has less to wait for
 * (sync_file_range(2) with SYNC_FILE_RANGE_WRITE, on another thread). Promises nothing; errors are told by syncFd.
 */
export function startWriteback(fd: number, offset: number): void {
  const SYNC_FILE_RANGE_WRITE = 2;
  void libc.sync_file_range_async(fd, BigInt(offset), 0n, SYNC_FILE_RANGE_WRITE);
}

/** As syncFd, blocking this thread. */
export function syncFdBlocking(fd: number): void {
  if (rare.fdatasync(fd) !== 0) fail("fdatasync", `descriptor ${fd}`, lastErrno());
}

/** Makes creations, renames and removals in a folder durable. */
export function syncFolder(path: string): void {
  const fd = openFd(path, O_RDONLY | O_DIRECTORY);
  try {
    if (rare.fsync(fd) !== 0) fail("fsync", path, lastErrno());
  } finally {
    libc.close(fd);
  }
}

/** lseek(2); returns the new offset, or -1 when there is no data (ENXIO). */
export function lseekFd(fd: number, offset: number, whence: number): number {
  const result = Number(rare.lseek(fd, BigInt(offset), whence));
  if (result < 0) {
    const errno = lastErrno();
    if (errno === Errno.ENXIO) return -1;
    fail("lseek", `descriptor ${fd}`, errno);
  }
  return result;
}

export function renamePath(from: string, to: string): void {
  if (rare.rename(pathBytes(from), pathBytes(to)) !== 0) fail("rename", from, lastErrno());
}

export function linkPath(from: string, to: string): void {
  if (rare.link(pathBytes(from), pathBytes(to)) !== 0) fail("link", from, lastErrno());
}

/** Removes a file; a missing one is fine. */
export function unlinkPath(path: string): void {
  if (rare.unlink(pathBytes(path)) !== 0) {
    const errno = lastErrno();
    if (errno !== Errno.ENOENT) fail("unlink", path, errno);
  }
}

/** Takes an exclusive lock on the open file without waiting. False: another process has it. It ends with the descriptor. */
export function tryLockFd(fd: number): boolean {
  const LOCK_EX = 2;
  const LOCK_NB = 4;
  return rare.flock(fd, LOCK_EX | LOCK_NB) === 0;
}

/** The page cache need not keep these bytes (POSIX_FADV_DONTNEED). length 0 = to the end. */
export function dropCache(fd: number, offset: number, length: number): void {
  rare.posix_fadvise(fd, BigInt(offset), BigInt(length), 4);
}

/** What tells whether others touched an open file. */
export interface FileMark {
  readonly size: number;
  /** Names the file has; 0: it was removed. */
  readonly links: number;
  /** Time of the last change of its bytes. */
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
}
const statxBuffer = new Uint8Array(256);
const statxView = new DataView(statxBuffer.buffer);
const NO_PATH = new Uint8Array(1);

/** statx(2) of an open file (struct statx, linux/stat.h). */
export function markOfFd(fd: number): FileMark {
  const AT_EMPTY_PATH = 0x1000;
  const STATX_NLINK = 0x4;
  const STATX_MTIME = 0x40;
  const STATX_SIZE = 0x200;
  if (libc.statx(fd, NO_PATH, AT_EMPTY_PATH, STATX_NLINK | STATX_MTIME | STATX_SIZE, statxBuffer) !== 0) {
    fail("statx", `descriptor ${fd}`, lastErrno());
  }
  return {
    links: statxView.getUint32(16, true),
    size: Number(statxView.getBigUint64(40, true)),
    mtimeSec: Number(statxView.getBigInt64(112, true)),
    mtimeNsec: statxView.getUint32(120, true),
  };
}

/** Makes a folder and those above it, at once; one that is there is fine. */
export function makeFolderNow(path: string, mode = 0o700): void {
  if (rare.mkdir(pathBytes(path), mode) === 0) return;
  const errno = lastErrno();
  if (errno === Errno.EEXIST) return;
  const above = path.slice(0, path.lastIndexOf("/"));
  if (errno !== Errno.ENOENT || above === "") fail("mkdir", path, errno);
  makeFolderNow(above, mode);
  if (rare.mkdir(pathBytes(path), mode) !== 0 && lastErrno() !== Errno.EEXIST) fail("mkdir", path, lastErrno());
}

/** Space of the filesystem that holds `path`: bytes and inodes (struct statvfs of x86-64 and aarch64 glibc). */
export function statVfs(path: string): { total: number; free: number; files: number; freeFiles: number } {
  const buffer = new Uint8Array(112);
  if (rare.statvfs(pathBytes(path), buffer) !== 0) fail("statvfs", path, lastErrno());
  const view = new DataView(buffer.buffer);
  const at = (offset: number) => Number(view.getBigUint64(offset, true));
  const fragment = at(8);
  return { total: at(16) * fragment, free: at(32) * fragment, files: at(40), freeFiles: at(56) };
}

export function effectiveUser(): { uid: number; gid: number } {
  return { uid: rare.geteuid(), gid: rare.getegid() };
}
