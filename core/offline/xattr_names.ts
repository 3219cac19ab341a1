/** Which extended attributes a mount keeps, and who may see them (xattr(7)). */
import { FsError } from "../fs/error.ts";
import type { Caller } from "../fs/inode_fs.ts";
import { mayAdminister } from "../platform/process.ts";

/** The kernel lists no more bytes of names than this (XATTR_LIST_MAX). */
export const MAX_XATTR_LIST = 65536;
const KEPT = ["user.", "trusted.", "security."];

/** Throws invalid_input for a bare prefix, not_supported for names outside the kept namespaces: access control lists (system.*) are not kept. */
export function checkXattrName(name: string): void {
  if (KEPT.some((prefix) => name.startsWith(prefix))) {
    if (!KEPT.includes(name)) return;
    throw new FsError("invalid_input", `${name} lacks the attribute's own name`, { path: name });
  }
  throw new FsError("not_supported", `attributes like ${name} are not kept; use user.*`, { path: name });
}

/** trusted.* is listed for root only, and not where root has no CAP_SYS_ADMIN: it could not read them (containers). */
export function isVisibleTo(name: string, { uid, pid }: Caller): boolean {
  return !name.startsWith("trusted.") || (uid === 0 && mayAdminister(pid));
}
