/** The FUSE kernel interface in numbers: opcodes, flags and offsets of include/uapi/linux/fuse.h, protocol 7.45, little-endian. */

/** The protocol version this code speaks; the kernel's own minor is used when it is lower. */
export const FUSE_MAJOR = 7;
export const FUSE_MINOR = 45;
/** The node id of the root. */
export const ROOT_ID = 1;

/** enum fuse_opcode. */
export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const;

const OPCODE_NAMES = new Map<number, string>();
for (const [name, code] of Object.entries(Opcode)) OPCODE_NAMES.set(code, name);

/** One more than the largest opcode that is counted by itself. */
export const OPCODE_LIMIT = 64;

/** The header's name of an opcode, for messages and counters. */
export function opcodeName(code: number): string {
  return OPCODE_NAMES.get(code) ?? `opcode ${code}`;
}

/** INIT flags; those from bit 32 on travel in `flags2` (bit - 32). */
export const InitFlag = {
  ASYNC_READ: 1 << 0,
  POSIX_LOCKS: 1 << 1,
  ATOMIC_O_TRUNC: 1 << 3,
  BIG_WRITES: 1 << 5,
  FLOCK_LOCKS: 1 << 10,
  AUTO_INVAL_DATA: 1 << 12,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  PARALLEL_DIROPS: 1 << 18,
  ABORT_ERROR: 1 << 21,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  HANDLE_KILLPRIV_V2: 1 << 28,
  INIT_EXT: 1 << 30,
} as const;

/** Offered by the kernel in flags2: INVAL_ENTRY understands EXPIRE_ONLY (bit 35). */
export const INIT2_HAS_EXPIRE_ONLY = 1 << 3;

/** The kernel reads files by itself (bit 37); as root only, and then with `max_stack_depth` 1. */
export const INIT2_PASSTHROUGH = 1 << 5;

/** What is asked for on every mount (0x50E4F029); locks are added when the filesystem has them. */
export const WANTED_FLAGS = InitFlag.ASYNC_READ | InitFlag.ATOMIC_O_TRUNC | InitFlag.BIG_WRITES |
  InitFlag.AUTO_INVAL_DATA | InitFlag.DO_READDIRPLUS | InitFlag.READDIRPLUS_AUTO | InitFlag.ASYNC_DIO |
  InitFlag.PARALLEL_DIROPS | InitFlag.ABORT_ERROR | InitFlag.MAX_PAGES | InitFlag.CACHE_SYMLINKS |
  InitFlag.HANDLE_KILLPRIV_V2 | InitFlag.INIT_EXT;

/** open_flags of OPEN, OPENDIR and CREATE answers (FOPEN_*). */
export const OpenFlag = { DIRECT_IO: 1, KEEP_CACHE: 2, CACHE_DIR: 8, NOFLUSH: 32, PASSTHROUGH: 128 } as const;

/** `valid` bits of SETATTR (FATTR_*). */
export const AttrFlag = {
  MODE: 1,
  UID: 2,
  GID: 4,
  SIZE: 8,
  ATIME: 16,
  MTIME: 32,
  FH: 64,
  ATIME_NOW: 128,
  MTIME_NOW: 256,
  CTIME: 1024,
  KILL_SUIDGID: 2048,
} as const;

export const GETATTR_FH = 1;
export const OPEN_KILL_SUIDGID = 1;
export const WRITE_CACHE = 1;
export const WRITE_KILL_SUIDGID = 4;
export const RELEASE_FLOCK_UNLOCK = 2;
export const LK_FLOCK = 1;
export const FSYNC_FDATASYNC = 1;

/** Notification codes (enum fuse_notify_code). */
export const NOTIFY_INVAL_INODE = 2;
export const NOTIFY_INVAL_ENTRY = 3;
export const NOTIFY_INC_EPOCH = 8;
export const EXPIRE_ONLY = 1;
/** The protocol minor that brought NOTIFY_INC_EPOCH. */
export const MINOR_INC_EPOCH = 44;

/** Bytes of struct fuse_in_header and fuse_out_header. */
export const IN_HEADER = 40;
export const OUT_HEADER = 16;
/** Where the data of a WRITE request begins. */
export const WRITE_DATA = 80;
/** Bytes of fuse_entry_out, fuse_attr_out, fuse_open_out, fuse_init_out, fuse_kstatfs, fuse_statx_out. */
export const ENTRY_OUT = 128;
export const ATTR_OUT = 104;
export const OPEN_OUT = 16;
export const INIT_OUT = 64;
export const STATFS_OUT = 80;
export const STATX_OUT = 288;
/** Bytes of struct fuse_dirent before the name. */
export const DIRENT = 24;
/** d_ino of an entry whose number is not known (libfuse's FUSE_UNKNOWN_INO). */
export const UNKNOWN_INO = 0xffffffff;

export const PAGE_SIZE = 4096;
/** Bytes at most in one READ answer and one WRITE request. */
export const MAX_TRANSFER = 1 << 20;
/** Background requests (read-ahead, async direct I/O) the kernel may have in flight. */
export const MAX_BACKGROUND = 256;

/** Open flags of linux/fcntl.h that matter to the protocol. */
export const O_APPEND = 0o2000;
export const O_TRUNC = 0o1000;

/** Lock types of struct fuse_file_lock (F_RDLCK, F_WRLCK, F_UNLCK). */
export const F_RDLCK = 0;
export const F_WRLCK = 1;
export const F_UNLCK = 2;

/** STATX_BASIC_STATS | STATX_BTIME (linux/stat.h). */
export const STATX_MASK = 0xfff;

export const TWO32 = 4294967296;
