/** Unnamed files: those that are open and have no name, removed ones and O_TMPFILE's. They live in memory only. */
import { FsError } from "../fs/error.ts";
import { S_IFMT, type Stat } from "../fs/stat.ts";
import type { Op, Time } from "../index/ops.ts";
import { noAttribute } from "../index/tree.ts";

type AttrOp = Op & { t: "attr" };

/** The attributes after an `attr` operation. */
export function changedBy(stat: Stat, op: AttrOp): Stat {
  const next: Stat = { ...stat, ctimeSec: op.time.sec, ctimeNsec: op.time.nsec };
  if (op.mode !== undefined) next.mode = (next.mode & S_IFMT) | op.mode;
  if (op.uid !== undefined) next.uid = op.uid;
  if (op.gid !== undefined) next.gid = op.gid;
  if (op.atime !== undefined) [next.atimeSec, next.atimeNsec] = [op.atime.sec, op.atime.nsec];
  if (op.mtime !== undefined) [next.mtimeSec, next.mtimeNsec] = [op.mtime.sec, op.mtime.nsec];
  return next;
}

/** Extended attributes of an unnamed file. */
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
