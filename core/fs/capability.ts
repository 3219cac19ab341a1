/** What a filesystem can do, asked of its methods: a store that can't do a thing doesn't have the method. */
import type { Backend, FsLink, FsPermissions, FsStats, FsSync, FsTimes, FsWatch, FsXattr } from "./contract.ts";

function has(fs: object, ...methods: readonly string[]): boolean {
  return methods.every((method) => method in fs && typeof Reflect.get(fs, method) === "function");
}

export const hasLinks = <F extends object>(fs: F): fs is F & FsLink => has(fs, "symlink", "readLink", "hardLink");
/** Symbolic links only: a store may have them without hard links. */
export const hasSymlinks = <F extends object>(fs: F): fs is F & Pick<FsLink, "symlink" | "readLink"> =>
  has(fs, "symlink", "readLink");
export const hasPermissions = <F extends object>(fs: F): fs is F & FsPermissions => has(fs, "chmod", "chown");
export const hasTimes = <F extends object>(fs: F): fs is F & FsTimes => has(fs, "utimes");
export const hasXattr = <F extends object>(fs: F): fs is F & FsXattr =>
  has(fs, "getXattr", "setXattr", "listXattr", "removeXattr");
export const hasSync = <F extends object>(fs: F): fs is F & FsSync => has(fs, "sync", "syncAll");
export const hasStats = <F extends object>(fs: F): fs is F & FsStats => has(fs, "statFs");
export const hasWatch = <F extends object>(fs: F): fs is F & FsWatch => has(fs, "watch");
/** Declares its traits and can be closed. */
export const isBackend = <F extends object>(fs: F): fs is F & Backend => "traits" in fs && has(fs, "close");

/** Every method of the contract, by interface: what a layer that forwards has to know. */
export const FS_METHODS = [
  "read",
  "openRead",
  "exists",
  "stat",
  "write",
  "append",
  "copy",
  "rename",
  "removeFile",
  "truncate",
  "openWrite",
  "readDir",
  "createDir",
  "createDirAll",
  "removeDir",
  "removeDirAll",
] as const;
export const OPTIONAL_METHODS = [
  "symlink",
  "readLink",
  "hardLink",
  "chmod",
  "chown",
  "utimes",
  "getXattr",
  "setXattr",
  "listXattr",
  "removeXattr",
  "sync",
  "syncAll",
  "statFs",
  "watch",
  "close",
] as const;
/** Methods that change something: what a read-only, quota or journal layer must not let by unseen. */
export const MUTATING_METHODS = [
  "write",
  "append",
  "copy",
  "rename",
  "removeFile",
  "truncate",
  "openWrite",
  "createDir",
  "createDirAll",
  "removeDir",
  "removeDirAll",
  "symlink",
  "hardLink",
  "chmod",
  "chown",
  "utimes",
  "setXattr",
  "removeXattr",
] as const;
