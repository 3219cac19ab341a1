/** Stat: what is known of one node. */

/** File type bits of `mode` (linux/stat.h). */
export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
export const S_IFLNK = 0o120000;
export const S_IFIFO = 0o010000;
export const S_IFSOCK = 0o140000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;

export type NodeKind = "file" | "directory" | "symlink" | "other";

/** The kind a mode's type bits say. */
export function kindOf(mode: number): NodeKind {
  const type = mode & S_IFMT;
  if (type === S_IFREG) return "file";
  if (type === S_IFDIR) return "directory";
  if (type === S_IFLNK) return "symlink";
  return "other";
}

/** Bits of `Stat.tiers`. */
export const TierBit = { local: 0x1, nas: 0x2, s3: 0x4 } as const;

/**
 * One node's attributes. Times are split into whole seconds since 1970 (may be negative) and nanoseconds 0..999,999,999,
 * so that no hot path needs a bigint.
 */
export interface Stat {
  /** Inode number, 1 is the root; below 2^53. 0 where a backend has none. */
  ino: number;
  /** st_mode: type bits and permission bits. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdev: number;
  /** Bytes. */
  size: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  btimeSec: number;
  btimeNsec: number;
  /** Grows with every change of the node; the base of conditional writes. */
  version: number;
  /** Identity of the content (64 hex digits), null for an empty file, a non-file, or a backend without identities. */
  content: string | null;
  /** Which tiers hold all of it (TierBit); 0 where a backend has no tiers. */
  tiers: number;
  /** Bytes of `size` that are holes: zeros that are stored nowhere. Left out: none are known. */
  holes?: number;
  /** How many extended attributes it has. Left out or null: not known. */
  xattrs?: number | null;
}
export interface DirEntry {
  name: string;
  stat: Stat;
}
/** What a program is told of a node by stat(2). */
export type NodeAttr = Omit<Stat, "btimeSec" | "btimeNsec" | "version" | "content" | "tiers" | "xattrs">;
/** A name in a listing with what stat(2) tells of it. */
export interface ListedEntry {
  name: string;
  stat: NodeAttr;
}
/** A name in a listing; of `mode` only the type bits count. */
export interface ListedName {
  name: string;
  stat: Pick<Stat, "ino" | "mode">;
}
