/**
 * Folder-relative file calls of libc by FFI (openat2 and its family): names of any bytes, and no way out of a folder
 * through `..` or symbolic links. Every call runs on another thread first (40 µs); one that failed is repeated on this
 * thread, because errno of another thread is out of reach. The repeat fails the same way, or succeeds after all.
 */
import { Errno, errorFromErrno } from "../fs/error.ts";
import { decodeName } from "../fs/names.ts";
import type { Stat } from "../fs/stat.ts";
import { bindRare } from "./rare_calls.ts";
import { closeFd, errnoName, O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, pathBytes } from "./posix.ts";

/** Only names the file; no data can be read through it (asm-generic/fcntl.h). */
export const O_PATH = 0o10000000;
/** Opening a pipe or device does not wait. */
export const O_NONBLOCK = 0o4000;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_REMOVEDIR = 0x200;
const AT_EMPTY_PATH = 0x1000;
const STATX_BASIC_AND_BTIME = 0xfff;
/** System call number of openat2(2), the same on all architectures. */
const SYS_OPENAT2 = 437n;
/** RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH (linux/openat2.h). */
const RESOLVE_STRICTLY_BENEATH = 0x02n | 0x04n | 0x08n;

const libc = Deno.dlopen("libc.so.6", {
  openat_async: { name: "openat", parameters: ["i32", "buffer", "i32", "u32"], result: "i32", nonblocking: true },
  syscall_async: {
    name: "syscall",
    parameters: ["i64", "i32", "buffer", "buffer", "usize"],
    result: "i64",
    nonblocking: true,
  },
  statx_async: {
    name: "statx",
    parameters: ["i32", "buffer", "i32", "u32", "buffer"],
    result: "i32",
    nonblocking: true,
  },
  getdents64_async: { name: "getdents64", parameters: ["i32", "buffer", "usize"], result: "isize", nonblocking: true },
  mkdirat_async: { name: "mkdirat", parameters: ["i32", "buffer", "u32"], result: "i32", nonblocking: true },
  unlinkat_async: { name: "unlinkat", parameters: ["i32", "buffer", "i32"], result: "i32", nonblocking: true },
  renameat_async: {
    name: "renameat",
    parameters: ["i32", "buffer", "i32", "buffer"],
    result: "i32",
    nonblocking: true,
  },
  linkat_async: {
    name: "linkat",
    parameters: ["i32", "buffer", "i32", "buffer", "i32"],
    result: "i32",
    nonblocking: true,
  },
  symlinkat_async: { name: "symlinkat", parameters: ["buffer", "i32", "buffer"], result: "i32", nonblocking: true },
  readlinkat_async: {
    name: "readlinkat",
    parameters: ["i32", "buffer", "buffer", "usize"],
    result: "isize",
    nonblocking: true,
  },
  fchmodat_async: { name: "fchmodat", parameters: ["i32", "buffer", "u32", "i32"], result: "i32", nonblocking: true },
  fchownat_async: {
    name: "fchownat",
    parameters: ["i32", "buffer", "u32", "u32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  utimensat_async: {
    name: "utimensat",
    parameters: ["i32", "buffer", "buffer", "i32"],
    result: "i32",
    nonblocking: true,
  },
  lgetxattr_async: {
    name: "lgetxattr",
    parameters: ["buffer", "buffer", "buffer", "usize"],
    result: "isize",
    nonblocking: true,
  },
  lsetxattr_async: {
    name: "lsetxattr",
    parameters: ["buffer", "buffer", "buffer", "usize", "i32"],
    result: "i32",
    nonblocking: true,
  },
  llistxattr_async: {
    name: "llistxattr",
    parameters: ["buffer", "buffer", "usize"],
    result: "isize",
    nonblocking: true,
  },
  lremovexattr_async: { name: "lremovexattr", parameters: ["buffer", "buffer"], result: "i32", nonblocking: true },
  fsync_async: { name: "fsync", parameters: ["i32"], result: "i32", nonblocking: true },
  syncfs_async: { name: "syncfs", parameters: ["i32"], result: "i32", nonblocking: true },
  pwrite_async: { name: "pwrite", parameters: ["i32", "buffer", "usize", "i64"], result: "isize", nonblocking: true },
  write_async: { name: "write", parameters: ["i32", "buffer", "usize"], result: "isize", nonblocking: true },
  ftruncate_async: { name: "ftruncate", parameters: ["i32", "i64"], result: "i32", nonblocking: true },
  copy_file_range_async: {
    name: "copy_file_range",
    parameters: ["i32", "buffer", "i32", "buffer", "usize", "u32"],
    result: "isize",
    nonblocking: true,
  },
  statvfs_async: { name: "statvfs", parameters: ["buffer", "buffer"], result: "i32", nonblocking: true },
}).symbols;
/** The same calls on this thread. */
const here = bindRare("libc.so.6", {
  openat: { parameters: ["i32", "buffer", "i32", "u32"], result: "i32" },
  syscall: { parameters: ["i64", "i32", "buffer", "buffer", "usize"], result: "i64" },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  getdents64: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  mkdirat: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  unlinkat: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  renameat: { parameters: ["i32", "buffer", "i32", "buffer"], result: "i32" },
  linkat: { parameters: ["i32", "buffer", "i32", "buffer", "i32"], result: "i32" },
  symlinkat: { parameters: ["buffer", "i32", "buffer"], result: "i32" },
  readlinkat: { parameters: ["i32", "buffer", "buffer", "usize"], result: "isize" },
  fchmodat: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
  fchownat: { parameters: ["i32", "buffer", "u32", "u32", "i32"], result: "i32" },
  utimensat: { parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  lgetxattr: { parameters: ["buffer", "buffer", "buffer", "usize"], result: "isize" },
  lsetxattr: { parameters: ["buffer", "buffer", "buffer", "usize", "i32"], result: "i32" },
  llistxattr: { parameters: ["buffer", "buffer", "usize"], result: "isize" },
  lremovexattr: { parameters: ["buffer", "buffer"], result: "i32" },
  fsync: { parameters: ["i32"], result: "i32" },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  copy_file_range: { parameters: ["i32", "buffer", "i32", "buffer", "usize", "u32"], result: "isize" },
  statvfs: { parameters: ["buffer", "buffer"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
});

let errnoCell: Int32Array | undefined;
/** errno of the last synchronous call of this thread. */
function lastErrno(): number {
  if (errnoCell === undefined) {
    const location = here.__errno_location();
    if (location === null) throw new Error("no errno location");
    errnoCell = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(location, 4));
  }
  return errnoCell[0] ?? 0;
}
lastErrno();

type Result = number | bigint;

/** The call's result, or throws by errno. `again` also keeps the buffers of `first` alive. */
async function run(operation: string, path: string, first: Promise<Result>, again: () => Result): Promise<number> {
  const result = Number(await first);
  if (result >= 0) return result;
  for (let tries = 0;; tries++) {
    const repeated = Number(again());
    if (repeated >= 0) return repeated;
    const errno = lastErrno();
    if (errno === Errno.EINTR && tries < 100) continue;
    throw errorFromErrno(errno, `${operation} ${path}: ${errnoName(errno)}`, { operation, path });
  }
}

/** A descriptor that closes itself at the end of its scope. */
export class Fd implements Disposable {
  readonly number: number;
  #open = true;
  constructor(number: number) {
    this.number = number;
  }
  [Symbol.dispose](): void {
    if (this.#open) closeFd(this.number);
    this.#open = false;
  }
}

/** openat(2); follows no symbolic link in the last component (too_many_links, ELOOP). `name` is one component. */
export async function openAt(folder: Fd, name: string, flags: number, mode = 0o600, path = name): Promise<Fd> {
  const bytes = pathBytes(name);
  const all = flags | O_CLOEXEC | O_NOFOLLOW;
  return new Fd(
    await run(
      "open",
      path,
      libc.openat_async(folder.number, bytes, all, mode),
      () => here.openat(folder.number, bytes, all, mode),
    ),
  );
}

/** Opens the folder itself again, for reading or (O_PATH) for naming things in it. */
export async function openFolder(path: string, flags = O_RDONLY): Promise<Fd> {
  const bytes = pathBytes(path);
  const all = flags | O_CLOEXEC | O_DIRECTORY;
  const AT_FDCWD = -100;
  return new Fd(
    await run("open", path, libc.openat_async(AT_FDCWD, bytes, all, 0), () => here.openat(AT_FDCWD, bytes, all, 0)),
  );
}

let openat2Works = true;

/**
 * Opens the folder at `relative` ("" is `root` itself, "a/b" below it) without following any symbolic link and without
 * leaving `root`, whatever others rename meanwhile: openat2(2), else a walk component by component.
 * Throws not_found, not_a_directory (also for a symbolic link in the way).
 */
export async function openFolderBeneath(root: Fd, relative: string, flags = O_PATH): Promise<Fd> {
  const all = flags | O_CLOEXEC | O_DIRECTORY | O_NOFOLLOW;
  if (openat2Works) {
    const name = pathBytes(relative === "" ? "." : relative);
    // struct open_how: flags, mode, resolve.
    const how = new Uint8Array(new BigUint64Array([BigInt(all), 0n, RESOLVE_STRICTLY_BENEATH]).buffer);
    try {
      const fd = await run(
        "open",
        `/${relative}`,
        libc.syscall_async(SYS_OPENAT2, root.number, name, how, 24n),
        () => here.syscall(SYS_OPENAT2, root.number, name, how, 24n),
      );
      return new Fd(fd);
    } catch (error) {
      const failed = errorOf(error);
      if (failed === Errno.ELOOP) throw notAFolder(relative);
      // EAGAIN: something was renamed during the lookup, so the kernel can't vouch for it. The walk can.
      if (failed === Errno.ENOSYS || failed === Errno.EPERM) openat2Works = false;
      else if (failed !== Errno.EAGAIN) throw error;
    }
  }
  return await walkBeneath(root, relative, all);
}

/** openFolderBeneath without openat2: exported for its test. */
export async function walkBeneath(root: Fd, relative: string, flags: number): Promise<Fd> {
  const names = relative === "" ? ["."] : relative.split("/");
  let at: Fd | undefined;
  for (const [i, name] of names.entries()) {
    const last = i === names.length - 1;
    try {
      const next = await openAt(
        at ?? root,
        name,
        last ? flags | O_DIRECTORY : O_PATH | O_DIRECTORY,
        0,
        `/${relative}`,
      );
      at?.[Symbol.dispose]();
      at = next;
    } catch (error) {
      at?.[Symbol.dispose]();
      if (errorOf(error) === Errno.ELOOP) throw notAFolder(relative);
      throw error;
    }
  }
  return at ?? root;
}

function errorOf(error: unknown): number {
  return typeof error === "object" && error !== null && "errno" in error ? Number(error.errno) : 0;
}

function notAFolder(relative: string) {
  return errorFromErrno(Errno.ENOTDIR, `/${relative}: not a directory, or a symbolic link on the way to it`, {
    operation: "open",
    path: `/${relative}`,
  });
}

function statOf(buffer: Uint8Array<ArrayBuffer>): Stat {
  const view = new DataView(buffer.buffer);
  const u32 = (at: number) => view.getUint32(at, true);
  const u64 = (at: number) => Number(view.getBigUint64(at, true));
  const i64 = (at: number) => Number(view.getBigInt64(at, true));
  return {
    ino: u64(32),
    mode: view.getUint16(28, true),
    nlink: u32(16),
    uid: u32(20),
    gid: u32(24),
    // makedev(3) of the numbers that fit in 32 bits.
    rdev: (u32(132) & 0xff) | (u32(128) << 8) | ((u32(132) & ~0xff) << 12),
    size: u64(40),
    atimeSec: i64(64),
    atimeNsec: u32(72),
    btimeSec: i64(80),
    btimeNsec: u32(88),
    ctimeSec: i64(96),
    ctimeNsec: u32(104),
    mtimeSec: i64(112),
    mtimeNsec: u32(120),
    version: 0,
    content: null,
    tiers: 0,
  };
}

/** statx(2) of an entry, or of the folder or file itself with name "". Follows no link. */
export async function statAt(folder: Fd, name: string, path = name): Promise<Stat> {
  const bytes = pathBytes(name);
  const buffer = new Uint8Array(256);
  const flags = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH;
  await run(
    "stat",
    path,
    libc.statx_async(folder.number, bytes, flags, STATX_BASIC_AND_BTIME, buffer),
    () => here.statx(folder.number, bytes, flags, STATX_BASIC_AND_BTIME, buffer),
  );
  return statOf(buffer);
}

/** All entries' names of an open folder (not O_PATH), in the folder's own order, a batch at a time; without . and .. */
export async function* namesIn(folder: Fd, path: string): AsyncIterable<string[]> {
  const buffer = new Uint8Array(65536);
  const view = new DataView(buffer.buffer);
  while (true) {
    const filled = await run(
      "list",
      path,
      libc.getdents64_async(folder.number, buffer, 65536n),
      () => here.getdents64(folder.number, buffer, 65536n),
    );
    if (filled === 0) return;
    const names: string[] = [];
    for (let at = 0; at < filled;) {
      // struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name.
      const length = view.getUint16(at + 16, true);
      const end = buffer.indexOf(0, at + 19);
      const name = decodeName(buffer, at + 19, end);
      if (name !== "." && name !== "..") names.push(name);
      at += length;
    }
    yield names;
  }
}

export async function mkdirAt(folder: Fd, name: string, mode: number, path: string): Promise<void> {
  const bytes = pathBytes(name);
  await run(
    "mkdir",
    path,
    libc.mkdirat_async(folder.number, bytes, mode),
    () => here.mkdirat(folder.number, bytes, mode),
  );
}

export async function unlinkAt(folder: Fd, name: string, what: "file" | "folder", path: string): Promise<void> {
  const bytes = pathBytes(name);
  const flags = what === "folder" ? AT_REMOVEDIR : 0;
  await run(
    what === "folder" ? "rmdir" : "unlink",
    path,
    libc.unlinkat_async(folder.number, bytes, flags),
    () => here.unlinkat(folder.number, bytes, flags),
  );
}

export async function renameAt(from: Fd, name: string, to: Fd, newName: string, path: string): Promise<void> {
  const a = pathBytes(name);
  const b = pathBytes(newName);
  await run(
    "rename",
    path,
    libc.renameat_async(from.number, a, to.number, b),
    () => here.renameat(from.number, a, to.number, b),
  );
}

export async function linkAt(from: Fd, name: string, to: Fd, newName: string, path: string): Promise<void> {
  const a = pathBytes(name);
  const b = pathBytes(newName);
  await run(
    "link",
    path,
    libc.linkat_async(from.number, a, to.number, b, 0),
    () => here.linkat(from.number, a, to.number, b, 0),
  );
}

export async function symlinkAt(target: string, folder: Fd, name: string, path: string): Promise<void> {
  const a = pathBytes(target);
  const b = pathBytes(name);
  await run(
    "symlink",
    path,
    libc.symlinkat_async(a, folder.number, b),
    () => here.symlinkat(a, folder.number, b),
  );
}

export async function readLinkAt(folder: Fd, name: string, path: string): Promise<string> {
  const bytes = pathBytes(name);
  const buffer = new Uint8Array(4096);
  const length = await run(
    "readlink",
    path,
    libc.readlinkat_async(folder.number, bytes, buffer, 4096n),
    () => here.readlinkat(folder.number, bytes, buffer, 4096n),
  );
  return decodeName(buffer, 0, length);
}

export async function chmodAt(folder: Fd, name: string, mode: number, path: string): Promise<void> {
  const bytes = pathBytes(name);
  await run(
    "chmod",
    path,
    libc.fchmodat_async(folder.number, bytes, mode, AT_SYMLINK_NOFOLLOW),
    () => here.fchmodat(folder.number, bytes, mode, AT_SYMLINK_NOFOLLOW),
  );
}

export async function chownAt(folder: Fd, name: string, uid: number, gid: number, path: string): Promise<void> {
  const bytes = pathBytes(name);
  const flags = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH;
  await run(
    "chown",
    path,
    libc.fchownat_async(folder.number, bytes, uid, gid, flags),
    () => here.fchownat(folder.number, bytes, uid, gid, flags),
  );
}

interface Time {
  readonly sec: number;
  readonly nsec: number;
}

export async function utimesAt(folder: Fd, name: string, atime: Time, mtime: Time, path: string): Promise<void> {
  const bytes = pathBytes(name);
  const times = new Uint8Array(
    new BigInt64Array([BigInt(atime.sec), BigInt(atime.nsec), BigInt(mtime.sec), BigInt(mtime.nsec)]).buffer,
  );
  await run(
    "utimes",
    path,
    libc.utimensat_async(folder.number, bytes, times, AT_SYMLINK_NOFOLLOW),
    () => here.utimensat(folder.number, bytes, times, AT_SYMLINK_NOFOLLOW),
  );
}

/** The extended-attribute calls take paths only: this one leads through the open folder, so it can't be diverted. */
function throughFolder(folder: Fd, name: string): Uint8Array<ArrayBuffer> {
  return pathBytes(name === "" ? `/proc/self/fd/${folder.number}/.` : `/proc/self/fd/${folder.number}/${name}`);
}

/** Largest attribute value and list (linux/limits.h XATTR_SIZE_MAX, XATTR_LIST_MAX). */
const XATTR_MAX = 65536;

export async function getXattrAt(folder: Fd, name: string, attribute: string, path: string): Promise<Uint8Array> {
  const file = throughFolder(folder, name);
  const key = pathBytes(attribute);
  const value = new Uint8Array(XATTR_MAX);
  const size = BigInt(XATTR_MAX);
  const length = await run(
    `getxattr ${attribute}`,
    path,
    libc.lgetxattr_async(file, key, value, size),
    () => here.lgetxattr(file, key, value, size),
  );
  return value.slice(0, length);
}

export async function setXattrAt(
  folder: Fd,
  name: string,
  attribute: string,
  value: Uint8Array,
  mode: "create" | "replace" | undefined,
  path: string,
): Promise<void> {
  const file = throughFolder(folder, name);
  const key = pathBytes(attribute);
  const bytes = new Uint8Array(value);
  const flags = mode === "create" ? 1 : mode === "replace" ? 2 : 0;
  const size = BigInt(bytes.length);
  await run(
    `setxattr ${attribute}`,
    path,
    libc.lsetxattr_async(file, key, bytes, size, flags),
    () => here.lsetxattr(file, key, bytes, size, flags),
  );
}

export async function listXattrAt(folder: Fd, name: string, path: string): Promise<string[]> {
  const file = throughFolder(folder, name);
  const list = new Uint8Array(XATTR_MAX);
  const size = BigInt(XATTR_MAX);
  const length = await run(
    "listxattr",
    path,
    libc.llistxattr_async(file, list, size),
    () => here.llistxattr(file, list, size),
  );
  return decodeName(list, 0, length).split("\0").slice(0, -1);
}

export async function removeXattrAt(folder: Fd, name: string, attribute: string, path: string): Promise<void> {
  const file = throughFolder(folder, name);
  const key = pathBytes(attribute);
  await run(
    `removexattr ${attribute}`,
    path,
    libc.lremovexattr_async(file, key),
    () => here.lremovexattr(file, key),
  );
}

/** Data and attributes of an open file or folder are on the disk (fsync(2)). A failure is never retried: see syncFd. */
export async function fsyncFd(file: Fd, path: string): Promise<void> {
  if (await libc.fsync_async(file.number) === 0) return;
  throw errorFromErrno(Errno.EIO, `fsync ${path} failed: the disk may be failing or full`, {
    operation: "fsync",
    path,
  });
}

/** Everything written to the filesystem that holds this descriptor is on the disk (syncfs(2)). */
export async function syncFilesystem(file: Fd, path: string): Promise<void> {
  if (await libc.syncfs_async(file.number) === 0) return;
  throw errorFromErrno(Errno.EIO, `syncfs ${path} failed`, { operation: "syncfs", path });
}

/** Bytes in memory of their own, as a call on another thread needs them. */
export function plainBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer
    ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : new Uint8Array(bytes);
}

/** Writes all of `bytes` at `offset`, or at the end of a file opened with O_APPEND when it is null. */
export async function writeFd(file: Fd, bytes: Uint8Array, offset: number | null, path: string): Promise<void> {
  const all = plainBytes(bytes);
  let done = 0;
  while (done < all.length) {
    const part = all.subarray(done);
    const size = BigInt(part.length);
    if (offset === null) {
      done += await run(
        "write",
        path,
        libc.write_async(file.number, part, size),
        () => here.write(file.number, part, size),
      );
    } else {
      const at = BigInt(offset + done);
      done += await run(
        "write",
        path,
        libc.pwrite_async(file.number, part, size, at),
        () => here.pwrite(file.number, part, size, at),
      );
    }
  }
}

export async function truncateFd(file: Fd, size: number, path: string): Promise<void> {
  const to = BigInt(size);
  await run("truncate", path, libc.ftruncate_async(file.number, to), () => here.ftruncate(file.number, to));
}

/** Copies within the kernel from both files' positions; returns bytes copied, 0 at the end. Throws EXDEV, EINVAL, EOPNOTSUPP where it can't. */
export async function copyRange(from: Fd, to: Fd, length: number, path: string): Promise<number> {
  const size = BigInt(length);
  return await run(
    "copy",
    path,
    libc.copy_file_range_async(from.number, null, to.number, null, size, 0),
    () => here.copy_file_range(from.number, null, to.number, null, size, 0),
  );
}

/** As statVfs of posix.ts, on another thread. */
export async function statVfsAsync(
  path: string,
): Promise<{ total: number; free: number; files: number; freeFiles: number }> {
  const bytes = pathBytes(path);
  const buffer = new Uint8Array(112);
  await run("statfs", path, libc.statvfs_async(bytes, buffer), () => here.statvfs(bytes, buffer));
  const view = new DataView(buffer.buffer);
  const at = (offset: number) => Number(view.getBigUint64(offset, true));
  const fragment = at(8);
  return { total: at(16) * fragment, free: at(32) * fragment, files: at(40), freeFiles: at(56) };
}
