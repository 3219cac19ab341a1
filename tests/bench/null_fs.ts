/** A filesystem that holds nothing: every file reads as zeros and takes any write, so that only the protocol costs. */
import { Errno, errorFromErrno } from "../../core/fs/error.ts";
import type { AttrChange, InodeFs, OpenResult, WriteFlags } from "../../core/fs/inode_fs.ts";
import { type DirEntry, S_IFDIR, S_IFREG, type Stat } from "../../core/fs/stat.ts";

const FILES = 10_000;
const FIRST_FILE = 100;
const BIG = 2;
const LISTING = 3;
const SCRATCH = 4;
const FIRST_ENTRY = 1_000_000;
const ENTRIES = 100_000;
const FIRST_CREATED = 10_000_000;

function make(ino: number, mode: number, size: number): Stat {
  return {
    ino,
    mode,
    nlink: 1,
    uid: 0,
    gid: 0,
    rdev: 0,
    size,
    atimeSec: 1.7e9,
    atimeNsec: 0,
    mtimeSec: 1.7e9,
    mtimeNsec: 0,
    ctimeSec: 1.7e9,
    ctimeNsec: 0,
    btimeSec: 1.7e9,
    btimeNsec: 0,
    version: 1,
    content: null,
    tiers: 0,
  };
}

/** `/f0`..`/f9999` of 4 KiB, `/big` of 1 GiB, `/d100k` with 100,000 entries, `/w` where anything can be created. */
export function nullFs(): InodeFs {
  const created = new Map<string, Stat>();
  const sizes = new Map<number, number>();
  let next = FIRST_CREATED;
  const zeros = (_ino: number, _fh: number, offset: number, into: Uint8Array): number =>
    Math.max(0, Math.min(into.length, 2 ** 30 - offset));
  const stat = (ino: number): Stat => {
    if (ino === 1 || ino === LISTING || ino === SCRATCH) return make(ino, S_IFDIR | 0o777, 4096);
    return make(ino, S_IFREG | 0o644, ino === BIG ? 2 ** 30 : sizes.get(ino) ?? (ino < FIRST_ENTRY ? 4096 : 0));
  };
  const missing = (): never => {
    throw errorFromErrno(Errno.EOPNOTSUPP, "the null filesystem does not do this");
  };
  const lookup = (parent: number, name: string): Stat | null => {
    if (parent === SCRATCH) return created.get(name) ?? null;
    if (parent === LISTING) {
      const index = Number(name.slice(6, 12));
      return index >= 0 && index < ENTRIES ? stat(FIRST_ENTRY + index) : null;
    }
    if (name === "big") return stat(BIG);
    if (name === "d100k") return stat(LISTING);
    if (name === "w") return stat(SCRATCH);
    const index = name.charCodeAt(0) === 0x66 ? Number(name.slice(1)) : NaN;
    return index >= 0 && index < FILES ? stat(FIRST_FILE + index) : null;
  };
  const open = (): OpenResult => ({ fh: 1, keepCache: true });
  const make1 = (name: string): Stat => {
    const made = stat(next++);
    created.set(name, made);
    return made;
  };
  return {
    attach() {},
    lookup,
    forget() {},
    getattr: stat,
    setattr(ino: number, change: AttrChange) {
      if (change.size !== undefined && ino >= FIRST_CREATED) sizes.set(ino, change.size);
      return stat(ino);
    },
    readlink: missing,
    symlink: missing,
    mknod: missing,
    mkdir: missing,
    unlink(_parent, name) {
      created.delete(name);
    },
    rmdir: missing,
    rename: missing,
    link: missing,
    open,
    create: (_parent, name) => ({ stat: make1(name), open: open() }),
    read: zeros,
    write(ino: number, _fh: number, offset: number, data: Uint8Array, _flags: WriteFlags) {
      if (ino >= FIRST_CREATED && offset + data.length > (sizes.get(ino) ?? 0)) sizes.set(ino, offset + data.length);
      return data.length;
    },
    flush() {},
    fsync() {},
    release() {},
    readdir(ino, after, limit) {
      if (ino !== LISTING) return [];
      const start = after === null ? 0 : Number(after.slice(6, 12)) + 1;
      const page: DirEntry[] = [];
      for (let i = start; i < ENTRIES && page.length < limit; i++) {
        page.push({ name: `entry-${String(i).padStart(6, "0")}.txt`, stat: stat(FIRST_ENTRY + i) });
      }
      return page;
    },
    cacheDirs: false,
    fsyncdir() {},
    statfs: () => ({ total: 2 ** 40, free: 2 ** 40, files: 1e6, freeFiles: 1e6 }),
    getxattr() {
      throw errorFromErrno(Errno.ENODATA, "no attributes");
    },
    setxattr: missing,
    listxattr: () => [],
    removexattr: missing,
    destroy() {},
  };
}
