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

/**
 * `/f0`..`/f9999` of 4 KiB, `/big` of 1 GiB, `/d100k` with 100,000 entries, `/w` where files and folders can be created,
 * renamed and removed.
 */
export function nullFs(): InodeFs {
  const folders = new Map<number, Map<string, Stat>>([[SCRATCH, new Map()]]);
  /** Names of a folder in order, made when it is listed. */
  const listings = new Map<number, string[]>();
  const sizes = new Map<number, number>();
  let next = FIRST_CREATED;
  const zeros = (_ino: number, _fh: number, offset: number, into: Uint8Array): number =>
    Math.max(0, Math.min(into.length, 2 ** 30 - offset));
  const stat = (ino: number): Stat => {
    if (ino === 1 || ino === LISTING || folders.has(ino)) return make(ino, S_IFDIR | 0o777, 4096);
    return make(ino, S_IFREG | 0o644, ino === BIG ? 2 ** 30 : sizes.get(ino) ?? (ino < FIRST_ENTRY ? 4096 : 0));
  };
  const missing = (): never => {
    throw errorFromErrno(Errno.EOPNOTSUPP, "the null filesystem does not do this");
  };
  const lookup = (parent: number, name: string): Stat | null => {
    const folder = folders.get(parent);
    if (folder !== undefined) {
      const known = folder.get(name);
      return known === undefined ? null : stat(known.ino);
    }
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
  const within = (parent: number): Map<string, Stat> => {
    listings.delete(parent);
    return folders.get(parent) ?? missing();
  };
  const add = (parent: number, name: string, ino: number): Stat => {
    const made = stat(ino);
    within(parent).set(name, made);
    return made;
  };
  const list = (ino: number, folder: Map<string, Stat>, after: string | null, limit: number): DirEntry[] => {
    let names = listings.get(ino);
    if (names === undefined) listings.set(ino, names = [...folder.keys()].sort());
    let low = 0;
    for (let high = names.length; after !== null && low < high;) {
      const middle = (low + high) >>> 1;
      if ((names[middle] ?? "") <= after) low = middle + 1;
      else high = middle;
    }
    return names.slice(low, low + limit).map((name) => ({ name, stat: stat(folder.get(name)?.ino ?? 0) }));
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
    mkdir(parent, name) {
      const ino = next++;
      folders.set(ino, new Map());
      return add(parent, name, ino);
    },
    unlink(parent, name) {
      sizes.delete(within(parent).get(name)?.ino ?? 0);
      folders.get(parent)?.delete(name);
    },
    rmdir(parent, name) {
      const ino = within(parent).get(name)?.ino ?? 0;
      if ((folders.get(ino)?.size ?? 0) > 0) throw errorFromErrno(Errno.ENOTEMPTY, `${name} is not empty`);
      folders.get(parent)?.delete(name);
      folders.delete(ino);
      listings.delete(ino);
    },
    rename(parent, name, newParent, newName) {
      const { ino } = within(parent).get(name) ?? missing();
      folders.get(parent)?.delete(name);
      add(newParent, newName, ino);
    },
    link: missing,
    open,
    create: (parent, name) => ({ stat: lookup(parent, name) ?? add(parent, name, next++), open: open() }),
    read: zeros,
    write(ino: number, _fh: number, offset: number, data: Uint8Array, _flags: WriteFlags) {
      if (ino >= FIRST_CREATED && offset + data.length > (sizes.get(ino) ?? 0)) sizes.set(ino, offset + data.length);
      return data.length;
    },
    flush() {},
    fsync() {},
    release() {},
    readdir(ino, after, limit) {
      const folder = folders.get(ino);
      if (folder !== undefined) return list(ino, folder, after, limit);
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
