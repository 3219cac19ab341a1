/**
 * Unnamed nodes: what has no name and the kernel still holds, as removed files that are open, O_TMPFILE's, and what a
 * descriptor of O_PATH or a working directory keeps. They live in memory only, until the kernel forgets them.
 */
import { FsError } from "../fs/error.ts";
import { nameByteLength } from "../fs/names.ts";
import { S_IFMT, type Stat } from "../fs/stat.ts";
import type { Op, Time } from "../index/ops.ts";
import { noAttribute, type XattrUse } from "../index/tree.ts";
import type { JournaledAttr } from "./journal.ts";
import type { Layer } from "./layers.ts";

/** The attributes after an `attr` operation. */
export const changedBy = (stat: Stat, op: Op & { t: "attr" }): Stat => (
  { ...withAttr(stat, op), ctimeSec: op.time.sec, ctimeNsec: op.time.nsec }
);
/** Mode, owner and times of `attr` where it has them. */
export function withAttr(stat: Stat, attr: JournaledAttr): Stat {
  const next: Stat = { ...stat };
  if (attr.mode !== undefined) next.mode = (next.mode & S_IFMT) | attr.mode;
  if (attr.uid !== undefined) next.uid = attr.uid;
  if (attr.gid !== undefined) next.gid = attr.gid;
  if (attr.atime !== undefined) [next.atimeSec, next.atimeNsec] = [attr.atime.sec, attr.atime.nsec];
  if (attr.mtime !== undefined) [next.mtimeSec, next.mtimeNsec] = [attr.mtime.sec, attr.mtime.nsec];
  return next;
}

export interface UnnamedNode {
  /** `nlink` 0. */
  stat: Stat;
  readonly xattrs: UnnamedXattrs;
  /** Of a symbolic link. */
  readonly target: string | null;
  /** Made without a name (O_TMPFILE): it can still get one. */
  readonly temporary: boolean;
  /** The content retained in the cache for who opens it again; null: it never was open. */
  retained: RetainedContent | null;
  /** Bytes that were given up, as others removed the file too: they are here for who holds it. */
  readonly givenUp: Layer[];
}

/** A content in the cache that is not evicted before it is released. */
export interface RetainedContent {
  readonly hash: string;
  readonly size: number;
}

/** Extended attributes of an unnamed node. */
export class UnnamedXattrs {
  readonly #values: Map<string, Uint8Array>;

  constructor(values: Iterable<readonly [string, Uint8Array]> = []) {
    this.#values = new Map(values);
  }
  names(): string[] {
    return [...this.#values.keys()].sort();
  }
  /** Throws ENODATA. */
  get(name: string): Uint8Array {
    const value = this.#values.get(name);
    if (value === undefined) throw noAttribute(name);
    return value;
  }
  /** What they take, the one named `except` left out. */
  use(except: string): XattrUse {
    let [count, names, values] = [0, 0, 0];
    for (const [name, value] of this.#values) {
      if (name === except) continue;
      count++;
      names += nameByteLength(name) + 1;
      values += value.length;
    }
    return { count, names, values };
  }
  /** `flags`: XATTR_CREATE 1, XATTR_REPLACE 2. Throws EEXIST, ENODATA. */
  set(name: string, value: Uint8Array, flags: number): void {
    const exists = this.#values.has(name);
    if ((flags & 1) !== 0 && exists) throw new FsError("already_exists", "the attribute exists", { path: name });
    if ((flags & 2) !== 0 && !exists) throw noAttribute(name);
    this.#values.set(name, value);
  }
  /** Throws ENODATA. */
  remove(name: string): void {
    if (!this.#values.delete(name)) throw noAttribute(name);
  }
  /** The operations that give them to a named file. */
  asOps(ino: number, time: Time): Op[] {
    return [...this.#values].map(([name, value]) => ({ t: "setxattr", ino, name, value, flags: 0, time }));
  }
}
