/** Which extended attributes a mount keeps, how many, and who may see them (xattr(7)). */
import { FsError } from "../fs/error.ts";
import type { Caller } from "../fs/inode_fs.ts";
import { nameByteLength } from "../fs/names.ts";
import type { XattrUse } from "../index/tree.ts";
import { mayAdminister } from "../platform/process.ts";

/** The kernel lists no more bytes of names than this (linux/limits.h XATTR_LIST_MAX). */
const MAX_LIST = 65536;
/**
 * Extended attributes of one file, and bytes of their values (ext4 has room for 4 KiB by default). A record of the journal that
 * makes a file anew has all of them, and two devices may each have added as many.
 */
export const MAX_XATTRS = 2000;
export const MAX_XATTR_VALUES = 2 * 1024 * 1024;
const KEPT = ["user.", "trusted.", "security."];

/** Throws invalid_input for a bare prefix, not_supported for names outside the kept namespaces: access control lists (system.*) are not kept. */
export function checkXattrName(name: string): void {
  if (KEPT.some((prefix) => name.startsWith(prefix))) {
    if (!KEPT.includes(name)) return;
    throw new FsError("invalid_input", `${name} lacks the attribute's own name`, { path: name });
  }
  throw new FsError("not_supported", `attributes like ${name} are not kept; use user.*`, { path: name });
}

/** Throws no_space when one more attribute of `length` bytes is too much for a file that has `others`. */
export function checkXattrRoom(others: XattrUse, name: string, length: number): void {
  const full = others.count >= MAX_XATTRS
    ? `a file has at most ${MAX_XATTRS} extended attributes`
    : others.values + length > MAX_XATTR_VALUES
    ? `the extended attributes of a file have at most ${MAX_XATTR_VALUES} bytes`
    : others.names + nameByteLength(name) + 1 > MAX_LIST
    ? "the names of the file's attributes would be longer than a program can list"
    : null;
  if (full !== null) throw new FsError("no_space", full, { path: name });
}

/** trusted.* is listed for root only, and not where root has no CAP_SYS_ADMIN: it could not read them (containers). */
export function isVisibleTo(name: string, { uid, pid }: Caller): boolean {
  return !name.startsWith("trusted.") || (uid === 0 && mayAdminister(pid));
}
